"""Is a compiled module right however it is called: with other values, from another thread, as a CUDA graph?"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import torch

from ..common.errors import TrtgateError, one_line
from ..frontends import CompiledModule
from ..suite import samples
from ..suite.cases import Case
from ..suite.model_inputs import Inputs
from ..torch_trt import refitting
from . import building, made_modules
from .expected_output import Walked, wrong
from .fp32_arithmetic import arithmetic_of
from .inference import Inference
from .output_check import Comparison
from .reference import Reference

WEIGHTS_APART = (0.25, 0.5, 1.0)
"""How far other weights are off, in units of themselves; tried in turn until eager's output is another."""
WARM_CALLS = 2
"""Before a capture: the first call lets libraries make what they make once, the second finds all memory it needs."""


class Way(NamedTuple):
    """A way of calling a module: what is wrong then, or why it was not called so; both empty where it is right."""

    how: str
    problem: str = ""
    left_out: str = ""


class Others(NamedTuple):
    """Inputs of other values than the example's, and what eager makes of them."""

    inputs: Inputs
    wanted: Walked


def check(reference: Reference, inference: Inference) -> Comparison:
    """Compare a compiled module with eager in each of these ways. Raises TrtgateError, which names those that fail.

    What it changes is put back. `ways` of the result says in which ways it was compared, and why not in others.
    """
    compared = reference.check(inference)
    ways = list(_ways(reference, inference))
    problems = [f"{way.how}, {way.problem}" for way in ways if way.problem]
    if problems:
        said = f"case {reference.case.id}: {'; '.join(problems)}"
        raise TrtgateError(wrong(said))
    return msgspec.structs.replace(compared, ways={way.how: way.left_out for way in ways})


def check_stored(case: Case, artifact: Path, device: str) -> dict[str, str]:
    """Load a compiled module and compare it in each way; returns the ways as `Build.ways`. Raises TrtgateError."""
    made = Reference(case, device, lambda _step: None)
    try:
        return check(made, made.loaded(artifact)).ways
    except TrtgateError as error:
        raise TrtgateError(f"loaded in a fresh process: {error}") from error


def _ways(reference: Reference, inference: Inference) -> Iterator[Way]:
    example = inference.inputs
    try:
        yield _from_a_thread("called from a second thread", reference, inference)
        others = _others(reference)
        yield _with_others("called with inputs of other values", reference, inference, others)
        inference.inputs = example
        yield _as_a_graph("replayed as a CUDA graph with inputs of other values", reference, inference, others)
        yield _refitted("refitted with other weights", reference, inference)
    finally:
        inference.inputs = example
        inference.restore()


def _said(reference: Reference, call: Callable[[], Any], wanted: Walked) -> str:
    try:
        return reference.differs(call, wanted)
    except torch.cuda.OutOfMemoryError:
        raise
    except Exception as error:  # a module that raises when it is called so is wrong
        return one_line(error)


def _from_a_thread(how: str, reference: Reference, inference: Inference) -> Way:
    """Call it in a thread of its own, as servers do, and compare with eager there: it may keep thread-locals."""
    try:
        wanted = _in_a_thread(lambda: reference.eager_with(reference.inputs))
    except TrtgateError as error:
        return Way(how, left_out=f"eager fails there too: {error}")
    inference.restore()
    return Way(how, _said(reference, lambda: _in_a_thread(inference), wanted))


def _in_a_thread(call: Callable[[], Any]) -> Any:
    """Return what a call returns in another thread, and raise here what it raises there."""
    given: list[Any] = []
    errors: list[Exception] = []

    def run() -> None:
        try:
            given.append(call())
            if torch.cuda.is_initialized():
                torch.cuda.synchronize()
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return given[0]


def _others(reference: Reference) -> Others | str:
    """Return inputs of other values with which eager gives another output; or why there are none."""
    refused = ""
    same = False
    for inputs in samples.others(reference.case, reference.inputs, seed=samples.ACCURACY):
        try:
            wanted = reference.eager_with(inputs)
            apart = reference.between(wanted, reference.eager_with(inputs))
        except TrtgateError as error:
            refused = refused or str(error)
            continue
        if apart:  # a race, which these values show
            refused = refused or f"eager does not repeat itself: {apart}"
        elif reference.between(reference.expected.first, wanted):
            return Others(inputs, wanted)
        else:
            same = True
    if same:
        return "eager's output stays within its tolerance with those that were tried"
    return f"eager takes none of those that were tried: {refused}"


def _with_others(how: str, reference: Reference, inference: Inference, others: Others | str) -> Way:
    if isinstance(others, str):
        return Way(how, left_out=others)
    inference.restore()
    inference.inputs = others.inputs.cloned()
    return Way(how, _said(reference, inference, others.wanted))


def _as_a_graph(how: str, reference: Reference, inference: Inference, others: Others | str) -> Way:
    """Capture with the example, put other values where it lies, replay, and compare.

    What can't be captured is no fault: no clock replays it either.
    """
    if not any(value.is_cuda for value in inference.inputs.tensors):
        return Way(how, left_out="it runs on a CPU")
    if isinstance(others, str) or inference.not_capturable:
        return Way(how, left_out=inference.not_capturable or str(others))
    inference.restore()
    kept = inference.inputs.cloned()
    graph = torch.cuda.CUDAGraph()
    try:
        output = _captured(inference, graph)
    except torch.cuda.OutOfMemoryError:
        raise
    except RuntimeError as error:
        torch.cuda.synchronize()
        return Way(how, left_out=f"it can't be captured: {one_line(error)}")

    def replay() -> Any:
        inference.restore()
        for place, value in zip(inference.inputs.tensors, others.inputs.tensors, strict=True):
            place.copy_(value)
        graph.replay()
        torch.cuda.synchronize()
        return output

    try:
        return Way(how, _said(reference, replay, others.wanted))
    finally:
        for place, value in zip(inference.inputs.tensors, kept.tensors, strict=True):
            place.copy_(value)
        graph.reset()


def _captured(inference: Inference, graph: torch.cuda.CUDAGraph) -> Any:
    """Record a graph of one call, and return its output, which each replay writes anew."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_CALLS):
            inference()
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()
    inference.restore()
    torch.cuda.synchronize()
    with torch.cuda.graph(graph):
        return inference()


def _refitted(how: str, reference: Reference, inference: Inference) -> Way:
    """Put other weights into its engines. That the release can't is no fault."""
    case = reference.case
    unable = refitting.unable(case.settings)
    if unable:
        return Way(how, left_out=unable)
    inference.restore()
    other = _with_other_weights(reference)
    if isinstance(other, str):
        return Way(how, left_out=other)
    module, wanted = other
    try:
        with torch.no_grad(), arithmetic_of(case), building.quiet_upstream():
            refitted = refitting.refitted(
                inference.compiled.run, module, inference.inputs, case.settings, reference.dynamic_inputs()
            )  # fmt: skip
    except torch.cuda.OutOfMemoryError:
        raise
    except Exception as error:
        return Way(how, left_out=f"the release can't: {one_line(error)}")
    refit = Inference(CompiledModule(refitted, 0.0), inference.inputs.cloned())
    return Way(how, _said(reference, refit, wanted))


def _with_other_weights(reference: Reference) -> tuple[torch.nn.Module, Walked] | str:
    """Return a copy of the module whose weights make eager's output another, and that output; or why there is none."""
    generator = torch.Generator().manual_seed(samples.ACCURACY)
    said = "eager's output stays within its tolerance with those that were tried"
    for share in WEIGHTS_APART:
        try:
            module = made_modules.copied(reference.module)
        except Exception as error:
            return f"the model can't be copied: {one_line(error)}"
        with torch.no_grad():
            for parameter in module.parameters():
                noise = torch.randn(parameter.shape, generator=generator, device="cpu").to(parameter)
                parameter.mul_(1 + share * noise)
        try:
            wanted = reference.eager_of(module)
        except TrtgateError as error:
            said = f"eager takes none of those that were tried: {error}"
            continue
        if reference.between(reference.expected.first, wanted):
            return module, wanted
    return said
