"""What a worker does of a case under load: threads that call it all at once, and memory while it is called."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ..common.errors import TrtgateError, one_line
from ..common.explanations import Explanation, explained
from ..common.metrics import GPU_GROWTH, HOST_GROWTH, METRICS, TORCH_GROWTH
from ..records.measurement import MemoryReadings
from ..verdict import grows_late, growth
from . import load_messages

if TYPE_CHECKING:
    from ..compiling.inference import Inference
    from .worker_state import Worker


def begin(worker: Worker, request: load_messages.BeginLoad) -> load_messages.LoadBegun:
    """Compare what threads get with what a call alone gives, and start threads that call the loaded case.

    Raises TrtgateError where it can't be called so, or gives another output.
    """
    from ..compiling import outputs_of_threads
    from ..timing.load_drivers import Drivers

    case = worker.case(request.case_id)
    inferences, as_called = _for_threads(worker, case, request), _as_a_server(worker)
    try:
        if request.threads > 1:
            outputs_of_threads.check(case, inferences, as_called)
            worker.inference.restore()
        worker.drivers = Drivers(list(map(as_called, inferences)))
        return load_messages.LoadBegun(worker.drivers.begin())
    except outputs_of_threads.WrongOfThreadsError as error:
        said = f"it gives another output than called alone: {error}"
        raise TrtgateError(explained(said, Explanation.WRONG_OUTPUT)) from error
    except BaseException as error:  # in a thread: sys.exit there ends nothing but that
        raise _raised("", error) from error


def end(worker: Worker, request: load_messages.EndLoad) -> load_messages.LoadEnded:
    """End the threads. Raises TrtgateError where a call failed meanwhile."""
    drivers, worker.drivers = worker.drivers, None
    try:
        driven = drivers.end(request.began_s, request.ended_s)
    except BaseException as error:
        raise _raised("", error) from error
    return load_messages.LoadEnded(
        latencies_us=driven.latencies_us, inferences=driven.inferences, in_flight_us=list(driven.in_flight_us)
    )


def _raised(when: str, error: BaseException) -> TrtgateError:
    return TrtgateError(explained(f"{when}it raised {one_line(error)}", Explanation.LOAD_FAILED))


def _begins_to_grow(readings: MemoryReadings) -> bool:
    kinds = {HOST_GROWTH: readings.host_bytes, TORCH_GROWTH: readings.torch_bytes, GPU_GROWTH: readings.gpu_bytes}
    return any(grows_late(values, readings.calls, METRICS[name].resolution) for name, values in kinds.items())


def _for_threads(
    worker: Worker, case: Any, request: load_messages.BeginLoad | load_messages.ReadMemory
) -> list[Inference]:
    """Return what each thread calls: with inputs of its own, and, where it has engines, a module of its own.

    An engine that Torch-TensorRT runs has one execution context, which TensorRT allows on one stream at a time.
    """
    from ..compiling import building
    from ..torch_trt import engine_sizes

    first = worker.inference
    first.restore()
    of_own = case.settings.uses_tensorrt or bool(engine_sizes.of(first.compiled.run))
    found = [first]
    while len(found) < request.threads:
        if not of_own:
            found.append(first.with_inputs(first.inputs.cloned()))
        elif request.artifact is not None:
            found.append(building.load(case, Path(request.artifact), worker.device))
        else:
            made = building.make(case, worker.device)
            found.append(building.build(case, *made, lambda _step: None))
    return found


def _as_a_server(worker: Worker) -> Callable[[Inference], Callable[[], object]]:
    """Return what makes a call of an inference that is over when it returns: on a GPU on a stream of its own."""
    if worker.device != "cuda":
        return lambda inference: inference
    import torch

    def on_a_stream(inference: Inference) -> Callable[[], object]:
        torch.cuda.synchronize()  # what was made on the default stream is there
        stream = torch.cuda.Stream()

        def call() -> object:
            with torch.cuda.stream(stream):
                found = inference()
                stream.synchronize()
            return found

        return call

    return on_a_stream


def measure_cold_l2(worker: Worker, request: load_messages.MeasureColdL2) -> load_messages.ColdL2Reply:
    """Measure device latency with a cold L2 cache."""
    from ..timing import cold_l2

    captures = cold_l2.measured(worker.inference, worker.state, worker.monitor.watch, random.Random(request.seed))
    worker.inference.restore()
    return load_messages.ColdL2Reply(captures)


def read_memory(worker: Worker, request: load_messages.ReadMemory) -> load_messages.MemoryReply:
    """Read memory while the case is called, and find the lines that keep some where that of the host grows."""
    from ..timing import memory_growth
    from ..timing.load_drivers import Together

    inferences = _for_threads(worker, worker.case(request.case_id), request)
    call = Together(list(map(_as_a_server(worker), inferences)))
    try:
        readings = memory_growth.settled(
            call, gpu=worker.device == "cuda", at_once=request.threads, again=_begins_to_grow
        )
        found = growth(readings.host_bytes, readings.calls, METRICS[HOST_GROWTH].resolution)
        if found is not None and found.low > 0:
            readings = msgspec.structs.replace(readings, places=memory_growth.places(call, request.threads))
    except BaseException as error:
        raise _raised("called again and again, ", error) from error
    worker.inference.restore()
    return load_messages.MemoryReply(readings)
