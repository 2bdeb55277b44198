"""Do a few cases of a card that nobody knows say where its other cases lie?

    python studies/unknown_card.py [--baselines FOLDER] [--draws 2000] [--seed 1]

Reads the device latencies of baselines (`latency.json`) and panels (`panel.jsonl`) of all accelerator keys that have
at least three cards, each key, clock and set of versions for itself. On the logarithm of a session's mean latency of a
case

    latency = case + card + session + card x case + rest

case is fixed; a card's offset, a session's (a run on a card: all its cases), a card's in one case and the rest (a
session's in one case, and its launches) are random. Components of variance are those of the analysis of variance of
unbalanced data by fitting constants in this order (Henderson's method III; Searle, Casella and McCulloch, Variance
Components, 1992, ch. 5.6); ones below 0 count as 0. It assumes no distribution. The common share is what of the
variance between cards all cases of a card have in common: card / (card + card x case). Intervals, 95 %, are percentiles
of a bootstrap over cards, which is what was drawn; of six cards they are rather too narrow (Efron and Tibshirani, An
Introduction to the Bootstrap, 1993, ch. 13 and 14).

A panel that knew the common part exactly would leave the part in each case: the limit on an unknown card would be
1 - sqrt(1 - share) narrower, and no more. The second table lets each card be unknown in turn: its offset is predicted
from four of its cases, drawn at random, and compared with what the others have; the prediction is shrunk by what the
other cards say of the components (best linear unbiased prediction; Searle et al., ch. 7). The third says how far the
share would be known from more cards, if it were what was estimated, from normal effects.

With 2,000 draws it takes 3 minutes of one core.
"""

from __future__ import annotations

import argparse
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from trtgate.commands.selfcheck_panel import log_mean
from trtgate.common.text_columns import aligned
from trtgate.gate import baselines, panel_file

LEAST_CARDS = 3
PANEL = 4
"""Cases of a panel, as `trtgate selfcheck --panel` has them."""
TWO_MODES = "vit_b_16-dynamo-fp32"
"""Its processes have two modes 3 % apart, on every card (docs/measured/cards.md)."""
SUBSETS: dict[str, Callable[[str], bool]] = {
    "all cases": lambda case: True,
    f"without {TWO_MODES}": lambda case: not case.startswith(TWO_MODES),
    "of these TensorRT, batch 1": lambda case: "-dynamo-" in case and "-b1-" in case and not case.startswith(TWO_MODES),
    "of these TensorRT, batch 8": lambda case: "-dynamo-" in case and "-b8-" in case and not case.startswith(TWO_MODES),
    "of these eager": lambda case: "-eager-" in case,
}


@dataclass(frozen=True)
class Observation:
    """One session's mean of one case: the logarithm of its latency."""

    case: str
    card: str
    session: str
    log_us: float


@dataclass(frozen=True)
class Components:
    """Variances of logarithms; None for what nothing says."""

    card: float
    session: float
    card_case: float
    rest: float | None

    @property
    def share(self) -> float:
        """What of the variance between cards is common to all cases of a card; nan where cards do not differ."""
        between = self.card + self.card_case
        return self.card / between if between else math.nan


# Components


def components(observations: Sequence[Observation]) -> Components:
    """Return the components of variance. Sums of squares of constants that are fitted one after the other are equated
    with what is expected of them.

    Where every card has one session of every case, `card_case` holds the rest, and `card` holds sessions.
    """
    values = np.asarray([one.log_us for one in observations])
    of_cases, *effects = (
        _indicators([key(one) for one in observations])
        for key in (
            lambda one: (one.case,), lambda one: (one.card,), lambda one: (one.card, one.session),
            lambda one: (one.card, one.case),
        )
    )  # fmt: skip
    basis = _basis(of_cases)
    squares, expected = [], []
    for effect in effects:
        added = _basis(effect - basis @ (basis.T @ effect))
        squares.append(float(np.sum((added.T @ values) ** 2)))
        expected.append([*(float(np.sum((added.T @ one) ** 2)) for one in effects), float(added.shape[1])])
        basis = np.column_stack([basis, added])
    squares.append(float(np.sum((values - basis @ (basis.T @ values)) ** 2)))
    expected.append([0.0] * len(effects) + [float(len(values) - basis.shape[1])])
    return _solved(squares, expected)


def _solved(squares: Sequence[float], expected: Sequence[Sequence[float]]) -> Components:
    """Solve from the last level to the first: no level holds what is above it. One that adds nothing is 0."""
    found = [0.0] * len(squares)
    for level in reversed(range(len(squares))):
        below = sum(expected[level][lower] * found[lower] for lower in range(level + 1, len(squares)))
        own = expected[level][level]
        found[level] = max(0.0, (squares[level] - below) / own) if own > 1e-6 else 0.0
    card, session, card_case, rest = found
    return Components(card, session, card_case, rest if expected[-1][-1] else None)


def _indicators(keys: Sequence[tuple[str, ...]]) -> np.ndarray:
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    return np.eye(len(numbers))[[numbers[key] for key in keys]]


def _basis(columns: np.ndarray) -> np.ndarray:
    """Return an orthonormal basis of what columns span, whose length is about 1 or nothing."""
    left, singular, _ = np.linalg.svd(columns, full_matrices=False)
    return left[:, singular > 1e-6]


def of_cards(observations: Sequence[Observation], cards: Sequence[str]) -> list[Observation]:
    """Return the observations of cards; one that is named twice is two cards."""
    return [
        replace(one, card=f"{number}:{card}")
        for number, card in enumerate(cards) for one in observations if one.card == card
    ]  # fmt: skip


def interval(
    observations: Sequence[Observation], draws: int, random: np.random.Generator
) -> dict[str, tuple[float, float]]:
    """Return 95 % intervals of the standard deviations of card and card x case, and of the share, by bootstrap."""
    cards = sorted({one.card for one in observations})
    found = [
        components(of_cards(observations, drawn))
        for drawn in (random.choice(cards, len(cards)).tolist() for _ in range(draws)) if len(set(drawn)) > 1
    ]  # fmt: skip
    figures = {
        "card": [math.sqrt(one.card) for one in found],
        "card_case": [math.sqrt(one.card_case) for one in found],
        "share": [one.share for one in found],
    }
    return {name: tuple(np.nanpercentile(values, (2.5, 97.5))) for name, values in figures.items()}


# A panel of the unknown card


def prediction_errors(
    observations: Sequence[Observation], card: str, random: np.random.Generator, draws: int
) -> tuple[float, float, float, float] | None:
    """Let a card be unknown. Returns how far its cases lie off the other cards' means, root mean square of those that
    are not in the panel: without a panel, with what four cases predict, the same not shrunk, and by how much it was
    shrunk. None where it has no more cases than a panel.
    """
    others = [one for one in observations if one.card != card]
    means = _card_means(others)
    off = {
        case: value - float(np.mean(means[case])) for case, values in _card_means(_of(observations, card)).items()
        if case in means for value in values
    }  # fmt: skip
    if len(off) <= PANEL:
        return None
    said = components(others)
    noise = said.card_case + (said.rest or 0.0)
    shrunk = said.card / (said.card + noise / PANEL) if said.card else 0.0
    errors = []
    for _ in range(draws):
        panel = set(random.choice(sorted(off), PANEL, replace=False))
        predicted = float(np.mean([off[case] for case in panel]))
        rest = np.asarray([value for case, value in off.items() if case not in panel])
        errors.append([np.mean(rest**2), np.mean((rest - shrunk * predicted) ** 2), np.mean((rest - predicted) ** 2)])
    without, with_panel, naive = np.sqrt(np.mean(errors, axis=0))
    return float(without), float(with_panel), float(naive), shrunk


def _of(observations: Sequence[Observation], card: str) -> list[Observation]:
    return [one for one in observations if one.card == card]


def _card_means(observations: Sequence[Observation]) -> dict[str, list[float]]:
    """Return case → each card's mean."""
    found: dict[str, dict[str, list[float]]] = {}
    for one in observations:
        found.setdefault(one.case, {}).setdefault(one.card, []).append(one.log_us)
    return {case: [float(np.mean(values)) for values in cards.values()] for case, cards in found.items()}


# More cards


def drawn(found: Components, cards: int, cases: int, random: np.random.Generator) -> list[Observation]:
    """Return one session of each card and case, of normal effects with these components."""
    card = random.normal(0, math.sqrt(found.card + found.session), (cards, 1))
    values = card + random.normal(0, math.sqrt(found.card_case + (found.rest or 0.0)), (cards, cases))
    return [
        Observation(f"case{case}", f"card{number}", "0", float(values[number, case]))
        for number in range(cards) for case in range(cases)
    ]  # fmt: skip


# What is stored


def stored(folder: Path) -> dict[str, list[Observation]]:
    """Return the observations of each key, clock and set of versions that has enough cards, by what it is called."""
    found: dict[str, list[Observation]] = {}
    for key in baselines.keys(folder):
        for name, one in _of_baseline(baselines.path_of(folder, key)):
            found.setdefault(f"{key}, {name}", []).append(one)
    for path in sorted(folder.glob(f"*/{panel_file.FILE_NAME}")):
        for run in panel_file.read(path).runs:
            for case_id, case in run.cases.items():
                one = Observation(case_id, run.uuid, run.recorded, log_mean(case))
                found.setdefault(f"{run.key}, panel, {case.clock}, {_versions(run.versions)}", []).append(one)
    crossed = {name: _of_several_cards(some) for name, some in found.items()}
    return {name: some for name, some in crossed.items() if len({one.card for one in some}) >= LEAST_CARDS}


def _of_several_cards(observations: Sequence[Observation]) -> list[Observation]:
    """Return those of cases that another card has as well."""
    cards = {case: len(means) for case, means in _card_means(observations).items()}
    return [one for one in observations if cards[one.case] > 1]


def _of_baseline(path: Path) -> list[tuple[str, Observation]]:
    found = []
    for case_id, record in baselines.read(path).cases.items():
        before: Counter[str] = Counter()
        for session in record.sessions:
            means = session.log_launch_means("device")
            if means is None:
                continue
            one = Observation(case_id, session.uuid, str(before[session.uuid]), float(np.mean(means)))
            before[session.uuid] += 1
            found.append((f"{session.clock}, {_versions(session.versions)}", one))
    return found


def _versions(versions: dict[str, str]) -> str:
    return " ".join(f"{name} {version}" for name, version in sorted(versions.items())) or "versions not stored"


# What is printed


def lines(name: str, observations: Sequence[Observation], draws: int, random: np.random.Generator) -> list[str]:
    """Return the tables of one key, clock and versions."""
    cards = Counter(one.card for one in observations)
    counts = ", ".join(f"{card[:12]} {count}" for card, count in sorted(cards.items()))
    said = [name, f"{len(cards)} cards, sessions of a case: {counts}", ""]
    rows: list[Sequence[str]] = [
        ("cases", "number", "card", "session", "card x case", "rest", "common share", "narrower by, at best")
    ]
    for subset, takes in SUBSETS.items():
        some = [one for one in observations if takes(one.case)]
        if len({one.case for one in some}) > 1:
            rows.append(_row(subset, some, draws, random))
    for card in sorted(cards) if len(cards) > LEAST_CARDS else ():
        label = f"all without {TWO_MODES} and {card[:12]}"
        left = [one for one in observations if one.card != card and not one.case.startswith(TWO_MODES)]
        rows.append(_row(label, left, 0, random))
    said += [*aligned(rows), ""]
    return [*said, *_panel_lines(observations, draws, random), "", *_planned_lines(observations, draws, random)]


def _row(name: str, some: Sequence[Observation], draws: int, random: np.random.Generator) -> Sequence[str]:
    found = components(some)
    within = interval(some, draws, random) if draws else {}

    def shown(variance: float, of: str) -> str:
        low_high = f" [{within[of][0]:.2%}, {within[of][1]:.2%}]" if of in within else ""
        return f"{math.sqrt(variance):.2%}{low_high}"

    share = f"{found.share:.2f}" + (f" [{within['share'][0]:.2f}, {within['share'][1]:.2f}]" if within else "")
    narrower = [found.share, *within.get("share", ())]
    best = [f"{1 - math.sqrt(1 - min(one, 1.0)):.0%}" for one in narrower]
    return (
        name, str(len({one.case for one in some})), shown(found.card, "card"), f"{math.sqrt(found.session):.2%}",
        shown(found.card_case, "card_case"), "unknown" if found.rest is None else f"{math.sqrt(found.rest):.2%}",
        share, best[0] + (f" [{best[1]}, {best[2]}]" if within else ""),
    )  # fmt: skip


def _panel_lines(observations: Sequence[Observation], draws: int, random: np.random.Generator) -> list[str]:
    some = [one for one in observations if not one.case.startswith(TWO_MODES)]
    found = {
        card[:12]: errors for card in sorted({one.card for one in some})
        if (errors := prediction_errors(some, card, random, max(draws, 1))) is not None
    }  # fmt: skip
    if not found:
        return ["No card has more cases than a panel."]
    rows: list[Sequence[str]] = [("unknown card", "off by", "with a panel of four", "not shrunk", "shrunk to")]
    rows += [(card, *(f"{one:.2%}" for one in errors[:3]), f"{errors[3]:.2f}") for card, errors in found.items()]
    all_cards = np.sqrt(np.mean(np.square(list(found.values())), axis=0))
    return aligned([*rows, ("root mean square", *(f"{one:.2%}" for one in all_cards[:3]), "")])


def _planned_lines(observations: Sequence[Observation], draws: int, random: np.random.Generator) -> list[str]:
    some = [one for one in observations if not one.case.startswith(TWO_MODES)]
    found, cases = components(some), len({one.case for one in some})
    rows: list[Sequence[str]] = [("cards", "the share would be estimated as, 95 %")]
    for cards in (6, 12, 24, 48):
        shares = [components(drawn(found, cards, cases, random)).share for _ in range(max(draws // 10, 1))]
        low, high = np.nanpercentile(shares, (2.5, 97.5))
        rows.append((str(cards), f"{low:.2f} to {high:.2f}"))
    return aligned(rows)


def main() -> None:
    """Read what is stored, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--baselines", type=Path, default=Path("baselines"))
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    found = stored(options.baselines)
    if not found:
        raise SystemExit(f"unknown_card: no key under {options.baselines} has {LEAST_CARDS} cards")
    for name, some in found.items():
        print("\n".join([*lines(name, some, options.draws, np.random.default_rng(options.seed)), ""]))


if __name__ == "__main__":
    main()
