"""Where a compiled module goes wrong first, as data and as a sentence."""

from __future__ import annotations

import math
from typing import Literal

import msgspec

from ..common.text_columns import first_few

Kind = Literal["right", "module", "own code", "in context", "operator", "whole", "unfinished"]
MOST_NAMED = 2
CALLED_AGAIN = "called a second time"


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """One call of a submodule, compiled alone on the inputs that it has in eager, and compared with eager."""

    path: str
    kind: str
    """The class of the module."""
    number: int = 1
    """Which call of the module within its parent's."""
    depth: int = 0
    at: int = 1
    """Which call in a row of the model `relative_l2` and `problem` are of."""
    relative_l2: float = 0.0
    """Of the worst leaf; inf where the two can't be compared so."""
    problem: str = ""
    """In what it differs from eager by more than the tolerance; empty where in nothing."""
    unable: str = ""
    """Why it can't be compiled or compared alone; empty where it can."""

    @property
    def name(self) -> str:
        """The path, with the number of the call where it is not the first."""
        return f"{self.path or 'the model'}{f' (call {self.number})' if self.number > 1 else ''}"

    @property
    def figure(self) -> str:
        """How far it is from eager, in a few words."""
        if self.problem and (math.isinf(self.relative_l2) or self.relative_l2 == 0.0):
            return self.problem.replace(" differs from eager", "", 1)
        return f"relative L2 {self.relative_l2:.2g}{self.when}"

    @property
    def when(self) -> str:
        """At which call it is wrong, in words that follow; empty for the first."""
        return f" when {CALLED_AGAIN}" if self.at > 1 else ""


class Location(msgspec.Struct, frozen=True, kw_only=True):
    """The first submodule in execution order that is wrong, and what was compiled to find it.

    `kind` says how it is wrong. "module": compiled alone. "own code": compiled alone, and with all its parts left in
    PyTorch too, so its own `forward` is, between them. "in context": `suspect` is right alone, and `wrong` is wrong
    from `suspect` on. "operator": so too, `suspect` is an operator. "whole": `wrong` is wrong, each part is right
    alone, and no more can be said. "unfinished": the time ran out within `wrong`.
    """

    kind: Kind
    wrong: Checked
    whole: Checked
    suspect: str = ""
    checked: tuple[Checked, ...] = ()
    """Calls that were compiled alone, in the order in which that was done: in execution order on each level."""

    @property
    def within(self) -> float | None:
        """The largest relative L2 of what is right before a wrong module, or of the parts of a module wrong as a whole.

        None where there is none.
        """
        wrong = [place for place, one in enumerate(self.checked) if one.problem]
        parts = self.checked if self.kind == "module" else self.checked[wrong[-1] + 1 if wrong else 0 :]
        return max((one.relative_l2 for one in parts if not one.problem and not one.unable), default=None)

    def sentence(self) -> str:
        """Return what was found; of an unfinished search, how far it came."""
        name, figure = self.wrong.name, self.wrong.figure
        if self.kind == "right":
            return f"right: {name} is within its tolerance ({figure})"
        if self.kind == "unfinished":
            return f"the first wrong one lies in {name} ({figure})" if self.wrong.path else "not located"
        parts = f"no part of it is wrong alone{self._limit(' (within ', ')')}"
        if self.kind == "module":
            return f"first wrong: {name} ({figure}){self._limit('; everything before is within ')}{self._unable()}"
        if self.kind == "own code":
            said = f"{parts}, and it is wrong with all of them left in PyTorch: look at its own forward"
        elif self.kind == "whole":
            said = f"as a whole: {parts}"
        else:
            said = f"from {self.suspect} on: {parts}, and it is right with that and what follows left in PyTorch"
        return f"first wrong: {name} ({figure}), {said}{self._unable()}"

    def _limit(self, before: str, after: str = "") -> str:
        return "" if self.within is None else f"{before}{bound(self.within)}{after}"

    def _unable(self) -> str:
        names = [one.name for one in self.checked if one.unable]
        return f"; not checked alone: {first_few(names, MOST_NAMED)}" if names else ""


def bound(value: float) -> str:
    """Return a round number that is not below a value, such as 3e-3."""
    if value == 0.0:
        return "0"
    exponent = math.floor(math.log10(value))
    digit = math.ceil(round(value / 10.0**exponent, 9))
    return f"{1 if digit == 10 else digit}e{exponent + (digit == 10)}"
