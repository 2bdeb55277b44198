"""A case built once for all its tests, when the first of them asks, in a worker, which compares it with eager."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from .. import frontends
from ..common.errors import TrtgateError
from ..launches.pair import BASE, CANDIDATE
from ..suite.cases import Case

if TYPE_CHECKING:
    from ..launches.prebuild import Prebuilt
    from ..records.measurement import Build
    from .gate_run import GateRun

LOADED, CACHED = "loaded in a fresh process", "taken from the artifact cache"


def said(case_id: str, ways: Mapping[str, str]) -> str:
    """Return in which ways a case was compared with eager, and in which it was not and why, as a line."""
    checked = ", ".join(how for how, left_out in ways.items() if not left_out)
    not_checked = ", ".join(f"{how} ({left_out})" for how, left_out in ways.items() if left_out)
    said_of = (("checked", checked), ("not checked", not_checked))
    return f"{case_id}: {'; '.join(f'{what}: {names}' for what, names in said_of if names)}"


class BuiltCase:
    """A case that is built and compared with eager when it is first asked for, or the reason why it could not be."""

    def __init__(self, case: Case, run: GateRun) -> None:
        self.case = case
        self._run = run
        self._built: Prebuilt | None = None

    def check(self) -> Prebuilt:
        """Return what building gave. Raises TrtgateError when the case can't be built, or its output is wrong."""
        if self._built is None:
            self._built = self._run.prebuilt.get(self.case.id) or self._awaited() or self._build()
            if self._built.coverage is not None:
                self._run.coverage_of_builds[self.case.id] = self._built.coverage
        return self._built.checked()

    def ahead_beside_base(self) -> dict[str, Prebuilt]:
        """Return side → what came of building it ahead of its test, if both were."""
        ahead, of_base = self._run.prebuilt.get(self.case.id), self._run.prebuilt_of_base.get(self.case.id)
        if ahead is None or of_base is None:
            return {}
        self._built = ahead
        return {BASE: of_base, CANDIDATE: ahead}

    def check_accuracy(self) -> None:
        """Check, and with `--trtgate-lifecycle` in a fresh process and from the cache too. Raises TrtgateError.

        The end of the run says in which ways it was checked, and in which it was not.
        """
        made, run = self.check(), self._run
        if not run.options.lifecycle:
            return
        ways = dict(self.build.ways)
        if made.artifact is None:
            frontend = self.case.settings.frontend
            nothing = "it can't be stored" if frontends.stores(self.case) else f"{frontend} stores nothing"
            ways |= {LOADED: nothing, CACHED: nothing}
        else:
            with run.progress(self.case.id) as step:
                fresh = run.devices.workers_of(run, self.case.id).session.check_fresh(self.case.id, made.artifact, step)
            less = {f"{LOADED}, {how}": why for how, why in fresh.items() if why and not ways.get(how)}
            ways |= {LOADED: "", **less, CACHED: self._cached()}
        run.say(said(self.case.id, ways))

    def _cached(self) -> str:
        """Take it from the cache, which checks it; returns why that can't be done, empty where it was."""
        run = self._run
        if run.options.cache is None:
            return "there is none"
        if self.build.cached:  # then it was taken from there in the first place
            return ""
        again = self._build()
        try:
            again.checked()
        except TrtgateError as error:
            raise TrtgateError(f"{CACHED}: {error}") from error
        if again.artifact is not None:
            run.devices.free(run, self.case.id, again.artifact)
        return "" if again.build is not None and again.build.cached else "it is not there"

    def _awaited(self) -> Prebuilt | None:
        """Wait until a cluster's device has built it; None where it is built by this machine."""
        run = self._run
        if run.devices.here or run.gpu_queue is None:
            return None
        with run.devices.progress(run, self.case.id) as step:
            built = run.gpu_queue.built(self.case.id, step)
        self._tell(built)
        return built

    def _tell(self, built: Prebuilt) -> None:
        for note in built.notes:
            self._run.say(note)
        self._run.gate.remark(self.case.id, built.build)

    def _build(self) -> Prebuilt:
        run, case = self._run, self.case
        profiled = case.id in run.profiled_cases
        with run.progress(case.id) as step:
            built = run.devices.workers_of(run, case.id).build(
                case, step, run.options.cache, builders=_builders(), profiled=profiled, lifecycle=run.options.lifecycle
            )
        if not run.options.build_only:  # then they go with what the test says, from process to process
            self._tell(built)
        return built

    @property
    def artifact(self) -> Path | None:
        """The folder of the stored module; None where nothing is stored."""
        return self.check().artifact

    @property
    def build(self) -> Build:
        """What building gave, in figures."""
        build = self.check().build
        assert build is not None  # there was no problem
        return build

    def free(self) -> None:
        """Give the disk back."""
        for built in (self._built, self._run.prebuilt_of_base.get(self.case.id)):
            if built is not None and built.artifact is not None:
                self._run.devices.free(self._run, self.case.id, built.artifact)


def _builders() -> int:
    """Return how many processes of this run build at once."""
    return int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
