"""A run as one document, from which all reports are made: what was found of each case, and what it rests on.

Imports neither torch nor pytest. `docs/report.schema.json` is generated from these classes:
`python -m trtgate.report.run_report > docs/report.schema.json`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from ..common.accelerator import Accelerator
from ..common.errors import TrtgateError, one_line
from ..common.explanations import explanation_in
from ..common.files import decoded, write_json
from ..common.notices import Notice, Severity
from ..common.run_places import Place, content_of
from ..common.text_columns import number_of
from ..gate.history import Commit, Series
from ..profiles.difference_text import LayerChange
from ..profiles.profile_summary import LayerTime
from ..records.measurement import LoadLevel
from ..verdict import Judgement

SCHEMA = 2
PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"
SEVERITY = (
    "failed", "missing", "regressed", "incomparable", "underpowered", "unconfirmed", "new", "improved", "changed",
    "unchanged", "same", "measured", "skipped",
)  # fmt: skip
"""What may be said of a case, worst first."""


class CaseReport(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one case's latency test."""

    case_id: str
    outcome: str
    """passed, failed or skipped: the test's."""
    said: str
    """One of SEVERITY: the gate's verdict, "failed" where there is none because the test failed otherwise."""
    sentence: str = ""
    """Why, in one sentence."""
    explanation: str = ""
    """The name that the sentence ends with, which `trtgate explain` takes; empty where nothing needs to be done."""
    where: str = ""
    """Of a case that got slower: in which layers; empty where that is not known."""
    layer_changes: list[LayerChange] = []
    """The largest changes of its layers' time, where it got slower and both were profiled."""
    advice: str = ""
    """What to do about it."""
    quarantine: str = ""
    """Why it fails nothing, where that is so."""
    settings: dict[str, Any] = {}
    primary: str = ""
    """The metric that the verdict is about: device on a GPU, host on a CPU."""
    medians_us: dict[str, float] = {}
    """Metric → what was measured, in microseconds."""
    judgements: list[Judgement] = []
    figures: dict[str, float] = {}
    """Build seconds, engine bytes and the like; names carry units."""
    base_figures: dict[str, float] = {}
    captures_us: list[list[float]] = []
    """Launch → capture medians of the primary metric, in microseconds."""
    base_captures_us: list[list[float]] = []
    """The same of the baseline's sessions, or of the base."""
    runtime_cache: str = ""
    """Where its engines had their kernels from: "artifact", the runtime cache stored with them; "none", they were
    compiled in each process; "own", a cache of its user's; empty without engines."""
    load: list[LoadLevel] = []
    """What threads and processes got that called it at once, medians over launches; empty where it was not asked."""
    history: Series | None = None
    """The saved runs of it on this machine, up to this one; None where there are too few, or it was not looked for."""


class CoverageReport(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one case's coverage test."""

    case_id: str
    outcome: str
    said: str
    sentence: str
    explanation: str = ""
    in_tensorrt: int = 0
    total: int = 0
    engines: int = 0
    release: str = ""
    """Whose coverage it is, such as rtx-2.14.0."""


class LayersReport(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one case's profile test."""

    case_id: str
    outcome: str
    said: str
    sentence: str
    explanation: str = ""
    device_us: float | None = None
    sum_us: float = 0.0
    attributed: float = 0.0
    layers: list[LayerTime] = []
    """Those that take longest."""
    modules: dict[str, float] = {}
    """PyTorch module → microseconds of its layers; those that take longest."""
    changes: list[LayerChange] = []
    """The largest changes of time since the stored profile; times of one launch each are judged by nobody."""


class Matrix(msgspec.Struct, kw_only=True):
    """Stored coverage, models by release."""

    releases: list[str] = []
    shares: dict[str, list[float | None]] = {}
    """Case → for each release the share of operators in TensorRT, None where nothing is stored."""


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """A test that failed and is of no case's latency, coverage or profile."""

    test: str
    sentence: str
    explanation: str = ""


Part = TypeVar("Part", CaseReport, CoverageReport, LayersReport, Failure)


class RunReport(msgspec.Struct, kw_only=True):
    """One run."""

    schema: int = SCHEMA
    outcome: str
    """passed or failed, as the exit status says."""
    exit_status: int
    created: str
    """UTC, ISO 8601."""
    seconds: float
    spent_s: dict[str, float] = {}
    """Kind of work → how long the run was at it; together they are `seconds`. Empty where devices or processes worked
    side by side."""
    accelerator: Accelerator
    against: str
    """What latencies were compared with; empty when with nothing."""
    command: list[str]
    commit: Commit
    cases: list[CaseReport] = []
    coverage: list[CoverageReport] = []
    profiles: list[LayersReport] = []
    matrix: Matrix = msgspec.field(default_factory=Matrix)
    environment: list[str] = []
    """What differs from the machine and the libraries that the baseline was last recorded with."""
    failures: list[Failure] = []
    notices: list[Notice] = []
    """What else the run had to say: missing cases, errors, what was stored, what the baseline's machine had else."""

    def __post_init__(self) -> None:
        for case in self.cases:
            if case.said not in SEVERITY:
                raise ValueError(f"says {case.said!r} of case {case.case_id!r}")
        self.cases, self.coverage = _explained(self.cases), _explained(self.coverage)
        self.profiles, self.failures = _explained(self.profiles), _explained(self.failures)
        self.cases.sort(key=lambda case: (SEVERITY.index(case.said), -change_of(case), case.case_id))

    @property
    def failing_notices(self) -> list[Notice]:
        """Those that tell of a failure."""
        return [notice for notice in self.notices if notice.failed]

    @property
    def quiet_notices(self) -> list[Notice]:
        """The others."""
        return [notice for notice in self.notices if not notice.failed]

    @property
    def headline(self) -> str:
        """The run in one sentence."""
        counts = {said: sum(case.said == said for case in self.cases) for said in SEVERITY}
        found = [f"{count} {said}" for said, count in counts.items() if count]
        lost = sum(coverage.said == "regressed" for coverage in self.coverage)
        failed = sum(coverage.outcome == FAILED for coverage in self.coverage)
        others = [
            (lost, "lost coverage"), (failed - lost if failed > lost else 0, "coverage tests failed"),
            (sum(profile.outcome == FAILED for profile in self.profiles), "profile tests failed"),
            (len(self.failures), "other tests failed"),
            (sum(notice.severity is Severity.MISSING for notice in self.notices), "missing"),
        ]  # fmt: skip
        found += [f"{count} {what}" for count, what in others if count]
        quiet = f"coverage of {number_of(len(self.coverage), 'case')}" if self.coverage else "nothing was measured"
        return ", ".join(found) or quiet


def _explained(parts: list[Part]) -> list[Part]:
    """Return parts of a report with the names that their sentences end with."""
    return [msgspec.structs.replace(part, explanation=explanation_in(part.sentence)) for part in parts]


def change_of(case: CaseReport) -> float:
    """Return the change of the primary metric as a fraction; 0 where there is none."""
    judgement = primary_judgement(case)
    return judgement.change if judgement else 0.0


def primary_judgement(case: CaseReport) -> Judgement | None:
    """Return what was said of the primary metric; None where nothing was."""
    return next((one for one in case.judgements if one.metric == case.primary), None)


def write(path: Path, report: RunReport) -> None:
    """Write a report. Raises TrtgateError when that fails; what was there stays."""
    write_json(path, msgspec.to_builtins(report))


def read(path: Place) -> RunReport:
    """Read a report. Raises TrtgateError, naming the file, when it is none, broken, or of another schema."""
    try:
        content = content_of(path)
        schema = decoded(content, _Header).schema
        if schema != SCHEMA:
            raise TrtgateError(f"report {path} has schema {schema}, this trtgate reads {SCHEMA}: make it again")
        found: RunReport = decoded(content, RunReport)
    except OSError as error:
        raise TrtgateError(f"report {path} can't be read: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise TrtgateError(
            f"report {path} is broken, or was not written by --trtgate-report ({one_line(error)}): make it again"
        ) from error
    return found


class _Header(msgspec.Struct):
    schema: int


def schema() -> dict[str, Any]:
    """Return the JSON Schema of a report."""
    return msgspec.json.schema(RunReport)


if __name__ == "__main__":
    print(json.dumps(schema(), indent=1))
