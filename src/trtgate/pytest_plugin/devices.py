"""The devices of a run: of this machine, or, with `--trtgate-ray`, of a cluster's nodes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ..common import accelerator
from ..common.accelerator import Accelerator
from ..common.errors import TrtgateError, explaining
from ..common.explanations import Explanation
from ..common.spent_time import Work, during
from ..common.steps import OnStep
from ..suite import precisions
from ..suite.cases import Case
from ..torch_trt import modelopt_package, releases
from .case_items import case_id_of, is_latency, is_profile, needs_a_build

if TYPE_CHECKING:
    from ..gate.device_workers import DeviceWorkers
    from ..gate.run_options import Options
    from .device_protocol import Devices
    from .gate_run import GateRun


def of(options: Options, root: Path) -> Devices:
    """Return the devices that a run asks for. Raises TrtgateError where there is none, or a cluster can't be joined."""
    if options.ray:
        from .cluster_devices import ClusterDevices

        with explaining(Explanation.CLUSTER_PROBLEM):
            return ClusterDevices(options, root)
    return LocalDevices(options.gpus)


class LocalDevices:
    """The devices of this machine."""

    def __init__(self, gpus: str) -> None:
        self.accelerators = _accelerators(gpus)
        self.here, self.about = True, ""

    @property
    def release(self) -> str:
        """What stored coverage calls what is installed."""
        return releases.installed_release()

    def workers(self, run: GateRun) -> Sequence[DeviceWorkers]:
        """Return the workers of each card."""
        from ..gate.measurers import Workers

        several = len(self.accelerators) > 1
        return [
            Workers(
                run.options, card, run.run_folder, base=run.base, tensorrt=run.times_tensorrt,
                cases_at_once=run.cases_at_once, logs=card.uuid if several else "",
                profiles=run.profiles and card is self.accelerators[0],
            )
            for card in self.accelerators
        ]  # fmt: skip

    def workers_of(self, run: GateRun, case_id: str) -> DeviceWorkers:  # noqa: ARG002
        """Return the workers of the first card: what this process itself asks for is done there."""
        return run.workers[0]

    def unavailable(self, run: GateRun, case: Case) -> tuple[str, str]:
        """Return what this machine lacks for a case, and why it refuses it."""
        from ..compiling import availability

        lacking = availability.lacking(case.settings, run.accelerator)
        return lacking, "" if lacking else availability.refused(case.settings, run.accelerator)

    def no_coverage(self, case: Case) -> str:
        """Return why coverage can't be asked."""
        quantized = case.settings.precision in precisions.QUANTIZED
        return releases.unavailable() or (modelopt_package.unavailable() if quantized else "")

    def begin(self, run: GateRun, items: Sequence[pytest.Item]) -> None:
        """Build ahead, and let several cards begin to measure."""
        from ..timing import used_gpu
        from . import loading_ahead, measuring_ahead, prebuilding

        with during(Work.STARTING):
            used_gpu.check(run.accelerator)
        tests = [(item, case_id_of(item)) for item in items if is_latency(item)]
        times = run.latency_cases - run.skip_reasons.keys() and not run.options.timing_off
        if times:
            loading_ahead.plan(run, tests)
        run.profiles = profiles(run, items)
        needed = {item: case_id_of(item) for item in items if needs_a_build(item)}
        to_build = {case_id for case_id in needed.values() if case_id is not None} - run.skip_reasons.keys()
        timed_alone = to_build - {case_id for item, case_id in needed.items() if not is_latency(item)}
        start_workers = run.start_workers if times else lambda: None
        prebuilding.build_ahead(run, to_build, start_workers, prebuilding.to_ask(run, items), timed_alone)
        if not run.options.timing_off:
            runnable = [(item, name) for item, name in tests if name and name not in run.skip_reasons]
            measuring_ahead.begin(run, runnable)

    def progress(self, run: GateRun, case_id: str) -> AbstractContextManager[OnStep]:
        """Show the steps of a case, or of all cards where several share the cases."""
        shared = run.gpu_queue is not None
        return run.progress(f"{len(self.accelerators)} devices" if shared else case_id)

    def free(self, run: GateRun, case_id: str, artifact: Path) -> None:  # noqa: ARG002
        """Remove the artifact."""
        import shutil

        shutil.rmtree(artifact, ignore_errors=True)

    def close(self) -> None:
        """Nothing is held."""


def profiles(run: GateRun, items: Sequence[pytest.Item]) -> bool:
    """Return whether tests profile cases on this machine."""
    names = [case_id_of(item) for item in items if is_profile(item)] if run.accelerator.kind == "gpu" else []
    return any(name is not None and name not in run.skip_reasons for name in names)


def _accelerators(gpus: str) -> list[Accelerator]:
    """Return the devices of a run, and let this process see the first of those that were asked for."""
    if not gpus:
        return [accelerator.detect()]
    try:
        found = accelerator.detect_all(gpus)
    except TrtgateError as error:
        raise TrtgateError(f"--trtgate-gpus={gpus}: {error}") from error
    if found[0].kind == "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = found[0].uuid
    return found
