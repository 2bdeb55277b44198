"""What a run and the actors of a Ray cluster say to each other: JSON, decoded by type, never unpickled."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from ..common.accelerator import Accelerator
from ..common.errors import FaultError, TrtgateError, is_fault
from ..launches.base_revision import BaseRequest
from ..launches.prebuild import Prebuilt
from ..launches.worker_handle import LaunchError
from ..suite.cases import Case
from ..suite.suite_source import SuiteSource
from .manifest import ManifestCase


class Suite(msgspec.Struct, frozen=True, kw_only=True):
    """A suite as the run has it: folders are those of the machine where pytest runs."""

    source: SuiteSource
    folder: str
    """Where pytest was started."""
    path: list[str]
    """Python's path there."""

    def here(self, root: Path) -> Suite:
        """Return the same suite below `root`, where Ray unpacked it; what lies elsewhere must be on every node."""
        old = os.path.realpath(self.source.root)
        moved = _Moved(old, str(root))
        source = msgspec.structs.replace(
            self.source,
            root=str(root),
            suites=tuple(map(moved.file, self.source.suites)),
            weights={name: moved.file(path) for name, path in self.source.weights.items()},
            sha256={moved.file(path): digest for path, digest in self.source.sha256.items()},
        )
        below = [entry for entry in self.path if moved.is_below(entry)]
        return Suite(source=source, folder=moved.file(self.folder), path=list(map(moved.file, below)))


class _Moved(msgspec.Struct, frozen=True):
    old: str
    new: str

    def is_below(self, path: str) -> bool:
        real = Path(os.path.realpath(path))
        return os.path.isabs(path) and real.is_relative_to(self.old) and "site-packages" not in real.parts

    def file(self, path: str) -> str:
        return str(Path(self.new) / os.path.relpath(os.path.realpath(path), self.old)) if self.is_below(path) else path


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What a node says of itself and of one device."""

    host: str
    node: str
    """Ray's name of the node."""
    accelerator: Accelerator
    python: str = ""
    ray: str = ""
    trtgate: str = ""
    """The version that is installed there; empty where none is. What runs there is the run's own."""
    release: str = ""
    """What stored coverage calls the release of torch_tensorrt there."""
    no_tensorrt: str = ""
    """Why it can't be used there at all."""
    no_modelopt: str = ""
    frontends: dict[str, str] = {}
    """Frontend → why it does not run there; empty where it does."""
    room: int = 1
    """How many processes the device's share of the node's CPUs and memory takes at once."""
    nice: int = 0
    """How much less than others its processes get of the CPU."""
    processes: list[str] = []
    """Others that use the card: process id and name."""
    problem: str = ""
    """Why it can't measure."""

    @property
    def name(self) -> str:
        """What messages call the device."""
        what = self.accelerator.uuid or f"{self.accelerator.cpus} CPUs"
        return f"{self.host} ({what}, node {self.node[:8]})"


class Open(Suite, frozen=True, kw_only=True):
    """The first request: which suite, and how it is measured."""

    streams: str
    cold_starts: int
    load: int
    launches: int
    timeout_s: float
    tensorrt: bool
    builders: int = 1
    """How many cases the device may build at once."""
    cases_at_once: int = 1
    """How many are loaded together."""
    base: BaseRequest | None = None


class BuildCase(msgspec.Struct, tag=True, kw_only=True):
    """Build a case into a folder of the node's."""

    case: ManifestCase
    cache: bool
    """Whether the node's artifact cache is used."""
    limit_bytes: int
    rebuild: bool
    builders: int = 1
    """How many cases are built on the node at once."""
    profiled: bool = False
    lifecycle: bool = False
    in_turn: bool = False
    """Whether nothing else is built on the device while this is; exporting, loading and comparing go on."""


class BuildAgain(msgspec.Struct, tag=True, kw_only=True):
    """Build a case in a fresh process."""

    case_id: str
    cache_bytes: int | None = None
    """How large the node's artifact cache may be, in which it takes the place of what is there; None: none is used."""


class MeasureCase(msgspec.Struct, tag=True, kw_only=True):
    """Measure a case in the resident launches; without `device` what the host sees alone."""

    case_id: str
    artifact: str | None
    device: bool = True
    after: list[tuple[str, str | None]] = []
    """Cases that may be loaded with it, and their artifacts: they are measured next."""


class Renew(msgspec.Struct, tag=True):
    """Replace the launches by fresh ones."""


class StartCold(msgspec.Struct, tag=True, kw_only=True):
    """Load and run a case in fresh processes."""

    case_id: str
    artifact: str | None
    count: int
    kernels: bool


class CallUnderLoad(msgspec.Struct, tag=True, kw_only=True):
    """Let many threads and processes call a case."""

    case_id: str
    artifact: str | None
    most: int
    launches: int


class ProfileCase(msgspec.Struct, tag=True, kw_only=True):
    """Profile a case."""

    case_id: str
    artifact: str | None


class CheckFresh(msgspec.Struct, tag=True, kw_only=True):
    """Compare a case with eager in a process of its own."""

    case_id: str
    artifact: str


class Free(msgspec.Struct, tag=True, kw_only=True):
    """Give the disk that an artifact takes back."""

    artifact: str


class AskAvailability(msgspec.Struct, tag=True, kw_only=True):
    """Say what this device can't take."""

    cases: list[ManifestCase]


Request = (
    BuildCase
    | BuildAgain
    | MeasureCase
    | Renew
    | StartCold
    | CallUnderLoad
    | ProfileCase
    | CheckFresh
    | Free
    | AskAvailability
)


def case_id_of(request: Request) -> str:
    """Return the case that a request is about; empty where it is about none, or many."""
    return request.case.id if isinstance(request, BuildCase) else str(getattr(request, "case_id", ""))


class Availability(msgspec.Struct, frozen=True):
    """Why a device does not take a case: what it lacks, or what is known to refuse it; empty where it takes it."""

    lacking: str = ""
    refused: str = ""


class BuiltCase(msgspec.Struct, frozen=True, kw_only=True):
    """What came of building a case; `artifact` is a folder of the node's."""

    prebuilt: dict[str, Any]
    artifact: str | None

    @classmethod
    def of(cls, made: Prebuilt) -> BuiltCase:
        """Return what building gave, to be sent."""
        plain = msgspec.to_builtins(msgspec.structs.replace(made, artifact=None))
        return cls(prebuilt=plain, artifact=None if made.artifact is None else str(made.artifact))

    @property
    def made(self) -> Prebuilt:
        """What building gave. Raises msgspec.ValidationError for anything else."""
        found = msgspec.convert({name: one for name, one in self.prebuilt.items() if name != "artifact"}, Prebuilt)
        return msgspec.structs.replace(found, artifact=None if self.artifact is None else Path(self.artifact))


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for, or why there is none."""

    value: msgspec.Raw = msgspec.Raw(b"null")
    problem: str = ""
    of_launch: bool = False
    """Whether a worker of the node is the problem's cause."""
    fault: bool = False
    """Whether the node is at fault: no space, no permission."""

    def checked(self) -> msgspec.Raw:
        """Return the value. Raises LaunchError, FaultError or TrtgateError as the node did."""
        if not self.problem:
            return self.value
        kind = LaunchError if self.of_launch else FaultError if self.fault else TrtgateError
        raise kind(self.problem) from (FaultError(self.problem) if self.fault else None)


def answered(work: Callable[[], Any]) -> bytes:
    """Return the reply that says what `work` returned or raised."""
    from ..common.errors import PROBLEMS, one_line, sentence_of

    try:
        reply = Reply(value=msgspec.Raw(msgspec.json.encode(work())))
    except PROBLEMS as error:
        of_launch = isinstance(error, LaunchError)
        reply = Reply(problem=sentence_of(error), of_launch=of_launch, fault=is_fault(error))
    except BaseException as error:  # whatever it is, a node says it in a line
        reply = Reply(problem=one_line(error), fault=is_fault(error))
    return msgspec.json.encode(reply)


def case_of(case: Case) -> ManifestCase:
    """Return a case as it is sent: what it is made of stays with the suite."""
    settings = msgspec.to_builtins(case.settings)
    return ManifestCase(id=case.id, model=case.model.name, settings=settings, limits={})
