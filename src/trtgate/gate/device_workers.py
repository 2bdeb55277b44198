"""What a run needs of the workers on a device, wherever that is: a GPU of this host, or one of a cluster."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from ..common.accelerator import Accelerator
from ..common.steps import OnStep
from ..compiling.artifact_cache import CacheRequest
from ..launches import messages
from ..launches.base_revision import BaseRequest
from ..launches.pair import Artifacts
from ..launches.prebuild import Prebuilt
from ..launches.session import NextCase
from ..records.measurement import CaseMeasurement, ColdStart, LoadLaunch, Quadruple
from ..suite.cases import Case
from ..suite.suite_source import SuiteSource
from .policy import Pair, Situation


class WorkerOptions(Protocol):
    """What workers are told of how a run was asked for; `gate.run_options.Options` has it all."""

    @property
    def source(self) -> SuiteSource:
        """The suite."""

    @property
    def base(self) -> BaseRequest | None:
        """What is measured beside."""

    @property
    def streams(self) -> str:
        """The state of the GPU in which device latency is measured."""

    @property
    def launches(self) -> int:
        """Launches of each case."""

    @property
    def cold_starts(self) -> int:
        """Processes in which each case is started cold."""

    @property
    def load(self) -> int:
        """Threads, and processes, that call each case at once."""

    @property
    def timeout_s(self) -> float:
        """Longest step."""


class DeviceSession(Protocol):
    """Resident launches on one device, of this host or of another one: what `launches.session.Session` does."""

    def measure(
        self, case_id: str, artifact: Path | None, step: OnStep, after: Sequence[NextCase] = ()
    ) -> CaseMeasurement:
        """Measure a case in all launches."""

    def measure_host(
        self, case_id: str, artifact: Path | None, step: OnStep, after: Sequence[NextCase] = ()
    ) -> CaseMeasurement:
        """Measure what the host sees of a case."""

    def renew(self) -> None:
        """Replace the launches by fresh ones."""

    def cold_starts(
        self, case_id: str, artifact: Path | None, count: int, step: OnStep, *, kernels: bool = False
    ) -> tuple[list[ColdStart], list[ColdStart]]:
        """Load and run a case in fresh processes."""

    def under_load(
        self, case_id: str, artifact: Path | None, most: int, step: OnStep, *, launches: int
    ) -> list[LoadLaunch]:
        """Let many threads and processes call a case."""

    def profile(self, case_id: str, artifact: Path | None, step: OnStep) -> messages.ProfileReply:
        """Profile a case."""

    def check_fresh(self, case_id: str, artifact: Path, step: OnStep) -> dict[str, str]:
        """Compare a case with eager in a process of its own."""


class DeviceWorkers(Protocol):
    """All workers of a run on one device: `Workers` on this host, `fleet.ray_workers.RayWorkers` on a cluster's node.

    Paths of artifacts are paths of the host that has the device.
    """

    accelerator: Accelerator
    cold_starts: int
    load: int
    launches: int

    @property
    def session(self) -> DeviceSession:
        """Those that measure."""

    def start(self) -> list[str]:
        """Start the workers."""

    def build(
        self, case: Case, step: OnStep, cache: CacheRequest | None, *, builders: int = 1, profiled: bool = False,
        lifecycle: bool = False, in_turn: bool = False,
    ) -> Prebuilt:  # fmt: skip
        """Build a case; what went wrong is in the result."""

    def build_again(self, case_id: str, *, pairs_next: bool, cache: CacheRequest | None = None) -> Prebuilt:
        """Build a case in a fresh process; it takes the place of what the cache has."""

    def free(self, artifact: Path) -> None:
        """Give the disk that an artifact takes back."""

    def kept(self, case_id: str, recorded: str) -> tuple[Path | None, str]:
        """Return the compiled module that is kept of a baseline's session, or None and why there is none."""

    def pairs_beside_kept(
        self, situation: Situation, artifacts: Artifacts, wanted: Pair, step: OnStep
    ) -> list[list[Quadruple]]:
        """Measure beside such a module in fresh pairs."""

    def stop(self) -> None:
        """End the workers under another thread's hands."""

    def close(self) -> None:
        """End the workers."""
