"""What `trtgate history` and `trtgate runs compact` do with the saved runs of one machine or of many."""

from __future__ import annotations

import datetime
import difflib
import fnmatch
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from ..common import accelerator, run_places
from ..common.errors import TrtgateError
from ..common.escaping import printable
from ..common.files import write_json
from ..common.run_folder import RUNS, known
from ..common.run_places import Folder
from ..common.text_columns import first_few
from ..gate import compacted_runs, history, history_events, run_compacting
from ..gate.history import CaseHistory
from ..gate.history_events import Changed, Event
from ..gate.run_compacting import Compacted
from ..gate.saved_runs import Asked, SavedRuns, answered_by, filesystem
from ..suite.pytest_config import find_configuration, runs_folder

NONE = "there are no saved runs under"
ALL = "all"
"""In the place of an accelerator's key: those of all."""
LONGEST = 1000
"""Characters of a list of names."""
SINCE = re.compile(r"(\d{1,5})([dw])")


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for: the histories of each accelerator, what they have in common, and what could not be read."""

    histories: dict[str, list[CaseHistory]]
    events: list[Event]
    drifting: list[Changed]
    skipped: list[str]


def folder_of(option: str | None) -> Folder:
    """Return where the saved runs are: as asked for, else where they are kept for good, else below the configuration.

    Raises TrtgateError for a URL of no use.
    """
    if option is not None:
        return run_places.at(option)
    if (kept := runs_folder()) is not None:
        return kept
    found = find_configuration(Path.cwd())
    root = Path.cwd() if found is None else found.path.parent
    return Path(os.path.relpath(known(root / ".trtgate") / RUNS))


def since(text: str, today: datetime.date | None = None) -> str:
    """Return the ISO date that `90d`, `12w` or a date mean. Raises TrtgateError for anything else."""
    if not text:
        return ""
    match = SINCE.fullmatch(text)
    try:
        if match is None:
            return datetime.date.fromisoformat(text).isoformat()
        days = int(match[1]) * (7 if match[2] == "w" else 1)
        return ((today or datetime.datetime.now(datetime.UTC).date()) - datetime.timedelta(days=days)).isoformat()
    except (ValueError, OverflowError) as error:
        raise TrtgateError(f"--since {text}: days as 90d, weeks as 12w, or a date as 2026-08-31") from error


def find(names: Sequence[str], folder: Folder, asked: Asked) -> Found:
    """Return the histories of cases, whose names may be patterns, on an accelerator, or on all of them.

    Raises TrtgateError when there is no such run or case, or Apache Otava is needed and not installed.
    """
    key = asked.key or accelerator.detect().key
    saved = SavedRuns(folder, lambda case_id: any(_takes(name, case_id) for name in names), "" if key == ALL else key)
    if key not in saved.keys and (key != ALL or not saved.keys):
        raise TrtgateError(_about_no_run(saved, key, folder))
    histories = {}
    for one in sorted(saved.keys) if key == ALL else [key]:
        chosen = _chosen(names, saved, one, folder, must=key != ALL)
        runs = saved.runs(msgspec.structs.replace(asked, key=one), chosen)
        histories[one] = [history.collect(runs, case_id) for case_id in chosen]
    if not any(histories.values()):
        _chosen(names, saved, ALL, folder, must=True)
    if not any(case.series or case.beside_base or case.disturbed for some in histories.values() for case in some):
        of = f" of branch {asked.branch!r}" * bool(asked.branch) + f" since {asked.since}" * bool(asked.since)
        raise TrtgateError(f"no run{of} under {folder} has such a case")
    return Found(
        histories=histories, events=history_events.events(histories), drifting=history_events.drifting(histories),
        skipped=saved.skipped,
    )  # fmt: skip


def _about_no_run(saved: SavedRuns, key: str, folder: Folder) -> str:
    """Say that no run is of an accelerator: only its own were read, so the folders say which others there are."""
    others = (saved.keys | set(run_places.keys_in(folder))) - {key}
    if others and key != ALL:
        named = printable(", ".join(sorted(others)), LONGEST)
        return f"no run under {folder} is of {key}; name one with --accelerator: {named}"
    first = f", the first: {printable(saved.skipped[0])}" if saved.skipped else ""
    read = f"; {len(saved.skipped)} could not be read{first}" * bool(first)
    return f"{NONE} {folder}: every run of the gate saves one there{read}"


def _takes(name: str, case_id: str) -> bool:
    return case_id == name or fnmatch.fnmatchcase(case_id, name)


def _chosen(names: Sequence[str], saved: SavedRuns, key: str, folder: Folder, *, must: bool) -> list[str]:
    """Return the cases of an accelerator that names take. Raises TrtgateError for a name without one, if it must."""
    known = sorted(set[str]().union(*map(saved.case_ids, saved.keys if key == ALL else [key])))
    chosen = set()
    for name in names:
        taken = [case_id for case_id in known if _takes(name, case_id)]
        if not taken and must:
            close = difflib.get_close_matches(name, known, n=1)
            said = f"did you mean {close[0]!r}?" if close else f"there are: {printable(first_few(known, 5))}"
            others = sorted(one for one in saved.keys if any(_takes(name, case) for case in saved.case_ids(one)))
            if others:
                said = f"those of {printable(', '.join(others), LONGEST)} have: name one with --accelerator"
            of_key = "" if key == ALL else f" of {key}"
            raise TrtgateError(f"no run{of_key} under {folder} has a case {name!r}; {said}")
        chosen.update(taken)
    return sorted(chosen)


def save(found: Found, path: Path) -> None:
    """Write everything that was found. Raises TrtgateError when it can't be written."""
    write_json(path, msgspec.to_builtins(found))


def compact(folder: Folder) -> Compacted:
    """Compact the saved runs of a folder that are not compacted yet. Raises TrtgateError."""
    store = filesystem(folder)
    places = run_places.named_runs(folder, all_dates=True)
    known, problems = answered_by(folder)(lambda: compacted_runs.all_parts(store))
    if not (places or known or problems):
        raise TrtgateError(f"{NONE} {folder}")

    def rows(name: str) -> list[dict[str, Any]]:
        run = history.read_run(places[name])
        return [] if run is None else run_compacting.rows_of(run, name)

    return run_compacting.compact(store, known, problems, places, rows)
