"""What eager makes of a case, run by run, and whether a compiled module does the same: at first and a second time."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ..common.errors import TrtgateError, explaining, one_line
from ..common.explanations import Explanation, continued
from ..common.steps import OnStep
from ..records.measurement import Build
from ..suite import precisions
from ..suite.cases import Case
from ..suite.model_inputs import Inputs
from ..suite.random_weights import threads
from ..timing import run_state
from ..timing.run_state import RunState
from ..torch_trt import exporting, upstream_state
from ..torch_trt.dynamic_inputs import DynamicInputs
from . import building, call_effects, casting, made_elsewhere, output_check, output_leaves
from .expected_output import Expected, Walked, WrongOutputError, in_both, wrong
from .fp32_arithmetic import arithmetic, strict_fp32
from .inference import Inference
from .made_elsewhere import OwnModule
from .output_check import Comparison
from .output_leaves import Leaf


def load_checked(case: Case, folder: Path, device: str) -> Inference:
    """Load a compiled module, run it and compare. Raises TrtgateError where it differs from its builder's eager.

    It runs twice if calls change it: of others the builder compared the second. Unpickles, as `building.load` does:
    only from a folder that this user's own session made.
    """
    inference = building.load(case, folder, device)
    expected = Expected.load(folder)
    if expected.changes:
        state = RunState((inference.compiled.run,), inference.inputs)
        inference = inference.with_state(inference.inputs, state, expected.changes)
    problem = expected.compared(case, inference, twice=bool(expected.changes))[1]
    if problem:
        raise TrtgateError(wrong(f"case {case.id}: loaded in a fresh process, {problem}"))
    return inference


class Reference:
    """A case's module with its inputs, and what eager makes of them: it runs twice, to see whether it agrees.

    `processes` do so at once, this one counted, and share the CPU: with threads for all of it each would take twice as
    long. What is compiled sees all threads, also when it is compared: for another number Dynamo would compile it again.
    """

    def __init__(self, case: Case, device: str, step: OnStep, *, processes: int = 1) -> None:
        """Make the model and run it. Raises TrtgateError for a factory or an output that is no good."""
        building.end_case()  # the one before
        step("making the model")
        self.remarks: list[str] = []
        """What changes how figures are to be read, of how the model was made and what eager gives."""
        shared = max(1, torch.get_num_threads() // processes)
        self._threads = shared if case.settings.frontend == "eager" else torch.get_num_threads()
        with threads(shared), explaining(Explanation.MODEL_UNUSABLE):
            self._make_and_run(case, device)

    def _make_and_run(self, case: Case, device: str) -> None:
        self.module, self.inputs = building.make(case, device, remarks=self.remarks)
        self.case, self._device = case, device
        self._dynamic: DynamicInputs | None = None
        own = isinstance(self.module, OwnModule)
        self._state: RunState | None = RunState(self.module.holders if own else (self.module,), self.inputs)
        with casting.SeenDtypes() if case.settings.precision == precisions.AS_IS else contextlib.nullcontext() as seen:
            first, drawn = self._eager()
        coarsest = "fp32" if seen is None else seen.coarsest(self.module, self.inputs)
        self.arithmetic = arithmetic(case, coarsest)
        """The precision that the frontend computes in."""
        changes = self._changed()
        self.remarks += filter(None, ["" if changes else output_check.holds_nothing(first)])
        after = self._after([name for name in changes if not own or name.startswith("input ")])
        second = self._eager()[0] if changes else []
        changes += [name for name in self._changed() if name not in changes] if changes else []  # every second call
        if own and not self._shows(changes, first, second):  # what its first call made stays
            changes, second = [], []
        apart, draws, repeated = self._apart(first, changes, drawn=drawn)
        self.expected = Expected(
            first=first, coarsest=coarsest, second=second, after=in_both(after, repeated), changes=tuple(changes),
            apart=apart, draws=draws,
        )  # fmt: skip
        self._restore()
        if not changes:
            self._state = None  # nothing to be put back, and no memory taken

    def _changed(self) -> list[str]:
        """Return the names of what calls changed. Raises TrtgateError as `RunState.changed`."""
        assert self._state is not None
        with building.named(self.case):
            return self._state.changed(self.inputs) + self.inputs.rewritten(self._given)

    def _shows(self, changes: list[str], first: Walked, second: Walked) -> bool:
        """Whether what calls change is seen: in an input, or in the output of the second call."""
        return any(name.startswith("input ") for name in changes) or bool(second and self.between(first, second))

    def eager_with(self, inputs: Inputs) -> Walked:
        """Return what eager makes of inputs. Raises TrtgateError where it can't run, or its output proves nothing."""
        self._restore()
        own, self.inputs = self.inputs, inputs.cloned()
        try:
            output, _ = self._run()
            output_check.check_reference(output, "eager's output")
            return output_leaves.copied(output)
        except (torch.cuda.OutOfMemoryError, TrtgateError):
            raise
        except Exception as error:
            raise TrtgateError(one_line(error)) from error
        finally:
            self.inputs = own
            self._restore()

    def eager_of(self, module: torch.nn.Module) -> Walked:
        """Return what eager makes of the inputs with another module, which stays as it is. Raises as `eager_with`."""
        own, self.module = self.module, module
        try:
            with run_state.unchanged((module,), ()):
                return self.eager_with(self.inputs)
        finally:
            self.module = own

    def between(self, wanted: Walked, got: Walked) -> str:
        """Return in what two outputs of eager differ by more than a compiled module's may; empty where in nothing."""
        compared = output_check.compare_nodes(wanted, got)
        return compared.structure or compared.problem(self.arithmetic, self.case.settings.tolerances)

    def _eager(self, seed: int = run_state.SEED) -> tuple[Walked, bool]:
        """Run once under a seed; returns a copy of the output, and whether it drew random numbers."""
        try:
            output, drawn = self._run(seed)
        except torch.cuda.OutOfMemoryError:
            raise
        except Exception as error:
            raise TrtgateError(
                f"model {self.case.model.name!r}: {self._runs} can't run its own example inputs of shape "
                f"{self.inputs.shapes}: {one_line(error)}{building.without_casting(self.case, self._device)}"
            ) from error
        if self.case.settings.frontend in exporting.FRONTENDS:  # both outputs are to be taken apart alike
            with contextlib.suppress(TrtgateError, RecursionError):  # exporting says it
                exporting.register_output(output)
        output_check.check_reference(output, f"model {self.case.model.name!r}: {self._runs}'s own output")
        return output_leaves.copied(output), drawn

    @property
    def _runs(self) -> str:
        """What is run, as the subject of a sentence: without a reference that is what the user compiled."""
        alone = isinstance(self.module, OwnModule) and self.module.reference is None
        return "its callable" if alone else "eager"

    def _run(self, seed: int = run_state.SEED) -> tuple[Any, bool]:
        own = isinstance(self.module, OwnModule)  # whose engines may run
        with run_state.seeded(seed), upstream_state.upstreams_code() if own else contextlib.nullcontext():
            before = run_state.random_numbers()
            with torch.no_grad(), strict_fp32():
                self._given = self.inputs.fresh()
                output = self._given.given_to(self.module)
            return output, run_state.drawn(before, run_state.random_numbers())

    def _after(self, changes: list[str]) -> dict[str, Walked]:
        """Return what a call changed as it is now; what can't be taken apart is left out."""
        assert self._state is not None
        found: dict[str, Walked] = {}
        for name, value in self._state.values(changes, self.inputs, self._given.containers).items():
            with contextlib.suppress(TrtgateError):
                found[name] = call_effects.taken_apart(name, value)
        return found

    def _apart(
        self, first: Walked, changes: list[str], *, drawn: bool
    ) -> tuple[dict[str, float], dict[str, float], dict[str, Walked]]:
        """Run again from the same state; returns how far single leaves of two runs of eager differ.

        First under the same seed, then under two; and what the run changed, as it is after it.
        """
        self._restore()
        again = output_check.compare_nodes(first, self._eager()[0])
        repeated = self._after(changes)
        apart = {leaf.path: leaf.relative_l2 for leaf in again.leaves if leaf.relative_l2 or leaf.mismatches}
        if difference := self._difference(again):
            assert self._state
            changed = run_state.parameters_changed(self.module, self._run)
            why = f"its call changes the parameter {changed[0]}" if changed else self._state.elsewhere()
            raise TrtgateError(
                f"model {self.case.model.name!r}: not deterministic: two eager runs differ by {difference} under the "
                f"same seed, so that nothing can be compared: {why}"
            )
        if not drawn:
            return apart, {}, repeated
        self._restore()
        other = output_check.compare_nodes(first, self._eager(run_state.SEED + 1)[0])
        if other.structure:  # how many there are is drawn: all of it is
            draws = {node.path: math.inf for node in first if isinstance(node, Leaf)}
        else:
            draws = {leaf.path: leaf.relative_l2 for leaf in other.leaves if leaf.relative_l2 or leaf.mismatches}
        return apart, draws, repeated

    def _difference(self, again: Comparison) -> str:
        """Return by how much two runs of eager differ, where that is too much to compare anything with them."""
        if again.structure:
            return again.structure
        if again.leaf_error > output_check.TOLERANCES[self.arithmetic].relative_l2:
            return f"{again.leaf_error:.2g} (relative L2)"
        unequal = [leaf for leaf in again.leaves if leaf.mismatches]
        return next((f"{leaf.mismatches} of {leaf.values} values of {leaf.path}" for leaf in unequal), "")

    def _restore(self) -> None:
        if self._state is not None:
            self._state.restore(self.inputs)

    def dynamic_inputs(self) -> DynamicInputs | None:
        """Return how the inputs vary; None where nothing is dynamic. Raises TrtgateError as `building` does."""
        if self._dynamic is None:
            self._dynamic = building.dynamic_inputs(self.case, self._device)
        return self._dynamic

    def prepare(self, step: OnStep) -> tuple[Any, float]:
        """Return what the frontend compiles, and the seconds that it took to make. Raises as `building.prepare`."""
        found = building.prepare(self.case, self.module, self.inputs, step, self.dynamic_inputs())
        if self._state is not None and self.case.settings.precision in precisions.QUANTIZED:
            self._state = RunState((self.module,), self.inputs)  # quantizing puts other modules in
        self._restore()
        return found

    def build(self, prepared: Any, prepare_s: float, step: OnStep) -> Inference:
        """Compile what `prepare` returned. Raises TrtgateError for failed builds."""
        step(f"building with {self.case.settings.frontend}")
        dynamic = self.dynamic_inputs()
        with threads(self._threads), run_state.unchanged((), call_effects.tensors(self.module, self.inputs)):
            inference = building.build_prepared(self.case, prepared, prepare_s, self.inputs, step, dynamic)
        self._restore()
        return self._with_state(inference)

    def loaded(self, folder: Path) -> Inference:
        """Load a compiled module that was stored, to be called with this case's inputs."""
        inference = building.load(self.case, folder, self._device)
        inference.inputs = self.inputs
        return self._with_state(inference)

    def _with_state(self, inference: Inference) -> Inference:
        if self._state is None:
            return inference
        compiled, own = inference.compiled, self.case.settings.frontend in call_effects.RUN_THE_MODULE
        state = RunState((self.module,) * own + (compiled.run, *compiled.modules), self.inputs)
        return inference.with_state(self.inputs, state, self.expected.changes)

    def check(self, inference: Inference) -> Comparison:
        """Compare a compiled module with eager. Raises WrongOutputError where it is wrong."""
        try:
            with threads(self._threads):
                return self.expected.check(self.case, inference)
        except WrongOutputError as error:
            more = made_elsewhere.state_of_its_own(self.module, inference.inputs) if not self.expected.changes else ""
            raise WrongOutputError(continued(str(error), more), error.compared, error.problem) from error

    def unseen_state(self, inference: Inference) -> str:
        """Return a sentence where nobody can tell whether a compiled module keeps the state that eager keeps.

        That is so where nothing in it has the state's name, and eager's second output is as its first. Empty elsewhere.
        """
        expected, there = self.expected, inference.state_after()
        unseen = [name for name in expected.changes if name not in there]
        if not unseen or (expected.second and self.between(expected.first, expected.second)):
            return ""
        return (
            f"eager's call changes {run_state.described(unseen)}; the compiled module holds "
            "nothing of that name, and eager's output is the same at a second call with the same inputs: whether the "
            "compiled module keeps that state is not known"
        )

    def differs(self, call: Callable[[], Any], wanted: Walked) -> str:
        """Return in what the output of a call is not as wanted, which is an output of eager; empty where it is."""
        return self.expected.differs(self.case, call, wanted)

    def problem_of(self, inference: Inference) -> str:
        """Return in what a compiled module differs from eager; empty where it does not."""
        return self.expected.compared(self.case, inference)[1]

    def save(self, inference: Inference, folder: Path) -> None:
        """Store a compiled module with the inputs and eager's output."""
        building.save(self.case, inference, folder)
        self.expected.save(folder)


def checked(
    case: Case, device: str, step: OnStep, *, processes: int = 1, turn: Callable[[], None] = lambda: None
) -> tuple[Inference, Build]:
    """Make, build and, after `turn`, compare with eager. Raises TrtgateError for what can't be built, or is wrong."""
    reference = Reference(case, device, step, processes=processes)
    inference = reference.build(*reference.prepare(step), step)
    turn()
    return inference, building.figures(inference, reference.check(inference))
