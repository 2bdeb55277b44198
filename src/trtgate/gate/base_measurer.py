"""The measurer of pairs of workers: a case beside its base."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType

import msgspec

from ..common.errors import TrtgateError
from ..common.steps import OnStep
from ..launches.pair import BASE, CANDIDATE, Artifacts, NextPair, SideError
from ..launches.prebuild import Prebuilt
from ..records.measurement import Build, CaseMeasurement, Quadruple
from ..verdict import Judgement
from .measurers import Workers, is_second_build
from .paired_gate import PairedGate, in_fresh_pairs
from .policy import Measured, Rebuild, Rebuilt, Reloaded, Situation
from .policy import Pair as PairStep

NONE_AHEAD: Mapping[str, Prebuilt] = MappingProxyType({})


class BaseMeasurer:
    """Measures a case beside its base; a context that ends with what was built in it of both.

    `ahead` is side → what came of building it before, empty where that is left to this; `after` may be loaded with it.
    """

    def __init__(
        self, workers: Workers, situation: Situation, ahead: Mapping[str, Prebuilt] = NONE_AHEAD,
        after: Sequence[NextPair] = (),
    ) -> None:  # fmt: skip
        self._pairs = workers.pairs
        self._folder = workers.folder
        self._situation = situation
        self._ahead, self._after = ahead, after
        self._case_id = situation.case.id
        self._ending = ExitStack()
        self._artifacts: Artifacts | None = None
        self._built: dict[str, tuple[Path | None, Build]] = {}
        """Side → what is stored of it, and its build."""

    def __enter__(self) -> BaseMeasurer:
        return self

    def __exit__(self, *_error: object) -> None:
        self._ending.close()

    def measure(self, step: OnStep) -> Measured:
        """Build both, load both in a resident pair, and measure quadruples until a planned look decides.

        What fails beside other cases, for want of memory perhaps, is tried once more alone; if that helps, nothing is
        loaded ahead from then on. So is a base that something outside killed, which says nothing of its code.
        """
        try:
            return self._measured(self._after, step)
        except SideError as error:
            beside_others = self._artifacts is not None and self._pairs.beside_others
            if not (beside_others or _says_nothing_of_the_base(error)):
                raise
        self._pairs.end_residents()
        measured = self._measured((), step)
        if beside_others:
            self._pairs.load_alone()
        return measured

    def _measured(self, after: Sequence[NextPair], step: OnStep) -> Measured:
        artifacts, built = self._build(step)
        judged, sides = self._screened(artifacts, after, step)
        now, before = (msgspec.structs.replace(sides[name], build=built[name]) for name in (CANDIDATE, BASE))
        return Measured(now, before, tuple(judged))

    def _screened(
        self, artifacts: Artifacts, after: Sequence[NextPair], step: OnStep
    ) -> tuple[list[Judgement], dict[str, CaseMeasurement]]:
        """Return what planned looks say, and what was measured of each side."""
        pairs, case_id = self._pairs, self._case_id
        step("loading base and candidate")
        pair = pairs.load_resident(case_id, artifacts, after)
        found = PairedGate(pairs).screen(pair, case_id, self._situation.limit_of, self._situation.tests, step)
        pairs.unload(pair)  # which tells their memory
        return found.judgements, {name: pair.measurement(case_id, name) for name in (BASE, CANDIDATE)}

    def _build(self, step: OnStep) -> tuple[Artifacts, dict[str, Build]]:
        """Build in the resident pair what was not built before; returns what is stored of both sides, and builds."""
        for name in (CANDIDATE, BASE):
            again = name == BASE and name in self._ahead and self._ahead[name].killed
            if name in self._ahead and name not in self._built and not again:
                self._built[name] = _ready(name, self._ahead[name])
        if left := [name for name in (BASE, CANDIDATE) if name not in self._built]:
            pairs, pair = self._pairs, self._pairs.resident()
            pairs.greet(pair)
            folders = self._ending.enter_context(self._folder.temporary(*left))
            step(f"building {' and '.join(left)}")
            for name, reply in pairs.build(pair, self._case_id, folders, shared=True).items():
                self._built[name] = folders[name] if reply.stored else None, reply.build
        stored = {name: artifact for name, (artifact, _) in self._built.items()}
        self._artifacts = Artifacts(base=stored[BASE], candidate=stored[CANDIDATE])
        return self._artifacts, {name: build for name, (_, build) in self._built.items()}

    def _made(self, step: OnStep) -> Artifacts:
        """Return what was built; what was measured in another run is built now."""
        return self._artifacts or self._build(step)[0]

    def measure_fresh(self, step: OnStep) -> CaseMeasurement:
        """Never asked for: fresh pairs confirm."""
        raise NotImplementedError

    def measure_host(self, step: OnStep) -> CaseMeasurement:
        """Never asked for: beside a base everything is measured."""
        raise NotImplementedError

    def rebuild(self, wanted: Rebuild, step: OnStep) -> Rebuilt:
        """Build both in a pair of its own, and measure that from now on; those that come next have imported by then.

        A base that something outside killed is tried once more, alone: else a suspicion would be told as unchecked.
        What was built here for a run that measured other builds elsewhere are second builds already.
        """
        if self._ahead and self._artifacts is None:
            first, built = self._situation.evidence.first, self._build(step)[1]
            assert first is not None
            if is_second_build(built[CANDIDATE], first.candidate) and is_second_build(built[BASE], first.base):
                return Rebuilt(built[CANDIDATE], built[BASE])
        if wanted.pairs_next:
            self._pairs.expect(self._case_id)
        step("suspected: building base and candidate again in fresh processes")
        try:
            return self._rebuilt()
        except SideError as error:
            if not _says_nothing_of_the_base(error):
                raise
        self._pairs.end_residents()
        return self._rebuilt()

    def _rebuilt(self) -> Rebuilt:
        folders = self._ending.enter_context(self._folder.temporary(BASE, CANDIDATE))
        with self._pairs.fresh(only_builds=True) as pair:
            self._pairs.greet(pair)
            self._pairs.imported()
            built = self._pairs.build(pair, self._case_id, folders)
        stored = {name: folders[name] if reply.stored else None for name, reply in built.items()}
        self._artifacts = Artifacts(base=stored[BASE], candidate=stored[CANDIDATE])
        return Rebuilt(built[CANDIDATE].build, built[BASE].build)

    def reload(self, step: OnStep) -> Reloaded:
        """Load both in a pair that has not had the case."""
        artifacts = self._made(step)
        step("suspected: loading base and candidate again in other processes")
        loaded = self._pairs.load_fresh(self._case_id, artifacts)
        now, before = (float(loaded[name].gpu_memory_bytes or 0) for name in (CANDIDATE, BASE))
        return Reloaded(now, before)

    def pairs(self, wanted: PairStep, step: OnStep) -> list[list[Quadruple]]:
        """Measure beside the base."""
        return in_fresh_pairs(self._pairs, self._situation, self._made(step), wanted, step)


def _says_nothing_of_the_base(error: SideError) -> bool:
    """Whether something outside killed the base: its code did nothing."""
    return error.killed and error.side == BASE


def _ready(side: str, built: Prebuilt) -> tuple[Path | None, Build]:
    """Return what building a side ahead stored, and its figures. Raises SideError where it could not be built."""
    try:
        build = built.checked().build
    except TrtgateError as error:
        raise SideError(side, str(error).removeprefix(f"{built.case_id}: ")) from error
    assert build is not None
    return built.artifact, build
