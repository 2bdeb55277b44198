"""The measuring loop: warm up under the same load until it stands still, then captures of blocks."""

from __future__ import annotations

import math
import random
import statistics
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ..records.measurement import Capture, GpuState
from .clock import Clock
from .device_state import NO_STATE, DeviceState, Reading
from .plans import Plan

Watched = tuple[GpuState | None, str]
"""The GPU's state during a block, and why the block does not count: empty when it does."""

FEWEST_OF_TAIL = 10
"""However long a single inference takes."""

MAX_VOIDS = 2
"""Void blocks of a capture that are measured again, as a multiple of the blocks wanted, one as if it were two; beyond
it the capture stays short."""

RECOVERED = 0.003
"""By how much longer than before a block may take after another process's turn: half a step of the SM clock, which is
15 of 1980 MHz on an H100 and an H200."""

SETTINGS = 4
"""How often a turn sets the device's state again when a block was read in another one."""


def calls_per_block(latency_us: float, plan: Plan) -> int:
    """Return how many calls fill a block: `block_s` worth, at least one, at most `max_calls`."""
    return max(1, min(plan.max_calls, math.ceil(plan.block_s * 1e6 / latency_us)))


def calls_of_tail(captures: Sequence[Capture], plan: Plan) -> int:
    """Return how many single inferences are timed for the percentiles; none where not one block counted."""
    blocks_us = [us for capture in captures for us in capture.blocks_us]
    if not blocks_us:
        return 0
    return min(plan.tail_calls, max(FEWEST_OF_TAIL, int(plan.tail_s * 1e6 / statistics.median(blocks_us))))


def contended(void_reason: Callable[[], str], retries: int | None) -> Callable[[], Watched]:
    """Return what watches blocks on a CPU: those that others disturbed are void, but only `retries` of them, if any."""
    left = math.inf if retries is None else retries

    def watch() -> Watched:
        nonlocal left
        reason = void_reason()
        if reason:
            left -= 1
        return None, reason if left >= 0 else ""

    return watch


class Measured(NamedTuple):
    """What the loop gives: captures with their blocks, the GPU's states beside them, what was read of the device."""

    captures: list[Capture]
    states: list[GpuState]
    steady: bool
    """Whether warm-up settled."""
    readings: list[Reading]
    """Before and after the blocks that count."""
    problem: str
    """Why the device's state could not be set; empty when it was."""
    warm_us: float
    """What a block took when the warm-up ended; 0 without one."""


class Warm(NamedTuple):
    """What a warm-up gives."""

    calls: int
    """Of a block."""
    steady: bool
    """Whether blocks stood still, and took no longer than before."""
    us: float
    """What a block took then; 0 without a warm-up."""


def measure(
    clock: Clock,
    plan: Plan,
    watch: Callable[[], Watched],
    restore: Callable[[int], None] = lambda _capture: None,
    kept: Callable[[], None] = lambda: None,
    *,
    armed: int = 0,
    state: DeviceState = NO_STATE,
    rng: random.Random | None = None,
    before_us: float = math.inf,
) -> Measured:
    """Make `plan.captures` captures, or replay the `armed` ones; set the state, warm up, time their blocks in turns.

    Every block is read of a device whose state is verified before and after it; one in another state, or under a
    thermal slowdown, is void and measured again. `watch` is asked once in every block; `restore` puts back what calls
    change, before every block, in the inputs of a capture; `kept` is called after every block that counts. `before_us`
    is what a block took before another process had the device. Raises CaptureError from the clock.
    """
    count = clock.arm(plan.captures) if plan.arm else armed
    problem = state.set(anew=plan.arm)
    warm = warm_up(clock, plan, restore, before_us)
    blocks = _Blocks(clock, plan, watch, restore, state, warm.calls, count)
    order = list(range(count))
    while wanted := [number for number in order if blocks.wanted(number)]:
        for number in (rng or random).sample(wanted, len(wanted)):
            if blocks.timed(number):
                kept()
    return Measured(*blocks.found(), warm.steady, blocks.readings(), problem, warm.us)


class _Block(NamedTuple):
    capture: int
    us: float
    state: GpuState | None
    before: Reading
    after: Reading

    @property
    def sm_mhz(self) -> float:
        """What was read beside it."""
        return (self.before.sm_mhz + self.after.sm_mhz) / 2


class _Blocks:
    """Times blocks one by one, and keeps what counts, and why what does not does not."""

    def __init__(
        self, clock: Clock, plan: Plan, watch: Callable[[], Watched], restore: Callable[[int], None],
        state: DeviceState, calls: int, captures: int,
    ) -> None:  # fmt: skip
        self._clock, self._plan, self._watch, self._restore = clock, plan, watch, restore
        self._state, self._calls = state, calls
        self._settings = SETTINGS
        self._counted: list[_Block] = []
        self._void: list[list[str]] = [[] for _ in range(captures)]
        watch()  # what happened before the first block is not held against it
        self._before = state.read()

    def wanted(self, capture: int) -> bool:
        """Whether a capture lacks blocks, and has not had too many that are void."""
        have = sum(block.capture == capture for block in self._counted)
        return have < self._plan.blocks and len(self._void[capture]) < MAX_VOIDS * max(2, self._plan.blocks)

    def timed(self, capture: int) -> bool:
        """Time a block; returns whether it counts, as far as it is known."""
        seen: list[Watched] = []
        self._restore(capture)
        latency_us = self._clock.block(self._calls, lambda: seen.append(self._watch()), capture)
        before, after = self._before, self._state.read()
        self._before = after
        gpu, reason = seen[0]
        other = self._state.wrong(before) or self._state.wrong(after)
        if reason or other:
            self._void[capture].append(reason or other)
            if other and self._settings:
                self._settings -= 1
                self._state.set(anew=False)
                warm_up(self._clock, self._plan, self._restore)
                self._before = self._state.read()
            return False
        self._counted.append(_Block(capture, latency_us, gpu, before, after))
        return True

    def found(self) -> tuple[list[Capture], list[GpuState]]:
        """Return the captures and the states of what counts, in the order in which it was timed."""
        captures = []
        for number, void in enumerate(self._void):
            counted = [block for block in self._counted if block.capture == number]
            sm_mhz = [round(block.sm_mhz, 1) for block in counted if block.sm_mhz]
            captures.append(
                Capture(blocks_us=[one.us for one in counted], replays=self._calls, void=void, sm_mhz=sm_mhz)
            )
        return captures, [block.state for block in self._counted if block.state is not None]

    def readings(self) -> list[Reading]:
        """Return what was read beside the blocks that count."""
        return [one for block in self._counted for one in (block.before, block.after) if one.probe_us]


def warm_up(
    clock: Clock, plan: Plan, restore: Callable[[int], None] = lambda _capture: None, before_us: float = math.inf
) -> Warm:
    """Run blocks for `warmup_s` and until they stand still, and take no longer than `before_us`, as far as they come.

    Where the plan asks for no warm-up a single call must do: the case was warmed up before.
    """
    restore(0)
    calls = calls_per_block(max(clock.block(1, _nothing), 1e-3) + clock.overhead_us, plan)
    if not plan.warm:
        return Warm(calls, True, 0.0)
    blocks: list[float] = []
    start = time.perf_counter()
    while True:
        restore(0)
        blocks.append(clock.block(calls, _nothing))
        calls = calls_per_block(blocks[-1] + clock.overhead_us, plan)
        elapsed = time.perf_counter() - start
        window = max(3, math.ceil(plan.window_s / elapsed * len(blocks)))
        us = statistics.median(blocks[-window:])
        steady = stands_still(blocks, clock.steady_tolerance, window) and not is_slower(us, before_us)
        if elapsed >= (plan.warmup_s if steady else plan.max_warmup_s):
            return Warm(calls, steady, us)


def is_slower(us: float, before_us: float) -> bool:
    """Whether a block takes longer than before another process's turn, by more than the clocks differ by themselves."""
    return us > before_us * (1 + RECOVERED)


def stands_still(blocks: list[float], tolerance: float, window: int = 3) -> bool:
    """Whether the median of the last `window` blocks is within `tolerance` of the median of those before."""
    if len(blocks) < 2 * window:
        return False
    last, before = statistics.median(blocks[-window:]), statistics.median(blocks[-2 * window : -window])
    return abs(last / before - 1) <= tolerance


def _nothing() -> None:
    """Do nothing while the block runs."""
