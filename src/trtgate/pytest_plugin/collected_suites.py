"""The suites of a run, each imported when its file is collected: then pytest has loaded the conftest files above it."""

from __future__ import annotations

from pathlib import Path

import msgspec

from ..common.notices import Notice
from ..suite.cases import Suite
from ..suite.suite_source import SuiteSource, merged


class Elsewhere(msgspec.Struct, frozen=True, kw_only=True):
    """What the processes of pytest-xdist collected, where the one that reports collects nothing."""

    suites: list[str] = []
    known_cases: list[str] = []
    """Of these suites, and of the zoo."""
    no_case_left: bool = False


class CollectedSuites:
    """What is configured, and what of it was imported so far."""

    def __init__(self, configured: SuiteSource) -> None:
        self._configured = configured
        self.source = msgspec.structs.replace(configured, suites=(), factories=())
        """What was imported so far."""
        self.parts: dict[Path | None, Suite] = {}
        """File → its cases; None → all that is configured."""
        self.whole = Suite(())
        self.no_case_left = False
        """Whether a whole run has no case whose coverage could be asked."""
        self.elsewhere: Elsewhere | None = None

    def files(self) -> set[Path]:
        """Return the files that are to be collected: of the suites, or of factories where there is no suite."""
        configured = self._configured
        found = configured.suite_files() if configured.suites else configured.factory_files()
        return set(found.values())

    def uncollected(self) -> list[str]:
        """Return the suites that this run has not collected."""
        collected = self.source.suites if self.elsewhere is None else self.elsewhere.suites
        return [name for name in self._configured.suites if name not in collected]

    def notices(self) -> list[Notice]:
        """Return a line for each suite that this run has not collected, where it has another."""
        said = "was not collected, so nothing of it is judged: pytest was not given its folder"
        return [Notice(f"suite {name} {said}") for name in self.uncollected() if self.parts]

    def is_first(self, suite: Suite) -> bool:
        """Whether a part is the one that was imported first."""
        return next(iter(self.parts.values())) is suite

    def load(self, file: Path | None) -> Suite:
        """Import the suite of a file, or all, for the first time; factories belong to the first suite.

        Raises TrtgateError, also for what can't be told apart from what was imported before.
        """
        part = self._part(file)
        source = msgspec.structs.replace(
            self.source,
            suites=tuple(dict.fromkeys((*self.source.suites, *part.suites))),
            factories=tuple(dict.fromkeys((*self.source.factories, *part.factories))),
        )
        source.check_neighbours()
        suite = part.load()
        parts = {**self.parts, file: suite}
        self.whole = merged({str(name or "the configuration"): each for name, each in parts.items()})
        self.parts, self.source = parts, source
        return suite

    def _part(self, file: Path | None) -> SuiteSource:
        configured = self._configured
        if file is None:
            return configured
        suites = tuple(name for name, place in configured.suite_files().items() if place == file)
        factories = configured.factories if not self.parts else ()
        if not configured.suites:
            factories = tuple(name for name, place in configured.factory_files().items() if place == file)
        return msgspec.structs.replace(configured, suites=suites, factories=factories)
