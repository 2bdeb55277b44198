"""The measuring loop: warm up under the same load until it stands still, then captures of blocks."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence

import msgspec

from ..records.measurement import Capture, GpuState
from .clock import Clock


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How much is measured; all but `turns` is of one turn, times in seconds."""

    turns: int = 2
    """Turns each launch gets with a case; between them the others measure, so that drift meets all alike."""
    captures: int = 12
    discard: int = 0
    """Captures before these that are replayed and thrown away: after another process had the GPU, the first one may
    lie in a faster place than all that follow (docs/decisions.md)."""
    settle: int = 0
    """Blocks of each capture, but the first of a turn, that are thrown away before the others."""
    blocks: int = 1
    """Of each capture: how one lies in memory moves it several times as far as its blocks differ, and the first reads
    as those that follow (docs/decisions.md)."""
    block_s: float = 0.005
    max_calls: int = 100
    warm: bool = True
    """Whether to warm up first; a turn that follows close upon another of the same case need not."""
    warmup_s: float = 0.2
    max_warmup_s: float = 3.0
    host_s: float = 0.1
    """Of host latencies on a GPU; 0: none."""
    tail_calls: int = 100
    """Single inferences, at most: on a GPU `tail_s` worth of them, an event around each; on a CPU those of blocks."""
    tail_s: float = 0.1
    canary: bool = True
    contended_retries: int | None = None
    """On a CPU: how many blocks that others disturbed are measured again before one counts all the same; None: none
    counts. In quadruples and warm-ups they count at last: whoever else is at work for long meets both sides alike."""

    def of_turn(self, number: int) -> Plan:
        """Return what a turn measures, 0 the first: host latencies and percentiles are of the last turn alone."""
        return self if number == self.turns - 1 else msgspec.structs.replace(self, host_s=0.0, tail_calls=0)


ON_GPU = Plan()
ON_CPU = Plan(
    turns=1, captures=1, blocks=5, block_s=0.05, max_calls=100_000, max_warmup_s=1.0, host_s=0.0, tail_calls=500
)  # fmt: skip
"""A block on a CPU is 50 ms or one call; of five the slowest and the fastest are trimmed away. One turn: a second one
would mostly warm up again."""

PAIR_ON_GPU = Plan(
    turns=1, captures=1, discard=1, settle=1, block_s=0.010, warm=False, host_s=0.01, tail_calls=0, canary=False
)  # fmt: skip
"""One block of a quadruple: a new capture for each, a throw-away one before it, since the other side had the GPU."""
PAIR_ON_CPU = Plan(
    turns=1, captures=1, blocks=1, block_s=0.05, max_calls=100_000, warm=False, host_s=0.0, tail_calls=0, canary=False,
    contended_retries=2,
)  # fmt: skip
WARM_UP_ON_GPU = Plan(turns=1, captures=1, blocks=1, host_s=0.02, tail_calls=0)
WARM_UP_ON_CPU = Plan(
    turns=1, captures=1, blocks=1, block_s=0.05, max_calls=100_000, max_warmup_s=1.0, host_s=0.0, tail_calls=0,
    contended_retries=0,
)  # fmt: skip
"""What either side runs before its first quadruple; it is not counted, but its canary is."""

Watched = tuple[GpuState | None, str]
"""The GPU's state during a block, and why the block does not count: empty when it does."""

FEWEST_OF_TAIL = 10
"""However long a single inference takes."""

MAX_VOIDS = 2
"""Void blocks of a capture that are measured again, as a multiple of the blocks wanted, one as if it were two; beyond
it the capture stays short."""


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


def measure(
    clock: Clock,
    plan: Plan,
    watch: Callable[[], Watched],
    restore: Callable[[], None] = lambda: None,
    kept: Callable[[], None] = lambda: None,
) -> tuple[list[Capture], list[GpuState], bool]:
    """Measure `plan.captures` captures; returns them, the GPU states of their blocks, and whether warm-up settled.

    `watch` is asked once in every block; `restore` puts back what calls change, before every block; `kept` is called
    after every block that counts. Raises CaptureError from the clock.
    """
    captures: list[Capture] = []
    states: list[GpuState] = []
    calls, steady = 1, True
    for number in range(plan.discard + plan.captures):
        clock.arm()
        if number == 0:
            calls, steady = warm_up(clock, plan, restore)
        else:
            for _ in range(plan.settle):
                restore()
                clock.block(calls, _nothing)
        if number < plan.discard:
            continue
        watch()  # what happened before the first block is not held against it
        capture = Capture(blocks_us=[], replays=calls)
        while len(capture.blocks_us) < plan.blocks and len(capture.void) < MAX_VOIDS * max(2, plan.blocks):
            seen: list[Watched] = []
            restore()
            latency_us = clock.block(calls, lambda seen=seen: seen.append(watch()))  # type: ignore[misc]
            state, reason = seen[0]
            if reason:
                capture.void.append(reason)
                continue
            capture.blocks_us.append(latency_us)
            kept()
            if state is not None:
                states.append(state)
        captures.append(capture)
    return captures, states, steady


def warm_up(clock: Clock, plan: Plan, restore: Callable[[], None] = lambda: None) -> tuple[int, bool]:
    """Run blocks for `warmup_s` and until their medians stand still; returns (calls a block, whether they did).

    Where the plan asks for no warm-up a single call must do: the case was warmed up before.
    """
    restore()
    calls = calls_per_block(max(clock.block(1, _nothing), 1e-3), plan)
    if not plan.warm:
        return calls, True
    blocks: list[float] = []
    start = time.perf_counter()
    while True:
        restore()
        blocks.append(clock.block(calls, _nothing))
        calls = calls_per_block(blocks[-1], plan)
        elapsed = time.perf_counter() - start
        if elapsed >= plan.warmup_s and stands_still(blocks, clock.steady_tolerance):
            return calls, True
        if elapsed >= plan.max_warmup_s:
            return calls, False


def stands_still(blocks: list[float], tolerance: float, window: int = 3) -> bool:
    """Whether the median of the last `window` blocks is within `tolerance` of the median of those before."""
    if len(blocks) < 2 * window:
        return False
    last, before = statistics.median(blocks[-window:]), statistics.median(blocks[-2 * window : -window])
    return abs(last / before - 1) <= tolerance


def _nothing() -> None:
    """Do nothing while the block runs."""
