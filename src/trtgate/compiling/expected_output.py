"""What eager gives of a case and how a compiled module is compared with it; stored beside the compiled module."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import torch

from ..common.errors import TrtgateError
from ..common.explanations import Explanation, explained
from ..suite.cases import Case
from ..timing import run_state
from . import building, call_effects, output_check, output_leaves, stored_inputs
from .fp32_arithmetic import arithmetic
from .inference import Inference
from .location import CALLED_AGAIN
from .output_check import Comparison
from .output_leaves import Container, Leaf

FILE = "reference.pt"
NOT_COMPILED = (stored_inputs.FILE, FILE)
"""Files of an artifact that are not the compiled module's: other inputs of the same shapes can share that."""
STORED = (torch.Tensor, torch.nn.Parameter, bool, int, float, complex, str, type(None))
"""Classes of values that `torch.load` reads without unpickling; others are compared where the module is built."""

Walked = list[Leaf | Container]


class WrongOutputError(TrtgateError):
    """A compiled module's output is not eager's."""

    def __init__(self, message: str, compared: Comparison, problem: str) -> None:
        super().__init__(message)
        self.compared = compared
        self.problem = problem


def wrong(text: str) -> str:
    """Return the sentence of a wrong output."""
    return explained(f"{text}; nothing was timed or stored", Explanation.WRONG_OUTPUT)


class Expected(msgspec.Struct, frozen=True, kw_only=True):
    """What eager gives under a fixed seed, and what a call changes."""

    first: Walked
    coarsest: str = "fp32"
    """The precision as which a module rounds that is not cast."""
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
            raise WrongOutputError(wrong(f"case {case.id}: {problem}"), compared, problem)
        return compared

    def compared(self, case: Case, inference: Inference, *, twice: bool = True) -> tuple[Comparison, str]:
        """Return how far a module's first output is from eager's, or what is wrong of it and of the second; and how.

        The second is asked for if `twice`. The module's state is put back before and after. Raises TrtgateError for an
        output that can't be taken apart.
        """
        with contextlib.closing(self.calls(case, inference)) as calls:
            first = next(calls)
            second = next(calls) if twice and not first[1] else first
        return second if second[1] else first

    def calls(self, case: Case, inference: Inference) -> Generator[tuple[Comparison, str]]:
        """Call a module twice; yields how far what each call gave is from eager's, and what is wrong with it.

        That is the output, or, where the output is right, what the call left: what it may not change, and after the
        first call what it changed. As `compared`.
        """
        inference.restore()
        untouched = call_effects.untouched(case, inference, self.changes)
        try:
            first = self._one(case, self.first, inference)
            yield first if first[1] else self._left_wrongly(case, inference, self.after, untouched) or first
            compared, problem = self._one(case, self.second or self.first, inference)
            if not problem:
                compared, problem = self._left_wrongly(case, inference, {}, untouched) or (compared, "")
            yield msgspec.structs.replace(compared, call=2), problem and f"{CALLED_AGAIN}, {problem}"
        finally:
            inference.restore()

    def _one(self, case: Case, wanted: Walked, call: Callable[[], Any]) -> tuple[Comparison, str]:
        with run_state.seeded():
            output = call()
        with building.named(case):
            compared = output_check.compare_walked(wanted, output)
            problem = compared.problem(arithmetic(case, self.coarsest), case.settings.tolerances, self.apart)
        return compared, problem and self._with_what_is_drawn(case, compared, problem)

    def _with_what_is_drawn(self, case: Case, compared: Comparison, problem: str) -> str:
        """Return the problem, led by that a leaf is not deterministic, if all wrong leaves are decided by a seed."""
        if not self.draws:
            return problem
        others = tuple(leaf for leaf in compared.leaves if leaf.path not in self.draws)
        paths = {name for leaf in others for name in (leaf.path, leaf.name)}
        own = {key: value for key, value in case.settings.tolerances.items() if key in paths}
        left = msgspec.structs.replace(compared, leaves=others).problem(
            arithmetic(case, self.coarsest), own, self.apart
        )
        if left:
            return left
        return (
            f"not deterministic: two eager runs differ by {max(self.draws.values()):.2g} (relative L2), as they draw "
            f"other random numbers, and {case.settings.frontend} draws others under the same seed: {problem}"
        )

    def _left_wrongly(
        self, case: Case, inference: Inference, after: Mapping[str, Walked], untouched: Mapping[str, Walked]
    ) -> tuple[Comparison, str] | None:
        """Return in what the state after a call is not eager's: a cache that was not written shows later."""
        there = call_effects.reachable(case, inference) | inference.state_after()
        for name, wanted in ({**after, **untouched}).items():
            if name in there:
                left = call_effects.as_left(name, wanted, there[name], inference.inputs)
                compared = output_check.compare_nodes(wanted, left)
                problem = compared.problem(arithmetic(case, self.coarsest), call_effects.tolerances(case, compared))
                if problem:
                    return compared, problem + call_effects.hint(name, inference.inputs, untouched)
        return None

    def differs(self, case: Case, call: Callable[[], Any], wanted: Walked) -> str:
        """Return in what the output of a call is not as wanted; empty where it is."""
        return self._one(case, wanted, call)[1]

    def save(self, folder: Path) -> None:
        """Write it beside the compiled module: whoever loads that compares again."""
        document = {
            "first": [_plain(node) for node in self.first],
            "second": [_plain(node) for node in self.second],
            "after": {name: [_plain(node) for node in nodes] for name, nodes in self.after.items()},
            "changes": list(self.changes),
            "apart": self.apart,
            "draws": self.draws,
            "coarsest": self.coarsest,
        }
        torch.save(document, folder / FILE)

    @classmethod
    def load(cls, folder: Path) -> Expected:
        """Read what `save` wrote."""
        document: Mapping[str, Any] = torch.load(folder / FILE, weights_only=True)
        return cls(
            first=_walked(document["first"]), second=_walked(document["second"]), changes=tuple(document["changes"]),
            after={name: _walked(nodes) for name, nodes in document["after"].items()},
            apart=document["apart"], draws=document["draws"], coarsest=document["coarsest"],
        )  # fmt: skip


def in_both(after: dict[str, Walked], repeated: dict[str, Walked]) -> dict[str, Walked]:
    """Return what two runs of eager left alike; nothing is compared with a leaf that they did not, as a time."""
    found: dict[str, Walked] = {}
    for name in after.keys() & repeated.keys():
        compared = output_check.compare_nodes(after[name], repeated[name])
        if not compared.structure:
            unlike = {leaf.path for leaf in compared.leaves if leaf.difference or leaf.mismatches or leaf.relative_l2}
            found[name] = [
                Leaf(one.path, one.name, output_leaves.ANY) if isinstance(one, Leaf) and one.path in unlike else one
                for one in after[name]
            ]
    return found


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
