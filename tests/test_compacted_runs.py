"""Compacted runs say what the runs themselves say; what is broken or hostile among them is left out, none is lost."""

from __future__ import annotations

import datetime
import json
import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from typer.testing import CliRunner

from trtgate.cli import app
from trtgate.commands import history_answers, history_text
from trtgate.common import accelerator, run_places
from trtgate.common.errors import TrtgateError
from trtgate.gate import compacted_database, compacted_runs, history_events, saved_runs
from trtgate.gate.baseline_record import CaseRecord
from trtgate.gate.history import CaseHistory
from trtgate.gate.saved_runs import Asked

from .test_history import CARD, CPU, NASTY, Runs, analysed, needs_otava, noise, record, with_clock

duckdb = pytest.importorskip("duckdb", reason="needs DuckDB: pip install 'trtgate[history]'")
pytestmark = needs_otava
ODD = 'it\'s a "case"; DROP TABLE x; --'


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path / "runs")


@pytest.fixture
def command(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    monkeypatch.setattr(accelerator, "detect", lambda: CARD)
    return lambda *arguments: CliRunner().invoke(app, [*arguments, "--runs", str(runs.folder)])


def on(card: str, us: float, case: str = "net") -> CaseRecord:
    made = record(case, us)
    return msgspec.structs.replace(made, sessions=[msgspec.structs.replace(made.sessions[0], uuid=card)])


def stepped(runs: Runs, *cases: str, count: int = 12) -> None:
    """Half of the runs are 5 % slower, in all cases."""
    for number in range(count):
        runs.add(*(record(case, 64.0 * (1.05 if number >= count // 2 else 1) + 0.01 * (number % 3)) for case in cases))


def compacted(runs: Runs) -> list[Path]:
    return sorted((runs.folder / compacted_runs.FOLDER).glob("*.parquet"))


def test_what_is_said_is_the_same_before_and_after_and_runs_that_come_later_count(runs: Runs) -> None:
    stepped(runs, "net", ODD)
    runs.add(msgspec.structs.replace(record("net", 90.0), base="main"))
    before = runs.say("net", ODD)
    assert "+5.0" in before
    done = history_answers.compact(runs.folder)
    assert (done.runs, done.rows, done.problems) == (13, 25, [])
    assert runs.say("net", ODD) == before
    runs.add_all([67.2] * 2)
    with_later = runs.say()
    assert "14 runs" in with_later
    for kept in sorted(runs.folder.glob("*.json"))[:5]:
        kept.unlink()  # 50 are kept on a machine
    assert runs.say() == with_later


def aged(runs: Runs) -> None:
    """All files of rows are of last year."""
    for path in (runs.folder / compacted_runs.FOLDER).iterdir():
        path.rename(path.with_name(f"2025{path.name[4:]}"))


def test_runs_are_not_opened_again_and_small_files_become_one(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    stepped(runs, "net")
    assert history_answers.compact(runs.folder).merged == 0
    assert history_answers.compact(runs.folder).runs == 0
    runs.add_all([67.2] * 8)
    done = history_answers.compact(runs.folder)
    assert (done.runs, done.rows, done.merged) == (8, 20, 1)
    assert "20 runs" in runs.say()
    assert len(compacted(runs)) == 2  # who reads the small one at that moment reads on
    aged(runs)
    history_answers.compact(runs.folder)
    assert len(compacted(runs)) == 1
    monkeypatch.setattr("trtgate.gate.history.read", lambda path: pytest.fail(f"{path} was read"))
    assert "20 runs" in runs.say()


def test_two_that_compact_at_once_count_no_run_twice(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    stepped(runs, "net")
    said = runs.say()
    history_answers.compact(runs.folder)
    with monkeypatch.context() as other:
        other.setattr(compacted_runs, "all_parts", lambda _store: ([], []))  # it looked before the first had written
        history_answers.compact(runs.folder)
    assert len(compacted(runs)) == 2
    assert runs.say() == said
    runs.add_all([67.2] * 9)
    assert history_answers.compact(runs.folder).rows == 21


def test_a_writer_that_was_killed_leaves_nothing_that_counts(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    stepped(runs, "net")
    said = runs.say()
    with monkeypatch.context() as killed:
        killed.setattr("msgspec.json.encode", lambda _manifest: pytest.fail("killed"))
        with pytest.raises(pytest.fail.Exception):
            history_answers.compact(runs.folder)
    assert len(compacted(runs)) == 1
    assert runs.say() == said
    assert history_answers.compact(runs.folder).rows == 12
    assert len(compacted(runs)) == 2
    aged(runs)
    history_answers.compact(runs.folder)
    assert len(compacted(runs)) == 1  # what was left is taken away
    assert runs.say() == said


def test_who_reads_while_small_files_become_one_misses_no_run(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their names are listed, then they are gone."""
    stepped(runs, "net")
    history_answers.compact(runs.folder)
    runs.add_all([67.2] * 8)
    said, names_of = runs.say(), compacted_runs.names_of
    for kept in runs.folder.glob("*.json"):
        kept.rename(kept.with_suffix(".gone") if kept.name < "012" else kept)
    listed = []

    def then_compacted(store: Any, suffix: str) -> list[str]:
        found = names_of(store, suffix)
        if not listed:
            listed.extend(found)
            history_answers.compact(runs.folder)
            for name in found:
                (runs.folder / f"{name}.json").unlink()
                (runs.folder / f"{name}.parquet").unlink()
        return found

    monkeypatch.setattr(compacted_runs, "names_of", then_compacted)
    assert runs.say() == said


def test_a_run_that_goes_on_is_compacted_once_it_ends_or_was_killed_a_day_ago(runs: Runs) -> None:
    runs.add(record("net", 64.0))
    going_on = runs.add(record("net", 66.0))
    document = json.loads(going_on.read_text())
    marked = {**document, "trtgate": {"unfinished": True, **document["trtgate"]}}
    going_on.write_text(json.dumps(marked))
    done = history_answers.compact(runs.folder)
    assert (done.runs, len(done.problems)) == (1, 1)
    assert "002.json may go on" in done.problems[0]
    assert "2 runs" in runs.say()
    os.utime(going_on, (0, 0))
    assert history_answers.compact(runs.folder).runs == 1
    assert "2 runs" in runs.say()


def test_a_name_that_is_no_utf8_keeps_no_other_run_from_being_compacted(runs: Runs) -> None:
    runs.add(record("net", 64.0))
    os.rename(runs.add(record("net", 64.5)), os.path.join(os.fsencode(runs.folder), b"\xff.json"))
    done = history_answers.compact(runs.folder)
    assert (done.runs, len(done.problems)) == (1, 1)
    assert "no UTF-8" in done.problems[0]
    assert "2 runs" in runs.say()


def test_a_run_that_is_saved_here_and_kept_below_is_one_after_compacting_too(runs: Runs) -> None:
    here = "20260102T120000-00ab12cd-run.json"
    runs.add(msgspec.structs.replace(record("net", 64.0), disturbed=True), name=here)
    runs.count = 0
    kept = f"{CARD.key}/2026-01-02/unknown-20260102T120000-00ab12cd-run.json"
    runs.add(msgspec.structs.replace(record("net", 64.0), disturbed=True), name=kept)
    said = runs.say()
    assert "left out: 1 disturbed" in said
    assert history_answers.compact(runs.folder).runs == 1
    assert list(run_places.named_runs(runs.folder, without={kept})) == []
    assert runs.say() == said


# What others may have written


def forged(runs: Runs, select: str, **named: Any) -> None:
    """Put other rows in the place of those of the compacted file, with a JSON file that says so."""
    (rows,) = compacted(runs)
    made = runs.folder.parent / "forged.parquet"
    database = duckdb.connect(config={"threads": 2})
    database.execute(f"CREATE VIEW made AS FROM read_parquet('{rows}')")
    database.execute(f"COPY ({select}) TO '{made}' (FORMAT parquet, COMPRESSION zstd)")
    rows.write_bytes(made.read_bytes())
    names = rows.with_suffix(".json")
    stored = msgspec.json.decode(names.read_bytes())
    names.write_bytes(msgspec.json.encode(stored | {"bytes": rows.stat().st_size} | named))


@pytest.mark.parametrize("told", [False, True])
def test_more_rows_than_runs_can_have_are_not_read(runs: Runs, told: bool) -> None:
    """Two million rows take some kilobytes, and billions no more."""
    stepped(runs, "net")
    history_answers.compact(runs.folder)
    said = runs.say()
    forged(runs, "SELECT made.* FROM made, range(20000)", **({"rows": 240000} if told else {}))
    again, _, skipped = runs.say().partition("\n\nskipped: ")
    assert again == said
    assert "it has other rows than its runs can have" in skipped


@pytest.mark.parametrize(
    "change",
    [
        "5e-324 AS latency_us", "1.7e308 AS latency_us", "1e30::HUGEINT AS latency_us", "'zzzz' AS recorded",
        "'x' AS dirty", "repeat('x', 20000) AS branch", "'\\xff'::BLOB AS case_id",
    ],
)  # fmt: skip
def test_a_row_that_no_run_can_have_is_left_out(runs: Runs, change: str) -> None:
    stepped(runs, "net")
    history_answers.compact(runs.folder)
    forged(runs, f"SELECT * REPLACE ({change}) FROM made")
    runs.add_all([67.2] * 2)
    assert "2 runs" in runs.say()


@pytest.mark.parametrize("change", ["[latency_us] AS latency_us", "{'a': 1} AS dirty"])
def test_columns_of_other_types_are_no_traceback(runs: Runs, change: str) -> None:
    stepped(runs, "net")
    history_answers.compact(runs.folder)
    said = runs.say()
    forged(runs, f"SELECT * REPLACE ({change}) FROM made")
    runs.add_all([67.2] * 2)
    assert "14 runs" in (again := runs.say()) or "2 runs" in again
    assert said.splitlines()[0] == again.splitlines()[0]


def test_a_run_with_names_longer_than_a_row_may_hold_is_read_one_by_one(runs: Runs) -> None:
    runs.add(record("x" * 20000, 64.0))
    runs.add(record("net", 64.0))
    done = history_answers.compact(runs.folder)
    assert (done.runs, len(done.problems)) == (1, 1)
    assert "001.json is read one by one: no UTF-8, or too long" in done.problems[0]
    assert runs.say("*").count("1 run,") == 2


def test_a_time_that_is_none_is_named_before_and_after_compacting(runs: Runs) -> None:
    runs.add(record("net", 64.0))
    odd = runs.add(record("net", 64.0))
    odd.write_text(odd.read_text().replace("2026-01-03T", "yesterday "))
    said = runs.say()
    assert "1 run," in said
    assert "002.json was recorded at 'yesterday 12:00:00+00:00', which is no time" in said
    history_answers.compact(runs.folder)
    assert runs.say() == said


def test_a_query_without_end_is_ended(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compacted_database, "LIMIT_S", 0.1)
    store = saved_runs.filesystem(runs.folder)
    with pytest.raises(TrtgateError, match=r"no answer within 0\.1 s"):
        compacted_database.asked(store, "SELECT count(*) FROM range(10_000_000_000_000) WHERE hash(range) = 1")


def test_more_points_than_memory_holds_are_refused(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    stepped(runs, "net", "other")
    history_answers.compact(runs.folder)
    monkeypatch.setattr(compacted_database, "MOST_ROWS", 12)
    assert "12 runs" in runs.say()
    with pytest.raises(TrtgateError, match="more than 12 points of compacted runs: ask for fewer cases"):
        runs.say("net", "other")


@pytest.mark.parametrize("change", [{"trtgate_compacted": 2}, {"rows": 10**18}])
def test_a_file_of_another_version_or_that_lies_is_left_out(runs: Runs, change: dict[str, int]) -> None:
    stepped(runs, "net")
    history_answers.compact(runs.folder)
    said = runs.say()
    forged(runs, "FROM made", **change)
    assert runs.say().startswith(said + "\n\nskipped: ")


def test_a_name_with_a_pattern_reads_no_other_file(runs: Runs) -> None:
    stepped(runs, "net")
    history_answers.compact(runs.folder)
    said = runs.say()
    (rows,) = compacted(runs)
    for path in (rows, rows.with_suffix(".json")):
        path.with_name(f"*{path.suffix}").write_bytes(path.read_bytes())
    assert runs.say() == said


def test_nothing_is_left_in_the_temporary_folder(runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DuckDB writes into a folder of this process alone."""
    stepped(runs, "net")
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    history_answers.compact(runs.folder)
    with compacted_database.database(saved_runs.filesystem(runs.folder)) as database:
        ((place,),) = database.execute("SELECT current_setting('temp_directory')").fetchall()
        assert Path(place).parent == tmp_path / "tmp"
    runs.say()
    assert list((tmp_path / "tmp").iterdir()) == []


def test_what_could_not_be_written_whole_is_taken_away(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    stepped(runs, "net")

    def full(*_given: Any, **_more: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fsspec.implementations.local.LocalFileSystem.pipe_file", full)
    with pytest.raises(TrtgateError, match=r"can't be written: .*No space left on device"):
        history_answers.compact(runs.folder)
    assert compacted(runs) == []


def of_others(path: Path, select: str) -> bytes:
    duckdb.sql(f"COPY ({select}) TO '{path}' (FORMAT parquet)")
    return path.read_bytes()


@pytest.mark.parametrize("broken", ["rows cut", "rows of others", "names cut", "names of others"])
def test_a_file_that_is_broken_is_named_and_its_runs_are_read_one_by_one(
    runs: Runs, tmp_path: Path, broken: str
) -> None:
    stepped(runs, "net")
    said = runs.say()
    history_answers.compact(runs.folder)
    (rows,) = compacted(runs)
    names = rows.with_suffix(".json")
    if broken == "rows cut":
        rows.write_bytes(rows.read_bytes()[:-100])
    elif broken == "rows of others":
        other = of_others(tmp_path / "x.parquet", "SELECT 1 AS case_id")
        rows.write_bytes(other)
        manifest = msgspec.json.decode(names.read_bytes())
        names.write_bytes(msgspec.json.encode(manifest | {"bytes": len(other)}))
    else:
        names.write_bytes(names.read_bytes()[:-9] if broken == "names cut" else b'{"runs": {"a": ' + b"[" * 10**5)
    again, _, skipped = runs.say().partition("\n\nskipped: ")
    assert again == said
    assert names.name in skipped
    assert "trtgate runs compact" in skipped
    assert history_answers.compact(runs.folder).runs == 12


def test_rows_that_can_be_none_are_left_out_and_names_do_not_reach_the_terminal_raw(runs: Runs, tmp_path: Path) -> None:
    runs.add(record("net", 64.0))
    history_answers.compact(runs.folder)
    (rows,) = compacted(runs)
    columns = ", ".join("? AS commit_id" if name == "commit_id" else name for name in compacted_runs.COLUMNS)
    worse = " UNION ALL ".join(
        f"SELECT * REPLACE ({value} AS latency_us, 'r{number}' AS run) FROM made"
        for number, value in enumerate(("'nan'::DOUBLE", "'inf'::DOUBLE", "-1.0", "0.0", "NULL"))
    )
    database = duckdb.connect()
    database.execute(f"CREATE TABLE made AS SELECT {columns} FROM read_parquet('{rows}')", [NASTY])
    database.execute(f"COPY (SELECT * FROM made UNION ALL {worse}) TO '{tmp_path}/x.parquet'")
    rows.write_bytes((tmp_path / "x.parquet").read_bytes())
    names = rows.with_suffix(".json")
    manifest = msgspec.json.decode(names.read_bytes())
    told = {"bytes": rows.stat().st_size, "rows": 6, "runs": [*manifest["runs"], *"abcde"]}
    names.write_bytes(msgspec.json.encode(manifest | told))
    said = runs.say()
    assert "1 run," in said
    assert not set(said) & set("\x1b\u202e")


def test_a_run_that_is_none_is_named_and_tried_again(runs: Runs) -> None:
    stepped(runs, "net")
    (runs.folder / "099.json").write_text("{")
    for number in (12, 0):
        done = history_answers.compact(runs.folder)
        assert (done.runs, len(done.problems)) == (number, 1)
        assert "099.json" in done.problems[0]


def test_where_nothing_can_be_written_everything_stays(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    stepped(runs, "net")
    said = runs.say()

    def full(*_given: Any, **_more: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fsspec.implementations.local.LocalFileSystem.put_file", full)
    with pytest.raises(TrtgateError, match=r"can't be written: .*No space left on device"):
        history_answers.compact(runs.folder)
    assert runs.say() == said


# Which runs


@pytest.mark.parametrize("compact", [False, True])
def test_runs_of_a_branch_and_since_a_date(runs: Runs, compact: bool) -> None:
    for number in range(6):
        branch = "main" if number % 2 else NASTY
        runs.add(record("net", 64.0 + number), commit={"id": "a" * 40, "branch": branch, "dirty": False})
    if compact:
        history_answers.compact(runs.folder)

    def latencies(**asked: str) -> list[float]:
        (case,) = history_answers.find(["net"], runs.folder, Asked(key=CARD.key, **asked)).histories[CARD.key]
        return [round(point.latency_us) for series in case.series for point in series.points]

    assert latencies() == [64, 65, 66, 67, 68, 69]
    assert latencies(branch="main") == [65, 67, 69]
    assert latencies(since="2026-01-06") == [68, 69]
    assert latencies(branch="main", since="2026-01-06") == [69]
    for nothing in ({"branch": "other"}, {"since": "2027-01-01"}):
        with pytest.raises(TrtgateError, match=r"no run (of branch 'other'|since 2027-01-01) under .* has such a case"):
            latencies(**nothing)


def test_since_is_an_age_or_a_date() -> None:
    today = datetime.date(2026, 11, 29)
    assert history_answers.since("", today) == ""
    assert history_answers.since("90d", today) == "2026-08-31"
    assert history_answers.since("2w", today) == "2026-11-15"
    assert history_answers.since("2026-01-31", today) == "2026-01-31"
    for text in ("soon", "90", "-1d", "999999d", "2026-13-01", "90d "):
        with pytest.raises(TrtgateError, match="days as 90d"):
            history_answers.since(text, today)


@pytest.mark.parametrize("compact", [False, True])
def test_each_card_is_a_series_of_its_own(runs: Runs, compact: bool) -> None:
    """One lies 2.5 % above the other, and they take turns: nothing changed."""
    for number in range(16):
        runs.add(on("GPU-a", 64.0) if number % 2 else on("GPU-b", 65.6))
    runs.add(on("GPU-c", 70.0))
    if compact:
        history_answers.compact(runs.folder)
    said = runs.say()
    assert said.count("no change found") == 2
    assert "card GPU-a, 8 runs" in said
    assert "another card, and never compared with the above:" in said
    assert "1 more card with fewer than 5 runs: too few to look for changes" in said


def test_all_accelerators_at_once(runs: Runs, command: Callable[..., Any]) -> None:
    runs.add(record("net", 64.0))
    runs.add(record("other", 64.0), card=CPU)
    said = command("history", "*", "--accelerator", "all").stdout
    assert said.index(f"saved runs of {CPU.key}") < said.index("other")
    assert f"saved runs of {CARD.key}" in said
    assert "has a case 'none'" in command("history", "none", "--accelerator", "all").stderr


# What is told of many


def test_steps_of_many_cases_between_the_same_commits_are_one_event(runs: Runs, command: Callable[..., Any]) -> None:
    stepped(runs, "a", "b", "c")
    said = command("history", "*").stdout
    (line,) = (line for line in said.splitlines() if line.startswith("one event"))
    assert line.startswith(
        "one event, 3 cases between 006.json (060606060 on main, 2026-01-07) and 007.json (070707070"
    )
    assert line.endswith("a, b, c")
    assert "one event" not in command("history", "a").stdout


def test_changes_of_one_commit_at_different_times_or_of_two_dirty_trees_are_no_event(
    runs: Runs, command: Callable[..., Any]
) -> None:
    """A machine that was updated on one day and on another, while a nightly job measured the same commit."""
    levels = {"a": [64.0] * 6 + [70.0] * 18, "b": [64.0] * 18 + [60.0] * 6}
    for dirty in (False, True):
        for us_a, us_b in zip(levels["a"], levels["b"], strict=True):
            commit = {"id": "a" * 40, "branch": "main", "dirty": dirty}
            runs.add(record(f"a{dirty}", us_a), record(f"b{dirty}", us_b), commit=commit)
    said = command("history", "*").stdout
    assert (said.count("+9.38%"), said.count("-6.25%")) == (2, 2)
    assert "one event" not in said


def test_cases_that_change_in_the_same_run_of_one_commit_are_an_event(runs: Runs, command: Callable[..., Any]) -> None:
    for us in [64.0] * 6 + [70.0] * 6:
        runs.add(record("a", us), record("b", us), commit={"id": "a" * 40, "branch": "main", "dirty": True})
    assert "one event, 2 cases between 006.json" in command("history", "*").stdout


def test_a_drift_by_a_clock_that_is_used_no_more_fails_nobody(runs: Runs, command: Callable[..., Any]) -> None:
    for number in range(20):
        runs.add(with_clock(64.0 * 1.004**number, "events"))
    assert command("history", "*", "--fail-on-drift").exit_code == 1
    for _ in range(6):
        runs.add(with_clock(50.0, "cuda_graph"))
    assert command("history", "*", "--fail-on-drift").exit_code == 0


def test_many_flat_series_fail_as_rarely_as_one(runs: Runs) -> None:
    """The share of red nights is that of all cases together."""
    flat = [analysed(noise(seed, 30, 0.002)) for seed in range(600)]
    histories = {
        "gpu": [CaseHistory(case_id=f"{n}", series=[one], beside_base=0, disturbed=0) for n, one in enumerate(flat)]
    }
    assert history_events.drifting(histories) == []
    slower = analysed(np.arange(30) * 0.002 + noise(1, 30, 0.002))
    histories["gpu"].append(CaseHistory(case_id="slower", series=[slower], beside_base=0, disturbed=0))
    assert [one.case_id for one in history_events.drifting(histories)] == ["slower"]


def test_slow_drift_fails_where_that_is_asked_for(runs: Runs, command: Callable[..., Any]) -> None:
    runs.add_all([64.0 * 1.004**number for number in range(20)], "slower")
    for path in list(runs.folder.glob("*.json")):
        path.rename(path.with_name(f"slower-{path.name}"))
    runs.count = 0
    runs.add_all([64.0 * 0.996**number for number in range(20)], "faster")
    assert command("history", "*").exit_code == 0
    assert command("history", "faster", "--fail-on-drift").exit_code == 0
    failed = command("history", "*", "--fail-on-drift")
    assert failed.exit_code == 1
    assert failed.stdout.splitlines()[-1].startswith("1 series gets slower bit by bit: slower by +7.")


def test_compacting_is_a_command(runs: Runs, command: Callable[..., Any]) -> None:
    stepped(runs, "net")
    assert command("runs", "compact").stdout.startswith("12 runs compacted: 12 rows, ")
    assert command("runs", "compact").stdout == "no run that is not compacted\n"


def test_a_place_without_runs_is_no_success(runs: Runs, tmp_path: Path) -> None:
    file = runs.add(record("net", 64.0))

    def said(*arguments: str) -> str:
        result = CliRunner().invoke(app, [*arguments])
        assert result.exit_code == 4, result.output
        return result.stderr

    assert "there are no saved runs under" in said("runs", "compact", "--runs", str(tmp_path / "misspelt"))
    assert "is a file, and --runs is the folder" in said("runs", "compact", "--runs", str(file))
    assert "is a file, and --runs is the folder" in said("history", "net", "--runs", str(file))


def test_the_alarm_names_the_card_that_drifts(runs: Runs, command: Callable[..., Any]) -> None:
    for number in range(20):
        runs.add(on("GPU-a", 64.0))
        runs.add(on("GPU-b", 64.0 * 1.004**number))
    failed = command("history", "*", "--fail-on-drift")
    assert failed.exit_code == 1
    assert failed.stdout.splitlines()[-1].endswith(f"on {CARD.key}, card GPU-b")


def test_without_duckdb_one_line_says_how_to_get_it_and_only_where_it_is_needed(
    runs: Runs, command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    stepped(runs, "net")
    command("runs", "compact")
    monkeypatch.setitem(__import__("sys").modules, "duckdb", None)
    refused = command("history", "net")
    assert (refused.exit_code, refused.stdout) == (4, "")
    assert "pip install 'trtgate[history]'" in refused.stderr
    for path in compacted(runs):
        path.with_suffix(".json").unlink()
    assert command("history", "net").exit_code == 0


def test_what_is_said_of_many_cards_fits_a_terminal(runs: Runs) -> None:
    for number in range(6):
        runs.add(on(f"GPU-{number}", 64.0))
    (case,) = history_answers.find(["net"], runs.folder, Asked(key=CARD.key)).histories[CARD.key]
    said = history_text.about(case)
    assert len(said) == 4
    assert said[-1] == "5 more cards with fewer than 5 runs: too few to look for changes"


def test_where_the_temporary_folder_is_full_that_is_said(runs: Runs) -> None:
    stepped(runs, "net", count=40)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
        with pytest.raises(TrtgateError, match=r"the runs can't be compacted in /.*: OSError: File too large"):
            history_answers.compact(runs.folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert compacted(runs) == []
