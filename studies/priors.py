"""What do panels say of the priors? From files of `trtgate selfcheck --panel` to standard deviations with upper bounds.

    python studies/priors.py baselines/*/panel.jsonl [MORE.jsonl ...]

Sessions of a card on one day, days of a card, and cards are nested random effects on the logarithm of a session's mean
(of a case, over its launches). Their components of variance are those of the analysis of variance of unbalanced nested
data (Searle, Casella and McCulloch, Variance Components, 1992, ch. 3 and appendix F: "Henderson's method I"), for each
case; over the cases variances are averaged. Sessions of other versions lie elsewhere, so only those of the same
versions are compared, and sums of squares are pooled over versions. Accelerator keys and clocks have tables of their
own.

A prior is the standard deviation of one session from another: of the same card on the same day, on other days, or of
another card. What counts is its upper 80 % bound by the chi-squared distribution (Hahn and Meeker, Statistical
Intervals, ch. 4), with degrees of freedom of what was drawn independently, never of launches, of cases or of sessions
of one day: card-days with two sessions and more, card-days less cards, and cards less one. Assumes normal effects that
are as large on every card and day. A bound of few degrees of freedom is wide on purpose.
"""

from __future__ import annotations

import argparse
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import stats

from trtgate import verdict
from trtgate.commands.selfcheck_panel import log_mean
from trtgate.common.errors import TrtgateError
from trtgate.common.text_columns import TextTable
from trtgate.gate import panel_file
from trtgate.gate.panel_file import PanelRun

BOUND = 0.80
"""One-sided confidence of a prior."""
LEVELS = ("same card, same day", "same card, other days", "other cards")

Nested = Mapping[str, Mapping[str, Sequence[float]]]
"""Card → day → its sessions' values."""


@dataclass(frozen=True)
class Components:
    """Components of variance between sessions of a day, days of a card, and cards; None for what nothing says."""

    session: float | None
    day: float | None
    card: float | None

    def apart(self) -> list[float | None]:
        """Return for each of LEVELS the variance of a session around another that differs in that.

        What nothing says of a lower level counts as 0 there: what is above it holds it, as it can't be told apart.
        """
        found: list[float | None] = []
        total = 0.0
        for part in (self.session, self.day, self.card):
            total += part or 0.0
            found.append(None if part is None else total)
        return found


def components(strata: Sequence[Nested]) -> Components:
    """Return the components of variance of one case from strata that may lie anywhere: each is of other versions.

    The three sums of squares are equated with their expectations. Estimates are not below 0, which makes small ones too
    large on the average. Where every day has one session `day` holds what lies between sessions too, and where every
    card has one day `card` holds what lies below.
    """
    within, days, cards = np.sum([_equations(one) for one in strata], axis=0)
    session = day = card = None
    if within[1]:
        session = float(within[0] / within[1])
    if days[1]:
        day = max(0.0, float((days[0] - days[1] * (session or 0.0)) / days[2]))
    if cards[1]:
        below = cards[1] * (session or 0.0) + cards[2] * (day or 0.0)
        card = max(0.0, float((cards[0] - below) / cards[3]))
    return Components(session, day, card)


def _equations(stratum: Nested) -> np.ndarray:
    """Return a row each for sessions, days and cards: a sum of squares, and what is expected of it: the multiples of
    the components of sessions, days and cards.
    """
    cards = [[np.asarray(values, dtype=float) for values in days.values()] for days in stratum.values()]
    counts = [np.asarray([len(day) for day in days], dtype=float) for days in cards]
    every = np.concatenate([np.concatenate(days) for days in cards])
    total, per_card = len(every), np.asarray([count.sum() for count in counts])
    of_days = [np.asarray([day.mean() for day in days]) for days in cards]
    of_cards = np.asarray([np.concatenate(days).mean() for days in cards])
    within = sum(float(np.sum((day - day.mean()) ** 2)) for days in cards for day in days)
    days = sum(float(np.sum(n * (m - c) ** 2)) for n, m, c in zip(counts, of_days, of_cards, strict=True))
    between = float(np.sum(per_card * (of_cards - every.mean()) ** 2))
    number_of_days = sum(len(count) for count in counts)
    squares = np.asarray([np.sum(count**2) for count in counts])
    return np.asarray([
        [within, total - number_of_days, 0.0, 0.0],
        [days, number_of_days - len(cards), total - np.sum(squares / per_card), 0.0],
        [
            between, len(cards) - 1, np.sum(squares / per_card) - squares.sum() / total,
            total - np.sum(per_card**2) / total,
        ],
    ])  # fmt: skip


def upper_bound(variance: float, dof: int) -> float:
    """Return the upper bound at BOUND of a standard deviation whose variance was estimated with `dof`, at least 1."""
    return math.sqrt(variance * dof / float(stats.chi2.ppf(1 - BOUND, dof)))


# From panels


@dataclass(frozen=True)
class Level:
    """How far sessions lie apart that differ in one of LEVELS: standard deviation and bound, None where unknown."""

    sd: float | None
    bound: float | None
    dof: int


def nested(runs: Iterable[PanelRun], case_id: str) -> list[Nested]:
    """Return a case's sessions, logarithms of means, by card and day, in a stratum for each set of versions."""
    strata: dict[frozenset[tuple[str, str]], dict[str, dict[str, list[float]]]] = {}
    for run in runs:
        if case_id in run.cases:
            days = strata.setdefault(frozenset(run.versions.items()), {}).setdefault(run.uuid, {})
            days.setdefault(run.recorded[:10], []).append(log_mean(run.cases[case_id]))
    return list(strata.values())


def degrees_of_freedom(strata: Sequence[Nested]) -> tuple[int, int, int]:
    """Return the degrees of freedom for each of LEVELS: of card-days, of cards. What two versions share counts once."""
    days = {(card, day) for one in strata for card, days in one.items() for day in days}
    repeated = {
        (card, day) for one in strata for card, days in one.items() for day, values in days.items() if len(values) > 1
    }
    cards = {card for card, _ in days}
    further_days = sum(len(days) - 1 for one in strata for days in one.values())
    further_cards = sum(len(one) - 1 for one in strata)
    return len(repeated), min(further_days, len(days) - len(cards)), min(further_cards, len(cards) - 1)


def levels(runs: Sequence[PanelRun]) -> tuple[list[Level], dict[str, list[float | None]]]:
    """Return LEVELS over all cases, and each case's own standard deviations; `runs` are of one key and clock."""
    case_ids = sorted({case_id for run in runs for case_id in run.cases})
    of_cases = {case_id: nested(runs, case_id) for case_id in case_ids}
    variances = {case_id: components(strata).apart() for case_id, strata in of_cases.items()}
    dofs = np.min([degrees_of_freedom(strata) for strata in of_cases.values()], axis=0)
    found = []
    for number, dof in enumerate(dofs):
        known = [variance for each in variances.values() if (variance := each[number]) is not None]
        if not known or dof < 1:
            found.append(Level(None, None, int(dof)))
            continue
        mean = float(np.mean(known))
        found.append(Level(math.sqrt(mean), upper_bound(mean, int(dof)), int(dof)))
    return found, {
        case_id: [None if one is None else math.sqrt(one) for one in each] for case_id, each in variances.items()
    }


def by_key_and_clock(runs: Iterable[PanelRun]) -> dict[tuple[str, str], list[PanelRun]]:
    """Return the runs of each accelerator key and clock, each with its cases of that clock alone."""
    found: dict[tuple[str, str], list[PanelRun]] = defaultdict(list)
    for run in runs:
        for clock in sorted({case.clock for case in run.cases.values()}):
            cases = {case_id: case for case_id, case in run.cases.items() if case.clock == clock}
            found[run.key, clock].append(
                PanelRun(recorded=run.recorded, key=run.key, uuid=run.uuid, versions=run.versions, cases=cases)
            )
    return dict(found)


# What is printed


def lines(runs: Sequence[PanelRun]) -> list[str]:
    """Return the tables of all keys and clocks, and what each makes of PRIORS."""
    said: list[str] = []
    for (key, clock), some in sorted(by_key_and_clock(runs).items()):
        found, of_cases = levels(some)
        days, cards = {(one.uuid, one.recorded[:10]) for one in some}, {one.uuid for one in some}
        said.append(f"{key}, {clock}: {len(some)} runs, {len(days)} card-days, {len(cards)} cards")
        rows: list[Sequence[str]] = [("case", *LEVELS)]
        rows += [(case_id, *map(_percent, each)) for case_id, each in of_cases.items()]
        rows.append(("all", *(_percent(one.sd) for one in found)))
        rows.append(("upper 80 % bound", *(_percent(one.bound) for one in found)))
        rows.append(("degrees of freedom", *(str(one.dof) for one in found)))
        said += [*TextTable(rows).lines(), *priors(found), ""]
    return said[:-1]


def priors(found: Sequence[Level]) -> list[str]:
    """Return what the bounds would make of PRIORS, beside what is there."""
    same_day, other_days, other_cards = found
    own = other_days if other_days.bound is not None else same_day
    said = []
    for level, of_card, what in ((own, True, "this card"), (other_cards, False, "other cards")):
        now = verdict.PRIORS["device", of_card]
        if level.bound is None:
            said.append(f'("device", {of_card}): no data of {what}; now Prior({now.sd}, {now.dof})')
            continue
        only = " (of one day only)" * (of_card and own is same_day)
        prior = f"Prior({_rounded_up(level.bound)}, {level.dof}){only}"
        said.append(f'("device", {of_card}): {prior}; now Prior({now.sd}, {now.dof})')
    return said


def _rounded_up(sd: float) -> float:
    """Return a bound with two digits, never less than it is."""
    unit = 10.0 ** (math.floor(math.log10(sd)) - 1) if sd > 0 else 1.0
    return float(f"{math.ceil(sd / unit - 1e-9) * unit:.2g}")


def _percent(sd: float | None) -> str:
    return "unknown" if sd is None else f"{sd:.3%}"


def main() -> None:
    """Read the files, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="panel.jsonl files")
    try:
        files = [panel_file.read(path) for path in parser.parse_args().files]
    except TrtgateError as error:
        raise SystemExit(f"priors: {error}") from error
    for problem in (problem for file in files for problem in file.problems):
        print(problem)
    runs = {
        (one.recorded, one.uuid, tuple(one.cases)): one for file in files for one in file.runs
    }  # a copy counts once
    print("\n".join(lines(list(runs.values())) or ["no run of a panel in these files"]))


if __name__ == "__main__":
    main()
