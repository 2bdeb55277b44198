"""How often does the whole procedure fail a suite in which nothing changed, and how often does it see a change?

    python studies/simulate.py [--suites 10000] [--cases 100] [--seed 1] [--quick] [--markdown FILE]

Draws measurements with the noise of `SCENARIOS` and drives the functions of trtgate.verdict through them as a run
would: paired (screening at planned looks within a pair of launches, suspects in fresh pairs), and against 1, 3 and 8
stored sessions (suspects measured once more). Beside them the gates of four other tools as published
(`other_gates.py`), each on data as that tool takes it. `--at-limit`, `--other-cards`, `--versions`, `--further`,
`--early`, `--looks`, `--loads` and `--quadruples` ask other questions instead.
A suite is red when one of its cases is. Intervals are Clopper and Pearson's, 95 %.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import scipy
from noise import Noise, Pairs, run, session
from other_gates import GATES
from scipy import stats

from trtgate import verdict
from trtgate.torch_trt.patching import replaced
from trtgate.verdict import paired_launches, stored_sessions
from trtgate.verdict.error_rates import PROOF_ALPHA
from trtgate.verdict.stored_sessions import within_session_sd

STORED = (1, 3, 8)
"""Sessions in the baseline."""
RECORDED_LAUNCHES, GATED_LAUNCHES = 5, 3
SAMPLES = {"pytest-benchmark": (1, 100), "asv": (2, 5), "criterion.rs": (1, 100), "nvbench": (1, 50)}
"""Tool → processes and samples in each, where a sample is a block of about 10 ms: a second of rounds (`max_time`); two
rounds of five samples, each round a process (`rounds`, `repeat`); 100 samples (`sample_size`); half a second
(`--min-time`)."""
CASES_AT_ONCE = 50_000
"""Bounds the memory: 16 captures of 5 launches of so many cases take 32 MB."""


@dataclass(frozen=True)
class Scenario:
    """Noise, and the limit and prior under which it is judged."""

    name: str
    noise: Noise
    limit: float
    prior: tuple[str, bool] = ("device", True)
    effects: tuple[float, ...] = ()
    """For the table of power."""


H100 = Noise(block=0.0002, capture=0.001, launch=0.0003)
HALF_PERCENT = Noise(block=0.005, capture=0.005, launch=0.005)
CPU = ("cpu", True)
SCENARIOS = (
    Scenario("H100: block 0.02 %, capture 0.1 %, launch 0.03 %", H100, 0.0025, effects=(0.005, 0.01)),
    Scenario("block, capture and launch 0.5 % each", HALF_PERCENT, 0.01, effects=(0.03, 0.05)),
    Scenario("the same, heavy tails (Student's t, 3 dof)", Noise(0.005, 0.005, 0.005, student=3), 0.01),
    Scenario("H100, sessions 0.1 % apart", Noise(0.0002, 0.001, 0.0003, session=0.001), 0.0025),
    Scenario("H100, drift 0.02 % a block", Noise(0.0002, 0.001, 0.0003, session=0.001, drift=0.0002), 0.0025),
    Scenario("H200: 1 launch in 4 is 0.5 % slower", Noise(0.0002, 0.001, 0.0003, slower=0.005), 0.0025),
    Scenario("two equal modes 0.5 % apart", Noise(0.0002, 0.001, 0.0003, slower=0.005, slower_share=0.5), 0.0025),
    Scenario("launches 1 % apart, twice the limit", Noise(0.0005, 0.001, 0.01), 0.005),
    Scenario("CPU: block 0.5 %, launch and session 5 %", Noise(0.005, 0.0, 0.05, session=0.05), 0.10, CPU),
    Scenario("CPU: block 2 %, launch and session 10 %", Noise(0.02, 0.0, 0.10, session=0.10), 0.10, CPU),
    Scenario(
        "all at once: 0.2 % each level, t 3 dof, drift, modes",
        Noise(0.002, 0.002, 0.002, session=0.001, student=3, drift=0.0002, slower=0.005),
        0.01,
    ),
)


FURTHER_APART = tuple(
    Scenario(f"{sd:.2%}", Noise(0.0002, 0.001, 0.0003, session=sd), limit)
    for limit in (0.0025, 0.01)
    for sd in (0.0015, 0.002, 0.003)
)
"""H100, but with sessions further apart than the 0.1 % that the prior believes until there are 8 of them."""


BETWEEN_CARDS = 0.0095
"""Standard deviation between cards of a key: 6 H100s and 16 H200s (docs/decisions/0035-own-cards-sessions.md)."""
OTHER_CARDS = ((1, 1), (1, 8), (2, 4), (4, 4), (8, 1), (8, 2))
"""(how many cards, sessions of each) in a baseline that has none of the card that is judged."""

OF_VERSIONS = ((0, 1), (7, 1), (7, 2), (4, 4), (19, 1))
"""(sessions of older versions, of the running ones) in a baseline of one card."""


Judge = Callable[["Scenario", float, int, int, np.random.Generator], list[np.ndarray]]


def paired(scenario: Scenario, effect: float, cases: int, tests: int, rng: np.random.Generator) -> np.ndarray:
    """Return which of `cases` end as regressed: screened in one pair of launches, suspects confirmed in fresh ones."""
    suspects = _suspected(Pairs(scenario.noise, effect, (cases,), rng), scenario.limit)
    regressed = np.zeros(cases, dtype=bool)
    regressed[suspects] = _confirmed(scenario, effect, len(suspects), tests, rng)
    return regressed


def _suspected(pairs: Pairs, limit: float) -> np.ndarray:
    """Return the indices of the pairs that screening flags."""
    return np.concatenate([flagged for _, flagged, _ in _screened(pairs, limit)])


def decided(scenario: Scenario, cases: int, rng: np.random.Generator) -> list[int]:
    """Return for how many of `cases` unchanged cases screening ends at each look: cleared, or suspected."""
    pairs = Pairs(scenario.noise, 0.0, (cases,), rng)
    return [len(flagged) + len(cleared) for _, flagged, cleared in _screened(pairs, scenario.limit)]


def _screened(
    pairs: Pairs, limit: float, *, beside_quiet: bool = False
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield the indices of the pairs that screening looks at, flags and clears, at each look.

    With `beside_quiet` the metric is not the primary one, which is decided at once: only who may exceed goes on.
    """
    open_ = np.arange(len(pairs.base))
    d = np.empty((len(open_), 0))
    for look in verdict.SCREENING_LOOKS:
        more = verdict.differences(*pairs[open_].quadruples(look - d.shape[-1]))
        d = np.concatenate([d, more], axis=-1)
        found = verdict.screen(d, limit)
        yield open_, open_[found.flagged], open_[found.cleared]
        goes_on = ~found.flagged & ~found.cleared & (verdict.may_exceed(d, limit) | (not beside_quiet))
        open_, d = open_[goes_on], d[goes_on]


def _confirmed(scenario: Scenario, effect: float, cases: int, tests: int, rng: np.random.Generator) -> np.ndarray:
    """Return which suspects fresh pairs confirm."""
    confirmed = np.zeros(cases, dtype=bool)
    open_ = np.arange(cases)
    means = np.empty((cases, 0))
    for look in verdict.LOOKS:
        fresh = Pairs(scenario.noise, effect, (len(open_), look - means.shape[-1]), rng)
        d = verdict.differences(*fresh.quadruples(verdict.MOST_QUADRUPLES))
        means = np.concatenate([means, _pair_means(d, scenario.limit)], axis=-1)
        found = verdict.confirm(means, scenario.limit, tests)
        confirmed[open_[found.confirmed]] = True
        undecided = ~found.confirmed & ~found.refuted
        open_, means = open_[undecided], means[undecided]
    return confirmed


def _pair_means(d: np.ndarray, limit: float) -> np.ndarray:
    """Return the means of pairs that stop as soon as their quadruples, (..., most), tell."""
    found = d.mean(axis=-1)
    for count in range(d.shape[-1] - 1, 0, -1):
        found = np.where(verdict.pair_tells(d[..., :count], limit), d[..., :count].mean(axis=-1), found)
    return found


def stored(scenario: Scenario, effect: float, cases: int, tests: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Return, for each number of STORED sessions, which of `cases` end as regressed; all share their sessions."""
    noise = scenario.noise
    sessions = [session(noise, 0.0, cases, RECORDED_LAUNCHES, rng) for _ in range(STORED[-1])]
    now = session(noise, effect, cases, GATED_LAUNCHES, rng)

    def again(suspects: np.ndarray) -> np.ndarray:
        return session(noise, effect, len(suspects), GATED_LAUNCHES, rng)

    return [_beyond_twice(scenario, now, sessions[:count], tests, again) for count in STORED]


def _beyond_twice(
    scenario: Scenario, now: np.ndarray, sessions: list[np.ndarray], tests: int,
    again: Callable[[np.ndarray], np.ndarray], older: int = 0,
) -> np.ndarray:  # fmt: skip
    """Return what is beyond the limit and still is when measured `again`, which it does for suspects by index."""
    regressed = _beyond(scenario, now, sessions, tests, older)
    suspects = np.flatnonzero(regressed)
    regressed[suspects] = _beyond(scenario, again(suspects), [some[suspects] for some in sessions], tests, older)
    return regressed


def _beyond(scenario: Scenario, now: np.ndarray, sessions: list[np.ndarray], tests: int, older: int = 0) -> np.ndarray:
    """Return what is slower beyond the limit."""
    return np.asarray(_compared(scenario, now, sessions, tests, older).regressed)


def _compared(
    scenario: Scenario, now: np.ndarray, sessions: list[np.ndarray], tests: int, older: int = 0
) -> verdict.Comparison:
    """Return what `verdict.judge_stored` finds, for many cases at once; the first `older` are of other versions."""
    means = np.stack([np.mean(s, axis=-1) for s in sessions], axis=-1)
    spread = within_session_sd([*sessions, now], 1)
    within, within_stored = (spread / math.sqrt(n) for n in (now.shape[-1], min(now.shape[-1], sessions[0].shape[-1])))
    return verdict.compare_stored(
        np.mean(now, axis=-1), means, within, verdict.PRIORS[scenario.prior], limit=scenario.limit, tests=tests,
        within_stored=within_stored, ordered=scenario.prior[1], compared=range(older, len(sessions)),
        groups=[group for group in (range(older), range(older, len(sessions))) if group],
    )  # fmt: skip


def further(scenario: Scenario, effect: float, cases: int, tests: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Return for each number of STORED sessions what comes of `cases` whose launches may be joined by as many again.

    Which are proven unchanged by their first launches; which are measured further; which are proven unchanged then;
    which end as regressed. Each three launches have a session's offset of their own.
    """
    noise, found = scenario.noise, []
    sessions = [session(noise, 0.0, cases, RECORDED_LAUNCHES, rng) for _ in range(STORED[-1])]
    first = session(noise, effect, cases, GATED_LAUNCHES, rng)
    for count in STORED:
        stored = sessions[:count]
        judged = _compared(scenario, first, stored, tests)
        twice = _compared(scenario, np.concatenate([first, first], axis=-1), stored, tests)
        decided = judged.regressed | judged.improved | judged.unchanged
        more = np.flatnonzero(~decided & twice.unchanged)
        now = np.concatenate([first[more], session(noise, effect, len(more), GATED_LAUNCHES, rng)], axis=-1)
        again = _compared(scenario, now, [some[more] for some in stored], tests)
        unchanged, regressed = judged.unchanged.copy(), judged.regressed.copy()
        unchanged[more], regressed[more] = again.unchanged, again.regressed
        suspects = np.flatnonzero(regressed)
        confirming = session(noise, effect, len(suspects), GATED_LAUNCHES, rng)
        regressed[suspects] = _beyond(scenario, confirming, [some[suspects] for some in stored], tests)
        found += [judged.unchanged, np.isin(np.arange(cases), more), unchanged, regressed]
    return found


EARLY_COLUMNS = (
    "no change: at once", "after one launch", "after two", "in the end", "slower by the limit: at once", "early",
    "one launch in three slower: at once", "early",
)  # fmt: skip


def told_early(cases: int, tests: int, rng: np.random.Generator) -> Callable[[Scenario], list[Row]]:
    """Return what gives a scenario's rows: for each number of STORED sessions, EARLY_COLUMNS of `cases`.

    Called unchanged after all of GATED_LAUNCHES, and where it is looked after each of them, the alpha of a proof split
    among the looks. The third kind of change makes a launch in three slower by five times the limit.
    """

    def rows(scenario: Scenario) -> list[Row]:
        modes = replace(scenario.noise, slower=5 * scenario.limit, slower_share=1 / 3)
        sessions = [session(scenario.noise, 0.0, cases, RECORDED_LAUNCHES, rng) for _ in range(STORED[-1])]
        kinds = ((scenario.noise, 0.0), (scenario.noise, scenario.limit), (modes, 0.0))
        same, slower, some = (session(noise, effect, cases, GATED_LAUNCHES, rng) for noise, effect in kinds)
        found = []
        for count in STORED:
            at_once = [_compared(scenario, now, sessions[:count], tests).unchanged for now in (same, slower, some)]
            early = [_unchanged_by(scenario, now, sessions[:count], tests) for now in (same, slower, some)]
            flags = [at_once[0], *early[0], at_once[1], early[1][-1], at_once[2], early[2][-1]]
            cells = [scenario.name, f"{scenario.limit:.2%}", str(count)]
            found.append((cells, [int(np.count_nonzero(one)) for one in flags]))
        return found

    return rows


def _unchanged_by(
    scenario: Scenario, now: np.ndarray, sessions: list[np.ndarray], tests: int
) -> list[np.ndarray]:  # fmt: skip
    """Return which cases are called unchanged after the first launch, after two, and so on."""
    looks = range(1, now.shape[-1] + 1)
    with replaced(stored_sessions, "PROOF_ALPHA", PROOF_ALPHA / len(looks)):
        said = [np.asarray(_compared(scenario, now[:, :look], sessions, tests).unchanged) for look in looks]
    return [np.logical_or.reduce(said[:look]) for look in looks]


def on_another_card(cards: int, sessions: int) -> Judge:
    """Return what judges cases of a card that a baseline of some others has no session of.

    Each session as if it were of this card, and as the gate does, each card counting once; both with the prior for
    another card. Where a card lies is the case's own: an H100 may be 1 % slower in one and 1 % faster in another.
    """

    def judge(scenario: Scenario, effect: float, cases: int, tests: int, rng: np.random.Generator) -> list[np.ndarray]:
        def on(card: np.ndarray, launches: int, moved: float = 0.0) -> np.ndarray:
            return session(scenario.noise, moved, len(card), launches, rng) + card

        there = [rng.normal(0.0, BETWEEN_CARDS, (cases, 1)) for _ in range(cards)]
        stored = [[on(card, RECORDED_LAUNCHES) for _ in range(sessions)] for card in there]
        here = rng.normal(0.0, BETWEEN_CARDS, (cases, 1))
        now = on(here, GATED_LAUNCHES, effect)
        baselines = [one for card in stored for one in card], [np.concatenate(card, axis=-1) for card in stored]
        return [
            _beyond_twice(scenario, now, baseline, tests, lambda some: on(here[some], GATED_LAUNCHES, effect))
            for baseline in baselines
        ]

    return judge


def of_versions(older: int, running: int, upgrade: float) -> Judge:
    """Return what judges cases by a baseline of two versions, of which the running one is slower by `upgrade`.

    All sessions as if they were of one, and as the gate does, those of the running versions alone, the others saying
    how far sessions lie apart. Where there are none of other versions both are the same.
    """

    def judge(scenario: Scenario, effect: float, cases: int, tests: int, rng: np.random.Generator) -> list[np.ndarray]:
        def one(count: int, moved: float, launches: int) -> np.ndarray:
            return session(scenario.noise, moved, count, launches, rng)

        stored = [one(cases, -upgrade, RECORDED_LAUNCHES) for _ in range(older)]
        stored += [one(cases, 0.0, RECORDED_LAUNCHES) for _ in range(running)]
        now = one(cases, effect, GATED_LAUNCHES)
        return [
            _beyond_twice(
                scenario, now, stored, tests, lambda some: one(len(some), effect, GATED_LAUNCHES), older=apart
            )
            for apart in (0, older)
        ]

    return judge


STORED_COLUMNS = tuple(f"stored, S = {count}" for count in STORED)
COLUMNS = ("paired", *STORED_COLUMNS, *GATES)


def judge_all(scenario: Scenario, effect: float, cases: int, tests: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Return, for each of COLUMNS, which of `cases` it fails."""
    found = [paired(scenario, effect, cases, tests, rng), *stored(scenario, effect, cases, tests, rng)]
    for tool, gate in GATES.items():
        before, after = (run(scenario.noise, moved, cases, *SAMPLES[tool], rng) for moved in (0.0, effect))
        found.append(gate(before, after))
    return found


FURTHER_COLUMNS = (
    "no change: at once", "measured further", "at last", "slower by the limit: at once", "measured further", "at last",
)  # fmt: skip


def told_by_further(cases: int, tests: int, rng: np.random.Generator) -> Callable[[Scenario], list[Row]]:
    """Return what gives a scenario's rows: for each number of STORED sessions, FURTHER_COLUMNS of `cases`."""

    def rows(scenario: Scenario) -> list[Row]:
        same, slower = (further(scenario, effect, cases, tests, rng) for effect in (0.0, scenario.limit))
        return [
            (
                [scenario.name, f"{scenario.limit:.2%}", str(count)],
                [int(np.count_nonzero(flags)) for found in (same, slower) for flags in found[4 * n : 4 * n + 3]],
            )
            for n, count in enumerate(STORED)
        ]

    return rows


def failed_with_further(
    scenario: Scenario, effect: float, cases: int, tests: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """Return, for each number of STORED sessions, which of `cases` end as regressed where some are measured further."""
    return further(scenario, effect, cases, tests, rng)[3::4]


def just_at_limit(
    scenario: Scenario, _effect: float, cases: int, tests: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """Return which of `cases` the paired procedure fails when all are slower by the limit: its hardest null."""
    return [paired(scenario, scenario.limit, cases, tests, rng)]


def red_suites(judge: Judge, scenario: Scenario, suites: int, cases: int, rng: np.random.Generator) -> list[int]:
    """Return how many of `suites` suites of unchanged cases each of what `judge` judges by fails."""
    red = []
    for some in chunks(suites, max(CASES_AT_ONCE // cases, 1)):
        found = judge(scenario, 0.0, some * cases, cases, rng)
        red.append([np.count_nonzero(flags.reshape(some, cases).any(axis=1)) for flags in found])
    return np.sum(red, axis=0).tolist()


def detections(
    judge: Judge, scenario: Scenario, effect: float, changes: int, tests: int, rng: np.random.Generator
) -> list[int]:
    """Return how many of `changes` changed cases each of what `judge` judges by fails, each as one of `tests`."""
    seen = [
        [np.count_nonzero(flags) for flags in judge(scenario, effect, some, tests, rng)]
        for some in chunks(changes, CASES_AT_ONCE)
    ]
    return np.sum(seen, axis=0).tolist()


def chunks(total: int, size: int) -> Iterator[int]:
    """Split `total` into parts of at most `size`."""
    for start in range(0, total, size):
        yield min(size, total - start)


def rate(hits: int, of: int) -> str:
    """Format a proportion in percent, with its interval."""
    low, high = stats.binomtest(hits, of).proportion_ci(0.95, method="exact")
    return f"{100 * hits / of:.2f} [{100 * low:.2f}, {100 * high:.2f}]"


Row = tuple[list[str], list[int]]


def table(title: str, first: tuple[str, ...], columns: tuple[str, ...], rows: list[Row], of: int) -> str:
    """Return a Markdown table."""
    lines = [title, "", "| " + " | ".join((*first, *columns)) + " |"]
    lines.append("|" + "---|" * len(first) + "--:|" * len(columns))
    lines += ["| " + " | ".join((*cells, *(rate(hits, of) for hits in row))) + " |" for cells, row in rows]
    return "\n".join(lines)


VERSION_EFFECTS = {"H100, sessions 0.1 % apart": 0.01, "CPU: block 0.5 %, launch and session 5 %": 0.5}
"""Noise → the change that is to be seen."""


def by_versions(suites: int, changes: int, cases: int, rng: np.random.Generator) -> list[str]:
    """Return the tables of baselines of several versions: red suites, and what is seen, both ways."""
    red: list[Row] = []
    seen: list[Row] = []
    baselines = [(older, running, part) for older, running in OF_VERSIONS for part in (0.0, 0.8)[: 2 if older else 1]]
    for scenario in (one for one in SCENARIOS if one.name in VERSION_EFFECTS):
        effect = VERSION_EFFECTS[scenario.name]
        for older, running, part in baselines:
            upgrade = part * scenario.limit
            judge = of_versions(older, running, upgrade)
            cells = [scenario.name, f"{scenario.limit:.2%}", str(older), str(running), f"+{upgrade:.2%}"]
            red.append((cells, red_suites(judge, scenario, suites, cases, rng)))
            seen.append(([*cells, f"+{effect:.0%}"], detections(judge, scenario, effect, changes, cases, rng)))
    first, columns = ("noise", "limit", "older", "running", "upgrade"), ("all as one", "apart")
    return [
        table(f"Red suites, %, of {suites:,} of {cases} unchanged cases:", first, columns, red, suites),
        table(f"Seen, %, of {changes:,} changed cases:", (*first, "change"), columns, seen, changes),
    ]


LOADS = (0.0003, 0.0005, 0.001, 0.002, 0.003)
"""Standard deviations between loads of an engine: those of docs/gpu-states.md, and what they should be."""
SMALL_LIMIT, SMALL_CHANGE = 0.001, 0.0025


def by_loads(suites: int, changes: int, cases: int, rng: np.random.Generator) -> list[str]:
    """Return what pairs say at a small limit, by how far loads of an engine lie apart."""
    judge: Judge = lambda *drawn: [paired(*drawn)]  # noqa: E731
    red: list[Row] = []
    seen: list[Row] = []
    for sd in LOADS:
        scenario = Scenario("", Noise(block=0.0002, capture=0.0005, launch=sd), SMALL_LIMIT)
        red.append(([f"{sd:.2%}"], red_suites(judge, scenario, suites, cases, rng)))
        seen.append(([f"{sd:.2%}"], detections(judge, scenario, SMALL_CHANGE, changes, cases, rng)))
    limit, first, columns = f"limit {SMALL_LIMIT:.1%}", ("between loads",), ("paired",)
    return [
        table(f"Red suites, %, of {suites:,} of {cases} unchanged cases, {limit}:", first, columns, red, suites),
        table(f"+{SMALL_CHANGE:.2%} seen, %, of {changes:,} cases, {limit}:", first, columns, seen, changes),
    ]


ON_A_HOST = ((0.034, 0.006), (0.04, 0.015), (0.04, 0.02), (0.07, 0.02))
"""How far quadruples of host latency lie apart, and pairs (docs/server.md)."""
HOST_LIMIT, HOST_CHANGE = 0.02, 0.05


def of_a_host(quadruple: float, pair: float, limit: float = HOST_LIMIT) -> Scenario:
    """Return the noise of host latency in pairs."""
    return Scenario("", Noise(block=quadruple, capture=0.0, launch=pair / math.sqrt(2)), limit)


def by_quadruples(_suites: int, changes: int, cases: int, rng: np.random.Generator) -> list[str]:
    """Return what fresh pairs confirm of suspects by how many quadruples they may have, and the tables of screening."""

    def judge(scenario: Scenario, effect: float, cases: int, tests: int, rng: np.random.Generator) -> list[np.ndarray]:
        found = []
        for most in (verdict.QUADRUPLES_A_PAIR, verdict.MOST_QUADRUPLES):
            with replaced(paired_launches, "MOST_QUADRUPLES", most):
                found.append(_confirmed(scenario, effect, cases, tests, rng))
        return found

    rows: list[Row] = []
    for quadruple, pair in ON_A_HOST:
        hits = detections(judge, of_a_host(quadruple, pair), HOST_CHANGE, changes, cases, rng)
        rows.append(([f"{quadruple:.1%}", f"{pair:.1%}"], hits))
    title = (
        f"+{HOST_CHANGE:.0%} confirmed, %, of {changes:,} suspects, each one of {cases} tests, limit {HOST_LIMIT:.0%}:"
    )
    columns = tuple(f"{most} quadruples at most" for most in (verdict.QUADRUPLES_A_PAIR, verdict.MOST_QUADRUPLES))
    of_pairs = table(title, ("between quadruples", "between pairs"), columns, rows, changes)
    return [of_pairs, *(by_doubt(changes, limit, rng) for limit in (HOST_LIMIT, 0.10))]


DOUBTS = (0.0, paired_launches.DOUBT, 2.0)


def by_doubt(changes: int, limit: float, rng: np.random.Generator) -> str:
    """Return what screening suspects beside a quiet primary metric of a change of two and a half limits and of none.

    Each of `changes` is measured until it may no longer exceed the limit, by so many standard errors.
    """
    effect = 2.5 * limit
    lines = [
        f"Suspected, %, and quadruples of unchanged cases, {changes:,} of each, limit {limit:.0%}:",
        "",
        f"| between quadruples | between pairs | standard errors | +{effect:.0%} | unchanged | quadruples |",
        "|---|---|--:|--:|--:|--:|",
    ]
    for quadruple, pair in ON_A_HOST:
        scenario = of_a_host(quadruple, pair, limit)
        for doubt in DOUBTS:
            with replaced(paired_launches, "DOUBT", doubt):
                slower, _ = _while_in_doubt(scenario, effect, changes, rng)
                same, quadruples = _while_in_doubt(scenario, 0.0, changes, rng)
            cells = (f"{quadruple:.1%}", f"{pair:.1%}", f"{doubt:.0f}", rate(slower, changes), rate(same, changes))
            lines.append("| " + " | ".join((*cells, f"{quadruples / changes:.1f}")) + " |")
    return "\n".join(lines)


def _while_in_doubt(scenario: Scenario, effect: float, cases: int, rng: np.random.Generator) -> tuple[int, int]:
    """Return how many of `cases` screening suspects beside a quiet primary metric, and the quadruples of all."""
    pairs = Pairs(scenario.noise, effect, (cases,), rng)
    looks = list(_screened(pairs, scenario.limit, beside_quiet=True))
    further = np.diff((0, *verdict.SCREENING_LOOKS))
    measured = sum(len(asked) * int(more) for more, (asked, _, _) in zip(further, looks, strict=True))
    return sum(len(flagged) for _, flagged, _ in looks), measured


def main() -> None:
    """Simulate, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suites", type=int, default=10_000)
    parser.add_argument("--cases", type=int, default=100, help="cases in a suite")
    parser.add_argument("--changes", type=int, default=20_000, help="changed cases for the table of power")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="500 suites, 2,000 changes")
    parser.add_argument("--at-limit", action="store_true", help="instead: all cases slower by just the limit, paired")
    parser.add_argument("--other-cards", action="store_true", help="instead: baselines of other cards than this")
    parser.add_argument("--versions", action="store_true", help="instead: baselines of the running and older versions")
    parser.add_argument("--further", action="store_true", help="instead: what launches tell that the first could not")
    parser.add_argument("--early", action="store_true", help="instead: if a case ended with the launch that proves it")
    parser.add_argument("--looks", action="store_true", help="instead: after how many quadruples screening ends")
    parser.add_argument("--loads", action="store_true", help="instead: pairs at a limit of 0.1 %%, by loads' spread")
    parser.add_argument("--quadruples", action="store_true", help="instead: pairs of a noisy host, by their quadruples")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="also write the tables to this file")
    options = parser.parse_args()
    suites, changes = (500, 2_000) if options.quick else (options.suites, options.changes)
    rng = np.random.default_rng(options.seed)

    def unchanged(judge: Judge) -> Callable[[Scenario], list[Row]]:
        return lambda s: [([s.name, f"{s.limit:.2%}"], red_suites(judge, s, suites, options.cases, rng))]

    def changed(s: Scenario) -> list[Row]:
        return [
            (
                [s.name, f"{s.limit:.2%}", f"+{effect:.1%}"],
                detections(judge_all, s, effect, changes, options.cases, rng),
            )
            for effect in s.effects
        ]

    red = f"Red suites, %, of {suites:,} of {options.cases} unchanged cases"
    seen = f"Seen, %, of {changes:,} changed cases, each one of {options.cases} judged:"
    apart = f"{red}, where sessions lie further apart than the prior's 0.1 %:"
    at_limit = f"Red suites, %, of {suites:,} of {options.cases} cases, all slower by just the limit:"
    if options.other_cards:
        scenario = Scenario("", Noise(0.0002, 0.001, 0.0003, session=0.001), 0.01, ("device", False))
        rows = [
            ([f"{some}", f"{each}"], red_suites(on_another_card(some, each), scenario, suites, options.cases, rng))
            for some, each in OTHER_CARDS
        ]
        columns = ("each session counts", "each card counts")
        title = f"{red}, judged on a card that has no session:"
        tables = [table(title, ("cards", "sessions of each"), columns, rows, suites)]
    elif options.versions or options.loads or options.quadruples:
        by = by_versions if options.versions else by_loads if options.loads else by_quadruples
        tables = by(suites, changes, options.cases, rng)
    elif options.further:
        told, fails = told_by_further(changes, options.cases, rng), unchanged(failed_with_further)
        title = f"Proven unchanged, %, of {changes:,} cases, each one of {options.cases} judged:"
        tables = [
            table(title, ("noise", "limit", "sessions"), FURTHER_COLUMNS, timed(SCENARIOS, told), changes),
            table(f"{red}:", ("noise", "limit"), STORED_COLUMNS, timed(SCENARIOS, fails), suites),
        ]
    elif options.early:
        title = f"Called unchanged, %, of {changes:,} cases, each one of {options.cases} judged:"
        at_default = replace(SCENARIOS[3], limit=0.01)
        rows = timed((*SCENARIOS, at_default), told_early(changes, options.cases, rng))
        tables = [table(title, ("noise", "limit", "sessions"), EARLY_COLUMNS, rows, changes)]
    elif options.looks:
        title = f"Screening ends, %, of {changes:,} unchanged cases, after so many quadruples:"
        at_default = replace(SCENARIOS[0], limit=0.01)
        ends: Callable[[Scenario], list[Row]] = lambda s: [([s.name, f"{s.limit:.2%}"], decided(s, changes, rng))]  # noqa: E731
        looks = tuple(map(str, verdict.SCREENING_LOOKS))
        tables = [table(title, ("noise", "limit"), looks, timed((at_default, *SCENARIOS), ends), changes)]
    elif options.at_limit:
        tables = [table(at_limit, ("noise", "limit"), ("paired",), timed(SCENARIOS, unchanged(just_at_limit)), suites)]
    else:
        with_effects = tuple(s for s in SCENARIOS if s.effects)
        tables = [
            table(f"{red}:", ("noise", "limit"), COLUMNS, timed(SCENARIOS, unchanged(judge_all)), suites),
            table(seen, ("noise", "limit", "change"), COLUMNS, timed(with_effects, changed), changes),
            table(apart, ("sessions", "limit"), STORED_COLUMNS, timed(FURTHER_APART, unchanged(stored)), suites),
        ]
    made_by = (
        f"Seed {options.seed}, NumPy {np.__version__}, SciPy {scipy.__version__}, Python {platform.python_version()}, "
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} CPUs."
    )
    text = "\n\n".join((*tables, made_by))
    print(text)
    if options.markdown:
        options.markdown.write_text(text + "\n")


def timed(scenarios: tuple[Scenario, ...], simulate: Callable[[Scenario], list[Row]]) -> list[Row]:
    """Return the rows of all scenarios, saying how long each took."""
    rows = []
    for scenario in scenarios:
        start = time.perf_counter()
        rows += simulate(scenario)
        print(f"{scenario.name}: {time.perf_counter() - start:.0f} s", flush=True)
    return rows


if __name__ == "__main__":
    main()
