"""What eager makes of a case, run by run, and whether a compiled module does the same: at first and a second time."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import torch

from ..common.errors import TrtgateError, one_line
from ..common.steps import OnStep
from ..records.measurement import Build
from ..suite import precisions
from ..suite.cases import Case
from ..suite.random_weights import threads
from ..timing import run_state
from ..timing.run_state import RunState
from . import building, output_check, output_leaves
from .building import Inference
from .fp32_arithmetic import arithmetic, strict_fp32
from .output_check import Comparison
from .output_leaves import Container, Leaf

FILE = "reference.pt"
NOT_COMPILED = (building.INPUTS_FILE, FILE)
"""Files of an artifact that are not the compiled module's: other inputs of the same shapes can share that."""
STORED = (torch.Tensor, torch.nn.Parameter, bool, int, float, complex, str, type(None))
"""Classes of values that `torch.load` reads without unpickling; others are compared where the module is built."""

RUN_THE_MODULE = ("eager", "aot_eager", "inductor", "torch_compile")
"""Frontends whose compiled module keeps its state in the module that it was made of; others have copies."""

Walked = list[Leaf | Container]


class WrongOutputError(TrtgateError):
    """A compiled module's output is not eager's."""

    def __init__(self, message: str, compared: Comparison, problem: str) -> None:
        super().__init__(message)
        self.compared = compared
        self.problem = problem


class Expected(msgspec.Struct, frozen=True, kw_only=True):
    """What eager gives under a fixed seed, and what a call changes."""

    first: Walked
    second: Walked = []
    """Of another call after the first; empty where a call changes nothing, and the output is the first again."""
    after: dict[str, Walked] = {}
    """What a call changes → what it is after the first call, where that can be taken apart."""
    changes: tuple[str, ...] = ()
    """Names of the buffers, attributes and inputs that a call changes."""
    apart: dict[str, float] = {}
    """Path of a leaf → relative L2 between two runs of eager under the same seed, where they differ."""
    draws: dict[str, float] = {}
    """Path of a leaf → relative L2 between runs of eager under two seeds, where random numbers decide it."""

    def check(self, case: Case, inference: Inference) -> Comparison:
        """Compare a compiled module with eager. Raises WrongOutputError where it is wrong."""
        compared, problem = self.compared(case, inference)
        if problem:
            raise WrongOutputError(f"case {case.id}: {problem}; nothing was timed or stored", compared, problem)
        return compared

    def compared(self, case: Case, inference: Inference, *, twice: bool = True) -> tuple[Comparison, str]:
        """Return how far a module's first output is from eager's, and what is wrong with it or the second, if anything.

        The second is asked for if `twice`. The module's state is put back before and after. Raises TrtgateError for an
        output that can't be taken apart.
        """
        inference.restore()
        try:
            compared, problem = self._one(case, self.first, inference)
            problem = problem or self._state_problem(case, inference)
            if twice and not problem:
                problem = self._one(case, self.second or self.first, inference)[1]
                problem = problem and f"called a second time, {problem}"
            return compared, problem
        finally:
            inference.restore()

    def _one(self, case: Case, wanted: Walked, call: Callable[[], Any]) -> tuple[Comparison, str]:
        with run_state.seeded():
            output = call()
        with building.named(case):
            compared = output_check.compare_walked(wanted, output)
            problem = compared.problem(arithmetic(case), case.settings.tolerances, self.apart)
        return compared, problem and self._with_what_is_drawn(case, compared, problem)

    def _with_what_is_drawn(self, case: Case, compared: Comparison, problem: str) -> str:
        """Return the problem, led by that a leaf is not deterministic, if all wrong leaves are decided by a seed."""
        if not self.draws:
            return problem
        others = tuple(leaf for leaf in compared.leaves if leaf.path not in self.draws)
        paths = {name for leaf in others for name in (leaf.path, leaf.name)}
        own = {key: value for key, value in case.settings.tolerances.items() if key in paths}
        left = msgspec.structs.replace(compared, leaves=others).problem(arithmetic(case), own, self.apart)
        if left:
            return left
        return (
            f"not deterministic: two eager runs differ by {max(self.draws.values()):.2g} (relative L2), as they draw "
            f"other random numbers, and {case.settings.frontend} draws others under the same seed: {problem}"
        )

    def _state_problem(self, case: Case, inference: Inference) -> str:
        """Return in what the state after the first call is not eager's: a cache that was not written shows later."""
        for name, value in inference.state_after().items():
            if name in self.after:
                now = output_leaves.walk(value, f"after the call {name}")
                problem = output_check.compare_nodes(self.after[name], now).problem(arithmetic(case))
                if problem:
                    return problem
        return ""

    def differs(self, case: Case, call: Callable[[], Any], wanted: Walked | None = None) -> str:
        """Return in what the output of a call is not as wanted, which is eager's first; empty where it is."""
        return self._one(case, self.first if wanted is None else wanted, call)[1]

    def save(self, folder: Path) -> None:
        """Write it beside the compiled module: whoever loads that compares again."""
        document = {
            "first": [_plain(node) for node in self.first],
            "second": [_plain(node) for node in self.second],
            "after": {name: [_plain(node) for node in nodes] for name, nodes in self.after.items()},
            "changes": list(self.changes),
            "apart": self.apart,
            "draws": self.draws,
        }
        torch.save(document, folder / FILE)


def _plain(node: Leaf | Container) -> tuple[Any, ...]:
    if isinstance(node, Container):
        return ("container", node.path, node.kind, node.keys, node.ordered)
    if type(node.value) not in STORED:
        return ("leaf", node.path, node.name)
    return ("leaf", node.path, node.name, node.value)


def _walked(plain: list[tuple[Any, ...]]) -> Walked:
    """Return the nodes of `_plain`; a value that could not be stored is left out of what is compared."""
    found: Walked = []
    for what, *fields in plain:
        if what == "container":
            found.append(Container(*fields))
        else:
            path, name, *value = fields
            found.append(Leaf(path, name, value[0] if value else output_leaves.ANY))
    return found


def load_checked(case: Case, folder: Path, device: str) -> Inference:
    """Load a compiled module, run it and compare. Raises TrtgateError where it differs from its builder's eager.

    It runs twice if calls change it: of others the builder compared the second. Unpickles, as `building.load` does:
    only from a folder that this user's own session made.
    """
    inference = building.load(case, folder, device)
    document: Mapping[str, Any] = torch.load(folder / FILE, weights_only=True)
    expected = Expected(
        first=_walked(document["first"]), second=_walked(document["second"]), changes=tuple(document["changes"]),
        after={name: _walked(nodes) for name, nodes in document["after"].items()},
        apart=document["apart"], draws=document["draws"],
    )  # fmt: skip
    if expected.changes:
        state = RunState((inference.compiled.run,), inference.inputs)
        inference = Inference(inference.compiled, inference.inputs, state, expected.changes)
    problem = expected.compared(case, inference, twice=bool(expected.changes))[1]
    if problem:
        raise TrtgateError(f"case {case.id}: loaded in a fresh process, {problem}; nothing was timed or stored")
    return inference


class Reference:
    """A case's module with its inputs, and what eager makes of them: it runs twice, to see whether it agrees.

    `processes` do so at once, this one counted, and share the CPU: with threads for all of it each would take twice as
    long. What is compiled is to see all threads.
    """

    def __init__(self, case: Case, device: str, step: OnStep, *, processes: int = 1) -> None:
        """Make the model and run it. Raises TrtgateError for a factory or an output that is no good."""
        building.release()  # whatever the case before left on
        step("making the model")
        self._threads = max(1, torch.get_num_threads() // processes)
        with threads(self._threads):
            self._make_and_run(case, device)

    def _make_and_run(self, case: Case, device: str) -> None:
        self.module, self.inputs = building.make(case, device)
        self.case = case
        self._state: RunState | None = RunState((self.module,), self.inputs)
        first, drawn = self._eager()
        changes = self._state.changed(self.inputs)
        after = self._after(changes)
        second = self._eager()[0] if changes else []
        apart, draws = self._apart(first, drawn=drawn)
        self.expected = Expected(
            first=first, second=second, after=after, changes=tuple(changes), apart=apart, draws=draws
        )
        self._restore()
        if not changes:
            self._state = None  # nothing to be put back, and no memory taken

    def eager_with(self, inputs: tuple[Any, ...]) -> Walked | None:
        """Return what eager makes of other inputs; None where it can't take them, or its output proves nothing."""
        self._restore()
        own, self.inputs = self.inputs, tuple(value.clone() for value in inputs)
        try:
            return self._eager()[0]
        except TrtgateError:
            return None
        finally:
            self.inputs = own
            self._restore()

    def _eager(self, seed: int = run_state.SEED) -> tuple[Walked, bool]:
        """Run once under a seed; returns a copy of the output, and whether it drew random numbers."""
        name = f"model {self.case.model.name!r}"
        with run_state.seeded(seed):
            before = run_state.random_numbers()
            try:
                with torch.no_grad(), strict_fp32():
                    output = self.module(*self.inputs)
            except torch.cuda.OutOfMemoryError:
                raise
            except Exception as error:
                shapes = ", ".join(str(tuple(value.shape)) for value in self.inputs)
                raise TrtgateError(
                    f"{name}: eager can't run its own example inputs of shape {shapes}: {one_line(error)}"
                ) from error
            drawn = run_state.drawn(before, run_state.random_numbers())
        output_check.check_reference(output, f"{name}: eager's own output")
        return output_leaves.copied(output), drawn

    def _after(self, changes: list[str]) -> dict[str, Walked]:
        """Return what a call changed as it is now; what can't be taken apart is left out."""
        assert self._state is not None
        found: dict[str, Walked] = {}
        for name, value in self._state.values(changes, self.inputs).items():
            with contextlib.suppress(TrtgateError):
                found[name] = output_leaves.copied(value, f"after the call {name}")
        return found

    def _apart(self, first: Walked, *, drawn: bool) -> tuple[dict[str, float], dict[str, float]]:
        """Run again from the same state; returns how far single leaves of two runs of eager differ."""
        self._restore()
        again = output_check.compare_nodes(first, self._eager()[0])
        apart = {leaf.path: leaf.relative_l2 for leaf in again.leaves if leaf.relative_l2 or leaf.mismatches}
        most = output_check.TOLERANCES[arithmetic(self.case)].relative_l2
        if again.structure or again.leaf_error > most or any(leaf.mismatches for leaf in again.leaves):
            figure = again.structure or f"{again.leaf_error:.2g} (relative L2)"
            raise TrtgateError(
                f"model {self.case.model.name!r}: not deterministic: two eager runs differ by {figure} under the same "
                "seed, so that nothing can be compared: does it keep state in an object, or outside its modules?"
            )
        if not drawn:
            return apart, {}
        self._restore()
        other = output_check.compare_nodes(first, self._eager(run_state.SEED + 1)[0])
        if other.structure:  # how many there are is drawn: all of it is
            return apart, {node.path: math.inf for node in first if isinstance(node, Leaf)}
        return apart, {leaf.path: leaf.relative_l2 for leaf in other.leaves if leaf.relative_l2 or leaf.mismatches}

    def _restore(self) -> None:
        if self._state is not None:
            self._state.restore(self.inputs)

    def prepare(self, step: OnStep) -> tuple[Any, float]:
        """Return what the frontend compiles, and the seconds that it took to make. Raises as `building.prepare`."""
        found = building.prepare(self.case, self.module, self.inputs, step)
        if self._state is not None and self.case.settings.precision in precisions.QUANTIZED:
            self._state = RunState((self.module,), self.inputs)  # quantizing puts other modules in
        self._restore()
        return found

    def build(self, prepared: Any, prepare_s: float, step: OnStep) -> Inference:
        """Compile what `prepare` returned. Raises TrtgateError for failed builds."""
        step(f"building with {self.case.settings.frontend}")
        inference = building.build_prepared(self.case, prepared, prepare_s, self.inputs, step)
        self._restore()
        return self._with_state(inference)

    def loaded(self, folder: Path) -> Inference:
        """Load a compiled module that was stored, to be called with this case's inputs."""
        inference = building.load(self.case, folder, str(self.inputs[0].device))
        inference.inputs = self.inputs
        return self._with_state(inference)

    def _with_state(self, inference: Inference) -> Inference:
        if self._state is None:
            return inference
        compiled, own = inference.compiled, self.case.settings.frontend in RUN_THE_MODULE
        state = RunState((self.module,) * own + (compiled.run, *compiled.modules), self.inputs)
        return Inference(inference.compiled, self.inputs, state, self.expected.changes)

    def check(self, inference: Inference) -> Comparison:
        """Compare a compiled module with eager. Raises WrongOutputError where it is wrong."""
        with threads(self._threads):
            return self.expected.check(self.case, inference)

    def differs(self, call: Callable[[], Any], wanted: Walked | None = None) -> str:
        """Return in what the output of a call is not as wanted, which is eager's first; empty where it is."""
        return self.expected.differs(self.case, call, wanted)

    def problem_of(self, inference: Inference) -> str:
        """Return in what a compiled module differs from eager; empty where it does not."""
        return self.expected.compared(self.case, inference)[1]

    def save(self, inference: Inference, folder: Path) -> None:
        """Store a compiled module with the inputs and eager's output."""
        building.save(self.case, inference, folder)
        self.expected.save(folder)


def checked(case: Case, device: str, step: OnStep, *, processes: int = 1) -> tuple[Inference, Build]:
    """Make, build and compare with eager. Raises TrtgateError for what can't be built, or whose output is wrong."""
    reference = Reference(case, device, step, processes=processes)
    inference = reference.build(*reference.prepare(step), step)
    return inference, building.figures(inference, reference.check(inference))
