"""Drives pairs of workers, base and candidate, that share a device: one active at a time, interleaved by quadruples."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from . import protocol
from .accelerator import Accelerator
from .records import CaseMeasurement, Launch, Loaded, Quadruple, Turn
from .session import Step
from .side import Side
from .timing import loop
from .timing.lock import device_lock
from .worker_handle import LaunchError, WorkerHandle

RETRIES = 20
"""How often a turn of which no block counts is asked for again."""
BASE, CANDIDATE = "base", "candidate"


class SideError(LaunchError):
    """A worker of one side failed; `side` says whose."""

    def __init__(self, side: str, reason: str) -> None:
        super().__init__(reason)
        self.side = side


class DisturbedError(LaunchError):
    """No block of a turn counted, again and again; nobody's code is at fault."""


class Artifacts(msgspec.Struct, frozen=True, kw_only=True):
    """What either side loads: a stored compiled module, or None to build; and a known delay of the candidate."""

    base: Path | None
    candidate: Path | None
    delay: float = 0.0


class Pair:
    """Two workers. Use `PairSession`."""

    def __init__(self, base: WorkerHandle, candidate: WorkerHandle, timeout_s: float, *, gpu: bool) -> None:
        self.workers = {BASE: base, CANDIDATE: candidate}
        self._timeout_s = timeout_s
        self._plan = loop.PAIR_ON_GPU if gpu else loop.PAIR_ON_CPU
        self._warm_up = loop.WARM_UP_ON_GPU if gpu else loop.WARM_UP_ON_CPU
        self.loaded: dict[str, Loaded] = {}
        self.warm: dict[str, Turn] = {}
        self.quadruples: list[Quadruple] = []

    def greet(self) -> dict[str, list[str]]:
        """Wait until both have imported their suites; returns the cases of each. Raises SideError."""
        found = {}
        for name, worker in self.workers.items():
            with _blaming(name):
                found[name] = worker.greet(self._timeout_s)
        return found

    def build(self, case_id: str, folders: dict[str, Path]) -> dict[str, protocol.BuiltReply]:
        """Build a case on either side, one after the other, so that neither disturbs the other's build time."""
        self.greet()
        built = {}
        for name in random.sample(sorted(self.workers), 2):
            with _blaming(name):
                request = protocol.BuildCase(case_id=case_id, folder=str(folders[name]))
                built[name] = self.workers[name].ask(request, protocol.BuiltReply, self._timeout_s, "building")
        return built

    def load(self, case_id: str, artifacts: Artifacts, *, measure_memory: bool) -> None:
        """Load a case on both sides, one after the other: the device's memory then shows what each takes."""
        self.greet()
        self.loaded, self.warm, self.quadruples = {}, {}, []
        for name, artifact in ((BASE, artifacts.base), (CANDIDATE, artifacts.candidate)):
            with _blaming(name):
                request = protocol.Load(
                    case_id=case_id,
                    artifact=None if artifact is None else str(artifact),
                    delay=artifacts.delay if name == CANDIDATE else 0.0,
                    measure_memory=measure_memory,
                )
                reply = self.workers[name].ask(request, protocol.LoadedReply, self._timeout_s, "loading")
                self.loaded[name] = reply.loaded

    def unload(self) -> None:
        """Free the case on both sides."""
        for name, worker in self.workers.items():
            with _blaming(name):
                worker.ask(protocol.Unload(), protocol.Ready, self._timeout_s, "unloading")

    def warm_up(self, rng: random.Random) -> None:
        """Warm either side up; call it, and `quadruple`, only while the device's lock is held."""
        for name in (BASE, CANDIDATE):
            self.warm[name] = self._turn(name, self._warm_up, rng)

    def quadruple(self, rng: random.Random) -> Quadruple:
        """Measure ABBA or BAAB, at random; the result is kept in `quadruples` too."""
        order = rng.choice(((BASE, CANDIDATE, CANDIDATE, BASE), (CANDIDATE, BASE, BASE, CANDIDATE)))
        turns: dict[str, list[Turn]] = {BASE: [], CANDIDATE: []}
        for name in order:
            turns[name].append(self._turn(name, self._plan, rng))
        found = Quadruple(base=turns[BASE], candidate=turns[CANDIDATE])
        self.quadruples.append(found)
        return found

    def _turn(self, name: str, plan: loop.Plan, rng: random.Random) -> Turn:
        with _blaming(name):
            for _ in range(RETRIES):
                request = protocol.Measure(plan=plan, seed=rng.getrandbits(32))
                turn = self.workers[name].ask(request, protocol.TurnReply, self._timeout_s, "measuring").turn
                if all(capture.blocks_us for capture in turn.captures):
                    return turn
        reason = next(reason for capture in turn.captures for reason in capture.void)
        raise DisturbedError(f"blocks of the {name} do not count: {reason}")

    def measurement(self, case_id: str, side: str) -> CaseMeasurement:
        """Return what was measured of one side as one launch; its warm-up lends its canary, and no samples."""
        turns = [turn for quadruple in self.quadruples for turn in getattr(quadruple, side)]
        warm = self.warm[side]
        turns = [msgspec.structs.replace(turn, canary_us=warm.canary_us) for turn in turns]
        return CaseMeasurement(case_id=case_id, launches=[Launch(loaded=self.loaded[side], turns=turns)])

    def close(self) -> None:
        """End both workers."""
        for worker in self.workers.values():
            worker.kill()


@contextmanager
def _blaming(side: str) -> Iterator[None]:
    try:
        yield
    except LaunchError as error:
        raise SideError(side, str(error)) from error


class PairSession:
    """A resident pair for all cases, and fresh pairs where a suspicion asks for them.

    Parameters
    ----------
    folder
        Where the workers' logs go.
    timeout_s
        The longest that a single step of a worker may take.

    """

    def __init__(
        self, base: Side, candidate: Side, accelerator: Accelerator, folder: Path, *, timeout_s: float
    ) -> None:
        self._sides = {BASE: base, CANDIDATE: candidate}
        self._accelerator = accelerator
        self._folder = folder
        self._timeout_s = timeout_s
        self._gpu = accelerator.kind == "gpu"
        self._started = 0
        self._pairs: list[Pair] = []
        self._resident: Pair | None = None
        self.rng = random.Random()

    def resident(self) -> Pair:
        """Return the pair that stays, started now if there is none: it imports while the caller goes on."""
        if self._resident is None:
            self._resident = self.start(1)[0]
        return self._resident

    def start(self, count: int) -> list[Pair]:
        """Start fresh pairs, all at once; they import side by side, and sleep until they are asked."""
        self._folder.mkdir(parents=True, exist_ok=True)
        made = []
        for _ in range(count):
            self._started += 1
            workers = {name: self._worker(side) for name, side in self._sides.items()}
            made.append(Pair(workers[BASE], workers[CANDIDATE], self._timeout_s, gpu=self._gpu))
        self._pairs += made
        return made

    def _worker(self, side: Side) -> WorkerHandle:
        log = self._folder / f"{side.name}-{self._started}.log"
        return WorkerHandle(self._started, side, side.hello(self._accelerator), log)

    def end(self, pair: Pair) -> None:
        """End a pair."""
        pair.close()
        self._pairs = [other for other in self._pairs if other is not pair]
        if pair is self._resident:
            self._resident = None

    def close(self) -> None:
        """End all pairs."""
        for pair in list(self._pairs):
            self.end(pair)

    @contextmanager
    def device(self, step: Step) -> Iterator[None]:
        """Within: no other trtgate process times on the device."""
        with device_lock(
            self._accelerator.lock_name, self._timeout_s, lambda waited: step(f"waiting for the device, {waited:.0f} s")
        ):
            yield

    def build(self, pair: Pair, case_id: str, folders: dict[str, Path]) -> dict[str, protocol.BuiltReply]:
        """Build a case on either side. Raises SideError; the pair is ended then."""
        try:
            return pair.build(case_id, folders)
        except BaseException:
            self.end(pair)
            raise

    def load_fresh(self, case_id: str, artifacts: Artifacts) -> dict[str, Loaded]:
        """Load a case in a pair of its own, measuring the memory. Raises SideError."""
        (pair,) = self.start(1)
        try:
            pair.load(case_id, artifacts, measure_memory=True)
            return pair.loaded
        finally:
            self.end(pair)

    def measure(
        self, pair: Pair, case_id: str, artifacts: Artifacts, enough: Callable[[Pair], bool], step: Step
    ) -> None:
        """Load a case, measure quadruples until `enough` says so after one of them, and unload.

        Raises SideError or DisturbedError; the pair is ended then, and the session goes on.
        """
        try:
            step("loading base and candidate")
            pair.load(case_id, artifacts, measure_memory=pair is self._resident)
            with self.device(step):
                step("warming up")
                pair.warm_up(self.rng)
                step("measuring base and candidate in turns")
                while True:
                    pair.quadruple(self.rng)
                    if enough(pair):
                        break
            pair.unload()
        except BaseException:
            self.end(pair)  # whatever state they are in, the next case starts clean
            raise
