"""How long a step may take, and which option of the user's allows more."""

from __future__ import annotations


class TimeLimit(float):
    """Seconds, with the name of the option that they come from: pytest and the commands spell it differently."""

    option: str

    def __new__(cls, seconds: float, option: str) -> TimeLimit:
        """Return `seconds` as `option` gave them."""
        limit = super().__new__(cls, seconds)
        limit.option = option
        return limit


def option_of(seconds: float) -> str:
    """Return the option that raises a limit; empty where there is none."""
    return seconds.option if isinstance(seconds, TimeLimit) else ""
