"""What a worker holds and does on request: it loads or builds one case at a time, and measures it."""

from __future__ import annotations

import contextlib
import gc
import math
import random
import time
from pathlib import Path
from typing import Any

import msgspec

from ..common import garbage
from ..common.errors import TrtgateError, one_line
from ..records.coverage_record import Coverage
from ..records.measurement import CallCounts, ColdStart, Loaded, Turn
from ..records.program_part import Fingerprint
from ..timing import device_memory
from ..torch_trt import runtime_cache
from . import messages, relocated_imports
from .build_turn import BuildTurn


class Worker:
    """Holds one loaded case at a time and measures it on request."""

    def __init__(self, hello: messages.Hello, turn: BuildTurn) -> None:
        self._own_turn = turn
        relocated_imports.set_path(hello.sys_path, hello.moved, hello.standard)
        import torch

        from ..compiling import building, reference  # imports torch: only here, and once
        from ..torch_trt import import_hook, modelopt_package, releases, upstream_state

        self._torch: Any = torch
        self._building, self._reference = building, reference
        self.device = hello.device
        self._gpu = hello.device == "cuda"
        self._uuid, self._moved, self._streams, self._switcher = hello.uuid, hello.moved, hello.streams, hello.switcher
        self.inference: Any = None
        self.drivers: Any = None  # while it is under load
        self._built = ""  # the case that was built here and is kept: it knows its parts, as a loaded one does not
        self._fingerprinter: Any = None
        self.monitor: Any = None
        self.state: Any = None  # of the GPU, once it is needed
        self._timer: Any = None  # of the loaded case, once it was measured on a GPU
        self._imported: set[str] = set()
        torch.backends.cudnn.allow_tf32 = False  # fp32 means fp32, here as in the pytest process
        import_hook.install(everywhere=True, shared_cache=False)
        with relocated_imports.path_kept(), upstream_state.users_code():
            self._suite = hello.source.load()
        modelopt_package.expect(case.settings.precision for case in self._suite.cases.values())
        self._check_origin()
        if self._gpu and hello.tensorrt:
            with contextlib.suppress(Exception):  # the first case that needs it says what is wrong
                releases.imported()
        garbage.freeze()

    def cases(self) -> list[str]:
        """Return the ids of the suite's cases."""
        return list(self._suite.cases)

    def _start_gpu(self) -> None:
        """Take the device when there is something to do: a context takes half a gigabyte.

        torch_tensorrt takes one by itself when it is imported.
        """
        if not self._gpu or self.monitor is not None:
            return
        from ..timing import gpu_state, spin_kernel, stream_state, used_gpu

        self._torch.cuda.init()
        used_gpu.check_uuid(self._uuid, self._torch.cuda.get_device_properties(0))
        self.monitor = gpu_state.GpuMonitor(self._uuid)
        self.state = stream_state.StreamState(spin_kernel.Spin(), self._streams, self._switcher)

    def case(self, case_id: str) -> Any:
        """Return a case of the suite."""
        if case_id not in self._suite.cases:
            raise TrtgateError(f"case {case_id} is not in the suite as a fresh process loads it")
        return self._suite.cases[case_id]

    def _import_libraries(self, case: Any) -> None:
        """Import what a case's frontend needs, while nothing is loaded; what is there then stays."""
        if case.settings.frontend not in self._imported:
            with garbage.later():
                self._building.import_libraries(case)
                garbage.freeze()
            self._imported.add(case.settings.frontend)

    def _check_origin(self) -> None:
        if self._moved is not None:
            relocated_imports.check_origin(*self._moved)

    def build(self, request: messages.BuildCase) -> messages.BuiltReply:
        """Build a case and check it. Raises TrtgateError when it can't be built, or its output is wrong."""
        from ..compiling import agreement_over_inputs, artifact_cache, build_or_load, lifecycle

        self.unload()
        self._start_gpu()
        case, cache = self.case(request.case_id), request.cache.open() if request.cache else None
        shared = artifact_cache.of_run(Path(request.folder), request.shared) if case.settings.dynamic else None
        self._import_libraries(case)
        obtained = build_or_load.build_or_load(
            case, self.device, Path(request.folder), cache, lambda _step: None, builders=request.builders,
            shared=shared, turn=self._own_turn.to_build if request.in_turn else None,
            **({"checks": lifecycle.check} if request.lifecycle else {}))  # fmt: skip
        self._check_origin()
        calls = self._counted(case, obtained, Path(request.folder))
        build = msgspec.structs.replace(obtained.build, calls=calls)
        uncounted = f"case {case.id}: not all that a call does is counted: {calls.problem}"
        notes = [*obtained.notes, *([uncounted] * bool(calls.problem))]
        inputs = request.agreement_inputs
        agreement = agreement_over_inputs.ask(case, obtained.inference, self.device, inputs) if inputs else None
        reply = messages.BuiltReply(build, obtained.stored, obtained.coverage, notes, agreement)
        if request.keep and not obtained.build.cached:
            self.inference, self._built = obtained.inference, case.id
            return reply
        del obtained
        self.unload()
        return reply

    def recovered(self) -> bool:
        """Free what a failed build left; returns whether the device still works."""
        try:
            self.unload()
            self._synchronize()
        except Exception:
            return False
        return True

    def _counted(self, case: Any, obtained: Any, folder: Path) -> CallCounts:
        """Count what a call does of the module as launches have it: one that was loaded has other code around it."""
        from ..profiles import call_counts

        inference = obtained.inference
        if obtained.stored and not obtained.build.cached:
            try:
                inference = self._reference.load_checked(case, folder, self.device)
            except self._torch.cuda.OutOfMemoryError:
                return CallCounts(problem="there is no room to load it beside what was built")
        try:
            return call_counts.count(inference, inference.restore, gpu=self._gpu)
        except (self._torch.cuda.OutOfMemoryError, TrtgateError):
            raise
        except Exception as error:
            raise TrtgateError(f"case {case.id}: a further call raised {one_line(error)}") from error

    def profile(self, request: messages.RecordProfile) -> messages.ProfileReply:
        """Profile a case, as the request says. Raises TrtgateError where it can't be built, or has no parts."""
        from ..common import accelerator
        from ..profiles import profile_recording

        case = self.case(request.case_id)
        if self._built != case.id:
            self.unload()
            self._start_gpu()
            self._import_libraries(case)
            artifact = Path(request.artifact) if request.artifact else None
            found = profile_recording.loaded(case, artifact, self.device) if artifact else None
            self.inference = found or self._reference.checked(case, self.device, lambda _step: None)[0]
            self._check_origin()
        self._building.release()  # layers are those of the engines, without Torch-TensorRT's CUDA graphs
        recorded = profile_recording.record(
            case.id, self.inference, accelerator.detect(), lambda _step: None, self.state
        )
        self.unload()
        return messages.ProfileReply(recorded.profile, recorded.information)

    def dry_run(self, request: messages.DryRun) -> Coverage:
        """Return what Torch-TensorRT would take of a case. Raises TrtgateError when that can't be asked."""
        from ..coverage import dry_run

        return dry_run.ask(self.case(request.case_id))

    def fingerprint(self, request: messages.FingerprintCase) -> Fingerprint:
        """Return what a case is, or why that can't be said."""
        from ..compiling.fingerprinting import Fingerprinter

        self._fingerprinter = self._fingerprinter or Fingerprinter()
        case = self.case(request.case_id)
        found: Fingerprint = self._fingerprinter.of(case, fresh=request.fresh, last=request.last)
        self._check_origin()
        return found

    def load(self, request: messages.Load) -> Loaded:
        """Load or build a case and run it once. Raises TrtgateError when its output is not eager's."""
        from ..compiling import lifecycle

        if request.artifact is None and self._built == request.case_id:
            return self._loaded(self.case(request.case_id), self.inference.compiled.build_s)
        self.unload()
        self._start_gpu()
        case = self.case(request.case_id)
        self._import_libraries(case)
        checked = request.lifecycle and request.artifact is not None
        ways = lifecycle.check_stored(case, Path(request.artifact or ""), self.device) if checked else {}
        start = time.perf_counter()
        waited_s = self._load(case, request)
        return self._loaded(case, time.perf_counter() - start - waited_s, ways=ways)

    def _loaded(self, case: Any, seconds: float, **fields: Any) -> Loaded:
        cache, note = runtime_cache.in_use(self.inference.compiled, engines=self._gpu and case.settings.uses_tensorrt)
        return Loaded(seconds=seconds, runtime_cache=cache, note=note, **fields)

    def start_cold(self, request: messages.StartCold) -> ColdStart:
        """Load or build a case and run it once. Raises TrtgateError where it can't be."""
        from ..compiling import cold_start

        self._start_gpu()
        case = self.case(request.case_id)
        self._import_libraries(case)
        return cold_start.measured(case, request.artifact, self.device, kernels=request.kernels)

    def delay(self, request: messages.Delay) -> messages.DelayedReply:
        """Make the loaded case slower on purpose, or, by 0, as fast as it is."""
        from ..timing.added_delay import Delayed, TooShortError, delayed

        if isinstance(self.inference, Delayed):
            self.inference = self.inference.inference
        self._end_timer()
        if not request.share:
            return messages.DelayedReply(0.0)
        try:
            self.inference, share = delayed(self.inference, request.share, self.state)
        except TooShortError as error:
            return messages.DelayedReply(0.0, too_short=str(error))
        return messages.DelayedReply(share)

    def _end_timer(self) -> None:
        if self._timer is not None:
            self._timer.close()
            self._timer = None

    def _load(self, case: Any, request: messages.Load) -> float:
        """Load or build a case; returns the seconds that it waited for its turn."""
        waited_s: list[float] = []
        if request.artifact is not None:
            self.inference = self._reference.load_checked(case, Path(request.artifact), self.device)
        else:
            self.inference, _ = self._reference.checked(
                case, self.device, lambda _step: None, processes=request.at_once,
                turn=lambda: waited_s.append(self._own_turn.wait()) if request.in_turn else None,
            )  # fmt: skip
        self._synchronize()
        self._check_origin()
        if self._gpu:
            gc.collect()
            self._torch.cuda.empty_cache()  # what eager took is not the case's
        return sum(waited_s)

    def unload(self) -> None:
        """Free the loaded case and its memory."""
        self._end_timer()
        self._building.end_case()
        self.inference, self._built = None, ""
        gc.collect()
        if self.monitor is not None:
            self._torch.cuda.empty_cache()

    def unloaded_bytes(self, *, measure: bool) -> int | None:
        """Free the loaded case; returns the GPU memory that this gave back, if that is asked for."""
        self._end_timer()  # captures that are kept lie beside padding of random size, which is none of the case's
        before = self._used_bytes()
        self.unload()
        return before - self._used_bytes() if measure and self._gpu else None

    def measure(self, request: messages.Measure) -> Turn:
        """Measure the loaded case for one turn. Raises TrtgateError when a latency is not a positive number."""
        if self.inference is None:
            raise TrtgateError("nothing is loaded to be measured")
        start = time.perf_counter()
        turn = msgspec.structs.replace(self._turn(request), seconds=time.perf_counter() - start)
        values = [us for capture in turn.captures for us in capture.blocks_us] + turn.host_us + turn.enqueue_us
        if not all(math.isfinite(us) and us > 0 for us in values):
            raise TrtgateError("the clock gave a latency that is not a positive number")
        return turn

    def _turn(self, request: messages.Measure) -> Turn:
        from ..timing import turns

        if not self._gpu:
            return turns.on_cpu(self.inference, request.plan)
        from ..timing.device_latency import DeviceTimer

        if self._timer is None:
            self._timer = DeviceTimer(self.inference, self.state, self.monitor.watch)
        return turns.on_gpu(self.inference, self._timer, self.state.spin, request.plan, random.Random(request.seed))

    def _synchronize(self) -> None:
        if self._gpu:
            self._torch.cuda.synchronize()

    def _used_bytes(self) -> int:
        return device_memory.used_bytes() if self._gpu else 0
