"""Drives pairs of workers: the resident one, and others where a suspicion asks for them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from ..common import machine
from ..common.accelerator import Accelerator
from ..common.steps import OnStep
from ..records.measurement import Loaded
from ..records.profile_record import Profile
from ..verdict import LOOKS
from . import messages
from .comparison_side import Side
from .pair import BASE, CANDIDATE, Artifacts, Pair, SideError
from .worker_handle import WorkerHandle
from .worker_pool import WorkerPool

CONTEXT_BYTES = 1 << 30
"""What a process takes on a GPU beside a case: its context, and what the libraries load."""
UNKNOWN_FOOTPRINT_BYTES = 2 << 30
IDLE_SHARE = 0.2
"""Of a GPU's memory: what pairs may hold of it that wait for the next suspicion."""
IMPORTED_BYTES = 1 << 29
"""What a process takes of a host's memory that has imported PyTorch: as much again must be left to others."""


class PairSession:
    """A resident pair for all cases, and fresh pairs where a suspicion asks for them.

    Parameters
    ----------
    folder
        Where the workers' logs go.
    timeout_s
        The longest that a single step of a worker may take.
    reuse
        Whether a pair that confirmed one suspicion may be asked of another case: its processes have imported by then.

    """

    def __init__(
        self, base: Side, candidate: Side, accelerator: Accelerator, folder: Path, *, timeout_s: float,
        reuse: bool = False,
    ) -> None:  # fmt: skip
        self._sides = {BASE: base, CANDIDATE: candidate}
        self._pool = WorkerPool(accelerator, folder, timeout_s=timeout_s)
        self._gpu = accelerator.kind == "gpu"
        self._started = 0
        self._reuse = reuse
        self._pairs: list[Pair] = []
        self._idle: list[Pair] = []
        self._resident: Pair | None = None
        self._footprint_bytes: dict[str, int] = {}
        self.rng = random.Random()

    def resident(self) -> Pair:
        """Return the pair that stays, started now if there is none: it imports while the caller goes on."""
        if self._resident is None:
            self._resident = self.start(1)[0]
        return self._resident

    def start(self, count: int) -> list[Pair]:
        """Start fresh pairs, all at once; they import side by side, and sleep until they are asked."""
        made = []
        for _ in range(count):
            self._started += 1
            workers = {name: self._worker(side) for name, side in self._sides.items()}
            made.append(Pair(workers[BASE], workers[CANDIDATE], gpu=self._gpu))
        self._pairs += made
        return made

    def take(self, count: int, cases: Iterable[str]) -> list[Pair]:
        """Return pairs that have loaded none of these cases: those that wait, and others, started now."""
        free = [pair for pair in self._idle if pair.cases.isdisjoint(cases)][:count]
        self._idle = [pair for pair in self._idle if pair not in free]
        return [*free, *self.start(count - len(free))]

    def expect(self, case_id: str) -> None:
        """Start the pairs that a first look at a suspicion asks for, so that they import while it is built again.

        Not on a CPU, which has the build to do, nor where memory is short.
        """
        if self._reuse and self._gpu and self._has_room(LOOKS[0]):
            self._idle = [*self.take(LOOKS[0], [case_id]), *self._idle]

    def imported(self) -> None:
        """Wait until the pairs that wait for a case have imported; one that can't is ended, and missed later."""
        for pair in list(self._idle):
            with suppress(SideError):
                self.greet(pair)

    def put_back(self, pairs: Sequence[Pair]) -> None:
        """Let pairs that have unloaded what they measured wait for another case, or end them.

        As many wait as the first look at a suspicion asks for, where these leave enough memory to others.
        """
        waiting = [*pairs, *self._idle]
        self._idle = waiting[: LOOKS[0]] if self._reuse and self._has_room(LOOKS[0]) else []
        for pair in waiting:
            if pair not in self._idle:
                self.end(pair)

    def _has_room(self, pairs: int) -> bool:
        """Whether so many pairs may wait: they hold a context each on a GPU, and elsewhere what they have imported."""
        if self._gpu:
            return 2 * pairs * CONTEXT_BYTES <= IDLE_SHARE * self._pool.accelerator.memory_bytes
        return 2 * pairs * IMPORTED_BYTES <= machine.memory_bytes()

    def _worker(self, side: Side) -> WorkerHandle:
        return self._pool.start(side, f"{side.name}-{self._started}", number=self._started)

    def end(self, pair: Pair) -> None:
        """End a pair."""
        self._pool.end(*pair.workers.values())
        self._pairs = [other for other in self._pairs if other is not pair]
        self._idle = [other for other in self._idle if other is not pair]
        if pair is self._resident:
            self._resident = None

    def stop(self) -> None:
        """End the processes under another thread's hands: it sees them gone, and is to call `close`."""
        self._pool.stop()

    def close(self) -> None:
        """End all pairs."""
        for pair in list(self._pairs):
            self.end(pair)

    def greet(self, pair: Pair) -> dict[str, list[str]]:
        """Return the cases of either side's suite. Raises SideError; the pair is ended then."""
        with self._ending(pair):
            return pair.greet()

    def unload(self, pair: Pair) -> None:
        """Free a case on both sides. Raises SideError; the pair is ended then."""
        with self._ending(pair):
            pair.unload()

    @contextmanager
    def _ending(self, pair: Pair) -> Iterator[None]:
        """Within: whatever goes wrong ends a pair, so that the next case starts clean."""
        try:
            yield
        except BaseException:
            self.end(pair)
            raise

    def build(
        self, pair: Pair, case_id: str, folders: dict[str, Path], *, shared: bool = False
    ) -> dict[str, messages.BuiltReply]:
        """Build a case on the sides that have a folder. Raises SideError; the pair is ended then.

        With `shared`, a side that built it for another shape in this run takes that.
        """
        with self._ending(pair), self._pool.device(shared=True):
            return pair.build(case_id, folders, shared=shared)

    @contextmanager
    def fresh(self) -> Iterator[Pair]:
        """Within: a pair of its own, which ends with it."""
        (pair,) = self.start(1)
        try:
            yield pair
        finally:
            self.end(pair)

    def profile(self, case_id: str, step: OnStep) -> dict[str, Profile]:
        """Profile a case on either side, in a pair of its own: a profiler leaves traces. Raises SideError."""
        with self.fresh() as pair, self._pool.device(step):
            step("profiling base and candidate")
            return pair.profile(case_id)

    def load_resident(self, case_id: str, artifacts: Artifacts, *, measure_memory: bool = True) -> Pair:
        """Load a case in the resident pair, measuring the memory that it takes. Raises SideError; the pair is ended."""
        pair = self.resident()
        with self._ending(pair), self._pool.device(shared=not measure_memory):  # memory is the whole device's
            pair.load(case_id, artifacts, measure_memory=measure_memory)
        taken = max(loaded.gpu_memory_bytes or 0 for loaded in pair.loaded.values())
        if taken:
            self._footprint_bytes[case_id] = taken
        return pair

    def replace_resident(self, pair: Pair) -> None:
        """End the resident pair, and let one that was started before take its place."""
        self.end(self.resident())
        self._resident = pair

    def at_once(self, case_id: str) -> int:
        """Return in how many pairs the case may be loaded at the same time: three fifths of the device's memory."""
        if not self._gpu:
            return LOOKS[0]
        a_pair = 2 * (self._footprint_bytes.get(case_id, UNKNOWN_FOOTPRINT_BYTES) + CONTEXT_BYTES)
        return max(1, int(0.6 * self._pool.accelerator.memory_bytes / a_pair))

    def load_fresh(self, case_id: str, artifacts: Artifacts) -> dict[str, Loaded]:
        """Load a case in a pair of its own, measuring the memory. Raises SideError."""
        with self.fresh() as pair, self._pool.device():
            pair.load(case_id, artifacts, measure_memory=True)
            return pair.loaded

    def load(self, pairs: Sequence[Pair], case_id: str, artifacts: Artifacts) -> None:
        """Load a case in several pairs at once. Raises SideError; all of them are ended then."""
        try:
            with self._pool.device(shared=True):
                for pair in pairs:
                    pair.begin_load(case_id, artifacts)
                for pair in pairs:
                    pair.await_loaded()
        except BaseException:
            for pair in pairs:
                self.end(pair)
            raise

    def measure(self, pair: Pair, enough: Callable[[Pair], bool], step: OnStep, *, delay: float = 0.0) -> float:
        """Measure quadruples of what is loaded until `enough` says so after one of them.

        `delay` makes the candidate slower on purpose; what came of it is returned. Raises SideError or DisturbedError;
        the pair is ended then, and the session goes on.
        """
        with self._ending(pair), self._pool.device(step):
            pair.quadruples = []
            delayed = pair.delay(delay) if delay else 0.0
            step("warming up")
            pair.warm_up(self.rng)
            step("measuring base and candidate in turns")
            while True:
                pair.quadruple(self.rng)
                if enough(pair):
                    break
            if delay:
                pair.delay(0.0)
            return delayed
