"""What counts as lost coverage: what takes operators from TensorRT is never improved, and nothing is never right."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trtgate.commands import coverage_answers
from trtgate.common.errors import TrtgateError
from trtgate.coverage import coverage_baselines, coverage_comparison, coverage_gate, unseen_operators
from trtgate.coverage.coverage_gate import CoverageVerdict
from trtgate.records.coverage_record import NO_CONVERTER, Coverage, EngineOperators, Left
from trtgate.suite import cases

RELEASE = "rtx-2.14.0"
OLDER = "rtx-2.13.0"


def coverage(engines: list[dict[str, int]], left: dict[str, int] | None = None, **fields: Any) -> Coverage:
    """Return a coverage of engines and of operators left without a converter; one graph unless said."""
    in_tensorrt, in_pytorch = sum(sum(one.values()) for one in engines), sum((left or {}).values())
    usual: dict[str, Any] = {
        "min_block_size": 1,
        "total": in_tensorrt + in_pytorch,
        "supported": in_tensorrt,
        "in_tensorrt": in_tensorrt,
        "in_pytorch": in_pytorch,
        "left": [Left(operator=name, reason=NO_CONVERTER, count=n) for name, n in sorted((left or {}).items())],
        "engines": [EngineOperators(operators=one, inputs=[], outputs=[]) for one in engines],
        "block_sizes": [],
    }
    return Coverage(**usual | fields)


WHOLE = coverage([{"linear": 9, "relu": 4}])
NOTHING = coverage([], graphs=0, skipped={"net.py:forward: Attempted to wrap RNN, GRU, or LSTM": 1})

operators = st.dictionaries(st.sampled_from("abc"), st.integers(1, 6), min_size=1)
reasons = st.dictionaries(st.sampled_from(["x", "y"]), st.integers(1, 2), max_size=2)
coverages = st.builds(
    lambda engines, left, graphs, breaks, skipped: coverage(
        engines, left, graphs=graphs, graph_breaks=breaks, skipped=skipped
    ),
    st.lists(operators, max_size=3), st.one_of(st.just({}), operators), st.integers(0, 3), reasons, reasons,
)  # fmt: skip


def share(found: Coverage) -> float:
    return found.in_tensorrt / found.total if found.total else 0.0


@given(before=coverages, after=coverages)
@example(before=WHOLE, after=NOTHING)
@example(before=coverage([{"a": 9}], {"b": 4}), after=coverage([{"a": 1}], {"b": 2}))
def test_a_smaller_share_of_operators_in_tensorrt_is_never_improved(before: Coverage, after: Coverage) -> None:
    difference = coverage_comparison.compare(before, after)
    if share(after) < share(before):
        assert not difference.gained
        assert difference.lost or difference.other


@given(before=coverages, after=coverages)
def test_nothing_left_to_count_is_always_lost(before: Coverage, after: Coverage) -> None:
    if not after.total:
        assert coverage_comparison.compare(before, after).lost


@given(before=coverages, after=coverages)
def test_more_operators_left_breaks_or_skipped_frames_are_always_lost(before: Coverage, after: Coverage) -> None:
    worse = (
        any(_left(after)[name] > _left(before)[name] for name in "abc")
        or sum(after.graph_breaks.values()) > sum(before.graph_breaks.values())
        or sum(after.skipped.values()) > sum(before.skipped.values())
    )
    if worse:
        assert coverage_comparison.compare(before, after).lost


def _left(found: Coverage) -> Counter[str]:
    return Counter({entry.operator: entry.count for entry in found.left})


@given(coverages.filter(lambda found: found.total))
def test_the_same_is_no_difference(found: Coverage) -> None:
    assert not coverage_comparison.compare(found, msgspec.structs.replace(found))


def test_fewer_engines_are_a_gain_only_with_as_many_operators_in_them() -> None:
    split = coverage([{"linear": 5}, {"relu": 5}])
    assert coverage_comparison.compare(split, coverage([{"linear": 5, "relu": 5}])).gained == ["engines 2 → 1"]
    smaller = coverage_comparison.compare(split, coverage([{"linear": 5}]))
    assert (smaller.lost, smaller.gained) == ([], [])
    assert smaller.other == ["operators 10 → 5", "engines 2 → 1", "in engines: relu 5 → 0"]


def test_a_graph_that_vanished_is_lost_and_one_that_was_joined_is_not() -> None:
    two = coverage([{"linear": 5}, {"linear": 4}], graphs=2, graph_breaks={"print at net.py:forward": 1})
    gone = coverage([{"linear": 5}], graphs=1, graph_breaks={"print at net.py:forward": 1})
    assert coverage_comparison.compare(two, gone).lost == [
        "graphs 2 → 1, and with them 9 of 9 → 5 of 5 operators in TensorRT"
    ]
    joined = coverage_comparison.compare(two, coverage([{"linear": 8}], graphs=1))
    assert (joined.lost, joined.gained) == ([], ["graph breaks 1 → 0"])


def test_a_skipped_frame_is_lost_with_dynamos_reason() -> None:
    skipped = coverage([{"linear": 9, "relu": 4}], skipped={"net.py:head: Attempted to wrap RNN, GRU, or LSTM": 1})
    assert coverage_comparison.compare(WHOLE, skipped).lost == [
        "frames skipped by Dynamo 0 → 1 (net.py:head: Attempted to wrap RNN, GRU, or LSTM)"
    ]


def test_moved_lines_are_no_difference_and_files_of_before_are_read() -> None:
    entry = Left(operator="b", reason=NO_CONVERTER, count=1, sources={"net.py:3: b(x)": 1})
    before, moved = coverage([{"a": 2}], {"b": 1}), coverage([{"a": 2}], {"b": 1})
    moved.left = [entry]
    assert not coverage_comparison.compare(before, moved)
    stored = msgspec.to_builtins(moved)
    del stored["left"][0]["sources"], stored["skipped"]
    assert msgspec.convert(stored, Coverage) == before


# The verdict


def case() -> cases.Case:
    settings = cases.Settings(frontend="torch_compile", precision="fp32", min_block_size=1)
    return cases.Case(cases.Model("net", lambda: None, [settings]), settings)


def stored(root: Path, found: Coverage, release: str = RELEASE) -> None:
    coverage_baselines.store(root, release, "net", case().settings.suffix, found)


def judged(root: Path, found: Coverage) -> coverage_gate.CoverageResult:
    return coverage_gate.judge(case(), found, root, RELEASE)


def test_all_of_it_to_nothing_is_regressed_and_says_why(tmp_path: Path) -> None:
    stored(tmp_path, WHOLE)
    result = judged(tmp_path, NOTHING)
    assert result.verdict is CoverageVerdict.REGRESSED
    assert result.said == (
        "lost coverage since rtx-2.14.0: 13 of 13 → 0 of 0 operators in TensorRT: nothing reaches TensorRT: Dynamo "
        "skipped net.py:forward: Attempted to wrap RNN, GRU, or LSTM"
    )


@pytest.mark.parametrize("baseline", [None, NOTHING], ids=["no baseline", "a baseline of nothing"])
def test_nothing_is_incomplete_whatever_is_stored(tmp_path: Path, baseline: Coverage | None) -> None:
    if baseline is not None:
        stored(tmp_path, baseline)
    result = judged(tmp_path, NOTHING)
    assert result.verdict is CoverageVerdict.INCOMPLETE
    assert "nothing reaches TensorRT: Dynamo skipped net.py:forward" in result.said


def test_nothing_may_not_be_stored_even_if_it_is_accepted(tmp_path: Path) -> None:
    for baseline in (None, WHOLE):
        if baseline:
            stored(tmp_path, baseline)
        result = judged(tmp_path, NOTHING)
        assert not coverage_gate.may_be_stored(result, accepted=True)
        assert "can't be accepted" in coverage_gate.advice(result)


def test_a_part_that_dynamo_skips_may_be_accepted_and_is_unchanged_then(tmp_path: Path) -> None:
    part = coverage([{"linear": 5}], skipped={"net.py:head: why": 1})
    new = judged(tmp_path, part)
    assert new.verdict is CoverageVerdict.INCOMPLETE
    assert not coverage_gate.may_be_stored(new, accepted=False)
    assert coverage_gate.may_be_stored(new, accepted=True)
    stored(tmp_path, part)
    assert judged(tmp_path, part).verdict is CoverageVerdict.UNCHANGED


def test_operators_where_there_was_nothing_are_improved(tmp_path: Path) -> None:
    stored(tmp_path, NOTHING)
    assert judged(tmp_path, WHOLE).verdict is CoverageVerdict.IMPROVED


def test_releases_of_nothing_are_not_called_unchanged(tmp_path: Path) -> None:
    stored(tmp_path, NOTHING, OLDER)
    stored(tmp_path, NOTHING)
    lines = coverage_answers.differences("2.13.0", "2.14.0", tmp_path)
    assert "nothing reaches TensorRT" in lines[0]
    assert lines[-1] == "rtx-2.13.0 → rtx-2.14.0: 1 lost"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"skipped": {"a.py:f: why": 1}, "graph_breaks": {"print": 1}}, "Dynamo skipped a.py:f: why; print"),
        ({"graph_breaks": {"print at a.py:f": 1}}, "Dynamo skipped the model: print at a.py:f"),
        ({"graphs": 1}, "its graph has no operator"),
        ({"graphs": 0}, "torch.compile made no graph of it"),
    ],
)
def test_nothing_has_its_reason(fields: dict[str, Any], words: str) -> None:
    assert unseen_operators.nothing(coverage([], **fields)).startswith(f"nothing reaches TensorRT: {words}")
    assert unseen_operators.nothing(WHOLE) == ""


# Stored files


def test_a_file_without_a_case_is_refused_and_named(tmp_path: Path) -> None:
    stored(tmp_path, WHOLE)
    path = coverage_baselines.path_of(tmp_path, RELEASE, "net")
    path.write_text('{"schema": 1, "model": "net", "cases": {}}')
    with pytest.raises(TrtgateError, match=r"net\.json holds no case"):
        judged(tmp_path, WHOLE)


def test_stored_cases_of_the_release_that_is_compared_with_are_missed(tmp_path: Path) -> None:
    stored(tmp_path, WHOLE, "rtx-2.12.0")
    stored(tmp_path, WHOLE, OLDER)
    coverage_baselines.store(tmp_path, "rtx-2.12.0", "older", "s", WHOLE)
    assert coverage_gate.orphans(tmp_path, RELEASE, []) == [case().id]
    assert coverage_gate.orphans(tmp_path, RELEASE, [case().id]) == []
    assert coverage_gate.orphans(tmp_path, "standard-2.14.0", []) == []
