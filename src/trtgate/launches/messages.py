"""What a session and its workers say to each other: one JSON line a message over a pipe."""

from __future__ import annotations

from typing import Any

import msgspec

from ..compiling.artifact_cache import CacheRequest
from ..records.agreement_record import Agreement
from ..records.coverage_record import Coverage
from ..records.measurement import Build, ColdStart, Loaded, Turn
from ..records.profile_record import Profile
from ..records.program_part import Fingerprint
from ..suite.suite_source import SuiteSource
from ..timing.device_state import ONE
from ..timing.plans import Plan
from . import load_messages

SHARED = "shared"
"""What a run calls the cache of modules that its cases share."""


class Hello(msgspec.Struct, tag=True, kw_only=True):
    """The first message: where the suite is and which device to use ("cuda" or "cpu", its UUID or "").

    `sys_path` are the folders, all absolute, that come first in the worker's own path. `standard` are modules of the
    standard library that are imported before these are there, since a file in them may have the name of one. `moved` is
    (a folder, another that stands in for it): what `sys_path` and Python's own path take from the first is taken from
    the second where it exists there. `tensorrt` says that there will be cases that need torch_tensorrt.
    `streams` is the state that device latency is measured in, and `switcher` the process that helps to set it
    (`timing/stream_state.py`).
    """

    source: SuiteSource
    device: str
    uuid: str
    sys_path: list[str]
    standard: list[str] = []
    moved: tuple[str, str] | None = None
    tensorrt: bool = False
    streams: str = ONE
    switcher: str = ""


class BuildCase(msgspec.Struct, tag=True, kw_only=True):
    """Build a case, compare it with eager, store its artifact in `folder` if its frontend has one, and let go of it.

    With a `cache` it is taken from there if it is there, and put there if not. `builders` are at work at once. With
    `keep` it stays until the next request: to be profiled, or measured where nothing is stored.
    """

    case_id: str
    folder: str
    cache: CacheRequest | None = None
    builders: int = 1
    agreement_inputs: int = 0
    """Over how many inputs its accuracy is asked; 0 for not at all."""
    lifecycle: bool = False
    """Whether it is compared in all ways in which it may be called (`compiling/lifecycle.py`)."""
    keep: bool = False
    in_turn: bool = False
    """Whether it answers `Prepared` before it builds, builds when it is told to go on, and answers `Compiled` then:
    nobody else builds in between."""
    shared: str = ""
    """The name of a cache beside `folder`, of this run alone: cases that differ in their shape find there what one of
    them built. Empty: each is built."""


class Load(msgspec.Struct, tag=True, kw_only=True):
    """Load a case from `artifact`, or build it when that is None, and compare its output with eager's."""

    case_id: str
    artifact: str | None
    at_once: int = 1
    """How many processes load at once, this one counted."""
    in_turn: bool = False
    """Whether it answers `Prepared` when it has built the case, and compares when it is told to go on: nobody else of
    those that load at once computes then."""
    lifecycle: bool = False
    """As `BuildCase` has it."""


class Measure(msgspec.Struct, tag=True, kw_only=True):
    """Measure the loaded case once; `seed` randomises placement."""

    plan: Plan
    seed: int


class Delay(msgspec.Struct, tag=True, kw_only=True):
    """Make every inference longer on purpose, by a share of its latency (`trtgate selfcheck`); 0 undoes it."""

    share: float


class RecordProfile(msgspec.Struct, tag=True, kw_only=True):
    """Profile a case layer by layer, and let go of it.

    It is what the last request kept; else what `artifact` holds, if layers can be seen in it; else it is built.
    """

    case_id: str
    artifact: str | None = None


class StartCold(msgspec.Struct, tag=True, kw_only=True):
    """Load a case from `artifact`, or build it when that is None, and run it once; the process did nothing before.

    `kernels` says that its engines take theirs from the artifact's runtime cache.
    """

    case_id: str
    artifact: str | None
    kernels: bool = False


class DryRun(msgspec.Struct, tag=True, kw_only=True):
    """Ask Torch-TensorRT's partitioner what it would take of a case; nothing is built, and no GPU is needed."""

    case_id: str


class FingerprintCase(msgspec.Struct, tag=True, kw_only=True):
    """Say what a case is, beside the machine: export it on the CPU, and build nothing.

    The module of the case before serves if the same call of a factory makes it, unless a `fresh` one is asked for.
    `last` says that no further case will want it.
    """

    case_id: str
    fresh: bool = False
    last: bool = False


class Unload(msgspec.Struct, tag=True, kw_only=True):
    """Free the loaded case.

    `measure_memory` asks for the GPU memory that this gives back; nobody else may take or free any meanwhile.
    """

    measure_memory: bool = False


class GoOn(msgspec.Struct, tag=True):
    """Build what is prepared, or compare what is built."""


Request = (
    Hello
    | BuildCase
    | GoOn
    | Load
    | Delay
    | Measure
    | RecordProfile
    | StartCold
    | load_messages.BeginLoad
    | load_messages.EndLoad
    | load_messages.MeasureColdL2
    | load_messages.ReadMemory
    | DryRun
    | FingerprintCase
    | Unload
)


class Greeting(msgspec.Struct, tag=True):
    """The suite is imported, and has these cases."""

    cases: list[str]


class Prepared(msgspec.Struct, tag=True):
    """The case is exported and must be built, as it is in no cache; or it is built, and must be compared with eager."""


class Compiled(msgspec.Struct, tag=True):
    """The case that was built in turn is compiled, or there is nothing to compile: others may build from now on."""


class BuiltReply(msgspec.Struct, tag=True):
    """The case is built and right; `stored` says whether there is an artifact."""

    build: Build
    stored: bool
    coverage: Coverage | None = None
    notes: list[str] = []
    agreement: Agreement | None = None


class UnloadedReply(msgspec.Struct, tag=True, kw_only=True):
    """Nothing is loaded any more."""

    gpu_memory_bytes: int | None = None


class LoadedReply(msgspec.Struct, tag=True):
    """The case is loaded and has run once."""

    loaded: Loaded


class ColdReply(msgspec.Struct, tag=True):
    """The case was loaded and run once."""

    cold: ColdStart


class DelayedReply(msgspec.Struct, tag=True):
    """By which share of its latency the module is slower now, as measured.

    `too_short` says why it takes no such delay; it is as fast as before then.
    """

    share: float
    too_short: str = ""


class TurnReply(msgspec.Struct, tag=True):
    """One turn's measurements."""

    turn: Turn


class ProfileReply(msgspec.Struct, tag=True):
    """The profile of the case."""

    profile: Profile
    information: dict[str, Any] = {}
    """Name of the part → what the inspector says of its engine."""


class DryRunReply(msgspec.Struct, tag=True):
    """What would go into which engines."""

    coverage: Coverage


class FingerprintReply(msgspec.Struct, tag=True):
    """What the case is."""

    fingerprint: Fingerprint


class Failed(msgspec.Struct, tag=True):
    """The request failed. A worker that `ended` must be replaced: its CUDA context may be broken."""

    reason: str
    names_case: bool = False
    """Whether the reason is a sentence that names the case."""
    fault: bool = False
    """Whether the machine is at fault: no space, no permission."""
    ended: bool = True


Reply = (
    Greeting
    | Prepared
    | Compiled
    | BuiltReply
    | ColdReply
    | load_messages.LoadBegun
    | load_messages.LoadEnded
    | load_messages.ColdL2Reply
    | load_messages.MemoryReply
    | LoadedReply
    | UnloadedReply
    | DelayedReply
    | TurnReply
    | ProfileReply
    | DryRunReply
    | FingerprintReply
    | Failed
)

_request = msgspec.json.Decoder(Request)
_reply = msgspec.json.Decoder(Reply)
_encoder = msgspec.json.Encoder()


def encode(message: Request | Reply) -> bytes:
    """Return one line."""
    return _encoder.encode(message) + b"\n"


def decode_request(line: bytes) -> Request:
    """Return the request of a line. Raises msgspec.DecodeError or ValidationError."""
    return _request.decode(line)


def decode_reply(line: bytes) -> Reply:
    """Return the reply of a line. Raises msgspec.DecodeError or ValidationError."""
    return _reply.decode(line)
