"""The folder of runs: what is kept, and what makes way."""

from __future__ import annotations

from pathlib import Path

from trtgate.common.run_folder import KEPT_RUNS, RunFolder


def test_runs_that_a_wrong_clock_dated_in_the_future_make_way_first(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    for number in range(KEPT_RUNS + 5):
        (runs / f"2999{number:04}T000000-1-key.json").write_text("{}")
    (runs / "mine.json").write_text("{}")
    saved = [RunFolder(tmp_path).save_run({"number": number}, f"key{number}") for number in range(3)]
    assert [path for path in saved if not path.exists()] == []
    assert (runs / "mine.json").exists()
    assert len(list(runs.glob("2999*"))) == KEPT_RUNS - 3


def test_the_oldest_runs_make_way(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    for number in range(KEPT_RUNS):
        (runs / f"2001{number:04}T000000-1-key.json").write_text("{}")
    saved = RunFolder(tmp_path).save_run({}, "key")
    left = sorted(path.name for path in runs.iterdir())
    assert left == [*(f"2001{number:04}T000000-1-key.json" for number in range(1, KEPT_RUNS)), saved.name]
