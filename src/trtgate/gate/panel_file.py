"""A panel's file: one line of JSON a run, of fixed cases on one card. It says how far launches, sessions and cards lie
apart, which no baseline of one's own models can (docs/gpu-states.md).
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from ..common.errors import TrtgateError
from ..common.files import decoded, is_there, locked, read_bytes, write_whole
from .plausibility import LONGEST_US, SHORTEST_US

FILE_NAME = "panel.jsonl"


class PanelCase(msgspec.Struct, frozen=True, kw_only=True):
    """One case in one run of the panel."""

    clock: str
    launches_us: list[float]
    """Each launch's mean, microseconds."""
    spread: float
    """Standard deviation between the logarithms of the launches' means: a share of the latency."""


class PanelRun(msgspec.Struct, frozen=True, kw_only=True):
    """One run of the panel on one card: a session of its cases."""

    recorded: str
    key: str
    """The accelerator's, as baselines have it."""
    uuid: str
    versions: dict[str, str]
    cases: dict[str, PanelCase]


class PanelFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file as read: its runs, the oldest first, and a line for each of its lines that is none."""

    path: Path
    runs: list[PanelRun]
    problems: list[str] = []


def path_of(folder: Path, key: str) -> Path:
    """Return where the panel of an accelerator key lies, beside its baseline."""
    return folder / key / FILE_NAME


def read(path: Path) -> PanelFile:
    """Read a panel's file. A line that is no run is named in `problems`, and the others count.

    Raises TrtgateError for a file that can't be read.
    """
    try:
        content = read_bytes(path)
    except OSError as error:
        raise TrtgateError(f"{path} can't be read: {error.strerror}") from error
    return _parsed(path, content)


def _parsed(path: Path, content: bytes) -> PanelFile:
    runs, problems = [], []
    for number, line in enumerate(content.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            runs.append(_run(line))
        except (msgspec.MsgspecError, ValueError) as error:
            problems.append(f"{path}, line {number} is no run of the panel ({error}); the other lines count")
    return PanelFile(path=path, runs=runs, problems=problems)


def check(path: Path) -> None:
    """Check that a run can be added to a file: there is none yet, or it holds a panel's runs. Raises TrtgateError."""
    if is_there(path):
        _of_a_panel(read(path))


def _of_a_panel(file: PanelFile) -> None:
    if file.problems and not file.runs:
        raise TrtgateError(f"{file.path} holds no run of the panel, so none is added to it: name another file")


def append(path: Path, run: PanelRun) -> None:
    """Add a run to a panel's file, which is made if need be; what is in it stays byte for byte, broken lines too.

    Raises TrtgateError for a file of something else, and when it can't be written; it is then as it was. What it says
    ends with the run's line: measuring it took minutes.
    """
    line = msgspec.json.encode(run)
    with locked(path):
        try:
            before = read_bytes(path) if is_there(path) else b""
            _of_a_panel(_parsed(path, before))
            ended = b"\n" if before and not before.endswith(b"\n") else b""  # a line that was cut short stays its own
            write_whole(path, before + ended + line + b"\n")
        except (OSError, TrtgateError) as error:
            said = str(error)
            if isinstance(error, OSError):
                said = f"{path} could not be written ({error.strerror}); it is as it was"
            raise TrtgateError(f"{said}. The run's line, to be added by hand: {line.decode()}") from error


def _run(line: bytes) -> PanelRun:
    """Return a line as a run. Raises msgspec.MsgspecError or ValueError for what is none."""
    run: PanelRun = decoded(line, PanelRun)
    for case_id, case in run.cases.items():
        if not case.launches_us or not all(SHORTEST_US <= us <= LONGEST_US for us in case.launches_us):
            raise ValueError(f"{case_id}: each launch needs a latency of {SHORTEST_US:g} to {LONGEST_US:g} µs")
    return run
