"""`.trtgate/`: saved runs, workers' logs, compiled modules handed to workers; kept out of git."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import os
import re
import shutil
import tempfile
import threading
import uuid
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from . import files, user_folders
from .errors import PROBLEMS, TrtgateError, sentence_of
from .explanations import Explanation, explained
from .locks import ClaimedFolder, remove_abandoned
from .run_file import GrowingRun
from .steps import OnStep

KEPT_RUNS = 50
STAGES_STAY = datetime.timedelta(days=7)
"""What shards and confirmations leave is needed by a merge, and there may be more of them than KEPT_RUNS."""
LOGS, RUNS = "logs", "runs"
STAMP = "%Y%m%dT%H%M%S"
RUN_FILE = re.compile(r"(\d{8}T\d{6})-(?:[0-9a-f]+-(shard|confirmation)-)?")
"""What names of saved runs begin with: when, in UTC. Other files there are none of ours."""


class RunFolder:
    """The folder as one run uses it; `say` is told where its files go, if that is elsewhere.

    `label` is part of the name of the run's file: hosts that share a run may begin in the same second.
    """

    def __init__(self, wanted: Path, say: OnStep = lambda _text: None, *, label: str = "") -> None:
        self._wanted = wanted
        self._label = label
        self._say = say
        self._private: ClaimedFolder | None = None
        self._run_file: Path | None = None
        self._growing: GrowingRun | None = None
        self._guard = threading.RLock()

    @property
    def path(self) -> Path:
        """The folder, made when it is first asked for. Raises TrtgateError where no folder can be written at all."""
        with self._guard:  # several builders ask for one
            return self._usable

    @cached_property
    def _usable(self) -> Path:
        return usable(self._wanted, self._say)

    @property
    def logs(self) -> Path:
        """Where workers write what they have to say."""
        return self.path / LOGS

    @cached_property
    def own_logs(self) -> Path:
        """A folder of this run's alone in `logs`, which stays: the next run that asks for one removes it.

        Raises TrtgateError where no folder can be written, OSError where that of the logs can't.
        """
        self.logs.mkdir(exist_ok=True)
        remove_abandoned(self.logs, "run")
        return ClaimedFolder(self.logs, "run").path

    def private(self, prefix: str) -> Path:
        """Return a new folder, the user's alone (0700), that goes with the run."""
        with self._guard:
            if self._private is None:
                remove_abandoned(self.path, "artifacts")
                self._private = ClaimedFolder(self.path, "artifacts")
        return Path(tempfile.mkdtemp(prefix=f"{prefix}-", dir=self._private.path))

    @contextlib.contextmanager
    def temporary(self, *prefixes: str) -> Iterator[dict[str, Path]]:
        """Within: a private folder for each prefix; engines take hundreds of megabytes, so they go at once."""
        made = {prefix: self.private(prefix) for prefix in prefixes}
        try:
            yield made
        finally:
            for path in made.values():
                shutil.rmtree(path, ignore_errors=True)

    def add_to_run(self, document: Mapping[str, Any], key: str) -> None:
        """Store a document's benchmarks beside those that were added before; after each case, so a kill loses little.

        Raises TrtgateError when they can't be written.
        """
        try:
            if self._growing is None:
                path = self._run_path(key)
                with files.locked(path):
                    self._growing = GrowingRun(path, document)
            self._growing.add(document["benchmarks"])
        except OSError as error:
            raise TrtgateError(sentence_of(error)) from error

    def save_run(self, document: Mapping[str, Any], key: str) -> Path:
        """Store everything that this run measured under `runs`, in place of what was added.

        Raises TrtgateError when it can't be written.
        """
        path = self._run_path(key)
        with files.locked(path):
            files.write_json(path, document)
        return path

    def _run_path(self, key: str) -> Path:
        if self._run_file is None:
            now = datetime.datetime.now(datetime.UTC)
            # Not the process id: containers that share the folder have the same ones.
            name = f"{now.strftime(STAMP)}-{uuid.uuid4().hex[:8]}-{self._label}{key}.json"
            self._run_file = self.path / RUNS / name
            _remove_oldest(self._run_file.parent, now)
        return self._run_file

    def named(self, key: str) -> str:
        """Return the name of this run's file, which it gets now if it has none yet. Raises TrtgateError."""
        with self._guard:
            return self._run_path(key).name

    @property
    def run_name(self) -> str:
        """The name of this run's file; empty before there is one."""
        return "" if self._run_file is None else self._run_file.name

    def close(self) -> None:
        """Remove what goes with the run."""
        if self._private is not None:
            self._private.remove()


def _remove_oldest(folder: Path, now: datetime.datetime) -> None:
    """Make room for a run. Those that a wrong clock dated after `now` go first: they would outlive all others.

    What a stage left stays as long as a merge may need it.
    """
    stamp, oldest, newest = (when.strftime(STAMP) for when in (now, now - STAGES_STAY, now + STAGES_STAY))
    saved = []
    for path in folder.glob("*.json"):
        found = RUN_FILE.match(path.name)
        if found and not (found[2] and oldest <= found[1] <= newest):
            saved.append((found[1] <= stamp, path.name, path))
    for *_, old in sorted(saved)[: 1 - KEPT_RUNS]:
        with contextlib.suppress(OSError):
            old.unlink()


def usable(wanted: Path, say: OnStep) -> Path:
    """Return `wanted`, made, where files can be written in it, else a folder of the user's own for it, and say so.

    Raises TrtgateError where neither can be written.
    """
    try:
        _try(wanted)
    except OSError as error:
        folder, problem = _own_folder(wanted), sentence_of(error)
        say(f"{wanted} can't be written ({problem.rpartition(': ')[0]}): the files of this run go to {folder}")
        return folder
    return wanted


def known(wanted: Path) -> Path:
    """Return where the files of runs in `wanted` lie: there, or in the user's own folder for it. Writes nothing."""
    with contextlib.suppress(TrtgateError):
        if not wanted.is_dir() and (own := _state_folder(wanted)).is_dir():
            return own
    return wanted


def _own_folder(wanted: Path) -> Path:
    try:
        folder = _state_folder(wanted)
        _try(folder)
    except PROBLEMS:
        try:
            folder = Path(tempfile.mkdtemp(prefix="trtgate-"))
        except OSError as error:
            said = f"neither {wanted} nor any folder of this user's can be written ({error.strerror})"
            said = f"{said}: set XDG_STATE_HOME to one that can"
            raise TrtgateError(explained(said, Explanation.FILE_FAULT)) from error
    return folder


def _state_folder(wanted: Path) -> Path:
    place = wanted.absolute()
    digest = hashlib.sha256(os.fsencode(place)).hexdigest()[:12]
    return user_folders.state() / "runs" / f"{place.parent.name}-{digest}"


def _try(folder: Path) -> None:
    """Make the folder, with a file that keeps it out of git, and write in it. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    for place in (folder, folder / LOGS, folder / RUNS):
        if place is folder or files.is_there(place):
            os.rmdir(tempfile.mkdtemp(prefix="try-", dir=place))
    ignore = folder / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*\n")
