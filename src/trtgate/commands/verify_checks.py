"""The checks of `trtgate verify`: each is a function that says what it saw, or raises."""

from __future__ import annotations

import contextlib
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from .. import frontends
from ..common import sealed_folder
from ..common.accelerator import slug
from ..common.errors import PROBLEMS, TrtgateError, one_line, sentence_of
from ..common.explanations import continued
from ..common.run_folder import RunFolder
from ..common.steps import OnStep
from ..compiling import artifact_cache, availability
from ..compiling.artifact_cache import ArtifactCache, CacheRequest
from ..compiling.sealed_store import SealedManifest
from ..launches import messages
from ..launches.session import Session
from ..launches.worker_handle import LaunchError
from ..records.coverage_record import Coverage
from ..records.measurement import Build
from ..suite.cases import Case
from ..suite.suite_source import SuiteSource
from ..timing import device_lock
from ..torch_trt import releases
from . import doctor_findings, verify_judging
from .doctor_facts import Facts
from .verify_judging import LAUNCHES
from .verify_record import FAILED, NOT_HERE, OK, CheckResult
from .verify_suite import BLOCK, CONVOLUTIONS

SOURCE = SuiteSource(root=str(Path(__file__).parents[2]), suites=("trtgate.commands.verify_suite",))


class NotHereError(Exception):
    """This machine, build or release can't answer a check; the message says why."""


class Check(NamedTuple):
    """A check by name. It returns what it saw, and raises NotHereError, or anything else where it fails."""

    name: str
    run: Callable[[], str]


def result_of(check: Check, keep_logs: Callable[[str], Path]) -> CheckResult:
    """Run a check; whatever it raises is one line. Where a worker failed, its logs are kept under the check's name."""
    start = time.monotonic()
    try:
        outcome, said = OK, check.run()
    except NotHereError as reason:
        outcome, said = NOT_HERE, str(reason)
    except LaunchError as error:
        outcome, said = FAILED, continued(str(error), f"; the workers' logs are in {keep_logs(check.name)}")
    except PROBLEMS as error:
        outcome, said = FAILED, sentence_of(error)
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        said = f"unexpected: {one_line(error)} ({Path(place.filename).name}, line {place.lineno}): please report it"
        outcome = FAILED
    return CheckResult(name=check.name, outcome=outcome, seconds=round(time.monotonic() - start, 2), said=said)


def usable(facts: Facts) -> None:
    """Raise TrtgateError where nothing can be run: no torch, or a GPU that torch or NVML can't use."""
    unusable = doctor_findings.on_gpu(facts) and facts.torch.device_error
    if facts.device is None or facts.torch.error or unusable:
        raise TrtgateError(f"nothing can be checked here: {'; '.join(doctor_findings.problems(facts))}")


class Checks:
    """All checks of one installation, in order; later ones use what earlier ones built. `close` ends all processes.

    `timeout_s` is the longest that a step of a worker may take. Raises TrtgateError as `usable` does.
    """

    def __init__(self, source: SuiteSource, facts: Facts, folder: RunFolder, timeout_s: float, step: OnStep) -> None:
        usable(facts)
        assert facts.device is not None
        self._facts, self._device, self._folder = facts, facts.device, folder
        self._timeout_s, self._say, self._doing = timeout_s, step, ""
        self._gpu = facts.device.kind == "gpu"
        self._cases = list(source.load().cases.values())
        self.logs = folder.own_logs
        """Of the workers of this run alone."""
        self._session = Session(
            source, facts.device, self.logs, launches=LAUNCHES, timeout_s=timeout_s,
            tensorrt=self._gpu and not releases.unavailable() and not facts.features.error,
        )  # fmt: skip
        self._cache = CacheRequest(folder=str(folder.private("cache")))
        self._artifacts: dict[str, Path] = {}
        """Case → its compiled module, where a fresh process has loaded it."""
        self._dry: Coverage | None = None
        self._built: Coverage | None = None

    def close(self) -> None:
        """End all processes."""
        self._session.close()

    def results(self) -> Iterator[CheckResult]:
        """Run all checks, one after the other."""
        for check in self._all():
            self._doing = check.name
            self._step("begins")
            yield result_of(check, self._keep_logs)

    def _keep_logs(self, name: str) -> Path:
        """Copy the logs as they are now, since the next worker of the same name begins its own anew."""
        place = self.logs / slug(name)
        with contextlib.suppress(OSError):
            place.mkdir(parents=True, exist_ok=True)
            for log in self.logs.glob("*.log"):
                shutil.copy(log, place)
        return place

    def _step(self, text: str) -> None:
        self._say(f"{self._doing}: {text}")

    def _all(self) -> Iterator[Check]:
        yield Check("installation", self._installation)
        yield Check("device lock", self._lock)
        yield Check("artifact cache", self._stored_and_taken)
        for case in self._convolutions():
            runtime = case.settings.runtime
            name = f"runtime {runtime}" if runtime else f"frontend {case.settings.frontend}"
            yield Check(name, partial(self._right, case))
        yield Check("cached module", self._from_the_cache)
        yield Check("profile", self._profile)
        yield Check("coverage, dry run", self._dry_run)
        yield Check("coverage, real build", self._real_build)
        yield Check("clock", self._clock)

    # Without a worker

    def _installation(self) -> str:
        problems = doctor_findings.problems(self._facts)
        if problems:
            raise TrtgateError("; ".join(problems))
        return ", ".join(f"{name} {version}" for name, version in self._facts.packages.items())

    def _lock(self) -> str:
        name = self._device.lock_name
        path = device_lock.lock_file(name)
        with device_lock.device_turn(name, self._timeout_s, self._step):
            try:
                with device_lock.device_turn(name, 0.0, self._step):
                    pass
            except TrtgateError:
                return f"who comes second waits ({path})"
        raise TrtgateError(
            f"{path} was locked twice at once, so that two runs would time together: does its file system lock files "
            "(flock)? Set TRTGATE_LOCK_DIR to a folder that does, and that all users of this device can write to"
        )

    def _stored_and_taken(self) -> str:
        cache = ArtifactCache(artifact_cache.default_folder(), limit_bytes=sys.maxsize)  # none of the user's goes
        given, taken = self._folder.private("given"), self._folder.private("taken")
        (given / "module").write_bytes(given.name.encode())
        made_from = {"trtgate verify": str(given)}
        key = artifact_cache.key_of(made_from)
        manifest = SealedManifest(
            case="trtgate verify", made_from=made_from, created=artifact_cache.now(), build=Build(build_s=0.0),
            sha256=sealed_folder.digests(given),
        )  # fmt: skip
        problem = cache.put(key, given, manifest)
        try:
            found, wrong = (None, problem) if problem else cache.take(key, taken)
        finally:
            cache.remove(key)
        if found != manifest:
            raise TrtgateError(
                f"{wrong or f'{cache.folder} does not have what was just put there'}: set TRTGATE_CACHE_DIR to a "
                "folder of this user alone on a local disk, or run with --trtgate-no-cache"
            )
        return f"an entry was stored and taken ({cache.folder})"

    # With workers

    def _convolutions(self) -> list[Case]:
        precision = "fp16" if self._gpu else "fp32"
        mine = [case for case in self._cases if case.model.name == CONVOLUTIONS]
        return [case for case in mine if case.settings.runtime or case.settings.precision == precision]

    def _of(self, frontend: str) -> Case:
        mine = [case for case in self._convolutions() if not case.settings.runtime]
        return next(case for case in mine if case.settings.frontend == frontend)

    @property
    def _block(self) -> Case:
        return next(case for case in self._cases if case.model.name == BLOCK)

    def _available(self, case: Case) -> None:
        state = doctor_findings.frontend_state(case.settings.frontend, self._facts)
        reason = "" if state.runs else state.said
        reason = reason or availability.unavailable(case.settings, self._device)
        has_cpp = self._facts.features.enabled.get("torch_tensorrt_runtime", True)
        if not reason and case.settings.runtime == "cpp" and not has_cpp:
            reason = f"this build of torch_tensorrt ({releases.installed_release()}) has no C++ runtime"
        if reason:
            raise NotHereError(reason)

    def _build(self, case: Case, *, cached: bool = True, keep: bool = False) -> tuple[messages.BuiltReply, Path]:
        folder = self._folder.private(case.model.name)
        request = messages.BuildCase(
            case_id=case.id, folder=str(folder), cache=self._cache if cached else None, keep=keep
        )
        return self._session.build(request, self._step), folder

    def _right(self, case: Case) -> str:
        self._available(case)
        reply, folder = self._build(case)
        build = reply.build
        if case.settings.uses_tensorrt and not build.engines:
            raise TrtgateError(f"case {case.id}: nothing of it became a TensorRT engine: all of it ran in PyTorch")
        said = f"right (relative L2 {build.leaf_error or 0.0:.1e}), built in {build.build_s:.1f} s"
        if not frontends.stores(case):
            return f"{said}; every process builds it"
        if not reply.stored:
            raise TrtgateError("; ".join(reply.notes) or f"case {case.id}: it was not stored")
        self._session.check_fresh(case.id, folder, self._step)
        self._artifacts[case.id] = folder
        return f"{said}; stored, and right in a fresh process"

    def _from_the_cache(self) -> str:
        case = self._of("dynamo")
        self._available(case)
        notes: list[str] = []
        for _ in range(2):  # the first stores it, where the check of its frontend did not
            reply, _ = self._build(case)
            if reply.build.cached:
                return "a module that was built before is taken from the artifact cache, and right"
            notes = reply.notes
        raise TrtgateError("; ".join(notes) or f"case {case.id} was built twice, and never taken from the cache")

    def _profile(self) -> str:
        self._available(self._block)
        self._built = self._build(self._block, cached=False, keep=True)[0].coverage
        return verify_judging.layers_named(self._session.profile(self._block.id, None, self._step).profile)

    def _dry_run(self) -> str:
        reason = releases.unavailable() or (self._facts.features.error and "torch_tensorrt can't be imported")
        if reason:
            raise NotHereError(reason)
        self._dry = self._session.dry_run(self._block.id, self._step)
        return verify_judging.cut_in_two(self._dry)

    def _real_build(self) -> str:
        self._available(self._block)
        dry = self._dry or self._session.dry_run(self._block.id, self._step)
        built = self._built or self._build(self._block, cached=False)[0].coverage
        if built is None:
            raise TrtgateError(f"case {self._block.id}: its build says nothing of its coverage")
        return verify_judging.same_coverage(dry, built)

    def _clock(self) -> str:
        case = self._of("dynamo")
        if case.id not in self._artifacts:
            case = self._of("eager")
        return verify_judging.repeated(self._session.measure(case.id, self._artifacts.get(case.id), self._step))
