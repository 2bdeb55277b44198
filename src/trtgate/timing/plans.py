"""How much a turn measures: what a launch, a side of a pair and a warm-up run."""

from __future__ import annotations

import msgspec


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How much is measured; all but `turns` is of one turn, times in seconds."""

    turns: int = 1
    """Turns each launch gets with a case, or with a place of a quadruple; between them the others measure."""
    captures: int = 16
    """All made before anything is timed: how one lies in memory moves it several times as far as its blocks differ.
    More of them would bring launches of compiled modules no closer together (docs/decisions/0118)."""
    arm: bool = True
    """Whether to make captures; else those of the turn before are replayed."""
    keep: bool = False
    """Whether the captures are kept for the next turn."""
    blocks: int = 1
    """Of each capture, in random order among all of them."""
    block_s: float = 0.003
    max_calls: int = 100
    warm: bool = True
    """Whether to warm up first; a turn that follows close upon another of the same case need not."""
    warmup_s: float = 0.3
    max_warmup_s: float = 3.0
    window_s: float = 0.0
    """Of what the warm-up compares, one window with the one before; at least three blocks. A GPU warms up in steps that
    last 50 to 100 ms, and look steady: windows must be longer (docs/gpu-states.md)."""
    after_other: bool = False
    """Whether another process had the device since the case's last turn. What that left may look steady, so the warm-up
    waits until a block takes no longer than before, for `max_warmup_s` at most (docs/gpu-states.md)."""
    cpu: int | None = None
    """The CPU that the calling thread keeps to; None: any. Sides that take turns on one leave it no pause, after which
    a virtual machine's CPU may be another core (docs/server.md)."""
    threads_s: float = 0.0
    """Of calls by which it is looked whether they start threads, one at least; 0: not at all."""
    host_s: float = 0.1
    """Of host latencies on a GPU; 0: none."""
    host_calls: int = 10
    """At least."""
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


ON_GPU = Plan(warmup_s=0.2, max_warmup_s=1.0, window_s=0.1)
"""Two windows, each as long as the steps of a warm-up; longer ones moved nothing (docs/decisions/0119)."""
HOST_ALONE = Plan(turns=1, captures=0, tail_calls=0)
"""On a GPU, of a case whose device latency is known: what the host sees alone."""
ON_CPU = Plan(
    captures=1, blocks=5, block_s=0.05, max_calls=100_000, warmup_s=0.2, max_warmup_s=1.0, host_s=0.0, tail_calls=500
)  # fmt: skip
"""A block on a CPU is 50 ms or one call; of five the slowest and the fastest are trimmed away."""

PAIR_ON_GPU = Plan(
    captures=8, arm=False, keep=True, block_s=0.005, warmup_s=0.1, max_warmup_s=1.0, window_s=0.05, host_s=0.0,
    tail_calls=0, canary=False,
)  # fmt: skip
"""A turn of a quadruple: a block of every capture that the warm-up made, on the plateau, for the other side had the GPU
before."""
PAIR_OF_HOST = Plan(
    turns=4, captures=0, warmup_s=0.002, host_s=0.01, host_calls=1, tail_calls=0, canary=False,
)  # fmt: skip
"""What the host sees on a GPU, in turns of its own: short ones, as `PAIR_ON_CPU` has them."""
PAIR_OF_HOST_ALONE = msgspec.structs.replace(PAIR_OF_HOST, turns=16)
"""Where no device latency is asked for."""
PAIR_ON_CPU = Plan(
    turns=8, captures=1, blocks=1, block_s=0.02, max_calls=100_000, warm=False, host_s=0.0, tail_calls=0,
    canary=False, contended_retries=2,
)  # fmt: skip
"""On a CPU that others share, windows of 5 to 100 ms vary alike, whatever is read of them, and independently of one
another: many short turns say most in a second (docs/server.md)."""
WARM_UP_ON_GPU = Plan(
    captures=8, keep=True, block_s=0.005, warmup_s=0.2, max_warmup_s=1.0, window_s=0.1, host_s=0.02, tail_calls=0,
    threads_s=0.02,
)  # fmt: skip
WARM_UP_ON_CPU = Plan(
    captures=1, blocks=1, block_s=0.05, max_calls=100_000, warmup_s=0.2, max_warmup_s=1.0, host_s=0.0, tail_calls=0,
    contended_retries=0, threads_s=0.02,
)  # fmt: skip
"""What either side runs before its first quadruple; it is not counted, but its canary is."""
