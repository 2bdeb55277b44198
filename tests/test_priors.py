"""Priors from panels: components of variance are right on the average, and bounds hold as often as they say."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from studies import priors
from trtgate.gate.panel_file import PanelCase, PanelRun

ROOT = Path(__file__).parent.parent
Days = dict[str, dict[str, list[float]]]


def drawn(layout: list[list[int]], sds: tuple[float, float, float], rng: np.random.Generator, at: float = 0.0) -> Days:
    """Return sessions of cards and days: `layout` has the sessions of each day of each card."""
    session, day, card = sds
    found: Days = {}
    for number, days in enumerate(layout):
        of_card = at + rng.normal(0, card)
        found[f"card {number}"] = {
            str(place): list(of_card + rng.normal(0, day) + rng.normal(0, session, count))
            for place, count in enumerate(days)
        }
    return found


LAYOUTS = {
    "balanced": [[3, 3, 3]] * 6,
    "unbalanced": [[1, 4], [2], [1, 1, 5, 2], [3, 1], [2, 2, 2]],
    "one session a day": [[1, 1, 1]] * 5,
    "one day a card": [[2], [3], [2], [4]],
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("sds", [(1.0, 2.0, 3.0), (1.0, 3.0, 6.0)])
def test_components_are_right_on_the_average(layout: str, sds: tuple[float, float, float]) -> None:
    """Where a level can't be told from the one above, that one holds both. Of levels so far apart none is cut at 0."""
    rng, total = np.random.default_rng(1), []
    for _ in range(1500):
        found = priors.components([drawn(LAYOUTS[layout], sds, rng)])
        total.append([math.nan if one is None else one for one in (found.session, found.day, found.card)])
    session, day, card = (sd**2 for sd in sds)
    wanted = {
        "one session a day": (math.nan, session + day, card),
        "one day a card": (session, math.nan, day + card),
    }.get(layout, (session, day, card))
    assert np.mean(total, axis=0) == pytest.approx(wanted, rel=0.12, nan_ok=True)


VALUES = st.floats(-1, 1, allow_subnormal=False)
STRATA = st.lists(
    st.dictionaries(
        st.sampled_from("abcd"), st.dictionaries(st.sampled_from("12345"), st.lists(VALUES, min_size=1, max_size=4),
                                                 min_size=1), min_size=1,
    ), min_size=1, max_size=3,
)  # fmt: skip


def known(found: priors.Components) -> list[float]:
    return [-1.0 if one is None else one for one in (found.session, found.day, found.card)]


@given(STRATA, st.lists(st.floats(-5, 5), min_size=3, max_size=3), st.floats(0.1, 10))
def test_where_versions_lie_is_no_matter_and_the_unit_is_squared(
    strata: list[Days], shifts: list[float], factor: float
) -> None:
    moved = [
        {
            card: {day: [shift + factor * v for v in values] for day, values in days.items()}
            for card, days in one.items()
        }
        for one, shift in zip(strata, shifts, strict=False)
    ]
    before, after = priors.components(strata), priors.components(moved)
    assert [one is None for one in (before.session, before.day, before.card)] == [
        one is None for one in (after.session, after.day, after.card)
    ]
    scaled = [one if one < 0 else one * factor**2 for one in known(before)]
    assert known(after) == pytest.approx(scaled, rel=1e-6, abs=1e-9)


@given(STRATA)
def test_the_order_of_cards_days_and_sessions_is_no_matter(strata: list[Days]) -> None:
    other = [
        {card: {day: values[::-1] for day, values in reversed(days.items())} for card, days in reversed(one.items())}
        for one in reversed(strata)
    ]
    assert known(priors.components(other)) == pytest.approx(known(priors.components(strata)), rel=1e-6, abs=1e-9)


@given(STRATA)
def test_components_are_known_where_something_was_repeated_and_never_negative(strata: list[Days]) -> None:
    found = priors.components(strata)
    assert (found.session is None) == all(len(v) == 1 for one in strata for days in one.values() for v in days.values())
    assert (found.day is None) == all(len(days) == 1 for one in strata for days in one.values())
    assert (found.card is None) == all(len(one) == 1 for one in strata)
    assert all(one >= 0 for one in known(found) if one != -1)
    told = [one for one in found.apart() if one is not None]
    assert told == sorted(told)


@pytest.mark.parametrize("dof", [1, 3, 12])
def test_a_bound_lies_above_the_true_spread_as_often_as_it_says(dof: int) -> None:
    draws = np.random.default_rng(1).chisquare(dof, 5000) / dof
    assert np.mean([priors.upper_bound(one, dof) >= 1 for one in draws]) == pytest.approx(0.8, abs=0.02)


# From files


def panel_run(day: int, uuid: str, us: float, torch: str = "2.14.0", clock: str = "one", hour: int = 0) -> PanelRun:
    return PanelRun(
        recorded=f"2026-12-{day:02}T{hour:02}:00:00+00:00", key="card-80gib", uuid=uuid, versions={"torch": torch},
        cases={
            name: PanelCase(clock=clock, launches_us=[us * scale] * 5, spread=0.0)
            for name, scale in (("a", 1.0), ("b", 7.0))
        },
    )  # fmt: skip


def test_neither_launches_nor_cases_nor_sessions_of_a_day_are_degrees_of_freedom() -> None:
    runs = [panel_run(day, uuid, 100.0, hour=hour) for uuid in ("x", "y") for day in (1, 2, 3) for hour in range(5)]
    assert priors.degrees_of_freedom(priors.nested(runs, "a")) == (6, 4, 1)
    found, of_cases = priors.levels(runs)
    assert [one.dof for one in found] == [6, 4, 1]
    assert set(of_cases) == {"a", "b"}


def test_what_two_versions_share_is_counted_once() -> None:
    runs = [
        panel_run(day, uuid, 100.0, torch) for uuid in ("x", "y") for day in (1, 2, 3) for torch in ("2.11.0", "2.14.0")
    ]
    assert priors.degrees_of_freedom(priors.nested(runs, "a")) == (0, 4, 1)


def test_keys_and_clocks_have_tables_of_their_own() -> None:
    runs = [panel_run(1, "x", 100.0, clock="one"), panel_run(1, "x", 150.0, clock="many"), panel_run(2, "x", 101.0)]
    assert {name: len(some) for name, some in priors.by_key_and_clock(runs).items()} == {
        ("card-80gib", "one"): 2, ("card-80gib", "many"): 1,
    }  # fmt: skip


def test_priors_are_the_bounds_of_other_days_and_of_other_cards_rounded_up() -> None:
    rng = np.random.default_rng(2)
    cards = {uuid: 0.005 * rng.normal() for uuid in "uvwxyz"}
    runs = [
        panel_run(day, uuid, 100 * math.exp(card + 0.001 * rng.normal()), hour=hour)
        for uuid, card in cards.items() for day in range(1, 6) for hour in range(2)
    ]  # fmt: skip
    same_day, other_days, other_cards = priors.levels(runs)[0]
    assert same_day.sd == pytest.approx(0.001, rel=0.4)
    assert other_cards.sd == pytest.approx(0.005, rel=0.6)
    own, others = priors.priors([same_day, other_days, other_cards])
    for said, level in ((own, other_days), (others, other_cards)):
        assert level.bound is not None
        sd, dof = said.partition("Prior(")[2].partition(")")[0].split(", ")
        assert (float(sd) >= level.bound, float(sd) < 1.1 * level.bound, int(dof)) == (True, True, level.dof)
    assert own.startswith('("device", True): Prior(')
    assert own.endswith("; now Prior(0.001, 16)")


def test_without_repetition_nothing_is_made_up() -> None:
    found, _ = priors.levels([panel_run(1, "x", 100.0)])
    assert [(one.sd, one.bound) for one in found] == [(None, None)] * 3
    assert all("no data of" in line for line in priors.priors(found))
    one_day, _ = priors.levels([panel_run(1, "x", 100.0), panel_run(1, "x", 101.0, hour=1)])
    assert "(of one day only)" in priors.priors(one_day)[0]


def test_the_script_reads_several_files_and_names_lines_that_are_broken(tmp_path: Path) -> None:
    runs = [panel_run(day, uuid, 100.0 + day) for uuid in ("x", "y") for day in (1, 2)]
    (tmp_path / "one.jsonl").write_bytes(b"".join(msgspec.json.encode(one) + b"\n" for one in runs[:3]))
    (tmp_path / "two.jsonl").write_bytes(b"{\n" + b"".join(msgspec.json.encode(one) + b"\n" for one in runs[2:]))

    def script(*names: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(ROOT / "studies" / "priors.py"), *names]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)

    done = script("one.jsonl", "two.jsonl")
    assert done.returncode == 0, done.stderr
    assert "two.jsonl, line 1 is no run of the panel" in done.stdout
    assert "card-80gib, one: 4 runs, 4 card-days, 2 cards" in done.stdout
    assert json.dumps("device") in done.stdout
    gone = script("gone.jsonl")
    assert (gone.returncode, gone.stderr) == (1, "priors: gone.jsonl can't be read: No such file or directory\n")
