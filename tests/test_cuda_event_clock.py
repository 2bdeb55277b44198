"""Queued events, on a GPU that is played: what the host queues behind a spin is timed as if the host took no time."""

from __future__ import annotations

from typing import Any

import pytest

from trtgate.timing import measuring_loop, plans
from trtgate.timing.cuda_event_clock import BATCH_CALLS, CudaEventsClock

WORK_US = 70.0


class Gpu:
    """A host and a GPU: what is queued starts when all before it is done, and not before it was queued."""

    def __init__(self) -> None:
        self.now_us = self.free_at_us = 0.0
        self.spins_us: list[float] = []

    def run(self, us: float) -> None:
        self.free_at_us = max(self.free_at_us, self.now_us) + us

    def queue(self, us: float) -> None:
        self.spins_us.append(us)
        self.run(us)

    def synchronize(self) -> None:
        self.now_us = max(self.now_us, self.free_at_us)

    def event(self, **_kwargs: Any) -> Event:
        return Event(self)


class Event:
    def __init__(self, gpu: Gpu) -> None:
        self.gpu = gpu
        self.at_us = 0.0

    def record(self) -> None:
        self.at_us = max(self.gpu.free_at_us, self.gpu.now_us)

    def query(self) -> bool:
        return self.at_us <= self.gpu.now_us

    def synchronize(self) -> None:
        self.gpu.now_us = max(self.gpu.now_us, self.at_us)

    def elapsed_time(self, end: Event) -> float:
        return (end.at_us - self.at_us) / 1e3


class Module:
    """A call takes the host `queuing_us`, the first a second, and the GPU WORK_US."""

    def __init__(self, gpu: Gpu, queuing_us: float) -> None:
        self.gpu, self.queuing_us, self.waits = gpu, queuing_us, False
        self.calls = 0

    def __call__(self) -> None:
        self.calls += 1
        self.gpu.now_us += 1e6 if self.calls == 1 else self.queuing_us
        self.gpu.run(WORK_US)
        if self.waits:
            self.gpu.synchronize()


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    made = Gpu()
    monkeypatch.setattr("torch.cuda.synchronize", made.synchronize)
    monkeypatch.setattr("torch.cuda.Event", made.event)
    monkeypatch.setattr("time.perf_counter", lambda: made.now_us / 1e6)
    return made


def armed(gpu: Gpu, module: Module) -> CudaEventsClock:
    clock = CudaEventsClock(module, gpu)  # type: ignore[arg-type]
    assert clock.arm(2) == 2
    return clock


def nothing() -> None: ...


@pytest.mark.parametrize("queuing_us", [5.0, 400.0])
def test_a_block_is_what_the_gpu_takes_however_slow_the_host(gpu: Gpu, queuing_us: float) -> None:
    assert armed(gpu, Module(gpu, queuing_us)).block(10, nothing) == pytest.approx(WORK_US)


def test_a_block_lasts_no_longer_where_the_host_is_slow(gpu: Gpu) -> None:
    clock = armed(gpu, Module(gpu, 400.0))
    plan = plans.Plan(warmup_s=0.0, block_s=0.005)
    calls = measuring_loop.warm_up(clock, plan).calls
    began_us = gpu.now_us
    clock.block(calls, nothing)
    assert 1 < calls < 10  # 71 calls are 5 ms of the GPU, and 50 ms of the host
    assert gpu.now_us - began_us == pytest.approx(5000.0, rel=0.2)


def test_a_first_call_that_compiles_makes_no_long_spins(gpu: Gpu) -> None:
    armed(gpu, Module(gpu, 400.0)).block(10, nothing)
    assert max(gpu.spins_us) == pytest.approx(1.5 * BATCH_CALLS * 400.0)


def test_a_host_that_got_slower_is_noticed_and_given_more_time(gpu: Gpu) -> None:
    module = Module(gpu, 100.0)
    clock = armed(gpu, module)
    module.queuing_us = 500.0
    asked = []
    assert clock.block(10, lambda: asked.append(gpu.now_us)) == pytest.approx(WORK_US)
    assert len(asked) == 1  # once a block, however often it was tried
    module.queuing_us = 100.0
    gpu.spins_us.clear()
    clock.block(BATCH_CALLS, nothing)
    assert gpu.spins_us == pytest.approx([1.5 * BATCH_CALLS * 100.0])


def test_a_module_that_waits_for_the_gpu_is_timed_with_its_gaps_and_without_long_spins(gpu: Gpu) -> None:
    module = Module(gpu, 100.0)
    clock = armed(gpu, module)
    module.waits = True
    clock.block(BATCH_CALLS, nothing)
    gpu.spins_us.clear()
    found_us = clock.block(2 * BATCH_CALLS, nothing)
    assert found_us > WORK_US + 50.0  # the host queues the next call when the GPU is done
    assert gpu.spins_us == pytest.approx([1.5 * BATCH_CALLS * 100.0] * 2)
