"""What is worth saying beside verdicts: how much it matters, and the text. Who shows it marks it."""

from __future__ import annotations

import enum

import msgspec

from .escaping import terminal


class Severity(enum.StrEnum):
    """How much a notice matters; the first two tell of a failure."""

    MISSING = "missing"
    ERROR = "error"
    WARNING = "warning"
    NEW = "new"
    NOTICE = "notice"
    INFO = "info"


class Notice(msgspec.Struct, frozen=True):
    """One line."""

    text: str
    severity: Severity = Severity.INFO

    @property
    def failed(self) -> bool:
        """Whether it tells of a failure."""
        return self.severity in (Severity.MISSING, Severity.ERROR)

    @property
    def loud(self) -> bool:
        """Whether it asks for something."""
        return self.failed or self.severity in (Severity.WARNING, Severity.NEW)

    def __str__(self) -> str:
        """As the terminal shows it."""
        return terminal(self.text if self.severity is Severity.INFO else f"{self.severity.name}: {self.text}")
