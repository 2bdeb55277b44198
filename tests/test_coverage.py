"""Counting coverage, comparing it, storing it: pure code and files."""

from __future__ import annotations

import errno
import multiprocessing
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trtgate.commands import coverage_answers
from trtgate.common.errors import TrtgateError
from trtgate.coverage import coverage_baselines, coverage_comparison, coverage_complaint, coverage_gate
from trtgate.coverage.coverage_gate import CoverageVerdict
from trtgate.records import coverage_record
from trtgate.records.coverage_record import Coverage
from trtgate.suite import cases, zoo
from trtgate.torch_trt import coverage_counting
from trtgate.torch_trt.coverage_counting import Block, Call, Calls, Engine, LoweredGraph

RELEASE = "rtx-2.14.0"


def calls(source: str = "", **operators: int) -> Calls:
    return {Call(name, source): n for name, n in operators.items()}


def engine(**operators: int) -> Engine:
    return Engine(calls=calls(**operators), inputs=["float16[1,3]"], outputs=["float16[1,4]"])


def graph(**fields: Any) -> LoweredGraph:
    """Return a graph of ten operators: four and three in engines, one too small, two without a converter."""
    usual: dict[str, Any] = {
        "calls": calls(conv=4, relu=4, nonzero=2),
        "unsupported": {coverage_record.NO_CONVERTER: calls(nonzero=2)},
        "min_block_size": 2,
        "engines": [engine(conv=2, relu=2), engine(conv=1, relu=2)],
        "blocks": [
            Block(size=4, calls=calls(conv=2, relu=2)),
            Block(size=3, calls=calls(conv=1, relu=2)),
            Block(size=1, calls=calls(conv=1)),
        ],
    }
    return LoweredGraph(**usual | fields)


def left_of(found: Coverage) -> dict[tuple[str, str], int]:
    return {(entry.operator, entry.reason): entry.count for entry in found.left}


def test_what_is_in_no_engine_is_left_with_its_reason() -> None:
    found = coverage_counting.count([graph()])
    assert (found.total, found.supported, found.in_tensorrt, found.in_pytorch) == (10, 8, 7, 3)
    assert left_of(found) == {
        ("nonzero", coverage_record.NO_CONVERTER): 2,
        ("conv", coverage_record.too_small(2)): 1,
    }
    assert (found.average_size, found.most) == (3.5, 4)


def test_a_supported_operator_that_no_small_block_explains_was_left_by_the_partitioner() -> None:
    found = coverage_counting.count([graph(blocks=[])])
    assert left_of(found)["conv", coverage_record.PARTITIONER] == 1


def test_a_graph_that_was_never_partitioned_says_why() -> None:
    """A real compile returns before partitioning when fewer operators are supported than `min_block_size`."""
    found = coverage_counting.count([graph(min_block_size=9, engines=[])])
    assert left_of(found)["conv", coverage_record.too_small(9)] == 4


def test_each_min_block_size_is_predicted_from_the_blocks() -> None:
    rows = coverage_counting.count([graph()]).block_sizes
    assert [(row.min_block_size, row.engines, row.operators) for row in rows] == [(1, 3, 8), (3, 2, 7), (4, 1, 4)]


def test_recommended_sizes_do_not_depend_on_the_size_asked_for() -> None:
    all_in = coverage_counting.count([graph()])
    none_in = coverage_counting.count([graph(min_block_size=100, engines=[])])
    assert all_in.recommended == none_in.recommended == [4, 3]
    assert coverage_counting.count([graph(blocks=[], engines=[])]).recommended == []


def test_several_graphs_are_one_coverage() -> None:
    found = coverage_counting.count([graph(), graph()], {"print at model.py:forward": 1})
    assert (found.graphs, found.total, len(found.engines)) == (2, 20, 4)
    assert found.graph_breaks == {"print at model.py:forward": 1}


histograms = st.dictionaries(st.sampled_from("abcd"), st.integers(1, 5))


@given(in_engines=st.lists(histograms, max_size=4), small=histograms, unsupported=histograms)
def test_nothing_is_counted_twice_or_lost(
    in_engines: list[dict[str, int]], small: dict[str, int], unsupported: dict[str, int]
) -> None:
    parts = [*in_engines, small, unsupported]
    operators = {name: sum(part.get(name, 0) for part in parts) for name in "abcd"}
    blocks = [Block(size=100, calls=calls(**part)) for part in in_engines] + [Block(size=1, calls=calls(**small))]
    found = coverage_counting.count(
        [
            LoweredGraph(
                calls=calls(**operators),
                unsupported={coverage_record.REFUSED: calls(**unsupported)},
                min_block_size=5,
                engines=[engine(**part) for part in in_engines],
                blocks=blocks,
            )
        ]
    )
    assert found.in_tensorrt + found.in_pytorch == found.total == sum(operators.values())
    assert sum(entry.count for entry in found.left) == found.in_pytorch
    assert {reason for _, reason in left_of(found)} <= {coverage_record.REFUSED, coverage_record.too_small(5)}


# Comparing


def test_a_lost_operator_is_named_with_counts_and_reason() -> None:
    before = coverage_counting.count([graph(unsupported={}, engines=[engine(conv=4, relu=4, nonzero=2)])])
    difference = coverage_comparison.compare(before, coverage_counting.count([graph()]))
    assert difference.lost == [
        "conv 0 → 1 left to PyTorch (engine smaller than min_block_size 2)",
        "nonzero 0 → 2 left to PyTorch (no converter)",
        "engines 1 → 2",
    ]
    back = coverage_comparison.compare(coverage_counting.count([graph()]), before)
    assert (len(back.gained), back.lost) == (3, [])


def test_engines_that_hold_operators_gained_are_no_loss() -> None:
    none = graph(engines=[], min_block_size=5)
    difference = coverage_comparison.compare(coverage_counting.count([none]), coverage_counting.count([graph()]))
    assert difference.lost == []
    assert difference.gained[-1] == "engines 0 → 2"


def test_more_graph_breaks_are_lost_coverage_and_say_where() -> None:
    before, after = (
        coverage_counting.count([graph()]),
        coverage_counting.count([graph()], {"print at model.py:forward": 1}),
    )
    assert coverage_comparison.compare(before, after).lost == ["graph breaks 0 → 1 (print at model.py:forward)"]


def test_another_graph_with_nothing_lost_is_told_apart() -> None:
    other = graph(calls=calls(conv=4, relu=4, add=1, nonzero=2))
    other.engines = [engine(conv=2, relu=2, add=1), engine(conv=1, relu=2)]
    difference = coverage_comparison.compare(coverage_counting.count([graph()]), coverage_counting.count([other]))
    assert (difference.lost, difference.gained) == ([], [])
    assert difference.other == ["operators 10 → 11", "in engines: add 0 → 1"]
    assert not coverage_comparison.compare(coverage_counting.count([graph()]), coverage_counting.count([graph()]))


def test_shapes_alone_are_a_difference() -> None:
    other = graph()
    other.engines = [msgspec.structs.replace(other.engines[0], inputs=["float16[8,3]"]), *other.engines[1:]]
    assert coverage_comparison.compare(coverage_counting.count([graph()]), coverage_counting.count([other])).other


# What an assertion says


def test_a_complaint_says_what_to_do() -> None:
    found = coverage_counting.count([graph()])
    said = coverage_complaint.complaint(found, engines=1)
    assert "3 of 10 operators stay in PyTorch at min_block_size=2" in said
    assert "min_block_size=1 puts 8 into 3 engines" in said
    assert "2 nonzero; register a converter" in said
    assert "2 engines (of 4, 3 operators), 1 wanted at most" in said
    assert coverage_complaint.complaint(found, left=["nonzero", "conv"]) == ""
    assert "graph breaks: print" in coverage_complaint.complaint(
        coverage_counting.count([graph()], {"print": 1}), left=["nonzero", "conv"]
    )


# Stored files


def store(root: Path, found: Coverage, release: str = RELEASE, suffix: str = "dynamo-fp16-b1-mbs5") -> Path:
    coverage_baselines.store(root, release, "net", suffix, found)
    return coverage_baselines.path_of(root, release, "net")


def test_what_is_stored_is_read_back_and_other_cases_stay(tmp_path: Path) -> None:
    found = coverage_counting.count([graph()], {"why": 1})
    store(tmp_path, found)
    path = store(tmp_path, coverage_counting.count([graph()]), suffix="dynamo-fp32-b1-mbs5")
    assert coverage_baselines.read(path).cases["dynamo-fp16-b1-mbs5"] == found
    text = path.read_text()
    store(tmp_path, found)
    assert path.read_text() == text, "the same content must be the same bytes"
    assert coverage_baselines.case_ids(tmp_path) == {"net-dynamo-fp16-b1-mbs5", "net-dynamo-fp32-b1-mbs5"}


def test_the_newest_older_release_is_used_never_a_newer_one_or_another_flavour(tmp_path: Path) -> None:
    for release in ("rtx-2.9.0", "rtx-2.11.0", "rtx-2.15.0", "standard-2.13.0"):
        store(tmp_path, coverage_counting.count([graph()]), release)
    found = coverage_baselines.find(tmp_path, RELEASE, "net", "dynamo-fp16-b1-mbs5")
    assert found is not None
    assert found.release == "rtx-2.11.0"
    assert coverage_baselines.find(tmp_path, RELEASE, "net", "dynamo-fp32-b1-mbs5") is None
    assert coverage_baselines.find(tmp_path, "rtx-2.8.0", "net", "dynamo-fp16-b1-mbs5") is None


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "is broken"),
        ('{"schema": 1, "model": "net", "cases"', "is broken"),
        ('{"schema": 1, "model": "net"}', "is broken"),
        ('{"schema": 9, "model": "net", "cases": {}}', "schema 9"),
        ("\x00\xff", "is broken"),
    ],
)
def test_a_broken_file_is_named_and_kept(tmp_path: Path, content: str, words: str) -> None:
    path = store(tmp_path, coverage_counting.count([graph()]))
    path.write_text(content, encoding="latin-1")
    before = path.read_bytes()
    for use in (lambda: coverage_baselines.read(path), lambda: store(tmp_path, coverage_counting.count([graph()]))):
        with pytest.raises(TrtgateError, match=words) as caught:
            use()
        assert str(path) in str(caught.value)
    assert path.read_bytes() == before


def test_a_full_disk_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = store(tmp_path, coverage_counting.count([graph()]))
    before = path.read_bytes()

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(TrtgateError, match="No space left"):
        store(tmp_path, coverage_counting.count([graph(engines=[])]))
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def _store_many(root: Path, name: str) -> None:
    for number in range(10):
        store(root, coverage_counting.count([graph()]), suffix=f"{name}{number}")


def test_processes_that_store_at_once_lose_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_store_many, args=(tmp_path, name)) for name in "ab"]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert len(coverage_baselines.case_ids(tmp_path)) == 20


def test_removed_cases_are_gone_from_every_release(tmp_path: Path) -> None:
    store(tmp_path, coverage_counting.count([graph()]), "rtx-2.11.0")
    path = store(tmp_path, coverage_counting.count([graph()]))
    store(tmp_path, coverage_counting.count([graph()]), suffix="kept")
    changed = coverage_baselines.remove(tmp_path, ["net-dynamo-fp16-b1-mbs5"])
    assert len(changed) == 2
    assert coverage_baselines.case_ids(tmp_path) == {"net-kept"}
    assert path.exists()


# The verdict


def case() -> cases.Case:
    settings = cases.Settings(frontend="dynamo", precision="fp16", batch=1, min_block_size=5)
    return cases.Case(cases.Model("net", lambda batch: batch, [settings]), settings)


def test_verdicts(tmp_path: Path) -> None:
    found, worse = coverage_counting.count([graph()]), coverage_counting.count([graph(engines=[])])
    other = coverage_counting.count([graph()])
    other.engines = [msgspec.structs.replace(part, inputs=["float16[8,3]"]) for part in other.engines]
    assert coverage_gate.judge(case(), found, tmp_path, RELEASE).verdict is CoverageVerdict.NEW
    store(tmp_path, found, "rtx-2.11.0")
    result = coverage_gate.judge(case(), worse, tmp_path, RELEASE)
    assert (result.verdict, result.release) == (CoverageVerdict.REGRESSED, "rtx-2.11.0")
    assert result.sentence.startswith("net-dynamo-fp16-b1-mbs5 lost coverage since rtx-2.11.0: conv 1 → 4 left")
    assert coverage_gate.judge(case(), found, tmp_path, RELEASE).verdict is CoverageVerdict.UNCHANGED
    assert coverage_gate.judge(case(), other, tmp_path, RELEASE).verdict is CoverageVerdict.CHANGED
    store(tmp_path, worse)
    assert coverage_gate.judge(case(), found, tmp_path, RELEASE).verdict is CoverageVerdict.IMPROVED


def test_what_is_said_at_the_end_names_news_other_releases_and_the_command(tmp_path: Path) -> None:
    store(tmp_path, coverage_counting.count([graph(engines=[])]), "rtx-2.11.0")
    improved = coverage_gate.judge(case(), coverage_counting.count([graph()]), tmp_path, RELEASE)
    new = msgspec.structs.replace(improved, verdict=CoverageVerdict.NEW, case_id="other", release="")
    said = "\n".join(map(str, coverage_gate.notices([improved, new], RELEASE)))
    for words in ("2 cases: 1 improved, 1 new", "compared with rtx-2.11.0", "NEW: no coverage is stored of other"):
        assert words in said
    assert "improved: net-dynamo-fp16-b1-mbs5 gained coverage since rtx-2.11.0" in said
    assert coverage_gate.RECORD_COMMAND in said


def test_one_case_is_no_cases(tmp_path: Path) -> None:
    store(tmp_path, coverage_counting.count([graph()]))
    found = coverage_gate.judge(case(), coverage_counting.count([graph()]), tmp_path, RELEASE)
    said = coverage_gate.notices([msgspec.structs.replace(found, stored=True)], RELEASE)
    assert [str(one) for one in said] == [f"{RELEASE}: 1 case: 1 unchanged", f"stored: coverage of 1 case as {RELEASE}"]


def test_another_graph_says_that_nothing_was_lost_and_what_became_of_it(tmp_path: Path) -> None:
    other = coverage_counting.count([graph()])
    other.engines = [msgspec.structs.replace(part, inputs=["float16[8,3]"]) for part in other.engines]
    store(tmp_path, coverage_counting.count([graph()]))
    changed = coverage_gate.judge(case(), other, tmp_path, RELEASE)
    assert changed.sentence.startswith(f"net-dynamo-fp16-b1-mbs5 keeps its coverage of {RELEASE} in a changed graph: ")
    said = list(map(str, coverage_gate.notices([changed], RELEASE)))
    assert said[-1] == f"to store the improved and changed ones: {coverage_gate.RECORD_COMMAND}"


def test_a_long_table_shows_what_is_not_simply_unchanged() -> None:
    usual = coverage_gate.CoverageResult(
        case_id="a",
        verdict=CoverageVerdict.UNCHANGED,
        in_tensorrt=1,
        total=1,
        engines=1,
        release=RELEASE,
        said="is unchanged",
    )
    many = [msgspec.structs.replace(usual, case_id=f"m{number}") for number in range(coverage_gate.TABLE_ROWS + 1)]
    assert coverage_gate.rows(many) == []
    worse = msgspec.structs.replace(usual, verdict=CoverageVerdict.REGRESSED, case_id="worse")
    assert [row[0] for row in coverage_gate.rows([*many, worse])] == ["case", "worse"]
    assert len(coverage_gate.rows(many[:3])) == 4


# Releases compared, and what may be asked for


def test_two_releases_are_compared(tmp_path: Path) -> None:
    store(tmp_path, coverage_counting.count([graph()]), "rtx-2.11.0")
    store(tmp_path, coverage_counting.count([graph(engines=[])]))
    store(tmp_path, coverage_counting.count([graph()]), suffix="dynamo-fp32-b1-mbs5")
    lines = coverage_answers.differences("2.11.0", RELEASE, tmp_path)
    assert lines[0].startswith("net-dynamo-fp16-b1-mbs5 lost: conv 1 → 4")
    assert lines[-2] == "net-dynamo-fp32-b1-mbs5 is only in rtx-2.14.0"
    assert lines[-1] == "rtx-2.11.0 → rtx-2.14.0: 1 lost"
    with pytest.raises(TrtgateError, match=r"'2\.12\.0' is no folder.*rtx-2\.11\.0, rtx-2\.14\.0"):
        coverage_answers.differences("2.12.0", RELEASE, tmp_path)


def ask_for(*names: str, **options: Any) -> list[cases.Case]:
    usual = {"whole_zoo": False, "frontend": "dynamo", "precisions": ["fp16"]}
    return coverage_answers.cases(names, **usual | options)


def test_models_of_the_suite_the_zoo_and_a_module_can_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\ntrtgate_suite = my_suite_here.py\n")
    (tmp_path / "my_suite_here.py").write_text("import trtgate\n@trtgate.model\ndef mine():\n    return None\n")
    (tmp_path / "others_here.py").write_text("def theirs(batch):\n    return None\n")
    monkeypatch.chdir(tmp_path)
    ids = [case.id for case in ask_for("mine", "swin_t", "others_here:theirs", min_block_size=7)]
    assert ids == ["mine-dynamo-fp16-mbs7", "swin_t-dynamo-fp16-b1-mbs7", "theirs-dynamo-fp16-b1-mbs7"]
    with pytest.raises(TrtgateError, match="did you mean 'mine'"):
        ask_for("mines")
    with pytest.raises(TrtgateError, match="name models"):
        ask_for()
    with pytest.raises(TrtgateError, match="unknown precision 'fp4'"):
        ask_for("swin_t", precisions=["fp4"])


def test_a_model_whose_package_is_absent_is_refused_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(TrtgateError, match="timm is not installed: pip install timm"):
        ask_for("timm.mobilevit_s")


def test_the_zoo_is_torchvisions_own_list() -> None:
    from torchvision import models

    assert models.list_models(module=models) == zoo.CLASSIFICATION
    assert models.list_models(module=models.segmentation) == zoo.SEGMENTATION
    assert len(zoo.CLASSIFICATION) + len(zoo.SEGMENTATION) == 86
