"""The folder of runs: what is kept, and what makes way."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from trtgate.common.run_folder import KEPT_RUNS, RunFolder
from trtgate.gate import baselines
from trtgate.gate.baseline_record import typical_us

from .test_baselines import document, record


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


@pytest.mark.parametrize("how", ["add_to_run", "save_run"])
def test_what_a_kill_left_of_another_run_goes_when_a_run_is_written(tmp_path: Path, how: str) -> None:
    left = tmp_path / "runs" / ".20260101T000000-1-key.json-abcd1234"
    left.parent.mkdir()
    left.write_text("half of it")
    others = [left.with_name(name) for name in (".gitignore", "mine.json", ".mine.json-kept-for-good")]
    for other in others:
        other.write_text("{}")
    getattr(RunFolder(tmp_path), how)({"trtgate": {}, "benchmarks": []}, "key")
    assert not left.exists()
    assert all(other.exists() for other in others)


def test_two_runs_at_once_have_logs_of_their_own_which_stay_until_the_next(tmp_path: Path) -> None:
    first, second = RunFolder(tmp_path), RunFolder(tmp_path)
    assert first.own_logs == first.own_logs
    assert first.own_logs != second.own_logs
    (first.own_logs / "worker-0.log").write_text("what failed\n")
    for run in (first, second):
        run.close()
    assert (first.own_logs / "worker-0.log").read_text() == "what failed\n"
    abandoned = first.logs / "run-12345678"
    abandoned.mkdir()
    assert RunFolder(tmp_path).own_logs.parent == first.logs
    assert not abandoned.exists()
    assert first.own_logs.exists()  # this process lives


def test_the_oldest_runs_make_way(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    for number in range(KEPT_RUNS):
        (runs / f"2001{number:04}T000000-1-key.json").write_text("{}")
    saved = RunFolder(tmp_path).save_run({}, "key")
    left = sorted(path.name for path in runs.iterdir())
    assert left == [*(f"2001{number:04}T000000-1-key.json" for number in range(1, KEPT_RUNS)), saved.name]


def test_shards_that_a_merge_may_not_have_read_yet_do_not_make_way(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    old = RunFolder(tmp_path, label="shard-1-of-99-").save_run({}, "key")
    forgotten = old.rename(runs / "20010101T000000-1-shard-1-of-99-key.json")
    shards = [RunFolder(tmp_path, label=f"shard-{number}-of-99-").save_run({}, "key") for number in range(1, 100)]
    assert [path for path in shards if not path.exists()] == []
    whole = [RunFolder(tmp_path).save_run({}, f"key{number}") for number in range(KEPT_RUNS)]
    assert [path for path in (*shards, *whole) if not path.exists()] == []
    assert not forgotten.exists()


def test_two_runs_of_one_second_and_one_process_id_are_two_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getpid", lambda: 7)  # as containers have it, with a folder that they share
    assert len({RunFolder(tmp_path).save_run({}, "key") for _ in range(20)}) == 20


# A run while it grows


def grown(folder: RunFolder, *cases: str) -> Path:
    for case in cases:
        folder.add_to_run(document(record(case, 100.0)), "key")
    (path,) = (folder.path / "runs").iterdir()
    return path


def test_a_run_is_whole_after_every_case(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for number, case in enumerate("abc", 1):
        run = baselines.read(grown(folder, case))
        assert list(run.cases) == list("abc"[:number])
        json.loads(run.path.read_text())  # as any other program would read it
    assert "unfinished" not in run.document["trtgate"]
    saved = folder.save_run(document(record("d", 1.0)), "key")
    assert saved == run.path
    assert list(baselines.read(saved).cases) == ["d"]


def test_a_kill_at_any_moment_costs_only_the_case_that_was_being_written(tmp_path: Path) -> None:
    path = grown(RunFolder(tmp_path), "a", "b")
    shorter = path.read_bytes()
    path.unlink()
    longer = grown(RunFolder(tmp_path), "a", "b", "c").read_bytes()
    start = len(shorter) - len(b"\n]}\n")
    for length in range(start, len(longer)):
        path.write_bytes(longer[: max(length, 0)] + shorter[length:])  # what was there stays until it is overwritten
        cases = list(baselines.read(path).cases)
        assert cases in (["a", "b"], ["a", "b", "c"])


def test_a_baseline_that_was_cut_short_is_not_repaired(tmp_path: Path) -> None:
    path = tmp_path / "latency.json"
    content = json.dumps(document(record("a", 1.0), record("b", 1.0)))
    path.write_text(content[:-40])
    with pytest.raises(baselines.TrtgateError, match="not valid JSON"):
        baselines.read(path)


def test_a_case_that_was_measured_twice_counts_as_it_was_last(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for us in (100.0, 200.0):
        folder.add_to_run(document(record("a", us)), "key")
    (path,) = (tmp_path / "runs").iterdir()
    run = baselines.read(path)
    assert typical_us(run.cases["a"].sessions) == pytest.approx(200.0)
    assert run.entry("a")["extra_info"]["trtgate"]["sessions"][0]["metrics"]["device"] == [[200.0, 200.0]]


def test_a_full_disk_costs_only_the_case_that_does_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RunFolder(tmp_path)
    path = grown(folder, "a")
    before, pwrite = path.read_bytes(), os.pwrite
    room = iter([100, 0])

    def full(descriptor: int, content: bytes, start: int) -> int:
        most = next(room, len(content))  # at last there is room for what was there before
        if most == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return pwrite(descriptor, content[:most], start)

    with monkeypatch.context() as context:
        context.setattr(os, "pwrite", full)
        with pytest.raises(baselines.TrtgateError, match="No space left on device"):
            folder.add_to_run(document(record("b", 1.0)), "key")
    assert path.read_bytes() == before
    assert list(baselines.read(grown(folder, "c")).cases) == ["a", "c"]
