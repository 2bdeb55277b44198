"""The clock on a real GPU: it sets the state that was asked for, notices that it is lost, finds what was planted."""

from __future__ import annotations

import gc
import random
import statistics
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from trtgate.common.accelerator import detect
from trtgate.suite.model_inputs import Inputs
from trtgate.timing import measuring_loop, plans, stream_state
from trtgate.timing.added_delay import TooShortError, delayed
from trtgate.timing.device_latency import DeviceTimer
from trtgate.timing.device_state import MANY, ONE, STREAMS
from trtgate.timing.gpu_state import GpuMonitor
from trtgate.timing.stream_state import StreamState

LAYERS = 60
"""Kernels of the model: launching them is most of what it takes."""


class Chain:
    """A chain of small kernels, called as a compiled module is."""

    not_capturable = ""
    changes = ()

    def __init__(self) -> None:
        self.inputs = Inputs((torch.zeros(4096, device="cuda"),))

    def __call__(self) -> Any:
        (value,) = self.inputs.args
        for _ in range(LAYERS):
            value = value + 1
        return value

    def place_inputs(self) -> Inputs:
        self.inputs = self.inputs.cloned()
        return self.inputs

    def restore(self, placed: Any = None) -> None: ...


@pytest.fixture(params=STREAMS)
def state(request: pytest.FixtureRequest) -> Iterator[StreamState]:
    with stream_state.alone(detect().uuid, request.param) as made:
        yield made


def timed(call: Any, state: StreamState, plan: plans.Plan = plans.ON_GPU) -> measuring_loop.Measured:
    timer = DeviceTimer(call, state, GpuMonitor(detect().uuid).watch)
    found, _ = timer.measure(random.Random(0), plan)
    assert timer.note == ""
    timer.close()
    return found


def latency_us(found: measuring_loop.Measured) -> float:
    return statistics.fmean(us for capture in found.captures for us in capture.blocks_us)


def test_the_state_that_was_asked_for_is_there_beside_every_block(state: StreamState) -> None:
    found = timed(Chain(), state)
    assert [len(capture.blocks_us) for capture in found.captures] == [1] * plans.ON_GPU.captures
    assert found.problem == ""
    assert all(not state.wrong(reading) for reading in found.readings)
    print(state.streams, latency_us(found), state._border_us, found.readings[0])


def test_the_two_states_are_told_apart_and_take_different_times() -> None:
    with stream_state.alone(detect().uuid, ONE) as one, stream_state.alone(detect().uuid, MANY) as many:
        call = Chain()
        alone_us, beside_us = latency_us(timed(call, one)), latency_us(timed(call, many))
    print(alone_us, beside_us)
    assert beside_us > 1.05 * alone_us


def test_a_stream_that_works_meanwhile_voids_blocks_and_the_state_is_set_again() -> None:
    with stream_state.alone(detect().uuid, ONE) as state:
        seen, read = 0, []

        def watch() -> measuring_loop.Watched:
            nonlocal seen
            seen += 1
            if seen == 5:
                torch.cuda.synchronize()
                read.append(state._touched_us())  # which goes on until the probe reads the other state
            return None, ""

        timer = DeviceTimer(Chain(), state, watch)
        found, _ = timer.measure(random.Random(0), plans.ON_GPU)
        timer.close()
    voids = [reason for capture in found.captures for reason in capture.void]
    print(read, state._border_us, voids)
    assert state._border_us, "this GPU has no such states"
    assert read[0] > state._border_us
    assert voids
    assert all("another state of the GPU" in reason for reason in voids)
    assert all(capture.blocks_us for capture in found.captures)


def test_a_planted_slowdown_is_found_in_either_state(state: StreamState) -> None:
    call = Chain()
    slower, share = delayed(call, 0.05, state)
    ratio = latency_us(timed(slower, state)) / latency_us(timed(call, state))
    print(state.streams, share, ratio)
    assert ratio - 1 == pytest.approx(share, abs=0.01)


def test_a_delay_that_is_shorter_than_a_kernel_is_refused(state: StreamState) -> None:
    with pytest.raises(TooShortError, match="a further kernel takes at least"):
        delayed(Chain(), 1e-6, state)


class Freed:
    """What can be freed only by collecting garbage, and may not be while a graph is captured, as an engine may not."""

    def __init__(self) -> None:
        self.itself = self

    def __del__(self) -> None:
        torch.cuda.synchronize()


def test_garbage_is_not_collected_while_a_graph_is_captured() -> None:
    class Littering(Chain):
        def __call__(self) -> Any:
            Freed()
            return super().__call__()

    before = gc.get_threshold()
    gc.set_threshold(1)
    try:
        with stream_state.alone(detect().uuid) as state:
            assert timed(Littering(), state).captures
    finally:
        gc.set_threshold(*before)


def test_captures_are_kept_for_the_turns_of_a_pair() -> None:
    with stream_state.alone(detect().uuid) as state:
        timer = DeviceTimer(Chain(), state, GpuMonitor(detect().uuid).watch)
        warm, _ = timer.measure(random.Random(0), plans.WARM_UP_ON_GPU)
        graphs = list(timer._clock._graphs)  # type: ignore[union-attr]
        turn, _ = timer.measure(random.Random(0), plans.PAIR_ON_GPU)
        assert list(timer._clock._graphs) == graphs  # type: ignore[union-attr]
        timer.close()
    assert latency_us(turn) == pytest.approx(latency_us(warm), rel=0.01)
