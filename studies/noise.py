"""Noise at every level of the hierarchy, and launches, pairs of launches and sessions drawn with it.

All sizes are standard deviations of the log: 0.001 is 0.1 %. A case's true latency is 1 (log 0), a changed case's is
larger by `effect`. Arrays have one row a case.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

from trtgate.verdict.stored_sessions import TRIMMED

CAPTURES = 16
"""What a launch of a session measures: so many captures, one block of each."""


@dataclass(frozen=True)
class Noise:
    """How far measurements of unchanged code lie apart, and why."""

    block: float
    capture: float
    launch: float
    session: float = 0.0
    """Between sessions: common to all launches of one; two arms that are measured side by side share it."""
    student: int = 0
    """Block, capture and launch follow Student's t with so many degrees of freedom, scaled to the same standard
    deviation; 0: normal."""
    drift: float = 0.0
    """Per block: a slope that each process has of its own, and a random walk on top, both of this size."""
    slower: float = 0.0
    """With probability `slower_share` a launch is slower by this: a second mode."""
    slower_share: float = 0.25

    def draw(self, sd: float, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        """Return independent values with standard deviation `sd`."""
        if sd == 0:
            return np.zeros(shape)
        if self.student:
            return rng.standard_t(self.student, shape) * (sd / math.sqrt(self.student / (self.student - 2)))
        return rng.normal(0.0, sd, shape)

    def launches(self, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        """Return the offsets of launches."""
        offsets = self.draw(self.launch, shape, rng)
        if self.slower:
            offsets += self.slower * (rng.random(shape) < self.slower_share)
        return offsets

    def captured_blocks(self, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        """Return blocks of which each has a capture of its own."""
        if self.student:
            return self.draw(self.capture, shape, rng) + self.draw(self.block, shape, rng)
        return self.draw(math.hypot(self.capture, self.block), shape, rng)  # the sum of two normals, drawn at once


class Pairs:
    """Pairs of launches A and B that measure quadruples of blocks, ABBA or BAAB at random, a new capture each."""

    def __init__(self, noise: Noise, effect: float, shape: tuple[int, ...], rng: np.random.Generator) -> None:
        """Launch `shape` pairs; B is slower by `effect` (0.01: 1 %)."""
        self.noise, self.effect, self.rng = noise, effect, rng
        self.base = noise.launches(shape, rng)
        self.candidate = noise.launches(shape, rng) + math.log1p(effect)
        self.slope = noise.draw(noise.drift, shape, rng)

    def __getitem__(self, chosen: np.ndarray) -> Pairs:
        """Return some of the pairs, to be measured further."""
        some = object.__new__(Pairs)
        some.noise, some.effect, some.rng = self.noise, self.effect, self.rng
        some.base, some.candidate, some.slope = self.base[chosen], self.candidate[chosen], self.slope[chosen]
        return some

    def quadruples(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the next `n` quadruples, times (..., n, 2) of A and of B.

        Where drift has got to before a quadruple is left out: it adds the same to all four blocks and cancels.
        """
        shape = (*self.base.shape, n)
        blocks = self.noise.captured_blocks((*shape, 4), self.rng)
        if self.noise.drift:
            steps = self.noise.draw(self.noise.drift, (*shape, 4), self.rng) + self.slope[..., None, None]
            blocks += np.cumsum(steps, axis=-1)
        abba = self.rng.random(shape)[..., None] < 0.5
        outer, inner = blocks[..., [0, 3]], blocks[..., [1, 2]]
        a, b = np.where(abba, outer, inner), np.where(abba, inner, outer)
        return np.exp(a + self.base[..., None, None]), np.exp(b + self.candidate[..., None, None])


def session(noise: Noise, effect: float, cases: int, launches: int, rng: np.random.Generator) -> np.ndarray:
    """Return `verdict.log_launch_means` of one session, (cases, launches).

    Log of the block of each capture, trimmed mean over captures, as `verdict.launch_mean`: drawn for all cases at once.
    """
    captures = noise.captured_blocks((cases, launches, CAPTURES), rng)
    if noise.drift:  # as if in one turn, block after block; recording a capture takes as long as its block
        slopes = noise.draw(noise.drift, (cases, launches, 1, 1), rng)
        steps = slopes + noise.draw(noise.drift, (*captures.shape, 2), rng)
        captures += np.cumsum(np.sum(steps, axis=-1), axis=-1)
    offsets = noise.launches((cases, launches), rng) + noise.draw(noise.session, (cases, 1), rng)
    return np.asarray(stats.trim_mean(captures, TRIMMED, axis=-1)) + offsets + math.log1p(effect)


def run(noise: Noise, effect: float, cases: int, processes: int, samples: int, rng: np.random.Generator) -> np.ndarray:
    """Return what a tool measures that knows neither captures nor launches: times (cases, processes x samples).

    In each process one capture, and `samples` blocks of it; each run is a session of its own.
    """
    blocks = noise.draw(noise.block, (cases, processes, samples), rng)
    if noise.drift:
        steps = noise.draw(noise.drift, blocks.shape, rng) + noise.draw(noise.drift, (cases, processes, 1), rng)
        blocks += np.cumsum(steps, axis=-1)
    blocks += noise.draw(noise.capture, (cases, processes, 1), rng)
    blocks += noise.launches((cases, processes, 1), rng)
    blocks += noise.draw(noise.session, (cases, 1, 1), rng)
    return np.exp(blocks.reshape(cases, -1) + math.log1p(effect))
