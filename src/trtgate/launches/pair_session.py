"""Drives pairs of workers: resident ones, and others where a suspicion asks for them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from ..common.accelerator import Accelerator
from ..common.spent_time import Work, during
from ..common.steps import OnStep
from ..records.measurement import Loaded
from ..records.profile_record import Profile
from ..verdict import LOOKS
from . import messages
from .comparison_side import Side
from .pair import BASE, CANDIDATE, Artifacts, DelayRefusedError, NextPair, Pair, SideError
from .pair_memory import PairMemory
from .worker_pool import WorkerPool


class PairSession:
    """A resident pair for all cases, or some of them, and fresh pairs where a suspicion asks for them.

    Parameters
    ----------
    folder
        Where the workers' logs go.
    timeout_s
        The longest that a single step of a worker may take.
    reuse
        Whether a pair that confirmed one suspicion may be asked of another case: its processes have imported by then.
    cases_at_once
        How many cases are loaded together, each by a resident pair of its own, and then measured one after the other:
        nobody loads while something is timed.

    """

    def __init__(
        self, base: Side, candidate: Side, accelerator: Accelerator, folder: Path, *, timeout_s: float,
        reuse: bool = False, cases_at_once: int = 1,
    ) -> None:  # fmt: skip
        self._sides = {BASE: base, CANDIDATE: candidate}
        self._pool = WorkerPool(accelerator, folder, timeout_s=timeout_s)
        self._gpu = accelerator.kind == "gpu"
        self._started = 0
        self._reuse = reuse
        self._pairs: list[Pair] = []
        self._idle: list[Pair] = []
        self._cases_at_once = cases_at_once
        self._residents: list[Pair] = []
        self._ahead: dict[str, Pair] = {}
        """Case → the resident pair that has loaded it for later."""
        self.beside_others = False
        """Whether others were loaded for later when a resident pair loaded its case, or had to."""
        self._memory = PairMemory(accelerator)
        self.rng = random.Random()

    def resident(self) -> Pair:
        """Return a pair that stays, with no case loaded for later; started now if there is none.

        It imports while the caller goes on.
        """
        if not self._residents:
            self._residents = self.start(1)
        return self._free()[0]

    def start_residents(self) -> None:
        """Start the pairs that stay, as far as they are missing."""
        self._residents += self.start(self._cases_at_once - len(self._residents))

    def _free(self) -> list[Pair]:
        """Return the resident pairs that hold no case for later; where all do, none is held any more."""
        if len(self._ahead) == len(self._residents):
            self._ahead = {}
        return [pair for pair in self._residents if pair not in self._ahead.values()]

    def start(self, count: int, *, only_builds: bool = False) -> list[Pair]:
        """Start fresh pairs, all at once; they import side by side, and sleep until they are asked."""
        made = []
        for _ in range(count):
            self._started += 1
            workers = {
                name: self._pool.start(side, f"{name}-{self._started}", number=self._started, only_builds=only_builds)
                for name, side in self._sides.items()
            }
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
        if self._reuse and self._gpu and self._memory.has_room(LOOKS[0]):
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
        self._idle = waiting[: LOOKS[0]] if self._reuse and self._memory.has_room(LOOKS[0]) else []
        for pair in waiting:
            if pair not in self._idle:
                self.end(pair)

    def end(self, pair: Pair) -> None:
        """End a pair."""
        self._pool.end(*pair.workers.values())
        self._pairs = [other for other in self._pairs if other is not pair]
        self._idle = [other for other in self._idle if other is not pair]
        self._residents = [other for other in self._residents if other is not pair]
        self._ahead = {case_id: other for case_id, other in self._ahead.items() if other is not pair}

    def stop(self) -> None:
        """End the processes under another thread's hands: it sees them gone, and is to call `close`."""
        self._pool.stop()

    def close(self) -> None:
        """End all pairs."""
        self._pool.close()
        for pair in list(self._pairs):
            self.end(pair)

    def greet(self, pair: Pair) -> dict[str, list[str]]:
        """Return the cases of either side's suite. Raises SideError; the pair is ended then."""
        with self._ending(pair):
            return pair.greet()

    def unload(self, pair: Pair) -> None:
        """Free a case on both sides, and note the memory that each gave back. Raises SideError; the pair is ended."""
        memory = self._pool.device() if self._gpu else nullcontext()  # it is the whole device's
        with self._ending(pair), memory, during(Work.MEASURING):
            pair.unload(measure_memory=self._gpu)
        self._memory.note(pair.holds, max(loaded.gpu_memory_bytes or 0 for loaded in pair.loaded.values()))

    @contextmanager
    def _ending(self, pair: Pair) -> Iterator[None]:
        """Within: whatever goes wrong ends a pair, so that the next case starts clean."""
        try:
            yield
        except BaseException as error:
            if not isinstance(error, DelayRefusedError):  # which leaves it clean
                self.end(pair)
            raise

    def build(
        self, pair: Pair, case_id: str, folders: dict[str, Path], *, shared: bool = False
    ) -> dict[str, messages.BuiltReply]:
        """Build a case on the sides that have a folder. Raises SideError; the pair is ended then.

        With `shared`, a side that built it for another shape in this run takes that.
        """
        with self._ending(pair), self._pool.device(shared=True), during(Work.BUILDING):
            return pair.build(case_id, folders, shared=shared)

    @contextmanager
    def fresh(self, *, only_builds: bool = False, waited: bool = False) -> Iterator[Pair]:
        """Within: a pair of its own, which ends with it: one that `only_builds` is as those who build ahead.

        With `waited`, one that waits for a case if there is one: it has imported, and may have loaded any.
        """
        pair = self._idle.pop() if waited and self._idle else self.start(1, only_builds=only_builds)[0]
        try:
            yield pair
        finally:
            self.end(pair)

    def profile(self, case_id: str, artifacts: Artifacts, step: OnStep) -> dict[str, Profile]:
        """Profile a case on either side, in a pair that ends with it: a profiler leaves traces. Raises SideError."""
        with self.fresh(waited=True) as pair, self._pool.device(step), during(Work.PROFILING):
            step("profiling base and candidate")
            return pair.profile(case_id, artifacts)

    def load_resident(self, case_id: str, artifacts: Artifacts, after: Sequence[NextPair] = ()) -> Pair:
        """Return the resident pair that has loaded a case; `after`, in this order, may be loaded with it.

        What fails of those is loaded again when it is asked for. Raises SideError; who was loading is ended then.
        """
        known = self._ahead.pop(case_id, None)
        self.beside_others = bool(self._ahead)
        if known is not None:
            return known
        self.start_residents()
        wanted = [NextPair(case_id, artifacts), *(one for one in after if one.case_id not in self._ahead)]
        loading = list(zip(self._free(), wanted, strict=False))
        self.beside_others = bool(self._ahead) or len(loading) > 1
        (pair, _), *others = loading
        try:
            for resident in self._residents:
                resident.greet()  # nobody imports while something is timed
            with self._pool.device(shared=True), during(Work.LOADING):
                for one, case in loading:
                    one.begin_load(case.case_id, case.artifacts, pairs=len(loading))
                pair.await_loaded()
                for one, case in others:
                    self._await_for_later(one, case.case_id)
        except BaseException:
            for one, _ in loading:
                self.end(one)
            raise
        return pair

    def _await_for_later(self, pair: Pair, case_id: str) -> None:
        try:
            pair.await_loaded()
            self._ahead[case_id] = pair
        except SideError:
            self.end(pair)

    def end_residents(self) -> None:
        """End all resident pairs: who is loaded next is alone."""
        for pair in list(self._residents):
            self.end(pair)

    def load_alone(self) -> None:
        """Load nothing for later from now on: a case failed beside another one, and alone it did not."""
        self._cases_at_once = 1

    def replace_resident(self, pair: Pair) -> None:
        """End the resident pair, and let one that was started before take its place."""
        self.end_residents()
        self._residents = [pair]

    def at_once(self, case_id: str) -> int:
        """Return in how many pairs the case may be loaded at the same time."""
        return self._memory.at_once(case_id, self._ahead)

    def load_fresh(self, case_id: str, artifacts: Artifacts) -> dict[str, Loaded]:
        """Load a case in a pair that has not had it, and free it after as much use as `unload` finds. Raises SideError.

        That is one that stays and holds nothing, else one that waits, else a new one.
        """
        free = (one for one in self._residents if one not in self._ahead.values() and case_id not in one.cases)
        resident = next(free, None)
        (pair,) = self.take(1, [case_id]) if resident is None else [resident]
        self.load([pair], case_id, artifacts)
        with self._ending(pair), self._pool.device():
            pair.warm_up(self.rng)  # what a first call takes of memory is part of the resident pair's, too
            pair.unload(measure_memory=True)
        if resident is None:
            self.put_back([pair])
        return pair.loaded

    def load(self, pairs: Sequence[Pair], case_id: str, artifacts: Artifacts) -> None:
        """Load a case in several pairs at once. Raises SideError; all of them are ended then."""
        try:
            with self._pool.device(shared=True), during(Work.LOADING):
                for pair in pairs:
                    pair.begin_load(case_id, artifacts, pairs=len(pairs))
                for pair in pairs:
                    pair.await_loaded()
        except BaseException:
            for pair in pairs:
                self.end(pair)
            raise

    def measure(
        self, pair: Pair, enough: Callable[[Pair], bool], step: OnStep, *, delay: float = 0.0, device: bool = True
    ) -> float:
        """Measure quadruples of what is loaded until `enough` says so after one of them.

        `delay` makes the candidate slower on purpose; what came of it is returned. Without `device` a GPU's host
        metrics alone are measured. Raises SideError or DisturbedError; the pair is ended then, and the session goes on.
        DelayRefusedError leaves it as it was.
        """
        with self._ending(pair), self._pool.device(step), during(Work.MEASURING):
            pair.quadruples = []
            delayed = pair.delay(delay) if delay else 0.0
            step("warming up")
            pair.warm_up(self.rng)
            step("measuring base and candidate in turns")
            while True:
                pair.quadruple(self.rng, device=device)
                if enough(pair):
                    break
            if delay:
                pair.delay(0.0)
            return delayed
