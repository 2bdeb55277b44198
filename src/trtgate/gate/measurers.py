"""All workers of a run on one device, and the measurer of resident launches that are judged by a baseline."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import msgspec

from .. import frontends
from ..common.accelerator import Accelerator
from ..common.errors import TrtgateError, is_fault
from ..common.explanations import Explanation, bare, explained
from ..common.run_folder import RunFolder
from ..common.steps import OnStep
from ..compiling.artifact_cache import CacheRequest
from ..launches import messages
from ..launches.base_revision import BaseRevision
from ..launches.comparison_side import Side
from ..launches.pair import BASE, CANDIDATE, Artifacts, SideError
from ..launches.pair_session import PairSession
from ..launches.prebuild import Prebuilt
from ..launches.session import NextCase, Session
from ..records.measurement import Build, CaseMeasurement, Quadruple
from ..records.profile_record import Profile
from ..suite.cases import Case
from ..torch_trt import releases
from ..torch_trt.runtime_cache import ARTIFACT
from . import kept_artifacts
from .device_workers import DeviceWorkers, WorkerOptions
from .driver import NoneKeptError
from .paired_gate import in_fresh_pairs
from .policy import Measured, Rebuild, Rebuilt, Reloaded, Situation, artifact_of, is_another_build
from .policy import Pair as PairStep


class Workers:
    """All workers of a run on one device of this host, started when they are first needed.

    `tensorrt` says that there will be cases that need torch_tensorrt, `cases_at_once` how many are loaded together,
    `builders` how many threads may ask for a build at once, `profiles` that stored modules will be profiled.
    """

    def __init__(
        self, options: WorkerOptions, accelerator: Accelerator, folder: RunFolder, *, base: BaseRevision | None = None,
        tensorrt: bool = False, cases_at_once: int = 1, logs: str = "", builders: int = 1, profiles: bool = False,
    ) -> None:  # fmt: skip
        self.accelerator = accelerator
        self._profiles = profiles
        self.folder = folder
        rtx = releases.flavour() == "rtx"
        candidate = Side(name=CANDIDATE, source=options.source, streams=options.streams, rtx=rtx)
        other = msgspec.structs.replace(base.side if base else candidate, name=BASE, streams=options.streams)
        self.sides = {BASE: other, CANDIDATE: candidate}
        self._base = options.base
        self.cold_starts, self.load, self.launches = options.cold_starts, options.load, options.launches
        timeout_s, self._logs = options.timeout_s, folder.logs / logs
        self.pairs = PairSession(
            other, candidate, accelerator, self._logs, timeout_s=timeout_s, reuse=True, cases_at_once=cases_at_once
        )
        self.session = Session(
            options.source, accelerator, self._logs, launches=options.launches, timeout_s=timeout_s,
            tensorrt=tensorrt, cases_at_once=cases_at_once, streams=options.streams, builders=builders,
        )  # fmt: skip

    def start(self) -> list[str]:
        """Start the workers: they import while the first case is built. A base must answer first: its cases.

        Raises TrtgateError when the base can't import its suite.
        """
        if self._base is None:
            self.session.start(builder=self._profiles)
            return []
        try:
            return self.pairs.greet(self.pairs.resident())[BASE]
        except SideError as error:
            self.pairs.close()
            lacks = "'trtgate." in str(error)  # as Python names a module that another can't be imported from
            hint = ": both sides are measured by this trtgate, so the base's suite can import only what it has" * lacks
            said = f"the {error.side} {self._base} can't be used: {bare(str(error))}{hint}"
            raise TrtgateError(explained(said, Explanation.BASE_FAILED)) from error

    def build(
        self, case: Case, step: OnStep, cache: CacheRequest | None, *, builders: int = 1, profiled: bool = False,
        lifecycle: bool = False, in_turn: bool = False,
    ) -> Prebuilt:  # fmt: skip
        """Build a case in a worker; what went wrong is in the result. `profiled` says that it will be, soon.

        With `in_turn` only one thread's case is built at a time, and others export, load or compare meanwhile.
        The worker keeps what is profiled, and, on a CPU, what it is to measure and nobody can store.
        """
        folder = self.folder.private(case.model.name)
        keep = profiled or (self.accelerator.kind != "gpu" and not frontends.stores(case))
        request = messages.BuildCase(
            case_id=case.id, folder=str(folder), builders=builders, keep=keep, lifecycle=lifecycle,
            cache=cache if case.settings.uses_tensorrt else None, shared=messages.SHARED, in_turn=in_turn,
        )  # fmt: skip
        try:
            reply = self.session.build(request, step)
        except TrtgateError as error:
            return Prebuilt(case_id=case.id, problem=str(error), fault=is_fault(error))
        return Prebuilt.of(case.id, reply, folder)

    def build_again(self, case_id: str, *, pairs_next: bool, cache: CacheRequest | None = None) -> Prebuilt:
        """Build a case in a fresh process; where pairs come next they have imported by then. Raises LaunchError.

        It takes the place of what the cache has.
        """
        cache = cache and msgspec.structs.replace(cache, rebuild=True)
        if pairs_next:
            self.pairs.expect(case_id)
        folder, stored = self.folder.private("again"), False
        try:
            reply = self.session.build_fresh(case_id, folder, self.pairs.imported, cache)
            stored = reply.stored
        finally:
            if not stored:
                self.free(folder)
        return Prebuilt.of(case_id, reply, folder)

    def free(self, artifact: Path) -> None:
        """Give the disk that an artifact takes back."""
        shutil.rmtree(artifact, ignore_errors=True)

    def kept(self, case_id: str, recorded: str) -> tuple[Path | None, str]:
        """Return the compiled module that this machine keeps of a session, or None and why there is none."""
        return kept_artifacts.find(self.folder.path, case_id, recorded, self.accelerator)

    def pairs_beside_kept(
        self, situation: Situation, artifacts: Artifacts, wanted: PairStep, step: OnStep
    ) -> list[list[Quadruple]]:
        """Measure beside such a module in fresh pairs; returns the quadruples of each."""
        return in_fresh_pairs(self.pairs, situation, artifacts, wanted, step)

    def profiles_beside_base(self, case_id: str, artifacts: Artifacts, step: OnStep) -> tuple[Profile, Profile]:
        """Profile a case on both sides; returns the base's and the candidate's. Raises SideError."""
        found = self.pairs.profile(case_id, artifacts, step)
        return found[BASE], found[CANDIDATE]

    def stop(self) -> None:
        """End the workers under another thread's hands: it sees them gone."""
        self.session.stop()
        self.pairs.stop()

    def close(self) -> None:
        """End the workers."""
        self.session.close()
        self.pairs.close()


class StoredMeasurer:
    """Measures a case that is built, to be judged by a baseline; a context that ends with what it builds again.

    `after` may be loaded with it. What is built again takes the place of what `cache` has of it: that was suspected.
    """

    def __init__(
        self, workers: DeviceWorkers, situation: Situation, artifact: Path | None, build: Build | None,
        after: Sequence[NextCase] = (), cache: CacheRequest | None = None,
    ) -> None:  # fmt: skip
        self._workers = workers
        self._cache = cache if situation.case.settings.uses_tensorrt else None
        self._built = [(artifact, build)]
        """What was built first, and again: launches load the last."""
        self._after = after
        self._kept: tuple[Path | None, str] | None = None
        self.going_on_from(situation)

    def __enter__(self) -> StoredMeasurer:
        return self

    def __exit__(self, *_error: object) -> None:
        for artifact, _ in self._built[1:]:
            if artifact is not None:
                self._workers.free(artifact)

    def going_on_from(self, situation: Situation) -> StoredMeasurer:
        """Return this, which measures what comes next in a situation: another process may have begun."""
        first = situation.evidence.first
        self._situation = situation
        self._clock = "" if first is None else first.candidate.clock
        return self

    def module_of(self, measured: Build | None) -> Path | None:
        """Return the compiled module that a measurement of this build had loaded; None where it is not here."""
        return next((artifact for artifact, build in self._built if _same_module(build, measured)), None)

    def _measured(
        self, step: OnStep, after: Sequence[NextCase] = (), *, device: bool = True
    ) -> CaseMeasurement:  # fmt: skip
        workers, case_id, (artifact, build) = self._workers, self._situation.case.id, self._built[-1]
        session, count, most = workers.session, workers.cold_starts, workers.load
        measure = session.measure if device else session.measure_host
        found = measure(case_id, artifact, step, after)
        kernels = found.runtime_cache == ARTIFACT
        cold, cached = session.cold_starts(case_id, artifact, count, step, kernels=kernels) if count else ([], [])
        load = session.under_load(case_id, artifact, most, step, launches=workers.launches) if most else []
        return msgspec.structs.replace(found, build=build, cold=cold, cold_cached=cached, load=load)

    def measure(self, step: OnStep) -> Measured:
        """Measure in the resident launches."""
        found = self._measured(step, self._after)
        self._clock = found.clock
        return Measured(found)

    def measure_host(self, step: OnStep) -> CaseMeasurement:
        """Measure what the host sees in the resident launches."""
        return self._measured(step, self._after, device=False)

    def measure_fresh(self, step: OnStep) -> CaseMeasurement:
        """Measure in launches that have measured nothing else."""
        self._workers.session.renew()
        return self._measured(step)

    def rebuild(self, wanted: Rebuild, step: OnStep) -> Rebuilt:
        """Build in a fresh process, and measure that from then on.

        Where pairs come next they have imported by then, and it is built after that. What was built here for a run that
        measured another build elsewhere is a second build already.
        """
        first, built = self._situation.evidence.first, self._built[-1][1]
        if first is not None and built is not None and is_second_build(built, first.candidate):
            return Rebuilt(built)
        pairs_next = wanted.pairs_next and self._find_kept()[0] is not None
        step("building again in a fresh process")
        again = self._workers.build_again(self._situation.case.id, pairs_next=pairs_next, cache=self._cache)
        assert again.build is not None
        if again.artifact is not None:
            self._built.append((again.artifact, again.build))
        return Rebuilt(again.build)

    def reload(self, step: OnStep) -> Reloaded:
        """Never asked for: fresh launches say what memory a case takes."""
        raise NotImplementedError

    def pairs(self, wanted: PairStep, step: OnStep) -> list[list[Quadruple]]:
        """Measure beside the baseline's compiled module, if this machine keeps it for this card and these versions."""
        kept, reason = self._find_kept()
        if kept is None:
            raise NoneKeptError(reason)
        artifacts = Artifacts(base=kept, candidate=self._built[-1][0])
        return self._workers.pairs_beside_kept(self._situation, artifacts, wanted, step)

    def _find_kept(self) -> tuple[Path | None, str]:
        if self._kept is None:
            workers, case_id, record = self._workers, self._situation.case.id, self._situation.record
            assert record is not None
            accelerator = workers.accelerator
            compared = record.of_clock(self._clock).compared_with(accelerator.uuid, accelerator.versions)
            self._kept = workers.kept(case_id, compared[-1].recorded)
        return self._kept


def is_second_build(built: Build | None, measured: CaseMeasurement | None) -> bool:
    """Whether a build was made anew, and is not the one that was measured; not where nothing is stored of either."""
    before = "" if measured is None else artifact_of(measured)
    return built is not None and not built.cached and before != "" and is_another_build(built, before)


def _same_module(one: Build | None, other: Build | None) -> bool:
    """Whether two builds are one, or one of them was taken from the cache where the other was put."""
    if one is None or other is None:
        return False
    return one == other or one.artifact == other.artifact != ""
