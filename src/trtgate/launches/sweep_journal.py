"""What a sweep has done, written down at once: a file for all measurements that may be compared."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

import msgspec

from ..common import sealed_folder
from ..common.accelerator import Accelerator, installed
from ..common.errors import TrtgateError
from ..common.files import decoded, read_bytes
from ..common.locks import open_shared, try_lock
from ..common.version import VERSION
from ..compiling.artifact_cache import now
from ..records.agreement_record import Agreement
from ..records.measurement import Build, Launch
from ..suite.suite_source import SuiteSource

LIBRARIES = ("torchvision", "timm", "transformers", "nvidia-modelopt", "numpy")
SCHEMA = 1


class JournalHeader(msgspec.Struct, tag="sweep", frozen=True, kw_only=True):
    """What measurements of one file have in common: others go to another file."""

    schema: int = SCHEMA
    accelerator: Accelerator
    sources: dict[str, str]
    """File of the user's that was imported for the models → SHA-256."""
    weights: dict[str, str]
    libraries: dict[str, str] = {}
    """Versions of what models come from, beside those of the accelerator."""
    created: str = ""


class BuiltPoint(msgspec.Struct, tag="built", frozen=True, kw_only=True):
    """A point was built."""

    case_id: str
    build: Build
    agreement: Agreement | None = None
    notes: list[str] = []
    """What went wrong with storing it, and was got over."""


class TimedPoint(msgspec.Struct, tag="timed", frozen=True, kw_only=True):
    """A launch measured a point."""

    case_id: str
    number: int
    launch: Launch


Entry = BuiltPoint | TimedPoint


class SweepJournal:
    """A file that grows by a line for everything that is done; a line that is no good is as if it were not there.

    Raises TrtgateError when another sweep is writing it, or it can't be written.
    """

    def __init__(self, folder: Path, header: JournalHeader, *, fresh: bool) -> None:
        identity = msgspec.json.encode(msgspec.structs.replace(header, created=""))
        self.path = folder / f"{hashlib.sha256(identity).hexdigest()[:16]}.jsonl"
        self.built: dict[str, BuiltPoint] = {}
        self.timed: dict[tuple[str, int], Launch] = {}
        self.created = ""
        """When what was there before was begun; empty for a new file."""
        self.unreadable = 0
        """Lines that were no good, and are left where they are."""
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = open_shared(self.path.with_suffix(".lock"))
        if not try_lock(self._lock):
            os.close(self._lock)
            raise TrtgateError(f"another sweep of these models is under way here ({self.path})")
        if fresh:
            self.path.unlink(missing_ok=True)
        known = self._read()
        if not known:
            self.created = now() if self.built or self.timed else ""
            self._append(msgspec.structs.replace(header, created=self.created or now()))

    def close(self) -> None:
        """Let another sweep write it."""
        os.close(self._lock)

    def add(self, entry: Entry) -> None:
        """Write down what was done."""
        self._remember(entry)
        self._append(entry)

    def launches(self, case_id: str) -> list[Launch]:
        """Return what was measured of a point, by launch."""
        found = sorted((number, launch) for (name, number), launch in self.timed.items() if name == case_id)
        return [launch for _, launch in found]

    def _remember(self, entry: Entry) -> None:
        if isinstance(entry, BuiltPoint):
            self.built[entry.case_id] = entry
        else:
            self.timed[entry.case_id, entry.number] = entry.launch

    def _append(self, entry: JournalHeader | Entry) -> None:
        self._write(msgspec.json.encode(entry) + b"\n")

    def _write(self, line: bytes) -> None:
        try:
            with self.path.open("ab") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise TrtgateError(f"{self.path} could not be written: {error.strerror}") from error

    def _read(self) -> bool:
        """Read what is there; returns whether there was a header. A line that is no good costs no other.

        The file's name says what its lines belong to, so they count without a header too.
        """
        try:
            content = read_bytes(self.path)
        except FileNotFoundError:
            return False
        known = False
        for line in content.split(b"\n"):
            try:
                entry = decoded(line, JournalHeader | BuiltPoint | TimedPoint)
            except msgspec.DecodeError:
                self.unreadable += bool(line.strip())
                continue
            if isinstance(entry, JournalHeader):
                known, self.created = True, entry.created
            else:
                self._remember(entry)
        if content and not content.endswith(b"\n"):  # a line that a kill cut off: the next one begins anew
            self._write(b"\n")
        return known


def header_of(source: SuiteSource, accelerator: Accelerator) -> JournalHeader:
    """Return what decides the measurements, as far as files and versions say it; the source must have been loaded."""
    root = Path(source.root).resolve()
    loaded = {
        Path(file).resolve() for module in list(sys.modules.values()) if (file := getattr(module, "__file__", None))
    }
    own = Path(__file__).parents[1]  # this package: its version says which
    mine = [file for file in loaded if file.is_relative_to(root) and not file.is_relative_to(own)]
    files = {file for file in mine if "site-packages" not in file.parts}
    files |= {*source.suite_files().values(), *source.factory_files().values()}
    return JournalHeader(
        accelerator=accelerator, sources={str(file): _sha256(file) for file in sorted(files) if file.is_file()},
        weights={name: _sha256(Path(file)) for name, file in source.weights.items()},
        libraries={"trtgate": VERSION, **installed(LIBRARIES)},
    )  # fmt: skip


def _sha256(file: Path) -> str:
    try:
        return sealed_folder.digest(file)
    except OSError as error:
        raise TrtgateError(f"{file} can't be read: {error.strerror}") from error
