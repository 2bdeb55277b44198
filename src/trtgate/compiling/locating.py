"""Which submodule is the first that is wrong when compiled: each alone, from the outside inwards, then in context.

A submodule is compiled alone and called with the inputs that it has in eager, so no error of another reaches it. Where
a module is wrong and each of its parts is right alone, parts are left in PyTorch, from the last backwards, to see with
which of them the error comes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import msgspec
import torch

from ..common.errors import TrtgateError, one_line
from ..common.steps import OnStep
from ..suite.model_inputs import Inputs
from . import output_check
from .location import CALLED_AGAIN, Checked, Kind, Location
from .output_check import Comparison
from .submodule_calls import CALLS, Call, DirectCall

Compile = Callable[[torch.nn.Module, Inputs, Sequence[str]], Callable[..., Any]]
"""Compiles a module for inputs as the case's frontend does, with some operators left in PyTorch; raises if it can't."""
Keep = Callable[[Sequence[torch.nn.Module]], AbstractContextManager[None]]
"""Within: these modules stay in PyTorch, whatever is compiled."""
Operators = Callable[[torch.nn.Module, Inputs], dict[str, list[str]]]
"""Returns the operators that a frontend compiles of a module in order of first use, and who uses them."""


class OutOfTimeError(Exception):
    """The time limit is reached."""


class Locator:
    """Finds the first wrong submodule. Of `keep` and `operators`, one is what the frontend can do; without, neither.

    `judge` says what is wrong with a comparison, empty if nothing; `out_of_time` is asked before anything is compiled.
    """

    def __init__(
        self,
        compile_: Compile,
        judge: Callable[[Comparison], str],
        *,
        keep: Keep | None = None,
        operators: Operators | None = None,
        out_of_time: Callable[[], bool] = lambda: False,
        step: OnStep = lambda _text: None,
    ) -> None:
        self._compile = compile_
        self._judge = judge
        self._keep = keep
        self._operators = operators
        self._out_of_time = out_of_time
        self._step = step
        self._checked: list[Checked] = []
        self._at_second = False
        """Whether the second call of the whole is looked into, and no other."""
        self._whole = self._innermost = Checked(path="", kind="")

    def locate(self, module: torch.nn.Module, inputs: Inputs, known: Checked | None = None) -> Location:
        """Return the first wrong submodule, or that none is. `known`: the whole was compared before, and is wrong.

        What is wrong at the second call only is looked for among the calls that eager makes then. The module's buffers
        and attributes are put back. Raises TrtgateError where the whole can't be compiled alone.
        """
        root = Call("", module, inputs.args, inputs.kwargs)
        self._whole = self._innermost = Checked(path="", kind=type(module).__name__)
        try:
            whole = self._whole = known or self._check(root, 0)
            if whole.unable:
                raise TrtgateError(whole.unable)
            if not whole.problem:
                return self._location("right", whole)
            return self._within(self._next_if_wrong(root) if whole.at > 1 else root, whole)
        except OutOfTimeError:
            return self._location("unfinished", self._innermost)
        finally:
            root.fresh()

    def _next_if_wrong(self, root: Call) -> Call:
        """Return the second call of the whole if it is wrong when it is compiled anew for that; else the first."""
        second, self._at_second = root.next(), True
        if self._check(second, 0).problem:
            return second
        self._at_second = False
        return root

    def _location(self, kind: Kind, wrong: Checked, suspect: str = "") -> Location:
        return Location(kind=kind, whole=self._whole, wrong=wrong, suspect=suspect, checked=tuple(self._checked))

    def _within(self, call: Call, wrong: Checked) -> Location:
        """Say what of a call that is wrong alone is wrong."""
        self._innermost = wrong
        names = call.children()
        found = self._first_wrong(call, names, wrong.depth + 1)
        if found is not None:
            return found
        return self._in_context(call, wrong) if names else self._location("module", wrong)

    def _first_wrong(self, call: Call, names: list[DirectCall], depth: int) -> Location | None:
        """Return what is wrong in the first wrong one of a call's parts; None where each is right."""
        for name in names:
            child, checked = self._checked_child(call, name, depth)
            self._checked.append(checked)
            if child is not None and checked.problem:
                return self._within(child, checked)
            if child is not None and checked.unable:
                found = self._first_wrong(child, _children(child), depth + 1)
                if found is not None:
                    return found
        return None

    def _checked_child(self, call: Call, name: DirectCall, depth: int) -> tuple[Call | None, Checked]:
        try:
            child = call.child(name)
        except TrtgateError as error:
            return None, Checked(path=name.path, kind="", number=name.number, depth=depth, unable=str(error))
        return child, self._check(child, depth)

    def _check(self, call: Call, depth: int, left: Sequence[str] = ()) -> Checked:
        """Compile a call alone and compare it with eager."""
        if self._out_of_time():
            raise OutOfTimeError
        kind = type(call.module).__name__
        checked = Checked(path=call.path, kind=kind, number=call.number, depth=depth)
        self._step(f"compiling {checked.name} alone")
        try:
            count = 1 if self._at_second else CALLS
            eager = call.in_eager(count)
            with call.surroundings():
                run = self._compile(call.target, call.fresh(), left)
            both = zip(eager, call.outputs(run, count), strict=True)
            compared = [output_check.compare_nodes(wanted, got) for wanted, got in both]
            problems = [self._judge(one) for one in compared]
        except torch.cuda.OutOfMemoryError:
            raise
        except Exception as error:
            said = str(error) if isinstance(error, TrtgateError) else one_line(error)
            return msgspec.structs.replace(checked, unable=said)
        worst = next((place for place, problem in enumerate(problems) if problem), 0)
        problem, at = problems[worst], worst + 1 + self._at_second
        if problem and at > 1:
            problem = f"{CALLED_AGAIN}, {problem}"
        return msgspec.structs.replace(checked, at=at, relative_l2=compared[worst].leaf_error, problem=problem)

    def _in_context(self, call: Call, wrong: Checked) -> Location:
        """Say with which part a call gets wrong, whose parts are all right alone."""
        try:
            if self._keep is not None:
                return self._first_with(call, call, wrong, ())
            if self._operators is not None:
                return self._first_operator(call, wrong)
        except TrtgateError:  # it can't be compiled with parts left out
            pass
        return self._location("whole", wrong)

    def _first_with(self, whole: Call, call: Call, wrong: Checked, later: tuple[torch.nn.Module, ...]) -> Location:
        """Return the first part of `call` with which `whole` gets wrong; `later` is what runs after `call`."""
        assert self._keep is not None  # asked by the caller
        keep = self._keep
        calls = [name for name in call.children() if name.number == 1]
        parts = [name.module for name in calls]

        def is_wrong(count: int) -> bool:
            with keep((*parts[count:], *later)):
                return self._is_wrong(whole, wrong)

        place = first_wrong_count(len(parts), is_wrong) if parts else 0
        if not place:
            return self._location("own code" if call is whole else "in context", wrong, call.path)
        part = call.child(calls[place - 1])
        return self._first_with(whole, part, wrong, (*parts[place:], *later))

    def _first_operator(self, call: Call, wrong: Checked) -> Location:
        """Return the first operator in order of first use with which a call gets wrong."""
        assert self._operators is not None  # asked by the caller
        found = self._operators(call.target, call.fresh())
        names = list(found)
        place = first_wrong_count(len(names), lambda count: self._is_wrong(call, wrong, names[count:]))
        if not place:
            return self._location("own code", wrong)
        name = names[place - 1]
        users = ", ".join(found[name][:3])
        return self._location("operator", wrong, f"{name}{f' (in {users})' if users else ''}")

    def _is_wrong(self, call: Call, wrong: Checked, left: Sequence[str] = ()) -> bool:
        checked = self._check(call, wrong.depth, left)
        if checked.unable:
            raise TrtgateError(checked.unable)
        return bool(checked.problem)


def first_wrong_count(parts: int, is_wrong: Callable[[int], bool]) -> int:
    """Return with how many first parts compiled a module gets wrong; 0 where it is so without any.

    It is known to be wrong with all of them, and taken to stay wrong from the first wrong one on.
    """
    if not parts or is_wrong(0):
        return 0
    right, wrong = 0, parts
    while wrong - right > 1:
        middle = (right + wrong) // 2
        if is_wrong(middle):
            wrong = middle
        else:
            right = middle
    return wrong


def _children(call: Call) -> list[DirectCall]:
    """Return the calls that a call makes; none where eager can't make it by itself, as one whose error is handled."""
    try:
        return call.children()
    except TrtgateError:
        return []
