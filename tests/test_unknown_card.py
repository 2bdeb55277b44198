"""Do a few cases of a card say where its others lie: components of variance, intervals, predictions."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from studies import unknown_card
from studies.unknown_card import Components, Observation
from trtgate.gate.panel_file import PanelCase, PanelRun

RANDOM = np.random.default_rng


def observed(
    random: np.random.Generator, cards: int, cases: int, sessions: int = 2, *, card: float = 0.0, session: float = 0.0,
    card_case: float = 0.0, rest: float = 0.0, missing: Callable[[int, int], bool] = lambda card, case: False,
) -> list[Observation]:  # fmt: skip
    """Return observations of effects with these standard deviations, around levels that cases have of their own."""
    found = []
    for number in range(cards):
        of_card = random.normal(0, card)
        of_case = random.normal(0, card_case, cases)
        for run in range(sessions):
            of_run = random.normal(0, session)
            found += [
                Observation(
                    f"c{case}", f"g{number}", str(run),
                    10 * case + of_card + of_case[case] + of_run + random.normal(0, rest),
                )
                for case in range(cases) if not missing(number, case)
            ]  # fmt: skip
    return found


@pytest.mark.parametrize("unbalanced", [False, True])
def test_components_are_those_that_were_drawn(unbalanced: bool) -> None:
    def missing(card: int, case: int) -> bool:
        return unbalanced and (card + case) % 3 == 0

    random = RANDOM(1)
    drawn = [
        unknown_card.components(
            observed(random, 16, 6, card=3.0, session=1.0, card_case=2.0, rest=0.5, missing=missing)
        )
        for _ in range(40)
    ]
    for name, sd, error in (("card", 3.0, 0.4), ("session", 1.0, 0.15), ("card_case", 2.0, 0.15), ("rest", 0.5, 0.02)):
        assert math.sqrt(np.mean([getattr(one, name) for one in drawn])) == pytest.approx(sd, abs=error), name
    assert np.mean([one.share for one in drawn]) == pytest.approx(9 / 13, abs=0.07)


@pytest.mark.parametrize(("effect", "share"), [("card", 1.0), ("card_case", 0.0)])
def test_what_is_common_alone_or_not_at_all_is_told(effect: str, share: float) -> None:
    effects: dict[str, Any] = {effect: 1.0}
    found = unknown_card.components(observed(RANDOM(2), 16, 8, **effects))
    assert found.share == pytest.approx(share, abs=0.05)
    assert (found.rest or 0.0) == pytest.approx(0.0, abs=1e-9)


def test_cards_that_do_not_differ_have_no_share() -> None:
    assert math.isnan(unknown_card.components(observed(RANDOM(3), 3, 3)).share)


def test_with_one_session_of_each_card_the_rest_is_not_known_apart() -> None:
    found = unknown_card.components(observed(RANDOM(4), 20, 9, 1, card=1.0, card_case=0.5, rest=0.5))
    assert found.rest is None
    assert found.session == 0.0
    assert math.sqrt(found.card_case) == pytest.approx(math.sqrt(0.5), abs=0.1)


def test_a_card_that_is_drawn_twice_is_two_cards() -> None:
    some = observed(RANDOM(5), 2, 2)
    drawn = unknown_card.of_cards(some, ["g1", "g1", "g0"])
    assert len(drawn) == 12
    assert len({one.card for one in drawn}) == 3


def test_the_interval_holds_what_was_drawn_and_is_wide_where_cards_are_few() -> None:
    few, many = (
        unknown_card.interval(observed(RANDOM(6), cards, 4, 1, card=1.0, card_case=1.0), 100, RANDOM(1))["share"]
        for cards in (5, 25)
    )
    assert few[0] < few[1]
    assert many[0] < 0.5 < many[1]
    assert many[1] - many[0] < few[1] - few[0]


def errors(some: list[Observation]) -> tuple[float, float, float]:
    """Return what cards are off by, with each unknown in turn: alone, with a panel, and with one that is not shrunk."""
    found = [unknown_card.prediction_errors(some, card, RANDOM(1), 50) for card in sorted({one.card for one in some})]
    without, with_panel, naive, _ = np.sqrt(np.mean(np.square([one for one in found if one is not None]), axis=0))
    return without, with_panel, naive


def test_a_panel_predicts_a_common_offset_and_nothing_else() -> None:
    without, with_panel, naive = errors(observed(RANDOM(7), 12, 12, 1, card=1.0, card_case=0.01))
    assert without > 20 * with_panel
    assert naive == pytest.approx(with_panel, rel=0.1)
    without, with_panel, naive = errors(observed(RANDOM(8), 12, 12, 1, card_case=1.0))
    assert with_panel == pytest.approx(without, rel=0.05)
    assert naive > 1.05 * without


def test_a_card_with_no_more_cases_than_a_panel_is_not_predicted() -> None:
    assert unknown_card.prediction_errors(observed(RANDOM(9), 3, 4, card=1.0), "g0", RANDOM(1), 2) is None


def test_planned_cards_have_the_components_that_they_are_drawn_of() -> None:
    drawn = unknown_card.drawn(Components(4.0, 0.0, 1.0, 0.25), 60, 8, RANDOM(1))
    found = unknown_card.components(drawn)
    assert found.card == pytest.approx(4.0, rel=0.3)
    assert found.card_case == pytest.approx(1.25, rel=0.1)


def test_what_no_other_card_has_is_left_out_and_versions_are_kept_apart(tmp_path: Path) -> None:
    def panel(card: str, torch: str, *cases: str) -> bytes:
        of_cases = {case: PanelCase(clock="cuda_graph", launches_us=[100.0, 101.0], spread=0.01) for case in cases}
        run = PanelRun(recorded="2026-01-01", key="h100", uuid=card, versions={"torch": torch}, cases=of_cases)
        return msgspec.json.encode(run) + b"\n"

    (tmp_path / "h100").mkdir()
    (tmp_path / "h100" / "panel.jsonl").write_bytes(
        b"".join([panel(f"GPU-{number}", "2.14", "a", "b") for number in range(3)])
        + panel("GPU-3", "2.14", "alone") + panel("GPU-4", "2.11", "a")
    )  # fmt: skip
    ((name, some),) = unknown_card.stored(tmp_path).items()
    assert name == "h100, panel, cuda_graph, torch 2.14"
    assert sorted({(one.card, one.case) for one in some}) == [(f"GPU-{n}", case) for n in range(3) for case in "ab"]
    said = "\n".join(unknown_card.lines(name, some, 5, RANDOM(1)))
    assert "3 cards, sessions of a case: GPU-0 2, GPU-1 2, GPU-2 2" in said
    assert "No card has more cases than a panel." in said


def test_the_committed_baselines_say_that_a_panel_does_not_help() -> None:
    """As docs/verdicts.md has it: without one of six cards nothing is common."""
    found = unknown_card.stored(Path(__file__).parent.parent / "baselines")
    (some,) = (some for name, some in found.items() if "h100" in name)
    some = [one for one in some if not one.case.startswith(unknown_card.TWO_MODES)]
    cards = {one.card for one in some}
    shares = {card[:12]: unknown_card.components([one for one in some if one.card != card]).share for card in cards}
    assert len(shares) == 6
    assert shares.pop("GPU-40444d8a") == pytest.approx(0.0, abs=0.01)
    assert all(0.2 < share < 0.4 for share in shares.values())
