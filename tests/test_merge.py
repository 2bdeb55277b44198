"""A run in shards and its one judge: any division of a run gives what the whole gives, and what is wrong is named."""

from __future__ import annotations

import contextlib
import json
import random
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.in_process import command
from tests.scripted_measurer import CASE, HERE, measurement
from tests.stage_files import (
    BESIDE_BASE,
    FAST,
    REFUTED,
    SAME,
    SCRIPTS,
    SLOW,
    Script,
    StagedRun,
)
from trtgate.common import run_places
from trtgate.common.errors import TrtgateError
from trtgate.fleet import merged_document, shards, stage_record
from trtgate.fleet.manifest import Manifest
from trtgate.fleet.merged_document import UNCONFIRMED, exit_status
from trtgate.fleet.merged_run import MergedRun
from trtgate.fleet.stage_record import KEY, CaseEvidence, CaseOutcome
from trtgate.gate.case_result import adjusted
from trtgate.gate.policy import Evidence, Measured
from trtgate.records.measurement import HOST_ALONE, Quadruple, Turn
from trtgate.verdict import Verdict

# Which cases a shard takes


@given(
    seconds=st.lists(st.none() | st.floats(0.1, 1e4), min_size=1, max_size=30), count=st.integers(1, 12),
    models=st.integers(1, 5),
)  # fmt: skip
def test_every_case_is_in_one_shard_and_no_shard_has_much_more_to_do(
    seconds: list[float | None], count: int, models: int
) -> None:
    cases = {f"c{number}": one for number, one in enumerate(seconds)}
    by_case = shards.assigned({name: name for name in cases}, cases, count)
    assert sorted(case for shard in by_case for case in shard) == sorted(cases)
    known = [one for one in seconds if one is not None]
    typical = sorted(known)[len(known) // 2] if known else 1.0
    longest = max([*known, typical])
    loads = [sum(cases[case] or 0 for case in shard) for shard in by_case]
    assert None in seconds or max(loads) <= sum(loads) / count + longest + 1e-6  # Graham's bound
    by_model = shards.assigned({name: f"m{number % models}" for number, name in enumerate(cases)}, cases, count)
    homes = {(int(case[1:]) % models, number) for number, shard in enumerate(by_model) for case in shard}
    assert len(homes) == min(models, len(cases))


def test_the_longest_case_goes_first_and_an_unknown_one_counts_as_the_median() -> None:
    seconds = {"a": 1.0, "b": 10.0, "c": None, "d": 4.0}
    assert shards.assigned({name: name for name in "abcd"}, seconds, 2) == [["b"], ["a", "c", "d"]]
    assert shards.assigned({"a": "a"}, {}, 3) == [["a"], [], []]


@pytest.mark.parametrize("text", ["0/2", "3/2", "2", "a/b", "1/0", "-1/2", "1/2/3", "", "1/99999", "٢/٣"])
def test_what_is_no_shard_is_refused(text: str) -> None:
    with pytest.raises(TrtgateError, match="--trtgate-shard"):
        shards.parse(text)


# Any division gives the whole


def comparable(run: MergedRun) -> Any:
    """Return the document and the report of a run, without what differs between two merges of the same."""
    document = merged_document.document(run)
    document.get(KEY, {}).pop("manifest", None)
    report = msgspec.to_builtins(merged_document.report(run, []))
    return document, report | {"created": "", "seconds": 0}


@settings(
    max_examples=60, deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)  # fmt: skip
@given(data=st.data())
def test_any_division_of_a_run_gives_the_same_document_as_the_whole(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    scripts = data.draw(st.sampled_from([SCRIPTS, SCRIPTS, BESIDE_BASE]))
    kinds = data.draw(st.lists(st.sampled_from(sorted(scripts)), min_size=1, max_size=7))
    run = StagedRun(tmp_path_factory.mktemp("run"), [scripts[kind] for kind in kinds])
    count = data.draw(st.integers(1, 5))
    homes = [data.draw(st.integers(0, count - 1)) for _ in run.cases]
    division = [
        [name for name, home in zip(run.cases, homes, strict=True) if home == number] for number in range(count)
    ]
    divided = run.manifest(division)
    suspected = [name for name, kind in zip(run.cases, kinds, strict=True) if kind in ("slow", "refuted")]
    confirmed = data.draw(st.lists(st.sampled_from(suspected), unique=True)) if suspected else []
    of_whole, of_parts = [run.shard(run.whole, 1)], [run.shard(divided, number + 1) for number in range(count)]
    if confirmed:
        cut = data.draw(st.integers(0, len(confirmed)))
        of_whole.append(run.confirmation(run.whole, confirmed))
        of_parts += [run.confirmation(divided, part) for part in (confirmed[:cut], confirmed[cut:]) if part]
    whole = run.merged(of_whole)
    parts = run.merged(data.draw(st.permutations(of_parts)))
    assert comparable(parts) == comparable(whole)
    assert (parts.about_new, parts.undecided) == (whole.about_new, whole.undecided)
    if set(confirmed) == set(suspected):
        assert parts.gate.results == _as_the_end_tells(run)
    slow = any(kind == "slow" for name, kind in zip(run.cases, kinds, strict=True) if name in confirmed)
    red = slow or "broken" in kinds
    assert exit_status(parts) == (1 if red else UNCONFIRMED * (len(confirmed) < len(suspected)))


def _as_the_end_tells(run: StagedRun) -> Any:
    """Return the results of one undivided run; what failed is never stored."""
    return {
        name: msgspec.structs.replace(result, stored=result.stored and result.verdict is not Verdict.REGRESSED)
        for name, result in adjusted(run.in_one()).items()
    }


# What is wrong is named


@pytest.fixture
def run(tmp_path: Path) -> StagedRun:
    return StagedRun(tmp_path, [SAME, FAST, SAME])


@pytest.fixture
def divided(run: StagedRun) -> Manifest:
    first, *others = run.cases
    return run.manifest([[first], others])


def failing(run: MergedRun) -> list[str]:
    return [notice.text for notice in run.notices if notice.failed]


def test_a_missing_shard_is_red_with_its_cases(run: StagedRun, divided: Manifest) -> None:
    merged = run.merged([run.shard(divided, 1)])
    (said,) = failing(merged)
    assert said.startswith(f"shard 2/2 of {HERE.key} at commit cccccccccccc did not measure 2 cases: m1-eager-fp32")
    assert exit_status(merged) == 1
    assert list(merged.gate.results) == ["m0-eager-fp32"]


def test_very_many_shards_are_missing_in_few_lines_and_at_once(run: StagedRun) -> None:
    divided = run.manifest([[name] for name in run.cases] + [[] for _ in range(shards.MOST - 3)])
    said = failing(run.merged([run.shard(divided, 1)]))
    assert [text.partition(" of h100")[0] for text in said] == ["shard 2/10000", "shard 3/10000", "shards"]
    assert said[2].endswith("that have no case: 4/10000, 5/10000, 6/10000 and 9994 more (docs: shard-missing)")
    with pytest.raises(TrtgateError, match="its manifest has 10001 shards, and a run has 10000 at most"):
        run.merged([run.shard(msgspec.structs.replace(divided, shards=[*divided.shards, []]), 1)])


@pytest.mark.parametrize(
    "part", ["0/2", "3/2", "01/2", "1/3", "-1/2", "1", "", "٢/2", "x/2", "1/2/2", f"{'0' * 5000}1/2"]
)
def test_only_the_names_of_its_shards_are_names_of_shards(run: StagedRun, part: str) -> None:
    divided = run.manifest([[name] for name in list(run.cases)[:2]])
    assert [divided.shard_of(name) for name in divided.names] == divided.shards
    assert divided.shard_of(part) == []


def test_of_two_complete_attempts_the_first_counts_and_the_second_is_red(run: StagedRun, divided: Manifest) -> None:
    slow = StagedRun(run.folder, [SLOW, FAST, SAME])
    late = slow.shard(divided, 1, attempt="late", started="2026-01-02T00:00:00+00:00")
    merged = run.merged([late, run.shard(divided, 1), run.shard(divided, 2)])
    (said,) = failing(merged)
    assert f"shard 1/2 of {HERE.key} ({late}) is doubled: the first complete attempt counts" in said
    assert merged.gate.results["m0-eager-fp32"].verdict is Verdict.UNCHANGED
    assert exit_status(merged) == 1


def test_an_interrupted_attempt_does_not_count_and_is_no_second_one(run: StagedRun, divided: Manifest) -> None:
    cut = run.shard(divided, 1, complete=False, evidence={}, attempt="cut")
    whole = [run.shard(divided, 1), run.shard(divided, 2)]
    assert exit_status(run.merged([cut, *whole])) == 0
    lone = run.merged([cut, whole[1]])
    said = f"shard 1/2 of {HERE.key} ({cut}) was not run to its end, and does not count (docs: shard-rejected)"
    assert failing(lone)[0] == said
    assert exit_status(lone) == 1
    nothing = run.merged([cut])
    assert (exit_status(nothing), nothing.gate.results) == (1, {})
    assert merged_document.document(nothing)["benchmarks"] == []


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"commit": "d" * 40}, "commit dddddddddddd, the others have cccccccccccc"),
        ({"suite": "other"}, "files of the suite with digest other, the others have s"),
        ({"launches": 5}, "launches 5, the others have 3"),
        ({"require": ("verdict",)}, "require"),
    ],
)
def test_a_foreign_shard_is_red_and_what_differs_is_said(
    run: StagedRun, divided: Manifest, changed: dict[str, Any], said: str
) -> None:
    foreign = run.shard(msgspec.structs.replace(divided, **changed), 2)
    third = run.manifest([[name] for name in run.cases])
    kept = [run.shard(third, 1), run.shard(third, 2), run.shard(third, 3)]
    merged = run.merged([foreign, *kept])
    (named,) = failing(merged)
    assert named.startswith(f"shard 2/2 of {HERE.key} ({foreign}) is foreign: ")
    assert said in named
    assert exit_status(merged) == 1
    assert len(merged.gate.results) == 3


def test_other_versions_are_foreign(run: StagedRun, divided: Manifest) -> None:
    upgraded = msgspec.structs.replace(HERE, libraries={"torch": "9"})
    other = StagedRun(run.folder, [SAME, FAST, SAME], upgraded)
    foreign = other.shard(msgspec.structs.replace(divided, versions=upgraded.versions), 2)
    merged = run.merged([run.shard(divided, 1), foreign])
    assert f"({foreign}) is foreign: other versions: torch 9, the others none" in failing(merged)[0]


def test_a_case_that_failed_is_red_though_it_was_quarantined_nowhere(run: StagedRun) -> None:
    broken = StagedRun(run.folder, [SAME, SCRIPTS["broken"], SAME])
    merged = broken.merged([broken.shard(broken.whole, 1)])
    assert exit_status(merged) == 1
    assert merged.outcomes["m1-eager-fp32"].said == "m1-eager-fp32: can't be built"
    assert failing(merged) == []  # it is told as a failed test, and not as a missing case too


def test_a_shard_that_failed_for_another_reason_turns_the_run_red(run: StagedRun) -> None:
    merged = run.merged([run.shard(run.whole, 1, exit_status=1)])
    assert failing(merged)[0].endswith("ended with exit code 1 (docs: shard-rejected)")


def test_a_case_of_the_baseline_that_nobody_ran_is_missing(run: StagedRun) -> None:
    less = StagedRun(run.folder, [SAME, FAST])
    manifest = less.manifest([list(less.cases)], baseline=run.whole.baseline)
    StagedRun(run.folder, [SAME, FAST, SAME])  # puts the baseline back
    merged = run.merged([less.shard(manifest, 1)])
    assert failing(merged) == [
        "m2-eager-fp32 is in the baseline and was not measured: not in the suite or not run (docs: missing-case)"
    ]
    assert merged.notices[-1].text == "what is gone for good: trtgate baseline remove CASE"  # as a run says it
    asked = msgspec.structs.replace(manifest, left_out=["m2-eager-fp32"])
    assert exit_status(run.merged([less.shard(asked, 1)])) == 0


def test_accuracy_that_a_filter_hides_from_shards_is_red_where_verdicts_are_required(
    run: StagedRun, divided: Manifest
) -> None:
    left_out = [[name] for name in run.cases]
    for manifest, expected in (
        (divided, 0),
        (msgspec.structs.replace(divided, require=("verdict",)), 0),
        (msgspec.structs.replace(divided, require=("verdict",), filters_typed=False), 1),
    ):
        merged = run.merged([run.shard(manifest, number, unchecked=left_out[number - 1]) for number in (1, 2)])
        said = [notice.text for notice in merged.notices]
        assert said.count("accuracy not checked, as asked: 2 cases of the baseline") == 1
        assert (exit_status(merged), len(failing(merged))) == (expected, expected)


def test_kinds_of_accelerators_that_are_of_different_commits_are_red(run: StagedRun) -> None:
    other = StagedRun(run.folder, [SAME], msgspec.structs.replace(HERE, name="A100"))
    stale = other.manifest([list(other.cases)], commit="d" * 40)
    for manifest, expected in ((stale, 1), (other.whole, 0)):
        status, said = command(
            "merge", str(run.shard(run.whole, 1)), str(other.shard(manifest, 1)), f"--baselines={run.baselines}",
            f"--output={run.folder / 'out.json'}",
        )  # fmt: skip
        assert status == expected
        told = "ERROR: a100-0gib was measured at commit dddddddddddd, and h100-0gib at cccccccccccc" in said
        assert told is (manifest is stale)


def test_shards_of_another_trtgate_are_refused_since_its_rules_may_be_others(run: StagedRun) -> None:
    file = run.shard(run.manifest([list(run.cases)], trtgate="0.0.9"), 1)
    with pytest.raises(TrtgateError, match=r"by trtgate 0\.0\.9, and this is .*: pip install trtgate==0\.0\.9"):
        run.merged([file])


def test_a_machine_that_is_not_the_accelerator_is_refused(run: StagedRun) -> None:
    file = run.shard(run.whole, 1)
    document = json.loads(file.read_text())
    document["machine_info"]["accelerator"]["name"] = "A100"
    file.write_text(json.dumps(document))
    with pytest.raises(TrtgateError, match="its accelerator is not that of its machine"):
        run.merged([file])


def test_a_case_whose_test_failed_once_it_was_measured_is_in_the_run_as_one_run_has_it(run: StagedRun) -> None:
    slow = StagedRun(run.folder, [SLOW, FAST, SAME])
    failed = {name: CaseOutcome("failed", "the fixture failed") for name in slow.cases}
    merged = slow.merged([slow.shard(slow.whole, 1, latency=failed, exit_status=1)])
    assert list(merged.gate.results) == list(slow.cases)
    assert {one.said for one in merged.outcomes.values()} == {"the fixture failed"}
    assert merged.open == {}
    assert not any(result.stored for result in merged.gate.results.values())
    assert len(merged_document.document(merged)["benchmarks"]) == 3


def test_another_baseline_is_refused(run: StagedRun) -> None:
    file = run.shard(run.whole, 1)
    StagedRun(run.folder, [FAST])
    with pytest.raises(TrtgateError, match="were measured with another baseline"):
        run.merged([file])


# Confirmation


def test_a_suspect_is_told_as_one_until_it_is_confirmed(tmp_path: Path) -> None:
    run = StagedRun(tmp_path, [SAME, SLOW, REFUTED])
    _, slow, refuted = run.cases
    file = run.shard(run.whole, 1)
    merged = run.merged([file])
    assert (exit_status(merged), list(merged.open)) == (UNCONFIRMED, [slow, refuted])
    assert merged.gate.results[slow].suspected
    more = run.confirmation(run.whole, [refuted])
    assert exit_status(run.merged([file, more])) == UNCONFIRMED
    both = run.merged([file, more, run.confirmation(run.whole, [slow])])
    assert (exit_status(both), both.gate.results[slow].verdict) == (1, Verdict.REGRESSED)
    again = run.merged([file, more, run.confirmation(run.whole, [refuted], started="2027", attempt="2")])
    assert "is doubled: m2-eager-fp32 was confirmed by" in failing(again)[0]


def test_a_confirmation_of_another_measurement_does_not_count(tmp_path: Path) -> None:
    run = StagedRun(tmp_path, [SLOW])
    (name,) = run.cases
    file = run.shard(run.whole, 1)
    other = StagedRun(tmp_path, [msgspec.structs.replace(SLOW, first=(109.0, 109.1, 108.9))])
    merged = run.merged([file, other.confirmation(run.whole, [name])])
    assert "goes on with another measurement" in failing(merged)[0]
    assert list(merged.open) == [name]


def test_launches_on_another_card_are_judged_by_what_is_stored_of_that_one(tmp_path: Path) -> None:
    run = StagedRun(tmp_path, [SLOW])
    (name,) = run.cases
    found = run.evidence([name], confirmed=True)[name]
    (fresh,) = found.evidence.fresh
    elsewhere = msgspec.structs.replace(found.evidence, fresh=(msgspec.structs.replace(fresh, uuid="ELSEWHERE"),))
    confirmed = run.confirmation(run.whole, [name], evidence={name: msgspec.structs.replace(found, evidence=elsewhere)})
    result = run.merged([run.shard(run.whole, 1), confirmed]).gate.results[name]
    assert (result.verdict, result.measurement.uuid) == (Verdict.REGRESSED, "ELSEWHERE")
    assert "1 other card" in result.judgements[0].evidence


# Files of others


def test_a_file_is_refused_with_one_line_and_nothing_is_written(
    run: StagedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run.folder)
    good = run.shard(run.whole, 1)
    text = good.read_text()
    for content in ("", "{", "[]", "{}", text[: len(text) // 2], "[" * 100_000, "\x00", '{"trtgate": {"schema": 1}}'):
        bad = run.folder / "\x1b[31mbad.json"
        bad.write_text(content)
        status, said = command("merge", str(good), str(bad))
        assert status == 4
        assert said.count("\n") == 1
        assert said.startswith("trtgate: error: ")
        assert "\x1b" not in said
    assert not (run.folder / ".trtgate" / "runs").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"blocks_us": [-1.0]}, {"blocks_us": [0.0]}, {"blocks_us": [1e400]}, {"blocks_us": []}, {"replays": 0},
        {"clock": ""}, {"launches": []}, {"case_id": "other"}, {"turns": []}, {"host_us": [-5.0]},
        {"canary_us": {"sm_clock": -1.0}}, {"tests": 0}, {"part": "9/9"}, {"cases": []}, {"shards": []},
        {"levels": []}, {"p99_us": -1.0}, {"most": 7},
        {"key": "../x"},
    ],
)  # fmt: skip
def test_figures_that_can_be_none_are_refused(run: StagedRun, change: dict[str, Any]) -> None:
    run = StagedRun(run.folder, [SCRIPTS["loaded"], FAST, SAME])
    file = run.shard(run.whole, 1)
    document = json.loads(file.read_text())
    _replace(document[KEY], change)
    file.write_text(json.dumps(document).replace("Infinity", "1e400"))
    with pytest.raises(TrtgateError):
        run.merged([file])


@pytest.mark.parametrize(
    ("host_us", "refused"), [([400.0], ""), ([], "has a turn without a block"), ([-1.0], "is no positive number")]
)
def test_fresh_pairs_of_a_confirmation_may_leave_device_latency_out(host_us: list[float], refused: str) -> None:
    """Where the host's metrics alone are suspected, they measure nothing else."""
    turn = Turn(clock=HOST_ALONE, captures=[], host_us=host_us, enqueue_us=host_us)
    pair = [Quadruple(base=[turn] * 2, candidate=[turn] * 2)]
    first = Measured(measurement(100.0), measurement(100.0))
    found = CaseEvidence(evidence=Evidence(first=first, pairs=(pair,)))
    with pytest.raises(TrtgateError, match=refused) if refused else contextlib.nullcontext():
        stage_record.check_case(CASE.id, found, beside_base=True)


@pytest.mark.parametrize("change", [{"levels": []}, {"p99_us": -1.0}, {"most": 7}, {"seconds": 0.0}, {"calls": 0}])
def test_load_and_cold_starts_of_a_case_that_is_the_same_are_checked_too(
    run: StagedRun, change: dict[str, Any]
) -> None:
    run = StagedRun(run.folder, [Script((100.0, 100.1, 99.9), load=True, known=True)])
    file = run.shard(run.whole, 1)
    assert [one.verdict for one in run.merged([file]).gate.results.values()] == [Verdict.SAME]
    document = json.loads(file.read_text())
    host = document[KEY]["evidence"]["m0-eager-fp32"]["evidence"]["host"]
    for one in (*host["load"], *host["cold"]):
        _replace(one, change)
    file.write_text(json.dumps(document))
    with pytest.raises(TrtgateError, match="m0-eager-fp32"):
        run.merged([file])


def _replace(value: Any, change: dict[str, Any]) -> None:
    if isinstance(value, dict):
        value |= {name: new for name, new in change.items() if name in value}
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _replace(part, change)


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for name, part in items for place in _places(part, (*path, name)))]


def test_a_file_that_was_changed_anywhere_is_merged_or_refused_in_one_line(run: StagedRun) -> None:
    file = run.shard(run.whole, 1)
    text = file.read_text()
    places = [place for place in _places(json.loads(text)) if place]
    chosen = random.Random(1)
    for _ in range(400):
        document = json.loads(text)
        *way, last = chosen.choice(places)
        there = document
        for name in way:
            there = there[name]
        there[last] = chosen.choice([None, -1, 0, 1e308, "x", [], {}, [[]], "\x1b[2J", True, 5e-324])
        file.write_text(json.dumps(document))
        said = ""
        try:
            merged = run.merged([file])
            merged_document.report(merged, [])
            merged_document.document(merged)
        except TrtgateError as error:
            said = str(error)
        assert "\n" not in said


@pytest.mark.parametrize("option", ["--output", "--report", "--junit-xml"])
def test_what_a_shard_left_is_not_overwritten(run: StagedRun, option: str) -> None:
    divided = run.manifest([[name] for name in run.cases])
    files = [run.shard(divided, number) for number in (1, 2, 3)]
    text = files[0].read_text()
    status, said = command("merge", *map(str, files), option, str(files[0]), f"--baselines={run.baselines}")
    assert (status, said.count("\n")) == (4, 1)
    assert f"{option} {files[0]} is shard 1/3 of " in said
    assert command("merge", option, *map(str, files), f"--baselines={run.baselines}")[0] == 4  # as the shell expands *
    assert files[0].read_text() == text


def test_a_file_that_is_too_large_is_not_read(run: StagedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    file = run.shard(run.whole, 1)
    monkeypatch.setattr(run_places, "MOST_BYTES", 1000)
    with pytest.raises(TrtgateError, match="larger than"):
        stage_record.read(file)


# The command


def test_the_command_writes_what_a_run_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = StagedRun(tmp_path, [SAME, SLOW])
    other_card = msgspec.structs.replace(HERE, name="A100", uuid="THERE")
    other = StagedRun(tmp_path, [FAST, FAST], other_card)
    files = [run.shard(run.whole, 1, command=["b s", "-q"]), other.shard(other.whole, 1)]
    status, said = command("merge", *map(str, files), "--report=r.json", "--junit-xml=j.xml", "--output=merged.json")
    assert status == UNCONFIRMED
    assert "pytest 'b s' -q --trtgate-confirm=merged-h100-0gib.json" in said
    tests = ElementTree.parse(tmp_path / "j.xml").findall(".//testcase")
    assert len(tests) == 4
    for name, card in (("h100-0gib", HERE), ("a100-0gib", other_card)):
        assert json.loads((tmp_path / f"r-{name}.json").read_text())["accelerator"]["uuid"] == card.uuid
    status, said = command("baseline", "accept", "merged-a100-0gib.json")
    assert (status, said.count("stored: ")) == (0, 2)
    status, said = command("baseline", "accept", "merged-a100-0gib.json")
    assert said.count("is stored already") == 2
    (stored,) = (tmp_path / "baselines").glob("a100*/latency.json")
    assert KEY not in json.loads(stored.read_text())
    stored.unlink()
    assert command("baseline", "accept", "merged-h100-0gib.json", "m0-eager-fp32")[0] == 0
    (stored,) = (tmp_path / "baselines").glob("h100*/latency.json")
    assert KEY not in json.loads(stored.read_text())
