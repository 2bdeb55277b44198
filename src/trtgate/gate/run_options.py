"""How a run was asked for, as one frozen record."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from ..common.metrics import METRICS
from ..common.run_places import Folder, Place
from ..compiling.artifact_cache import CacheRequest
from ..launches.base_revision import BaseRequest
from ..suite.cases import Case
from ..suite.selection import Selection
from ..suite.suite_source import SuiteSource
from ..timing.device_state import ONE

CHANGED_DAYS = 30.0
"""A session that is older says nothing of today's machine."""


class ChangedOnly(msgspec.Struct, frozen=True, kw_only=True):
    """How a run leaves out what did not change.

    Parameters
    ----------
    days
        How old a session may be.
    seed
        Decides, with a case's id, whether it is measured all the same.

    """

    days: float = CHANGED_DAYS
    seed: int = 0


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How a run was asked for."""

    source: SuiteSource
    selection: Selection
    baselines: Path
    compare: bool
    """Whether latencies are judged by stored baselines."""
    base: BaseRequest | None
    """What they are measured beside and judged by instead."""
    compare_file: Path | None
    """A baseline or saved run named by the user, instead of the one of this machine's accelerator key."""
    update: bool
    accepted: tuple[str, ...]
    require: frozenset[str]
    limits: dict[str, float]
    command_limits: dict[str, float]
    launches: int
    timeout_s: float
    strict_layers: bool
    """Whether layers that are not those of the stored profile fail."""
    zoo: bool
    """Whether coverage is asked of the zoo too."""
    report: Path | None
    """Where the run is to be written as one document."""
    cache: CacheRequest | None
    """Where compiled modules that were built before lie; None where none may be used."""
    prebuild: int | None
    """How many processes build before the first test, 0 for as many as the machine takes; None for none."""
    builds_in_turn: bool
    """Whether only one of those builds at a time, while the others export, load and compare."""
    gpus: str
    """Which GPUs share the cases, as the command line says it; empty for the one that CUDA sees first."""
    build_only: bool
    """Whether cases are built for later runs, and that is all."""
    timing_off: str
    """Why nothing can be timed in this run; empty when it can."""
    streams: str = ONE
    """The state of the GPU in which device latency is measured."""
    cold_starts: int = 0
    """Processes in which each case is loaded and run once."""
    load: int = 0
    """How many threads, and processes, call each case at once; 0 for no such measurement."""
    changed_only: ChangedOnly | None = None
    """How device latencies are left out that nothing changed; None where all are measured."""
    lifecycle: bool = False
    """Whether accuracy is asked of a module in all ways in which it may be called, and in other processes."""

    shard: str = ""
    """Which part of the cases this run takes, such as `2/8`; empty for all."""
    shard_by: str = ""
    """What stays together in a shard."""
    confirm: Place | None = None
    """What `trtgate merge` left to be confirmed."""
    resume: bool = False
    """Whether what such a run measured before it was ended is taken from where runs are kept."""
    ray: str = ""
    """The address of the Ray cluster whose devices measure; empty for this machine's."""
    accelerators: tuple[str, ...] = ()
    """Which kinds of these; empty for whichever there are."""
    runs: Folder | None = None
    """Where runs are kept that outlive this machine."""

    @property
    def part_label(self) -> str:
        """What the name of the run's file says of its part; empty for a whole run."""
        if self.confirm is not None:
            return "confirmation-"
        return f"shard-{self.shard.replace('/', '-of-')}-" * bool(self.shard)

    def limit(self, metric: str, case: Case, marker: Mapping[str, float]) -> float:
        """Return the limit of a metric: command line, marker, case, model, ini file, the first that has it."""
        for source in (self.command_limits, marker, case.settings.limits, case.model.limits, self.limits):
            if metric in source:
                return source[metric]
        return METRICS[metric].limit
