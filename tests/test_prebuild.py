"""Building ahead, in several processes: what comes of every case, and that none of it is left behind."""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import psutil
import pytest

from trtgate import Case, Model, Settings
from trtgate.common.accelerator import GIB, Accelerator
from trtgate.common.spent_time import SpentTime
from trtgate.launches import messages
from trtgate.launches.comparison_side import Side
from trtgate.launches.pair import BASE, CANDIDATE
from trtgate.launches.prebuild import Prebuild, builders_for, order, run_sides
from trtgate.launches.worker_handle import LaunchError, WorkerHandle
from trtgate.launches.worker_pool import WorkerPool
from trtgate.pytest_plugin import prebuilding
from trtgate.report import run_report
from trtgate.suite.suite_source import SuiteSource

from . import forks
from .pytest_folder import is_alive

SUITE = """
import os
import re
import signal
from pathlib import Path

import torch
import trtgate


def made(forward):
    class Tiny(torch.nn.Module):
        def forward(self, x):
            return forward(x)

    return Tiny(), torch.ones(1, 4)


@trtgate.model(frontends=("eager",), precisions=("fp32",))
def good(batch):
    Path(__file__).with_name("good.called").touch()
    return made(lambda x: x + 1)


@trtgate.model(frontends=("eager",), precisions=("fp32",))
def raises(batch):
    raise ValueError("no such weights")


@trtgate.model(frontends=("eager",), precisions=("fp32",))
def dies(batch):
    os.kill(os.getpid(), signal.SIGKILL)


@trtgate.model(frontends=("eager",), precisions=("fp32",))
def hangs(batch):
    signal.pause()
"""
CPU = Accelerator(kind="cpu", name="test")
GPU = Accelerator(kind="gpu", name="test", memory_bytes=80 * GIB)


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forked: None) -> Any:
    """Make a Prebuild of a suite of good and bad cases."""
    monkeypatch.setenv("TRTGATE_LOCK_DIR", str(tmp_path))
    forks.started.clear()
    (tmp_path / "suite.py").write_text(SUITE)

    def folder_for(case_id: str) -> Path:
        folder = tmp_path / case_id
        folder.mkdir(mode=0o700)
        return folder

    def make(builders: int, timeout_s: float = 60.0, imported: Callable[[], None] = lambda: None) -> Prebuild:
        return Prebuild(
            side=Side(name="builder", source=SuiteSource(root=str(tmp_path), suites=("suite.py",))),
            accelerators=[CPU], builders=builders, cache=None, folder_for=folder_for, logs=tmp_path / "logs",
            timeout_s=timeout_s, imported=imported,
        )  # fmt: skip

    return make


def builders_alive() -> list[int]:
    return [pid for pid in forks.started if psutil.pid_exists(pid)]


def test_every_case_gets_its_result_and_the_others_go_on(work: Any) -> None:
    names = [f"{name}-eager-fp32-b1" for name in ("dies", "raises", "good")]
    found = {built.case_id: built for built in work(2).run(names)}
    assert set(found) == set(names)
    good = found["good-eager-fp32-b1"]
    assert (good.problem, good.artifact) == ("", None)
    assert good.build is not None
    assert good.build.builders == 2
    assert "no such weights" in found["raises-eager-fp32-b1"].problem
    assert "killed by SIGKILL" in found["dies-eager-fp32-b1"].problem
    assert builders_alive() == []


def test_whoever_stops_listening_leaves_no_process(work: Any) -> None:
    running = work(2).run(["hangs-eager-fp32-b1", "good-eager-fp32-b1"])
    assert next(running).case_id == "good-eager-fp32-b1"
    assert len(builders_alive()) >= 1
    running.close()
    assert builders_alive() == []


def test_it_is_said_once_and_before_any_result_that_the_builders_have_imported(work: Any) -> None:
    said: list[str] = []
    running = work(1, imported=lambda: said.append("imported")).run(["raises-eager-fp32-b1", "good-eager-fp32-b1"])
    seen = [(built.case_id, list(said)) for built in running]
    assert seen == [("raises-eager-fp32-b1", ["imported"]), ("good-eager-fp32-b1", ["imported"])]


def test_one_builder_builds_as_if_alone(work: Any) -> None:
    (built,) = work(4).run(["good-eager-fp32-b1"])
    assert built.build.builders == 1


@pytest.mark.parametrize(
    ("devices", "processes", "wanted"),
    [([CPU], 2, 2), ([CPU], 64, 8), ([GPU], 16, 8), ([GPU], 4, 4), ([GPU, GPU], 64, 16), ([GPU], 1, 1)],
)
def test_as_many_builders_as_the_machine_takes(devices: Any, processes: int, wanted: int) -> None:
    assert builders_for(devices, processes) == wanted


def test_what_took_longest_begins_first_and_what_is_unknown_before_it_tensorrts_first_of_all() -> None:
    def case(name: str, frontend: str) -> Case:
        return Case(Model(name, lambda: None, ()), Settings(frontend=frontend, precision="fp32"))

    cases = [case("a", "eager"), case("b", "dynamo"), case("c", "eager"), case("d", "dynamo")]
    seconds = {"a-eager-fp32": 1.0, "b-dynamo-fp32-mbs5": 5.0}
    assert [name[0] for name in order(cases, seconds.get)] == ["d", "c", "b", "a"]


def test_shapes_of_one_module_do_not_wait_for_each_other_while_others_could_be_built() -> None:
    def case(name: str, seq: int) -> Case:
        settings = Settings(frontend="dynamo", shape={"seq": seq}, dynamic={"seq": ((1, 4, 8),)})
        return Case(Model(name, lambda seq: None, ()), settings)

    cases = [case("a", 1), case("a", 4), case("a", 8), case("b", 4)]
    assert [(name[0], name.split("@")[1][0]) for name in order(cases, {}.get)] == [
        ("a", "1"), ("b", "4"), ("a", "4"), ("a", "8"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("cpus", "prebuild", "base", "wanted"),
    [
        (64, prebuilding.AUTO, None, ["workers"]),  # in turn: on a CPU that is no help
        (7, 2, None, ["builders begin", "workers", "builders imported"]),
        (8, 2, None, ["workers", "builders begin", "builders imported"]),
        (7, 2, "HEAD", ["workers", "builders begin", "more pairs", "builders imported"]),
        (1, None, None, ["workers"]),
    ],
)
def test_workers_import_after_the_builders_where_cpus_are_few(
    cpus: int,
    prebuild: int | None,
    base: str | None,
    wanted: list[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    happened: list[str] = []

    def run_sides(wanted: Any) -> Iterator[Any]:
        happened.append("builders begin")
        for side, _case_ids in wanted:
            side.imported()
        happened.append("builders imported")
        yield from ()

    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(cpus)))
    monkeypatch.setattr("trtgate.launches.prebuild.run_sides", run_sides)
    case = Case(Model("a", lambda: None, ()), Settings(frontend="eager", precision="fp32"))
    gate = SimpleNamespace(recorded=lambda *_: None)
    source, cases = SuiteSource(root="."), {"a": case, "b": case}
    sides = {name: Side(name=name, source=source) for name in (BASE, CANDIDATE)}
    pairs = SimpleNamespace(start_residents=lambda: happened.append("more pairs"))
    run: Any = SimpleNamespace(
        options=SimpleNamespace(prebuild=prebuild, base=base, launches=3, source=source, cache=None, timeout_s=60.0,
                                lifecycle=False, builds_in_turn=prebuild == prebuilding.AUTO),
        accelerators=[CPU], accelerator=CPU, cases_at_once=2, gate=gate,
        run_folder=SimpleNamespace(private=None, logs=tmp_path),
        workers_beside_base=lambda: SimpleNamespace(sides=sides, pairs=pairs),
        base_cases=list(cases), latency_cases=set(cases), suite=SimpleNamespace(cases=cases),
        prebuilt={}, prebuilt_of_base={}, notices=[], say=lambda _text: None, spent=SpentTime(lambda: 0.0),
        judges=False, config=SimpleNamespace(pluginmanager=SimpleNamespace(get_plugin=lambda _name: None)),
    )  # fmt: skip
    prebuilding.build_ahead(run, {"a", "b"}, lambda: happened.append("workers"))
    assert happened == wanted


AHEAD, AS_TESTS_NEED_IT = (prebuilding.AUTO, True), (None, False)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({}, AHEAD),
        ({"trtgate_prebuild": prebuilding.OFF}, AS_TESTS_NEED_IT),
        ({"trtgate_prebuild": 3}, (3, False)),
        ({"trtgate_prebuild": prebuilding.AUTO}, (prebuilding.AUTO, False)),
        ({"trtgate_gpus": "all"}, (prebuilding.AUTO, False)),
        ({"trtgate_gpus": "all", "trtgate_prebuild": prebuilding.OFF}, AS_TESTS_NEED_IT),
        ({"trtgate_build_only": True}, AS_TESTS_NEED_IT),
        ({"distributed": True}, AS_TESTS_NEED_IT),
        ({"distributed": True, "trtgate_prebuild": prebuilding.OFF}, AS_TESTS_NEED_IT),
    ],
)
def test_all_is_built_ahead_unless_something_forbids_it_and_one_by_one_unless_more_was_asked_for(
    given: dict[str, Any], wanted: tuple[int | None, bool]
) -> None:
    config: Any = SimpleNamespace(getoption=given.get)
    assert prebuilding.asked(config, distributed=given.get("distributed", False)) == wanted


@pytest.mark.parametrize(("cpus", "prebuild", "in_turn", "wanted"), [(16, 0, True, 8), (4, 0, True, 2), (1, 0, True, 1),
                                                                    (4, 0, False, 4), (4, 7, False, 7)])  # fmt: skip
def test_where_one_builds_at_a_time_those_who_export_leave_it_half_of_the_cpus(
    cpus: int, prebuild: int, in_turn: bool, wanted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(cpus)))
    monkeypatch.setattr("trtgate.common.machine.memory_bytes", lambda: 1 << 40)
    options = SimpleNamespace(prebuild=prebuild, builds_in_turn=in_turn)
    run: Any = SimpleNamespace(options=options, accelerators=[GPU])
    assert prebuilding.builders(run) == wanted


def noted_answers(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list to which the kind of each answer is added as it comes."""
    answers: list[str] = []
    decode = messages.decode_reply

    def decoded(line: bytes) -> messages.Reply:
        reply = decode(line)
        answers.append(type(reply).__name__)
        return reply

    monkeypatch.setattr(messages, "decode_reply", decoded)
    return answers


def test_who_builds_in_turn_exports_first_and_builds_while_it_has_the_turn(
    work: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prebuild = work(1)
    folder = prebuild.folder_for("good-eager-fp32-b1")
    seen: list[Any] = []

    @contextlib.contextmanager
    def turn() -> Iterator[None]:
        seen.append(sorted(file.name for file in tmp_path.glob("*.called")))
        yield
        seen.append("built")

    pool = WorkerPool(CPU, tmp_path / "logs", timeout_s=60.0)
    try:
        worker = pool.start(prebuild.side, "builder", only_builds=True)
        worker.greet()
        answers = noted_answers(monkeypatch)
        request = messages.BuildCase(case_id="good-eager-fp32-b1", folder=str(folder), builders=4, in_turn=True)
        reply = worker.build(request, turn(), "building")
        assert seen == [["good.called"], "built"]
        assert answers == ["Prepared", "Compiled", "BuiltReply"]
        assert reply.build.builders == 1
        plain = msgspec.structs.replace(request, in_turn=False)
        assert worker.build(plain, turn(), "building").build.builders == 4
        assert len(seen) == 2
        with pytest.raises(LaunchError, match="no such weights"):
            worker.build(msgspec.structs.replace(request, case_id="raises-eager-fp32-b1"), turn(), "building")
    finally:
        pool.close()


def test_builders_share_one_turn(work: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    turns: list[Any] = []
    build = WorkerHandle.build

    def noted(self: WorkerHandle, request: Any, turn: Any, doing: str) -> Any:
        assert request.in_turn
        turns.append(turn)
        return build(self, request, turn, doing)

    monkeypatch.setattr(WorkerHandle, "build", noted)
    names = [f"{name}-eager-fp32-b1" for name in ("raises", "good")]
    found = list(msgspec.structs.replace(work(2), in_turn=True).run(names))
    assert {one.build.builders for one in found if one.build is not None} == {1}
    assert len(turns) == 2
    assert turns[0] is turns[1]


@pytest.mark.parametrize(("rtx", "turns_there_are"), [((False, False), 1), ((True, False), 1), ((True, True), 2)])
def test_sides_are_built_at_once_have_a_turn_each_with_rtx_and_a_failure_is_its_own_sides(
    rtx: tuple[bool, bool], turns_there_are: int, work: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    turns: list[Any] = []
    build = WorkerHandle.build

    def noted(self: WorkerHandle, request: Any, turn: Any, doing: str) -> Any:
        turns.append((request.shared, turn))
        return build(self, request, turn, doing)

    monkeypatch.setattr(WorkerHandle, "build", noted)
    good, raises = "good-eager-fp32-b1", "raises-eager-fp32-b1"
    (tmp_path / "base").mkdir()
    fails = SUITE.replace("return made(lambda x: x + 1)", "raise ValueError('the base is broken')")
    (tmp_path / "base" / "suite.py").write_text(fails)
    made = work(1)
    candidate = msgspec.structs.replace(made, in_turn=True, side=msgspec.structs.replace(made.side, rtx=rtx[0]))
    of_base = Side(name=BASE, source=SuiteSource(root=str(tmp_path / "base"), suites=("suite.py",)), rtx=rtx[1])
    base = msgspec.structs.replace(
        candidate, side=of_base, shared="of the base", logs=tmp_path / "base",
        folder_for=lambda case_id: tmp_path / "base" / case_id,
    )  # fmt: skip
    found = {(made.side.name, built.case_id): built for made, built in
             run_sides([(candidate, [good, raises]), (base, [good])])}  # fmt: skip
    assert set(found) == {("builder", good), ("builder", raises), (BASE, good)}
    assert found["builder", good].build == msgspec.structs.replace(found["builder", good].build, builders=1)
    assert "the base is broken" in found[BASE, good].problem
    assert {name for name, _ in turns} == {messages.SHARED, "of the base"}
    assert len({id(turn) for _, turn in turns}) == turns_there_are
    assert builders_alive() == []


def test_a_run_builds_ahead_and_then_times(folder: Any) -> None:
    folder.suite("alpha", "beta", gamma="raise ValueError('broken')")
    done = folder.gate("--trtgate-prebuild=2", "--trtgate-update-baselines", "--trtgate-report=run.json")
    assert done.ret == 1
    done.assert_outcomes(passed=4, failed=2)
    assert folder.saved_cases() == {"alpha-eager-fp32-b1", "beta-eager-fp32-b1"}
    output = folder.output_of(done)
    assert output.count("broken") >= 2
    said = re.search(r"built ahead: 3 cases by 2 processes in ([\d.]+) s, 0 of them from the cache", output)
    assert said
    spent_s = run_report.read(folder.path / "run.json").spent_s
    assert {"collecting", "building_ahead", "loading", "measuring"} <= spent_s.keys()
    assert "building" not in spent_s
    assert float(said[1]) == pytest.approx(spent_s["building_ahead"], abs=0.051)  # one figure, rounded


def test_what_took_longest_when_it_was_recorded_is_built_first_though_others_were_built_beside_it(folder: Any) -> None:
    folder.suite(**{name: f"IN_WORKER and print({name!r}, file=open('seen', 'a'))" for name in ("alpha", "beta")})
    assert folder.gate("--trtgate-prebuild=2", "--trtgate-update-baselines").ret == 0
    (file,) = folder.path.glob("baselines/*/latency.json")
    with folder.edited(file) as document:
        for entry in document["benchmarks"]:
            figures = entry["extra_info"]["trtgate"]["figures"]
            assert figures["ready_s"] > 0
            assert "build_s" not in figures
            figures["ready_s"] = 1.0 if "alpha" in entry["name"] else 2.0
    (folder.path / "seen").unlink()
    assert folder.gate("-m", "trtgate_accuracy", "--trtgate-prebuild=1", "--benchmark-compare").ret == 0
    assert list(dict.fromkeys((folder.path / "seen").read_text().split())) == ["beta", "alpha"]


def test_what_was_built_ahead_is_said_where_nothing_is_timed_too(folder: Any) -> None:
    folder.suite("alpha")
    done = folder.gate("-m", "trtgate_accuracy", "--trtgate-prebuild=1")
    assert done.ret == 0
    done.stdout.fnmatch_lines(["built ahead: 1 case by 1 process in*"])


def test_threads_of_builders_sleep_while_they_wait_and_those_of_what_is_timed_do_as_usual(
    folder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    note = "open('seen', 'a').write(os.environ.get('OMP_WAIT_POLICY', 'as usual') + '\\n')"
    folder.suite(alpha=f"IN_WORKER and {note}")
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    assert folder.gate("-m", "trtgate_latency", "--trtgate-prebuild=1").ret == 0
    first, *_, last = (folder.path / "seen").read_text().splitlines()
    assert (first, last) == ("passive", "as usual")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--trtgate-prebuild=2", "-n2"), ("drop -n",)),
    ],
)
def test_what_contradicts_building_ahead_is_refused(folder: Any, options: Any, words: Any) -> None:
    folder.suite("alpha")
    folder.refused(folder.gate(*options), *words)


def test_ctrl_c_while_building_leaves_no_process(folder: Any) -> None:
    folder.suite(alpha="time.sleep(600)")
    run = folder.start("--trtgate-prebuild=1", "--trtgate-launches=1", forked=True)
    folder.wait_until(lambda: len(folder.workers_of(run)) == 2)  # one that will measure, one that builds
    workers = folder.workers_of(run)
    run.send_signal(signal.SIGINT)
    run.communicate(timeout=60)
    assert run.returncode == pytest.ExitCode.INTERRUPTED
    assert [pid for pid in workers if is_alive(pid)] == []
