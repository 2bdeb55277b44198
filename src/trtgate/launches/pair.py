"""A pair of workers, base and candidate, that share a device: one active at a time, interleaved by quadruples."""

from __future__ import annotations

import os
import random
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec

from ..records.measurement import CaseMeasurement, Launch, Loaded, Quadruple, Turn
from ..records.profile_record import Profile
from ..timing import plans
from . import messages
from .worker_handle import KilledError, LaunchError, WorkerHandle

RETRIES = 20
"""How often a turn of which no block counts is asked for again."""
BASE, CANDIDATE = "base", "candidate"


class SideError(LaunchError):
    """A worker of one side failed; `side` says whose."""

    def __init__(self, side: str, reason: str) -> None:
        super().__init__(reason)
        self.side = side

    @property
    def killed(self) -> bool:
        """Whether something outside killed the worker."""
        return isinstance(self.__cause__, KilledError)


class DisturbedError(LaunchError):
    """No block of a turn counted, again and again; nobody's code is at fault."""


class DelayRefusedError(LaunchError):
    """The case is too short for a delay; both sides still hold it, as fast as it is."""


class Artifacts(msgspec.Struct, frozen=True, kw_only=True):
    """What either side loads: a stored compiled module, or None to build."""

    base: Path | None
    candidate: Path | None


class NextPair(NamedTuple):
    """A case that is measured later, and what either side of it loads."""

    case_id: str
    artifacts: Artifacts


class Pair:
    """Two workers. Use `PairSession`."""

    def __init__(self, base: WorkerHandle, candidate: WorkerHandle, *, gpu: bool) -> None:
        self.workers = {BASE: base, CANDIDATE: candidate}
        self._gpu = gpu
        self._warm_up = plans.WARM_UP_ON_GPU if gpu else plans.WARM_UP_ON_CPU
        self.cases: set[str] = set()
        """Those that it has loaded so far: of each case a pair is evidence once."""
        self.holds = ""
        """The case that it was asked to load last."""
        self._at_work = ""
        """The side that measured last; none where both did since either read the device."""
        self.loaded: dict[str, Loaded] = {}
        self.warm: dict[str, Turn] = {}
        self.quadruples: list[Quadruple] = []

    def greet(self) -> dict[str, list[str]]:
        """Wait until both have imported their suites; returns the cases of each. Raises SideError."""
        found = {}
        for name, worker in self.workers.items():
            with _blaming(name):
                found[name] = worker.greet()
        return found

    def build(self, case_id: str, folders: dict[str, Path], *, shared: bool = False) -> dict[str, messages.BuiltReply]:
        """Build a case on the sides that have a folder, one after the other: neither disturbs the other's time.

        With `shared`, each side keeps what it builds for other shapes of the case.
        """
        self.greet()
        built = {}
        for name in random.sample(sorted(folders), len(folders)):
            with _blaming(name):
                cache = f"{messages.SHARED}-{name}" if shared else ""
                request = messages.BuildCase(case_id=case_id, folder=str(folders[name]), shared=cache)
                built[name] = self.workers[name].ask(request, messages.BuiltReply, "building")
        return built

    def profile(self, case_id: str, artifacts: Artifacts) -> dict[str, Profile]:
        """Profile a case on either side, which builds what is not stored; only while the device's lock is held."""
        self.greet()
        found = {}
        for name, artifact in ((BASE, artifacts.base), (CANDIDATE, artifacts.candidate)):
            worker = self.workers[name]
            with _blaming(name):
                request = messages.RecordProfile(case_id=case_id, artifact=None if artifact is None else str(artifact))
                found[name] = worker.ask(request, messages.ProfileReply, "profiling").profile
        return found

    def begin_load(self, case_id: str, artifacts: Artifacts, *, pairs: int = 1) -> None:
        """Ask both sides to load, and return at once; `await_loaded` before anything else. `pairs` load at once."""
        self.greet()
        self.loaded, self.warm, self.quadruples = {}, {}, []
        self.holds = case_id
        self.cases.add(case_id)
        for name, artifact in ((BASE, artifacts.base), (CANDIDATE, artifacts.candidate)):
            path = None if artifact is None else str(artifact)
            self.workers[name].send(messages.Load(case_id=case_id, artifact=path, at_once=len(self.workers) * pairs))

    def await_loaded(self) -> None:
        """Wait until both sides have loaded what they were asked to."""
        for name, worker in self.workers.items():
            with _blaming(name):
                self.loaded[name] = worker.receive(messages.LoadedReply, "loading").loaded

    def delay(self, share: float) -> float:
        """Make the candidate slower by a share of its latency from here on; returns the share that came of it.

        Only while the device's lock is held. 0 takes the delay away again. Raises SideError or DelayRefusedError.
        """
        with _blaming(CANDIDATE):
            request = messages.Delay(share=share)
            reply = self.workers[CANDIDATE].ask(request, messages.DelayedReply, "delaying")
        if reply.too_short:
            raise DelayRefusedError(reply.too_short)
        return reply.share

    def unload(self, *, measure_memory: bool = False) -> None:
        """Free the case on both sides, one after the other.

        With `measure_memory`, only while the device's lock is held, `loaded` has the GPU memory that each gave back.
        """
        request = messages.Unload(measure_memory=measure_memory)
        for name, worker in self.workers.items():
            with _blaming(name):
                freed = worker.ask(request, messages.UnloadedReply, "unloading").gpu_memory_bytes
            if measure_memory:
                self.loaded[name] = msgspec.structs.replace(self.loaded[name], gpu_memory_bytes=freed)

    def warm_up(self, rng: random.Random) -> None:
        """Warm either side up; call it, and `quadruple`, only while the device's lock is held."""
        for name in (BASE, CANDIDATE):
            self.warm[name] = self._turn(name, self._warm_up, rng)

    def quadruple(self, rng: random.Random, *, device: bool = True) -> Quadruple:
        """Measure ABBA or BAAB, at random; the result is kept in `quadruples` too.

        What the host takes is measured on one CPU, another one in every quadruple, where somebody else may be at work.
        Calls of either side that start threads may run on all: on one CPU these would gain nothing. Without `device`
        the host alone is measured of a GPU, for longer.
        """
        order = rng.choice(((BASE, CANDIDATE, CANDIDATE, BASE), (CANDIDATE, BASE, BASE, CANDIDATE)))
        threads = any(turn.starts_threads for turn in self.warm.values())
        cpu = None if threads else rng.choice(sorted(os.sched_getaffinity(0)))
        if not self._gpu:
            places = self._in_turns(order, msgspec.structs.replace(plans.PAIR_ON_CPU, cpu=cpu), rng)
        elif device:
            of_device = self._in_turns(order, plans.PAIR_ON_GPU, rng)
            of_host = self._in_turns(order, self._of_host(plans.PAIR_OF_HOST, cpu), rng)
            self._at_work = ""  # both were, since either's last turn of the device
            places = [with_host(*one) for one in zip(of_device, of_host, strict=True)]
        else:
            places = self._in_turns(order, self._of_host(plans.PAIR_OF_HOST_ALONE, cpu), rng)
        turns: dict[str, list[Turn]] = {BASE: [], CANDIDATE: []}
        for name, turn in zip(order, places, strict=True):
            turns[name].append(turn)
        found = Quadruple(base=turns[BASE], candidate=turns[CANDIDATE])
        self.quadruples.append(found)
        return found

    def _in_turns(self, order: Sequence[str], plan: plans.Plan, rng: random.Random) -> list[Turn]:
        """Go through an order as often as the plan has turns; those of one place in it count as one."""
        visits = [[self._turn(name, plan, rng) for name in order] for _ in range(plan.turns)]
        return [together(of_place) for of_place in zip(*visits, strict=True)]

    def _of_host(self, plan: plans.Plan, cpu: int | None) -> plans.Plan:
        """Return how host latency is measured on a GPU: in fewer turns where a call is longer than one."""
        call_s = max(statistics.median(turn.host_us) for turn in self.warm.values()) / 1e6
        turns = max(1, min(plan.turns, int(plan.turns * plan.host_s / call_s)))
        return msgspec.structs.replace(plan, turns=turns, cpu=cpu)

    def _turn(self, name: str, plan: plans.Plan, rng: random.Random) -> Turn:
        with _blaming(name):
            for _ in range(RETRIES):
                plan = msgspec.structs.replace(plan, after_other=self._at_work != name)
                self._at_work = name
                request = messages.Measure(plan=plan, seed=rng.getrandbits(32))
                turn = self.workers[name].ask(request, messages.TurnReply, "measuring").turn
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


def together(turns: Sequence[Turn]) -> Turn:
    """Return turns of one side as if they were one: their captures hold the blocks of all."""
    first = turns[0]
    captures = [
        msgspec.structs.replace(
            captures[0],
            blocks_us=[us for one in captures for us in one.blocks_us],
            void=[reason for one in captures for reason in one.void],
            sm_mhz=[mhz for one in captures for mhz in one.sm_mhz],
        )
        for captures in zip(*(turn.captures for turn in turns), strict=True)
    ]
    return msgspec.structs.replace(
        first,
        captures=captures,
        host_us=[us for turn in turns for us in turn.host_us],
        enqueue_us=[us for turn in turns for us in turn.enqueue_us],
        states=[state for turn in turns for state in turn.states],
        steady=all(turn.steady for turn in turns),
        seconds=sum(turn.seconds for turn in turns),
        note=next((turn.note for turn in turns if turn.note), ""),
    )


def with_host(device: Turn, host: Turn) -> Turn:
    """Return a turn that has its device latency from one, and what the host sees from another."""
    return msgspec.structs.replace(
        device, host_us=host.host_us, enqueue_us=host.enqueue_us, seconds=device.seconds + host.seconds
    )


@contextmanager
def _blaming(side: str) -> Iterator[None]:
    try:
        yield
    except LaunchError as error:
        raise SideError(side, str(error)) from error
