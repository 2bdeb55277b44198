"""Damaged files, of every kind that trtgate stores: whoever reads one says a line, and never waits for ever."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from trtgate.commands import init_plan
from trtgate.common import files, sealed_folder
from trtgate.common.accelerator import Accelerator
from trtgate.common.errors import TrtgateError
from trtgate.common.files import decoded, write_json
from trtgate.common.locks import folder_locked
from trtgate.compiling import sealed_store
from trtgate.coverage import coverage_baselines
from trtgate.gate import baselines, history, kept_artifacts
from trtgate.launches import sweep_journal
from trtgate.launches.sweep_journal import JournalHeader, SweepJournal
from trtgate.profiles import profile_files
from trtgate.report import run_report
from trtgate.suite import weights
from trtgate.suite.suite_source import SuiteSource

from .in_process import InProcess
from .test_baselines import document, record, run_of

CPU = Accelerator(kind="cpu", name="test")
DAMAGES = {
    "no UTF-8": b'{"trtgate": "\xff"}', "UTF-16": '{"trtgate": {"schema": 1}}'.encode("utf-16"),
    "NUL bytes": b"\0" * 100, "nested": b'{"trtgate": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "empty": b"",
    "a list": b"[]", "a number": b"1e999", "a text": b'"text"', "null": b"null", "two documents": b"{}{}",
    "cut short": b'{"trtgate": {"sch',
}  # fmt: skip
READERS: dict[str, Callable[[Path], Any]] = {
    "latencies": baselines.read, "coverage": coverage_baselines.read, "profile": profile_files.read,
    "report": run_report.read,
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("reader", READERS)
def test_a_damaged_file_is_one_line_that_names_it(tmp_path: Path, reader: str, damage: str) -> None:
    path = tmp_path / "stored.json"
    path.write_bytes(DAMAGES[damage])
    with pytest.raises(TrtgateError, match=r"stored\.json") as raised:
        READERS[reader](path)
    assert len(str(raised.value)) < 500
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_manifest_is_said_and_a_damaged_run_skipped(tmp_path: Path, damage: str) -> None:
    place = tmp_path / "entry"
    place.mkdir()
    (place / sealed_store.MANIFEST).write_bytes(DAMAGES[damage])
    with pytest.raises((OSError, ValueError, msgspec.MsgspecError)):
        sealed_store.read(place)
    (tmp_path / "run.json").write_bytes(DAMAGES[damage])
    runs, skipped = history.read_runs(tmp_path, lambda _case_id: True)
    assert (runs, len(skipped)) == ([], 1)


@pytest.mark.parametrize("damage", [*DAMAGES, "nested in a field that nobody knows"])
def test_a_damaged_line_of_a_journal_costs_no_other(tmp_path: Path, damage: str) -> None:
    header = JournalHeader(accelerator=CPU, sources={}, weights={})
    first = SweepJournal(tmp_path, header, fresh=False)
    first.close()
    unknown = b'{"type":"sweep","unknown":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    first.path.write_bytes(DAMAGES.get(damage, unknown) + b"\n" + first.path.read_bytes())
    again = SweepJournal(tmp_path, header, fresh=False)
    again.close()
    assert again.unreadable == (damage != "empty")


def test_the_last_line_of_a_killed_run_may_be_anything(tmp_path: Path) -> None:
    entry = json.dumps(document(record("a", 1.0))["benchmarks"][0]).encode()
    head = json.dumps({"trtgate": {"unfinished": True, "schema": 1}, **document()}).encode()
    start = head.partition(b'"benchmarks": []')[0].replace(b', "trtgate": {"schema": 1}}', b"")
    (tmp_path / "run.json").write_bytes(start + b'"benchmarks": [\n' + entry + b",\n" + b"[" * 100_000)
    with pytest.raises(TrtgateError, match=r"run\.json"):  # its head is no good
        baselines.read(tmp_path / "run.json")
    marked = {"trtgate": {"unfinished": True, "schema": 1}, "machine_info": document()["machine_info"]}
    head = json.dumps(marked).encode()[:-1] + b', "benchmarks": ['
    (tmp_path / "run.json").write_bytes(head + b"\n" + entry + b",\n" + b"[" * 100_000)
    assert set(baselines.read(tmp_path / "run.json").cases) == {"a"}


def test_what_is_nested_too_deeply_to_be_written_is_one_line_and_changes_nothing(tmp_path: Path) -> None:
    run = run_of(tmp_path, record("a", 100.0))
    baselines.update(tmp_path, run, ["a"])
    path = baselines.path_of(tmp_path, run.accelerator.key)
    deep = b'{"of others": ' + b"[" * 700 + b"]" * 700 + b","
    path.write_bytes(path.read_bytes().replace(b"{", deep, 1))
    before = path.read_bytes()
    with pytest.raises(TrtgateError, match="nested too deeply"):
        baselines.update(tmp_path, run, ["a"])
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]
    deepest: Any = []
    for _ in range(2000):
        deepest = [deepest]
    with pytest.raises(TrtgateError, match="nested too deeply"):
        write_json(tmp_path / "new.json", {"deep": deepest})


def test_what_is_no_utf_8_is_no_json_wherever_it_stands() -> None:
    assert files.decoded(b'{"other": 1}', dict[str, int]) == {"other": 1}
    for content in (b'{"oth\xffer": 1}', b'{"name": "\xff"}', '{"name": "é"}'.encode("latin-1")):
        with pytest.raises(msgspec.DecodeError, match="utf-8"):
            files.decoded(content, _Known)


class _Known(msgspec.Struct):
    name: str = ""


def test_text_that_no_file_can_hold_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(TrtgateError, match=r"new\.json could not be written"):
        write_json(tmp_path / "new.json", {"half a surrogate pair": "\ud800"})


@pytest.mark.parametrize("key", ["sessions", "metrics", "benchmarks"])
def test_a_key_that_a_merge_left_twice_is_refused(tmp_path: Path, key: str) -> None:
    """The last one would win, and what the other held be gone with the next update."""
    path = tmp_path / baselines.FILE_NAME
    text = json.dumps(document(record("a", 100.0), record("b", 200.0)), indent=1)
    assert set(_read(path, text).cases) == {"a", "b"}
    value = json.dumps(_find(json.loads(text), key))
    with pytest.raises(TrtgateError, match=rf"latency\.json has the key '{key}' twice"):
        _read(path, text.replace(f'"{key}":', f'"{key}": {value}, "{key}":', 1))


def test_a_key_of_a_coverage_that_a_merge_left_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.json"
    path.write_text('{"schema": 1, "model": "net", "cases": {}, "cases": {}}')
    with pytest.raises(TrtgateError, match=r"net\.json has the key 'cases' twice"):
        coverage_baselines.read(path)


@pytest.mark.parametrize(
    ("where", "count"), [("total", 3), ("in_tensorrt", 1), ("in_pytorch", 0), ("left", 7), ("left", -1), ("engines", 3)]
)
def test_a_coverage_whose_operators_do_not_add_up_is_refused(tmp_path: Path, where: str, count: int) -> None:
    """What a bad merge or a flipped bit makes of a count may hide an operator that is lost."""
    case: dict[str, Any] = {
        "min_block_size": 1, "total": 4, "supported": 3, "in_tensorrt": 3, "in_pytorch": 1, "block_sizes": [],
        "left": [{"operator": "aten.b", "reason": "no converter", "count": 1}],
        "engines": [{"operators": {"aten.a": 2, "aten.c": 1}, "inputs": [], "outputs": []}],
    }  # fmt: skip
    path = tmp_path / "net.json"
    path.write_text(json.dumps({"schema": 1, "model": "net", "cases": {"dynamo-fp16": case}}))
    assert set(coverage_baselines.read(path).cases) == {"dynamo-fp16"}
    if where == "left":
        case["left"][0]["count"] = count
    elif where == "engines":
        case["engines"][0]["operators"]["aten.c"] = count
    else:
        case[where] = count
    path.write_text(json.dumps({"schema": 1, "model": "net", "cases": {"dynamo-fp16": case}}))
    with pytest.raises(TrtgateError, match=r"net\.json: the operators of case dynamo-fp16 do not add up"):
        coverage_baselines.read(path)


def _read(path: Path, text: str) -> baselines.Run:
    path.write_text(text)
    return baselines.read(path)


def _find(value: Any, key: str) -> Any:
    if isinstance(value, dict):
        return value[key] if key in value else next(filter(None, (_find(one, key) for one in value.values())), None)
    return next(filter(None, (_find(one, key) for one in value)), None) if isinstance(value, list) else None


# What is no file


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    return path


def test_a_pipe_is_never_waited_for(tmp_path: Path, pipe: Path) -> None:
    with pytest.raises(TrtgateError, match="no regular file"):
        weights.load_into(None, str(pipe), "model 'net'")
    with pytest.raises(TrtgateError, match="no regular file"):
        sweep_journal.header_of(SuiteSource(root=str(tmp_path), weights={"net": str(pipe)}), CPU)
    with pytest.raises(OSError, match="no regular file"):
        sealed_folder.digests(tmp_path)
    with pytest.raises(OSError, match=r"No such device or address|no regular file"):
        files.create(pipe)


def test_a_log_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    for content in (b"longer", b"new"):
        with files.create(tmp_path / "worker.log") as log:
            log.write(content)
    assert (tmp_path / "worker.log").read_bytes() == b"new"


def test_a_kept_or_cached_module_whose_folder_is_a_file_is_said(tmp_path: Path) -> None:
    card = Accelerator(kind="gpu", name="test", uuid="GPU-1")
    artifact = tmp_path / "artifact"
    artifact.mkdir(mode=0o700)
    (artifact / "compiled.pt2").write_bytes(b"compiled")
    kept_artifacts.keep(tmp_path, artifact, "net", "2026", card)
    (place,) = (tmp_path / kept_artifacts.FOLDER).glob("*/*")
    place.rename(tmp_path / "away")
    place.write_text("mine\n")
    found, said = kept_artifacts.find(tmp_path, "net", "2026", card)
    assert found is None
    assert "can't be read" in said


def test_a_release_whose_folder_is_a_file_is_not_passed_over_for_an_older_one(tmp_path: Path) -> None:
    (tmp_path / "coverage").mkdir()
    (tmp_path / "coverage" / "rtx-2.14.0").write_text("mine\n")
    with pytest.raises(OSError, match="Not a directory"):
        coverage_baselines.find(tmp_path, "rtx-2.14.0", "net", "dynamo-fp16")
    with pytest.raises(OSError, match="Not a directory"):
        coverage_baselines.case_ids(tmp_path)


def test_a_link_to_itself_is_a_problem_with_a_file(tmp_path: Path) -> None:
    loop = tmp_path / "pytest.ini"
    loop.symlink_to(loop)
    with pytest.raises(TrtgateError, match="could not be written"):
        init_plan.carry_out([init_plan.PlannedFile(path=loop, content=b"[pytest]\n", said="written")])
    with pytest.raises(OSError, match=r"Not a directory|symbolic links"), folder_locked(loop, 1):
        pass
    assert loop.is_symlink()


def test_decoding_raises_one_kind_of_error() -> None:
    for content in DAMAGES.values():
        with pytest.raises(msgspec.DecodeError):
            decoded(content, dict[str, int])


# A run that is named to compare with


@pytest.mark.parametrize("damage", [*DAMAGES, "nothing there", "a pattern", "wrong figures"])
def test_a_damaged_run_that_is_compared_with_is_one_line(here: InProcess, damage: str) -> None:
    """pytest-benchmark would warn of it, or end with a traceback of its own."""
    named = {"nothing there": str(here.path / "absent.json"), "a pattern": "**x[/absent"}.get(damage, "run.json")
    if damage == "wrong figures":
        broken = document(record("alpha-eager-fp32-b1", 100.0))
        broken["benchmarks"][0]["stats"] = []
        (here.path / "run.json").write_text(json.dumps(broken))
    elif damage in DAMAGES:
        (here.path / "run.json").write_bytes(DAMAGES[damage])
    status, said = here.run("suite.py", f"--benchmark-compare={named}")
    assert status == pytest.ExitCode.USAGE_ERROR
    (line,) = [line for line in said.splitlines() if line.strip()]
    assert line.startswith("ERROR: trtgate: ")
    assert Path(named).name in line


def saved_with(here: InProcess, case_id: str, **fields: Any) -> Path:
    """Save a run, and change fields of what it has of a case."""
    assert here.run("suite.py", "--trtgate-launches=1")[0] == 0
    (path,) = here.path.glob(".trtgate/runs/*.json")
    saved = json.loads(path.read_text())
    for one in saved["benchmarks"]:
        if one["extra_info"]["trtgate"]["case"] == case_id:
            one["extra_info"]["trtgate"].update(fields)
    path.write_text(json.dumps(saved))
    return path


def test_a_case_whose_blocks_did_not_count_in_a_run_is_not_compared_with_that(here: InProcess) -> None:
    """Void blocks are slow: what got slower would be unchanged."""
    path = saved_with(here, "alpha-eager-fp32-b1", disturbed=True)
    _, said = here.run("suite.py", "--trtgate-launches=1", f"--benchmark-compare={path}")
    assert "2 cases: 1 underpowered, 1 new" in said
    (line,) = [line for line in said.splitlines() if "do not count" in line]
    assert line.startswith("WARNING: ")
    assert line.endswith(
        "case alpha-eager-fp32-b1 is not compared: too many of its blocks do not count there (docs: void-blocks)"
    )


def test_a_run_beside_a_base_is_not_compared_with(here: InProcess) -> None:
    path = saved_with(here, "alpha-eager-fp32-b1", base="main")
    status, said = here.run("suite.py", "--trtgate-launches=1", f"--benchmark-compare={path}")
    assert status != 0
    (line,) = [line for line in said.splitlines() if "beside the base main" in line]
    assert "it has no session that a run could be compared with" in line
