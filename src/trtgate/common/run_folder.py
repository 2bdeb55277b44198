"""`.trtgate/`: saved runs, workers' logs, compiled modules handed to workers; kept out of git."""

from __future__ import annotations

import contextlib
import datetime
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from . import files

KEPT_RUNS = 50


class RunFolder:
    """The folder as one run uses it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._private: Path | None = None
        self._run_file: Path | None = None
        self._guard = threading.Lock()

    @property
    def logs(self) -> Path:
        """Where workers write what they have to say."""
        return self.path / "logs"

    def private(self, prefix: str) -> Path:
        """Return a new folder, the user's alone (0700), that goes with the run."""
        with self._guard:  # several builders ask for one
            if self._private is None:
                self._prepare()
                remove_abandoned(self.path, "artifacts")
                self._private = Path(tempfile.mkdtemp(prefix=f"artifacts-{os.getpid()}-", dir=self.path))
        return Path(tempfile.mkdtemp(prefix=f"{prefix}-", dir=self._private))

    @contextlib.contextmanager
    def temporary(self, *prefixes: str) -> Iterator[dict[str, Path]]:
        """Within: a private folder for each prefix; engines take hundreds of megabytes, so they go at once."""
        made = {prefix: self.private(prefix) for prefix in prefixes}
        try:
            yield made
        finally:
            for path in made.values():
                shutil.rmtree(path, ignore_errors=True)

    def save_run(self, document: Mapping[str, Any], key: str) -> Path:
        """Store everything that this run measured so far under `runs`; again after each case, so a kill loses little.

        Raises TrtgateError when it can't be written.
        """
        if self._run_file is None:
            self._prepare()
            stamp = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%S")
            self._run_file = self.path / "runs" / f"{stamp}-{os.getpid()}-{key}.json"
            for old in sorted(self._run_file.parent.glob("*.json"))[: 1 - KEPT_RUNS]:
                with contextlib.suppress(OSError):
                    old.unlink()
        files.write_json(self._run_file, document)
        return self._run_file

    def close(self) -> None:
        """Remove what goes with the run."""
        if self._private is not None:
            shutil.rmtree(self._private, ignore_errors=True)

    def _prepare(self) -> None:
        """Make the folder, with a file that keeps it out of git."""
        self.path.mkdir(parents=True, exist_ok=True)
        ignore = self.path / ".gitignore"
        if not ignore.exists():
            ignore.write_text("*\n")


def remove_abandoned(folder: Path, kind: str) -> list[Path]:
    """Remove `<kind>-<pid>-*` of processes that ended without removing them; returns what was removed."""
    gone = []
    for path in folder.glob(f"{kind}-*-*"):
        pid = path.name.split("-")[1]
        if pid.isdigit() and not Path("/proc", pid).exists():
            shutil.rmtree(path, ignore_errors=True)
            gone.append(path)
    return gone
