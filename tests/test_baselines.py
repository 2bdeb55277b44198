"""Stored files: read strictly, written atomically, and never more changed than asked for."""

from __future__ import annotations

import json
import math
import multiprocessing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from trtgate.commands import baseline_files
from trtgate.common import files
from trtgate.common.accelerator import Accelerator
from trtgate.common.errors import TrtgateError
from trtgate.gate import baselines, session_merging
from trtgate.gate.baseline_record import CaseRecord, StoredSession, change_since_anchor
from trtgate.verdict import Judgement, Verdict

CARD = Accelerator(kind="gpu", name="NVIDIA Test", memory_bytes=80 << 30, uuid="GPU-1", libraries={"torch": "2.14.0"})


def record(case: str, us: float, verdict: str = "unchanged", uuid: str | None = None) -> CaseRecord:
    session = StoredSession(
        recorded="2026-01-01T00:00:00+00:00",
        uuid=CARD.uuid if uuid is None else uuid,
        clock="cuda_graph",
        metrics={"device": [[us, us]], "host": [[us * 2]]},
    )
    return CaseRecord(case=case, settings={"frontend": "eager"}, verdict=verdict, sessions=[session])


def document(*records: CaseRecord, card: Accelerator = CARD) -> dict[str, Any]:
    return {
        "machine_info": {"node": "here", "accelerator": msgspec.to_builtins(card)},
        "benchmarks": [
            {
                "fullname": f"t.py::test[{r.case}]",
                "stats": {"median": 1e-4},
                "extra_info": {"trtgate": msgspec.to_builtins(r)},
            }
            for r in records
        ],
        "trtgate": {"schema": baselines.SCHEMA},
    }


def run_of(tmp_path: Path, *records: CaseRecord) -> baselines.Run:
    path = tmp_path / "run.json"
    files.write_json(path, document(*records))
    return baselines.read(path)


def stored(folder: Path) -> Path:
    return baselines.path_of(folder, CARD.key)


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    run = run_of(tmp_path, record("a", 100.0), record("b", 200.0))
    assert set(run.cases) == {"a", "b"}
    assert run.cases["a"] == record("a", 100.0)
    assert run.accelerator == CARD


def test_an_update_leaves_other_cases_byte_for_byte(tmp_path: Path) -> None:
    folder = tmp_path / "baselines"
    baselines.update(folder, run_of(tmp_path, record("a", 100.123456), record("b", 200.5)), ["a", "b"])

    def lines_of(case: str) -> str:
        text = stored(folder).read_text()
        start = text.index(f'"fullname": "t.py::test[{case}]"')
        return text[start : text.index('"figures"', start)]

    before = lines_of("b")
    (change,) = baselines.update(folder, run_of(tmp_path, record("a", 101.0)), ["a"])
    assert lines_of("b") == before
    assert (change.before_us, change.after_us, change.sessions) == (pytest.approx(100.123456), pytest.approx(101.0), 2)


def test_unknown_fields_survive_an_update(tmp_path: Path) -> None:
    folder = tmp_path / "baselines"
    baselines.update(folder, run_of(tmp_path, record("a", 100.0), record("b", 1.0)), ["a", "b"])
    content = json.loads(stored(folder).read_text())
    content["benchmarks"][1]["note"] = "by hand"
    stored(folder).write_text(json.dumps(content))
    baselines.update(folder, run_of(tmp_path, record("a", 100.0)), ["a"])
    assert json.loads(stored(folder).read_text())["benchmarks"][1]["note"] == "by hand"


def test_sessions_accumulate_and_the_oldest_beyond_twenty_go(tmp_path: Path) -> None:
    folder = tmp_path / "baselines"
    for number in range(25):
        baselines.update(folder, run_of(tmp_path, record("a", 100.0 + number)), ["a"])
    sessions = baselines.read(stored(folder)).cases["a"].sessions
    assert [s.metrics["device"][0][0] for s in sessions] == [100.0 + n for n in range(5, 25)]


@pytest.mark.parametrize("verdict", ["improved", "regressed", "incomparable"])
def test_sessions_of_other_code_are_dropped(tmp_path: Path, verdict: str) -> None:
    folder = tmp_path / "baselines"
    baselines.update(folder, run_of(tmp_path, record("a", 100.0)), ["a"])
    (change,) = baselines.update(folder, run_of(tmp_path, record("a", 50.0, verdict)), ["a"])
    assert change.restarted
    assert change.sessions == 1
    assert "older sessions dropped" in baselines.describe(change)


@pytest.mark.parametrize("verdict", ["improved", "regressed", "incomparable"])
def test_what_only_other_cards_call_other_code_is_added(tmp_path: Path, verdict: str) -> None:
    folder = tmp_path / "baselines"
    baselines.update(folder, run_of(tmp_path, record("a", 100.0, uuid="THERE")), ["a"])
    (change,) = baselines.update(folder, run_of(tmp_path, record("a", 95.0, verdict)), ["a"])
    assert (change.restarted, change.first_of_card, change.sessions) == (False, True, 2)
    assert baselines.describe(change) == "a: 100 → 95 µs, 2 sessions (-5.00%), the first of this card"
    (change,) = baselines.update(folder, run_of(tmp_path, record("a", 96.0)), ["a"])
    assert baselines.describe(change) == "a: 95 → 96 µs, 3 sessions (+1.05%)"


def test_a_card_in_another_state_starts_anew_alone(tmp_path: Path) -> None:
    folder = tmp_path / "baselines"
    for uuid in ("THERE", CARD.uuid):
        baselines.update(folder, run_of(tmp_path, record("a", 100.0, uuid=uuid)), ["a"])
    (change,) = baselines.update(folder, run_of(tmp_path, record("a", 110.0, "incomparable")), ["a"])
    assert (change.restarted, change.sessions) == (True, 2)
    assert [one.uuid for one in baselines.read(stored(folder)).cases["a"].sessions] == ["THERE", CARD.uuid]


def test_a_card_that_records_often_drives_no_other_out(tmp_path: Path) -> None:
    folder = tmp_path / "baselines"
    baselines.update(folder, run_of(tmp_path, record("a", 50.0, uuid="THERE")), ["a"])
    for number in range(22):
        baselines.update(folder, run_of(tmp_path, record("a", 100.0 + number)), ["a"])
    kept = baselines.read(stored(folder)).cases["a"]
    assert len(kept.sessions) == session_merging.KEPT_SESSIONS
    assert [session.metrics["device"][0][0] for session in kept.of_card("THERE")] == [50.0]
    assert [session.metrics["device"][0][0] for session in kept.of_card(CARD.uuid)] == [100.0 + n for n in range(3, 22)]


@pytest.mark.parametrize(
    ("broken", "named"),
    [
        ('{"trtgate": {"schema": 1}, "benchm', "not valid JSON"),
        ("[1, 2]", "not one of trtgate's"),
        ('{"benchmarks": []}', "not one of trtgate's"),
        ('{"trtgate": {"schema": 99}, "benchmarks": []}', "schema 99"),
        ('{"trtgate": {"schema": 1}, "benchmarks": []}', "broken"),
        ("", "not valid JSON"),
    ],
)
def test_a_broken_file_is_named_with_what_to_do(tmp_path: Path, broken: str, named: str) -> None:
    path = tmp_path / "latency.json"
    path.write_text(broken)
    with pytest.raises(TrtgateError, match=named) as caught:
        baselines.read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_empty_list_and_a_case_without_sessions_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "latency.json"
    files.write_json(path, document())
    with pytest.raises(TrtgateError, match="holds no case"):
        baselines.read(path)
    files.write_json(path, document(msgspec.structs.replace(record("a", 1.0), sessions=[])))
    with pytest.raises(TrtgateError, match="case a has no session"):
        baselines.read(path)


@pytest.mark.parametrize("bad", [-1.0, 0.0])
def test_latencies_that_are_no_latencies_are_refused(tmp_path: Path, bad: float) -> None:
    path = tmp_path / "latency.json"
    files.write_json(path, document(record("a", bad)))
    with pytest.raises(TrtgateError, match="case a: device must be positive"):
        baselines.read(path)


def test_nan_is_refused_in_both_directions(tmp_path: Path) -> None:
    path = tmp_path / "latency.json"
    with pytest.raises(TrtgateError, match=r"could not be written \(.*not JSON compliant"):
        files.write_json(path, document(record("a", math.nan)))
    path.write_text(json.dumps(document(record("a", math.nan))))
    with pytest.raises(TrtgateError, match="not valid JSON"):
        baselines.read(path)


def test_a_write_that_fails_keeps_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "latency.json"
    files.write_json(path, {"old": 1})

    def no_space(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("trtgate.common.files.os.fsync", no_space)
    with pytest.raises(TrtgateError, match="No space left on device"):
        files.write_json(path, {"new": 2})
    assert json.loads(path.read_text()) == {"old": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["latency.json"]


def test_a_broken_baseline_is_not_overwritten_by_an_update(tmp_path: Path) -> None:
    folder = tmp_path / "baselines"
    stored(folder).parent.mkdir(parents=True)
    stored(folder).write_text("{")
    with pytest.raises(TrtgateError, match="not valid JSON"):
        baselines.update(folder, run_of(tmp_path, record("a", 1.0)), ["a"])
    assert stored(folder).read_text() == "{"


def _update(folder: Path, number: int) -> None:
    place = folder / f"work-{number}"
    place.mkdir()
    baselines.update(folder / "baselines", run_of(place, record(f"case{number}", 100.0)), [f"case{number}"])


def test_processes_that_store_at_once_lose_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_update, args=(tmp_path, number)) for number in range(6)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert set(baselines.read(stored(tmp_path / "baselines")).cases) == {f"case{n}" for n in range(6)}


def judged(tmp_path: Path, name: str, us: float, verdict: str, by: CaseRecord) -> baselines.Run:
    """Return a run of case a that was judged by what was stored at that time."""
    made = record("a", us, verdict)
    session = msgspec.structs.replace(made.sessions[0], recorded=f"2026-02-02T00:00:00+00:00 {name}")
    (tmp_path / name).mkdir()
    return run_of(tmp_path / name, msgspec.structs.replace(made, sessions=[session], began=by.began_for(CARD.uuid, {})))


def _store_when_all_are_ready(folder: Path, run: baselines.Run, ready: Any) -> None:
    ready.wait(60)
    baselines.update(folder, run, ["a"])


@pytest.mark.parametrize("verdict", ["improved", "regressed", "incomparable"])
def test_of_two_runs_that_start_a_case_anew_at_once_none_is_lost(tmp_path: Path, verdict: str) -> None:
    """Both were judged by the older sessions: these go, and what the other run stores meanwhile does not."""
    folder, context = tmp_path / "baselines", multiprocessing.get_context("fork")
    baselines.update(folder, run_of(tmp_path, record("a", 100.0)), ["a"])
    old = baselines.read(stored(folder)).cases["a"]
    runs = [judged(tmp_path, name, us, verdict, old) for name, us in (("one", 50.0), ("two", 51.0))]
    ready = context.Barrier(len(runs))
    processes = [context.Process(target=_store_when_all_are_ready, args=(folder, run, ready)) for run in runs]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    kept = baselines.read(stored(folder)).cases["a"]
    assert sorted(one.metrics["device"][0][0] for one in kept.sessions) == [50.0, 51.0]
    later = judged(tmp_path, "later", 25.0, "improved", kept)
    (change,) = baselines.update(folder, later, ["a"])
    assert (change.restarted, change.sessions) == (True, 1)


def test_what_was_called_unchanged_is_not_added_to_what_was_started_anew_meanwhile(tmp_path: Path) -> None:
    folder = tmp_path / "baselines"
    baselines.update(folder, run_of(tmp_path, record("a", 100.0)), ["a"])
    old = baselines.read(stored(folder)).cases["a"]
    unchanged, improved = (
        judged(tmp_path, *how, old) for how in (("one", 100.0, "unchanged"), ("two", 50.0, "improved"))
    )
    baselines.update(folder, improved, ["a"])
    before = stored(folder).read_bytes()
    (change,) = baselines.update(folder, unchanged, ["a"])
    assert baselines.describe(change) == "a: another run has started it anew meanwhile: record it again"
    assert stored(folder).read_bytes() == before


def test_runs_that_only_add_sessions_at_once_add_them_all(tmp_path: Path) -> None:
    folder = tmp_path / "baselines"
    baselines.update(folder, run_of(tmp_path, record("a", 100.0)), ["a"])
    old = baselines.read(stored(folder)).cases["a"]
    for number in range(25):
        (change,) = baselines.update(folder, judged(tmp_path, str(number), 100.0, "unchanged", old), ["a"])
        assert (change.refused, change.restarted) == ("", False)
    (change,) = baselines.update(folder, judged(tmp_path, "fast", 50.0, "improved", old), ["a"])
    assert (change.restarted, change.sessions) == (True, 1)


def test_two_runs_on_a_new_card_at_once_drop_nothing(tmp_path: Path) -> None:
    """Each was judged by another card, which may just differ: what the first one stores does not change that."""
    folder = tmp_path / "baselines"
    baselines.update(folder, run_of(tmp_path, record("a", 100.0, uuid="THERE")), ["a"])
    old = baselines.read(stored(folder)).cases["a"]
    for name in ("one", "two"):
        (change,) = baselines.update(folder, judged(tmp_path, name, 95.0, "improved", old), ["a"])
        assert not change.restarted
    assert len(baselines.read(stored(folder)).cases["a"].sessions) == 3


def test_pretty_json_is_json_and_keeps_numbers_on_one_line() -> None:
    value = {"a": {"numbers": [1.5] * 200, "text": "ü" * 130}, "b": [], "c": [{"d": 1}, {"e": None}]}
    text = files.pretty(value)
    assert json.loads(text) == value
    assert any(line.count("1.5") == 200 for line in text.splitlines())


def test_removing_leaves_the_others_and_no_empty_file(tmp_path: Path) -> None:
    folder = tmp_path / "baselines"
    baselines.update(folder, run_of(tmp_path, record("a", 100.0), record("b", 200.0)), ["a", "b"])
    assert baseline_files.remove(folder, ["a*"]) == [f"removed from {stored(folder)}: a"]
    assert list(baselines.read(stored(folder)).cases) == ["b"]
    with pytest.raises(TrtgateError, match=r"no baseline under .* has a case 'c'"):
        baseline_files.remove(folder, ["b", "c"])
    assert list(baselines.read(stored(folder)).cases) == ["b"]
    baseline_files.remove(folder, ["b"])
    assert not stored(folder).exists()


def test_a_case_that_is_twice_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    """A merge may leave it so: neither of the two is to vanish at the next update."""
    folder = tmp_path / "baselines"
    baselines.update(folder, run_of(tmp_path, record("a", 100.0), record("b", 1.0)), ["a", "b"])
    content = json.loads(stored(folder).read_text())
    content["benchmarks"].append(content["benchmarks"][0])
    stored(folder).write_text(json.dumps(content))
    before = stored(folder).read_bytes()
    with pytest.raises(TrtgateError, match=r"latency\.json has case a twice.*take one of the two out"):
        baselines.update(folder, run_of(tmp_path, record("b", 2.0)), ["b"])
    assert stored(folder).read_bytes() == before


def test_benchmarks_that_are_not_ours_stay(tmp_path: Path) -> None:
    folder = tmp_path / "baselines"
    baselines.update(folder, run_of(tmp_path, record("a", 100.0), record("b", 1.0)), ["a", "b"])
    content = json.loads(stored(folder).read_text())
    theirs = [{"fullname": f"test_mine.py::test_{n}", "stats": {"median": n}, "extra_info": {}} for n in (1, 2)]
    content["benchmarks"] += theirs
    stored(folder).write_text(json.dumps(content))
    baselines.update(folder, run_of(tmp_path, record("a", 2.0)), ["a"])
    assert json.loads(stored(folder).read_text())["benchmarks"][2:] == theirs
    baselines.remove(stored(folder), ["b"])
    assert json.loads(stored(folder).read_text())["benchmarks"][1:] == theirs


def test_a_linked_baseline_stays_a_link(tmp_path: Path) -> None:
    shared = tmp_path / "shared.json"
    stored(tmp_path / "baselines").parent.mkdir(parents=True)
    stored(tmp_path / "baselines").symlink_to(shared)
    files.write_json(shared, document(record("a", 100.0)))
    baselines.update(tmp_path / "baselines", run_of(tmp_path, record("a", 101.0)), ["a"])
    assert stored(tmp_path / "baselines").is_symlink()
    assert len(baselines.read(shared).cases["a"].sessions) == 2


# The anchor


def test_the_first_three_sessions_of_a_card_stay_beyond_all_that_are_kept(tmp_path: Path) -> None:
    folder = tmp_path / "baselines"
    for number in range(25):
        baselines.update(folder, run_of(tmp_path, record("a", 100.0 + number)), ["a"])
        anchor = baselines.read(stored(folder)).cases["a"].anchor_of(CARD.uuid, {})
        assert [one.metrics["device"][0][0] for one in anchor] == [100.0 + n for n in range(min(number + 1, 3))]
    kept = baselines.read(stored(folder)).cases["a"]
    assert [one.metrics["device"][0][0] for one in kept.anchor] == [100.0, 101.0, 102.0]
    assert kept.anchored
    assert change_since_anchor(kept) == pytest.approx(124 / 101 - 1, abs=1e-4)


@pytest.mark.parametrize("verdict", ["improved", "regressed", "incomparable"])
def test_the_anchor_goes_with_the_sessions_that_are_dropped(tmp_path: Path, verdict: str) -> None:
    folder = tmp_path / "baselines"
    for number in range(25):
        baselines.update(folder, run_of(tmp_path, record("a", 100.0 + number)), ["a"])
    baselines.update(folder, run_of(tmp_path, record("a", 50.0, verdict)), ["a"])
    kept = baselines.read(stored(folder)).cases["a"]
    assert (kept.anchor, kept.anchored, len(kept.anchor_of(CARD.uuid, {}))) == ([], False, 1)


def test_what_is_accepted_without_proof_is_added_and_leaves_the_anchor(tmp_path: Path) -> None:
    folder = tmp_path / "baselines"
    for us, verdict in ((100.0, "new"), (101.0, "underpowered"), (102.0, "unconfirmed"), (103.0, "underpowered")):
        baselines.update(folder, run_of(tmp_path, record("a", us, verdict)), ["a"])
    kept = baselines.read(stored(folder)).cases["a"]
    assert len(kept.sessions) == 4
    assert [one.metrics["device"][0][0] for one in kept.anchor_of(CARD.uuid, {})] == [100.0, 101.0, 102.0]


def test_an_accepted_suspicion_starts_anew(tmp_path: Path) -> None:
    folder = tmp_path / "baselines"
    baselines.update(folder, run_of(tmp_path, record("a", 100.0)), ["a"])
    suspicion = Judgement(
        metric="device", verdict=Verdict.UNDERPOWERED, now=200.0, baseline=100.0, change=1.0, low=0.5, high=1.5,
        limit=0.01, threshold=0.6, detectable=0.7, evidence="1 stored session", suspected=1.0,
    )  # fmt: skip
    doubled = msgspec.structs.replace(record("a", 200.0, "underpowered"), judgements=[suspicion])
    (change,) = baselines.update(folder, run_of(tmp_path, doubled), ["a"])
    assert (change.restarted, change.sessions) == (True, 1)


def test_a_broken_anchor_is_named(tmp_path: Path) -> None:
    path = tmp_path / "latency.json"
    bad = record("a", -1.0).sessions
    files.write_json(path, document(msgspec.structs.replace(record("a", 1.0), anchor=bad)))
    with pytest.raises(TrtgateError, match="case a: device must be positive"):
        baselines.read(path)


def test_the_change_since_the_anchor_is_shown_where_there_is_one(tmp_path: Path) -> None:
    folder = tmp_path / "baselines"
    baselines.update(folder, run_of(tmp_path, record("a", 100.0)), ["a"])
    assert "since anchor" not in str(baseline_files.shown(baselines.read(stored(folder)))[2])
    for us in (100.0, 100.0, 104.0):
        baselines.update(folder, run_of(tmp_path, record("a", us)), ["a"])
    _, _, table = baseline_files.shown(baselines.read(stored(folder)))
    titles, row = str(table).splitlines()
    assert "since anchor" in titles
    assert "+4.00%" in row


@pytest.mark.parametrize("verdict", ["underpowered", "unconfirmed"])
def test_accepting_a_run_leaves_out_what_is_not_proven_unless_it_is_named(tmp_path: Path, verdict: str) -> None:
    folder, run = tmp_path / "baselines", run_of(tmp_path, record("a", 100.0, verdict), record("b", 100.0))
    assert baseline_files.accept(run, folder, []).left_out == {"a": verdict}
    assert [change.case_id for change in baseline_files.accept(run, folder, ["a"]).updates] == ["a"]


def test_accepting_a_baseline_keeps_its_anchor_and_adds_it_to_no_other(tmp_path: Path) -> None:
    """A run has one session of a case. More than one are a baseline's, with levels of their own."""
    there, here = tmp_path / "there", tmp_path / "here"
    for day in range(25):
        baselines.update(there, run_of(tmp_path, dated(record("a", 100.0 + day), day)), ["a"])
    other = baselines.read(stored(there))
    (change,) = baseline_files.accept(other, here, []).updates
    assert (change.sessions, change.refused) == (20, "")
    taken = baselines.read(stored(here)).cases["a"]
    assert (taken.sessions, taken.anchor) == (other.cases["a"].sessions, other.cases["a"].anchor)
    assert change_since_anchor(taken) == pytest.approx(change_since_anchor(other.cases["a"]))

    baselines.remove(stored(here), ["a"])
    baselines.update(here, run_of(tmp_path, record("a", 50.0)), ["a"])
    before = stored(here).read_bytes()
    (change,) = baseline_files.accept(other, here, []).updates
    assert change.refused.startswith("it has 20 sessions, as a baseline has, and a saved run has one")
    assert stored(here).read_bytes() == before


def dated(made: CaseRecord, day: int) -> CaseRecord:
    sessions = [msgspec.structs.replace(one, recorded=f"2026-02-{day + 1:02}") for one in made.sessions]
    return msgspec.structs.replace(made, sessions=sessions)


def test_a_case_whose_blocks_do_not_count_is_not_stored_even_if_it_is_named(tmp_path: Path) -> None:
    made = msgspec.structs.replace(record("a", 100.0, "underpowered"), disturbed=True)
    folder, run = tmp_path / "baselines", run_of(tmp_path, made)
    (change,) = baseline_files.accept(run, folder, ["a"]).updates
    assert change.refused == "too many of its blocks do not count: record it again"
    assert not stored(folder).exists()


@pytest.mark.parametrize("verdict", ["measured", "new"])
def test_a_run_that_compared_nothing_with_what_is_stored_adds_to_it_only_if_it_is_named(
    tmp_path: Path, verdict: str
) -> None:
    """Half as fast as what is stored, it would move that; on another card, or by another clock, it begins there."""
    folder = tmp_path / "baselines"
    baselines.update(folder, run_of(tmp_path, *(record(name, 100.0) for name in "abc")), list("abc"))
    elsewhere = record("b", 200.0, verdict, uuid="GPU-2")
    by_another = record("c", 200.0, verdict)
    sessions = [msgspec.structs.replace(one, clock="cuda_events") for one in by_another.sessions]
    by_another = msgspec.structs.replace(by_another, sessions=sessions)
    run = run_of(tmp_path, record("a", 200.0, verdict), elsewhere, by_another, record("d", 200.0, verdict))
    done = baseline_files.accept(run, folder, [])
    assert [change.case_id for change in done.updates] == ["b", "c", "d"]
    assert done.left_out == {"a": f"{verdict}, and was not compared with what is stored"}
    assert [change.case_id for change in baseline_files.accept(run, folder, ["a"]).updates] == ["a"]
    assert baseline_files.accept(run, folder, []).known == ["a", "b", "c", "d"]
