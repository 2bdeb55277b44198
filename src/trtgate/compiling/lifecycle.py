"""Is a compiled module right however it is called: with other values, from another thread, as a CUDA graph?"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch

from ..common.errors import TrtgateError, one_line
from ..suite import samples
from .building import Inference
from .output_check import Comparison
from .reference import Reference, Walked

WARM_CALLS = 2
"""Before a capture: the first call lets libraries make what they make once, the second finds all memory it needs."""


def check(reference: Reference, inference: Inference) -> Comparison:
    """Compare a compiled module with eager in each of these ways. Raises TrtgateError, which names those that fail.

    What it changes is put back. A graph that can't be captured is no failure: no clock replays it either.
    """
    compared = reference.check(inference)
    problems = [f"{how}, {problem}" for how, problem in _problems(reference, inference) if problem]
    if problems:
        said = f"case {reference.case.id}: {'; '.join(problems)}"
        raise TrtgateError(f"{said}; nothing was timed or stored")
    return compared


def _problems(reference: Reference, inference: Inference) -> Iterator[tuple[str, str]]:
    example = inference.inputs
    others = next(samples.of(reference.case.model, example, 1, seed=samples.ACCURACY))
    try:
        yield "called from a second thread", _said(reference, _in_a_thread(inference))
        inference.restore()
        wanted = reference.eager_with(others)
        if wanted is None:  # eager can't take them: nothing to compare with
            return
        inference.inputs = others
        yield "called with inputs of other values", _said(reference, inference, wanted)
        inference.inputs = example
        if example[0].is_cuda and not inference.changes:
            yield (
                "replayed as a CUDA graph with inputs of other values",
                _replayed(reference, inference, others, wanted),
            )
    finally:
        inference.inputs = example
        inference.restore()


def _said(reference: Reference, call: Callable[[], Any], wanted: Walked | None = None) -> str:
    try:
        return reference.differs(call, wanted)
    except torch.cuda.OutOfMemoryError:
        raise
    except Exception as error:  # a module that raises when it is called so is wrong
        return one_line(error)


def _in_a_thread(inference: Inference) -> Callable[[], Any]:
    """Return a call that runs in a thread of its own, as servers run modules, and raises here what it raises there."""

    def call() -> Any:
        inference.restore()
        given: list[Any] = []
        errors: list[Exception] = []

        def run() -> None:
            try:
                given.append(inference())
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

    return call


def _replayed(reference: Reference, inference: Inference, others: tuple[Any, ...], wanted: Walked) -> str:
    """Capture with the example, put other values where it lies, replay, and compare."""
    kept = tuple(value.clone() for value in inference.inputs)
    graph = torch.cuda.CUDAGraph()
    try:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_CALLS):
                inference()
        torch.cuda.current_stream().wait_stream(stream)
        torch.cuda.synchronize()
        with torch.cuda.graph(graph):
            output = inference()
    except RuntimeError:
        torch.cuda.synchronize()
        return ""

    def replay() -> Any:
        for place, value in zip(inference.inputs, others, strict=True):
            place.copy_(value)
        graph.replay()
        torch.cuda.synchronize()
        return output

    try:
        return _said(reference, replay, wanted)
    finally:
        for place, value in zip(inference.inputs, kept, strict=True):
            place.copy_(value)
        graph.reset()
