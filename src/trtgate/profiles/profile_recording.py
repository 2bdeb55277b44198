"""Records the profile of a compiled module on a GPU: its latency without a profiler, then its parts, layer by layer."""

from __future__ import annotations

import datetime
import random
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch.utils import _pytree as pytree

from ..common.accelerator import Accelerator
from ..common.errors import TrtgateError, one_line
from ..common.steps import OnStep
from ..compiling import reference
from ..compiling.inference import Inference
from ..frontends import dynamo
from ..records.profile_record import PYTORCH, TENSORRT, Breakdown, Part, Profile
from ..suite.cases import Case
from ..suite.settings import VERBOSITIES
from ..timing import plans
from ..timing.device_latency import DeviceTimer
from ..timing.stream_state import StreamState
from ..torch_trt import engine_sizes, layer_profiler, loaded_engines
from ..torch_trt import engines as trt_engines
from ..torch_trt.own_runtime import OwnRuntime
from . import pytorch_segments
from .attribution import attribute
from .engine_information import in_order, layers_of
from .layer_times import timed


class ProfilePlan(msgspec.Struct, frozen=True, kw_only=True):
    """How much is measured: every block is the median of `calls` warm calls.

    The C++ runtime writes its files at every call, which takes far longer than an inference (40 ms for
    efficientnet_b0 on an H200), so a block is one call there, after fewer that warm up.
    """

    warm_up: int = 20
    blocks: int = 20
    calls: int = 4
    cpp_warm_up: int = 5
    own_runtime: bool = False
    """Whether engines are run by `tensorrt.Runtime` here instead of by the runtime that the case asks for."""


DEVICE_PLAN = msgspec.structs.replace(plans.ON_GPU, captures=6, host_s=0.0, tail_calls=0, canary=False)
"""Of the latency without a profiler, beside which the layers are put: within a percent is enough for that."""


class RecordedProfile(msgspec.Struct, kw_only=True):
    """A profile, and what the inspector said of each engine: for TREx."""

    profile: Profile
    information: dict[str, Any]
    """Name of the part → the inspector's JSON, parsed."""


def record(
    case_id: str, inference: Inference, accelerator: Accelerator, step: OnStep, state: StreamState,
    plan: ProfilePlan | None = None,
) -> RecordedProfile:  # fmt: skip
    """Profile a compiled module that is in this process. Hold the device's lock; `state` is the GPU's.

    Its engines report their layers from then on, so the module is good for nothing else afterwards. A part that can't
    be profiled says why in `problem`; the others go on. Raises TrtgateError when the module has no parts that are
    known, or has other engines than were seen being built.
    """
    plan = plan or ProfilePlan()
    modules = _modules(case_id, inference)
    parts = [part for part, _ in modules.values()]
    step("latency without a profiler")
    head_start = layer_profiler.HeadStart(state.spin)
    latency = _device_latency(inference, state)
    submodules = {name: module for name, (_, module) in modules.items()}
    inputs = _inputs_of(submodules, inference)
    engines = _engines(parts, submodules, plan)
    runtimes, of_engines = {engine.runtime for engine in engines.values()}, plan
    if trt_engines.CPP in runtimes:
        of_engines = msgspec.structs.replace(plan, warm_up=plan.cpp_warm_up, calls=1)
    recorded = _without_layers(case_id, accelerator, parts, of_engines, latency, "+".join(sorted(runtimes)))
    step("kernels without TensorRT's profiler")
    kernels = _kernels(inference, plan)
    times = _time_engines(engines, inference, of_engines, head_start, step)
    for part in parts:
        step(f"profile of {part.name or 'the graph'}")
        try:
            if part.name not in inputs:
                raise TrtgateError("it was not called")
            if part.kind == PYTORCH:
                on_gpu = accelerator.kind == "gpu"
                _profile_segment(part, submodules[part.name], inputs[part.name], plan, on_gpu=on_gpu)
            else:
                recorded.information[part.name] = _profile_engine(
                    part, engines[part.name], inputs[part.name], times.get(part.name), plan, head_start
                )
        except TrtgateError as error:
            part.problem = str(error)
        except Exception as error:  # of TensorRT, CUDA, torch: this part's alone
            part.problem = one_line(error)
    _break_down(recorded.profile, kernels, plan)
    return recorded


def loaded(case: Case, artifact: Path, device: str) -> Inference | None:
    """Load a stored module to be profiled; returns None where it has to be built for that.

    It has where it has parts in PyTorch, which are not seen in a loaded program any more, and where its shapes are
    dynamic, so that all of them share what is stored. Raises as `reference.load_checked`.
    """
    parts = dynamo.stored_parts(artifact)
    if case.settings.dynamic or not _is_all_engines(parts):
        return None
    inference = reference.load_checked(case, artifact, device)
    compiled = inference.compiled
    try:
        loaded_engines.make_submodules(compiled.run, [part.name for part in parts[0]])
    except TrtgateError:
        return None
    compiled.parts, compiled.modules = parts, (compiled.run,)
    return inference


def _is_all_engines(parts: Sequence[Sequence[Part]]) -> bool:
    """Return whether a module is one graph, and that is engines alone; not where nothing is known."""
    return len(parts) == 1 and all(part.kind == TENSORRT and part.name for part in parts[0]) and bool(parts[0])


def _without_layers(
    case_id: str, accelerator: Accelerator, parts: list[Part], plan: ProfilePlan, latency: tuple[float | None, str],
    runtime: str,
) -> RecordedProfile:  # fmt: skip
    recorded = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    profile = Profile(
        case_id=case_id, accelerator=accelerator, recorded=recorded, runtime=runtime,
        calls=plan.blocks * plan.calls, parts=parts, device_us=latency[0], clock=latency[1],
    )  # fmt: skip
    return RecordedProfile(profile=profile, information={})


def _engines(parts: list[Part], submodules: dict[str, Any], plan: ProfilePlan) -> dict[str, trt_engines.BuiltEngine]:
    return {
        part.name: trt_engines.BuiltEngine(submodules[part.name], own=plan.own_runtime)
        for part in parts
        if part.kind == TENSORRT
    }


def _profile_segment(part: Part, submodule: Any, inputs: tuple[Any, ...], plan: ProfilePlan, *, on_gpu: bool) -> None:
    pytorch_segments.profile_segment(
        part, submodule, inputs, on_gpu=on_gpu, warm_up=plan.warm_up, blocks=plan.blocks, calls=plan.calls
    )


def _modules(case_id: str, inference: Inference) -> dict[str, tuple[Part, Any]]:
    """Return every part and its submodule, by the part's name. Raises TrtgateError when one is not there."""
    compiled = inference.compiled
    if not all(compiled.parts) or not compiled.parts or len(compiled.parts) != len(compiled.modules):
        raise TrtgateError(f"case {case_id}: nothing is known of its parts; only TensorRT's frontends are profiled")
    found: dict[str, tuple[Part, Any]] = {}
    for number, (parts, whole) in enumerate(zip(compiled.parts, compiled.modules, strict=True)):
        for part in parts:
            name = part.name if len(compiled.parts) == 1 else f"graph_{number}{part.name}"
            try:
                found[name] = msgspec.structs.replace(part, name=name, layers=[]), whole.get_submodule(part.name)
            except AttributeError:
                raise TrtgateError(f"case {case_id}: the compiled module has no {part.name}, which was built") from None
    engines = sum(len(engine_sizes.of(whole)) for whole in compiled.modules)
    wanted = sum(part.kind == TENSORRT for part, _ in found.values())
    if engines != wanted:
        raise TrtgateError(f"case {case_id}: {wanted} engines were seen being built, and it has {engines}")
    return found


def _device_latency(inference: Inference, state: StreamState) -> tuple[float, str]:
    timer = DeviceTimer(inference, state, lambda: (None, ""))
    found, _ = timer.measure(random.Random(), DEVICE_PLAN)
    blocks_us = [us for capture in found.captures for us in capture.blocks_us]
    if not blocks_us:
        raise TrtgateError(f"its latency can't be measured: {found.captures[0].void[0]}")
    return statistics.median(blocks_us), timer.name


def _inputs_of(modules: dict[str, Any], inference: Inference) -> dict[str, tuple[Any, ...]]:
    """Run once and keep what every part was called with, flat, as its graph has placeholders."""
    kept: dict[str, tuple[Any, ...]] = {}

    def keep(name: str) -> Any:
        def hook(module: Any, args: Any, kwargs: Any) -> None:
            structure = getattr(module, "_in_spec", None)  # of an exported program that stays whole
            given = (args, kwargs)
            leaves = pytree.tree_leaves(given) if structure is None else structure.flatten_up_to(given)
            kept[name] = tuple(value.clone() if isinstance(value, torch.Tensor) else value for value in leaves)

        return hook

    handles = [module.register_forward_pre_hook(keep(name), with_kwargs=True) for name, module in modules.items()]
    try:
        inference()
    finally:
        for handle in handles:
            handle.remove()
    return kept


def _time_engines(
    engines: dict[str, trt_engines.BuiltEngine],
    inference: Inference,
    plan: ProfilePlan,
    head_start: layer_profiler.HeadStart,
    step: OnStep,
) -> dict[str, layer_profiler.LayerTimes]:
    """Time the layers of all engines that Torch-TensorRT's own runtimes run, in calls of the whole module."""
    if all(engine.runtime == trt_engines.OWN for engine in engines.values()):
        return {}
    step("profile by Torch-TensorRT's runtime")
    head_start.cover(inference)
    with layer_profiler.profiling(engines, head_start) as profiled:
        profiled.call(inference, plan.warm_up)
        for times in profiled.times.values():
            times.calls.clear()
        for _ in range(plan.blocks):
            profiled.call(inference, plan.calls)
        return profiled.times


def _profile_engine(
    part: Part,
    engine: trt_engines.BuiltEngine,
    inputs: tuple[Any, ...],
    times: layer_profiler.LayerTimes | None,
    plan: ProfilePlan,
    head_start: layer_profiler.HeadStart,
) -> Any:
    """Give an engine's part its layers; returns what the inspector says."""
    information = engine.information()
    part.engine_bytes = len(engine.serialized)
    part.verbosity = trt_engines.verbosity_of(information)
    if times is None:
        own = OwnRuntime(engine, inputs)
        times = own.profile(warm_up=plan.warm_up, calls=plan.blocks * plan.calls, head_start=head_start)
    names, columns = times.blocks_us(plan.blocks)
    described = [] if part.verbosity == VERBOSITIES[0] else layers_of(information)
    part.layers = in_order(described, names)
    timed(part, columns)
    attribute(part)
    return information


def _kernels(inference: Inference, plan: ProfilePlan) -> list[pytorch_segments.Kernel] | str:
    """Return the kernels of `plan.calls` calls, or why they are not known."""
    try:
        return pytorch_segments.kernels(inference, warm_up=plan.warm_up, calls=plan.calls)
    except RuntimeError as error:
        return f"kernels could not be traced: {one_line(error)}"


def _break_down(profile: Profile, kernels: list[pytorch_segments.Kernel] | str, plan: ProfilePlan) -> None:
    """Say what lies between the sum of layers and the latency without a profiler."""
    if any(part.problem for part in profile.parts):
        profile.notes.append("what lies between layers and latency is not said, as not all parts were profiled")
    elif isinstance(kernels, str):
        profile.notes.append(kernels)
    elif not kernels or profile.device_us is None:
        profile.notes.append("torch.profiler saw no kernel: is CUPTI allowed to trace on this machine?")
    else:
        if len(kernels) % plan.calls:
            profile.notes.append(f"{len(kernels)} kernels were seen in {plan.calls} calls: some are missing")
        kernels_us = sum(duration for _, _, duration in kernels) / plan.calls
        profile.breakdown = Breakdown(
            kernels_us=kernels_us,
            copies_us=pytorch_segments.copies_us(kernels) / plan.calls,
            between_us=profile.device_us - pytorch_segments.busy_us(kernels) / plan.calls,
            profiler_us=profile.sum_us - kernels_us,
        )
