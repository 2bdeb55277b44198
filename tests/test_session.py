"""Resident workers, for real: they measure, they fail, they are replaced, they leave nothing behind."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import psutil
import pytest
import torch

from trtgate import Model, grid
from trtgate.common import spent_time
from trtgate.common.accelerator import Accelerator
from trtgate.common.metrics import HOST
from trtgate.compiling import reference
from trtgate.launches import messages
from trtgate.launches.build_turn import BuildTurn
from trtgate.launches.comparison_side import Side
from trtgate.launches.session import NextCase, Session
from trtgate.launches.worker_handle import LaunchError, WorkerHandle, environment_of
from trtgate.launches.worker_state import Worker
from trtgate.suite.cases import Suite
from trtgate.suite.suite_source import SuiteSource
from trtgate.timing import plans

from .suites import SCRIPTED_TIME

SUITE = """
import gc, os, sys, time
import torch
import trtgate

{SCRIPTED_TIME}
class Odd(torch.nn.Module):
    def __init__(self, act):
        super().__init__()
        self.act = act
    def forward(self, x):
        if IN_WORKER:
            pause(0.002)
            self.act()
        return x

def one(name, act):
    return trtgate.Model(name, lambda: (Odd(act).eval(), torch.zeros(4)), trtgate.grid(["eager"]))

def broken():
    raise ValueError("first line\\nsecond line")

def loading(name):
    if IN_WORKER:
        open(os.environ["TRTGATE_LOADED"], "a").write(name + "\\n")
    return Odd(lambda: None).eval(), torch.zeros(4)

def collected():
    if IN_WORKER and gc.get_freeze_count() < len(gc.get_objects()):
        raise MemoryError("every collection looks at all objects of the libraries")
    return loading("collected")

def alone():
    if IN_WORKER and os.path.exists(os.environ["TRTGATE_LOADED"] + ".beside"):
        raise MemoryError("no room beside another")
    return loading("alone")

def importing():
    import torch_tensorrt.runtime._runtime_config as config
    open(os.environ["TRTGATE_SEEN"], "w").write(str(config.RUNTIME_CACHE_PATH))

MODELS = [
    *(trtgate.Model(name, lambda name=name: loading(name), trtgate.grid(["eager"])) for name in ("first", "second")),
    trtgate.Model("alone", alone, trtgate.grid(["eager"])),
    trtgate.Model("collected", collected, trtgate.grid(["eager"])),
    one("fine", lambda: None),
    one("crashes", lambda: os._exit(7)),
    one("aborts", os.abort),
    one("hangs", lambda: time.sleep(1000)),
    one("raises", broken),
    one("prints", lambda: print("not the protocol")),
    one("imports", importing),
]
""".replace("{SCRIPTED_TIME}", SCRIPTED_TIME)
CPU = Accelerator(kind="cpu", name="test", cpus=1)
pytestmark = pytest.mark.usefixtures("module_forked")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> SuiteSource:
    folder = tmp_path_factory.mktemp("suite")
    (folder / "odd_suite.py").write_text(SUITE)
    return SuiteSource(root=str(folder), suites=("odd_suite.py",))


@pytest.fixture(scope="module")
def session(source: SuiteSource, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    patch = pytest.MonkeyPatch()
    patch.setenv("TRTGATE_LOCK_DIR", str(tmp_path_factory.mktemp("locks")))
    patch.setenv("TRTGATE_TEST", "1")
    with Session(source, CPU, tmp_path_factory.mktemp("logs"), launches=2, timeout_s=60) as made:
        yield made
    patch.undo()


def measure(session: Session, case: str):
    return session.measure(f"{case}-eager-fp32", None, lambda _step: None)


def test_every_launch_measures_in_turns_and_stays_for_the_next_case(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plans, "ON_CPU", msgspec.structs.replace(plans.ON_CPU, turns=2))
    first = measure(session, "fine")
    pids = session.pids()
    second = measure(session, "prints")
    assert session.pids() == pids
    for found in (first, second):
        assert (found.clock, found.primary) == ("host_mean", HOST)
        assert [len(launch.turns) for launch in found.launches] == [2, 2]
        assert all(us > 0 for us in found.blocks_us())
        assert len(found.samples(HOST)) == 2


@pytest.mark.parametrize(
    ("case", "reason"),
    [("crashes", "exit code 7"), ("aborts", "SIGABRT"), ("raises", "first line"), ("nowhere", "not in the suite")],
)
def test_a_launch_that_fails_says_why_and_is_replaced(session: Session, case: str, reason: str) -> None:
    with pytest.raises(LaunchError, match=reason) as caught:
        measure(session, case)
    assert "\n" not in str(caught.value)
    assert measure(session, "fine").blocks_us()


def test_a_launch_that_hangs_is_killed(source: SuiteSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRTGATE_LOCK_DIR", str(tmp_path))
    with Session(source, CPU, tmp_path, launches=1, timeout_s=60) as session:
        measure(session, "fine")
        (pid,) = session.pids()
        for worker in session._groups[0].workers.values():
            worker._timeout_s = 1.0
        with pytest.raises(LaunchError, match="no answer within 1 s"):
            measure(session, "hangs")
        assert not psutil.pid_exists(pid)


def test_launches_that_build_a_case_compare_it_one_by_one_when_all_have_built_it(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads of several that call it at once would spin, and take each other's CPUs."""
    seen: list[tuple[str, int]] = []
    send, receive = WorkerHandle.send, WorkerHandle._receive

    def sending(self: WorkerHandle, request: messages.Request) -> None:
        seen.append((type(request).__name__, self.number))
        send(self, request)

    def receiving(self: WorkerHandle, kinds: tuple[type, ...], doing: str) -> messages.Reply:
        reply = receive(self, kinds, doing)
        seen.append((type(reply).__name__, self.number))
        return reply

    monkeypatch.setattr(WorkerHandle, "send", sending)
    monkeypatch.setattr(WorkerHandle, "_receive", receiving)
    measure(session, "fine")
    loading = [one for one in seen if one[0] in ("Prepared", "GoOn", "LoadedReply")]
    in_turn = [(name, number) for number in (0, 1) for name in ("GoOn", "LoadedReply")]
    assert loading == [("Prepared", 0), ("Prepared", 1), *in_turn]


@pytest.mark.parametrize("in_turn", [True, False])
def test_a_launch_knows_how_long_it_waited_for_its_turn_which_is_no_part_of_loading(in_turn: bool) -> None:
    model = Model("fine", lambda: (torch.nn.Identity(), torch.ones(4)), grid(["eager"]))
    (case,) = Suite([model]).cases.values()
    worker: Any = SimpleNamespace(
        device="cpu", _gpu=False, _reference=reference, _own_turn=BuildTurn(lambda: 7.0),
        _synchronize=lambda: None, _check_origin=lambda: None,
    )  # fmt: skip
    request = messages.Load(case_id=case.id, artifact=None, in_turn=in_turn)
    assert Worker._load(worker, case, request) == (7.0 if in_turn else 0.0)


@pytest.mark.parametrize("wanted", [True, False])
def test_on_a_gpu_torch_tensorrt_is_imported_before_the_first_case_where_one_will_need_it(
    source: SuiteSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: bool
) -> None:
    (tmp_path / "torch_tensorrt.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'w').close()\n")
    monkeypatch.syspath_prepend(str(tmp_path))  # a worker searches where this process does
    gpu = Accelerator(kind="gpu", name="test")  # nothing is asked of it
    session = Session(source, gpu, tmp_path, launches=1, timeout_s=60, tensorrt=wanted)
    session.start()
    session._groups[0].greet(lambda _step: None)
    session.close()
    assert (tmp_path / "imported").exists() == wanted


def test_who_imports_torch_tensorrt_in_a_worker_gets_no_cache_that_processes_share(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a factory compiles there must not depend on what ran before."""
    package = tmp_path / "torch_tensorrt"
    for name, content in {
        "__init__": "from .runtime import _runtime_config",
        "runtime/__init__": "def set_cudagraphs_mode(on): pass",
        "runtime/_runtime_config": "from ..dynamo._defaults import RUNTIME_CACHE_PATH",
        "dynamo/__init__": "",
        "dynamo/_defaults": "RUNTIME_CACHE_PATH = '/tmp/shared/runtime_cache.bin'",
    }.items():
        file = package / f"{name}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("TRTGATE_SEEN", str(tmp_path / "seen"))
    session.renew()
    measure(session, "imports")
    session.renew()
    assert (tmp_path / "seen").read_text() == "None"


def test_threads_sleep_while_they_wait_but_for_what_is_timed_on_a_cpu(source: SuiteSource) -> None:
    side = Side(name="candidate", source=source)
    gpu = Accelerator(kind="gpu", name="test", uuid="GPU-1")

    def policy(accelerator: Accelerator, *, only_builds: bool = False, **variables: str) -> str | None:
        hello = side.hello(accelerator)
        return environment_of(side, hello, variables, only_builds=only_builds).get("OMP_WAIT_POLICY")

    assert policy(gpu) == policy(CPU, only_builds=True) == "passive"
    assert policy(CPU) is None
    assert policy(gpu, OMP_WAIT_POLICY="active") == "active"


def test_where_cases_are_only_built_sets_have_one_order_unless_the_user_says_otherwise(source: SuiteSource) -> None:
    """What a call does is counted there, and may depend on it."""
    side = Side(name="candidate", source=source)
    hello = side.hello(CPU)
    assert environment_of(side, hello, {}, only_builds=True)["PYTHONHASHSEED"] == "0"
    assert environment_of(side, hello, {"PYTHONHASHSEED": "7"}, only_builds=True)["PYTHONHASHSEED"] == "7"
    assert "PYTHONHASHSEED" not in environment_of(side, hello, {}, only_builds=False)


def test_collecting_garbage_passes_over_the_libraries(ahead: Session) -> None:
    assert ahead.measure("collected-eager-fp32", None, lambda _step: None).blocks_us()


def test_the_seconds_of_a_case_are_counted_by_what_is_done(session: Session, tmp_path: Path) -> None:
    """The clock goes on by a second with each look at it, so each piece of work takes one."""
    session.close()
    spent = spent_time.begin(map(float, itertools.count()).__next__)
    try:
        session.build(messages.BuildCase(case_id="fine-eager-fp32", folder=str(tmp_path)), lambda _step: None)
        measure(session, "fine")
    finally:
        spent_time.end(spent)
    found = spent.by_kind(spent.total_s)
    found.pop("rest")
    assert found == {"starting": 2.0, "waiting": 3.0, "building": 1.0, "loading": 1.0, "measuring": 1.0}


def test_fresh_launches_are_other_processes_and_closing_leaves_none(source: SuiteSource, tmp_path: Path) -> None:
    session = Session(source, CPU, tmp_path, launches=2, timeout_s=60)
    session.start()
    before = session.pids()
    session.renew()
    after = session.pids()
    assert not set(before) & set(after)
    session.close()
    assert not any(psutil.pid_exists(pid) for pid in [*before, *after])


@pytest.fixture
def ahead(source: SuiteSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    monkeypatch.setenv("TRTGATE_LOCK_DIR", str(tmp_path))
    monkeypatch.setenv("TRTGATE_LOADED", str(tmp_path / "loaded"))
    with Session(source, CPU, tmp_path, launches=1, timeout_s=60, cases_at_once=2) as session:
        yield session


def test_the_case_after_is_loaded_with_a_case_and_measured_as_it_is(ahead: Session, tmp_path: Path) -> None:
    steps: list[str] = []
    found = [
        ahead.measure("first-eager-fp32", None, steps.append, [NextCase("second-eager-fp32", None)]),
        ahead.measure("second-eager-fp32", None, steps.append, [NextCase("fine-eager-fp32", None)]),
        ahead.measure("fine-eager-fp32", None, steps.append),
    ]
    assert sorted((tmp_path / "loaded").read_text().split()) == ["first", "second"]
    assert steps.count("building in workers") == 2
    for measurement in found:
        assert len(measurement.launches) == 1
        assert measurement.blocks_us()
    assert len(ahead.pids()) == 2


def test_fresh_launches_leave_what_was_loaded_ahead(ahead: Session, tmp_path: Path) -> None:
    nothing = lambda _step: None  # noqa: E731
    ahead.measure("first-eager-fp32", None, nothing, [NextCase("second-eager-fp32", None)])
    used, waiting = ahead.pids()
    ahead.renew()
    assert ahead.measure("first-eager-fp32", None, nothing).blocks_us()
    assert used not in ahead.pids()
    assert waiting in ahead.pids()
    assert ahead.measure("second-eager-fp32", None, nothing).blocks_us()
    assert sorted((tmp_path / "loaded").read_text().split()) == ["first", "first", "second"]


def test_as_many_cases_as_are_told_are_loaded_at_once(
    source: SuiteSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRTGATE_LOCK_DIR", str(tmp_path))
    monkeypatch.setenv("TRTGATE_LOADED", str(tmp_path / "loaded"))
    names, steps = ["first-eager-fp32", "second-eager-fp32", "fine-eager-fp32", "first-eager-fp32"], []
    with Session(source, CPU, tmp_path, launches=1, timeout_s=60, cases_at_once=3) as session:
        for number, name in enumerate(names, 1):
            after = [NextCase(one, None) for one in names[number:][:2]]
            assert session.measure(name, None, steps.append, after).blocks_us()
        assert len(session.pids()) == 3
    assert steps.count("building in workers") == 2


def test_a_case_that_was_loaded_ahead_and_is_not_wanted_makes_way(ahead: Session) -> None:
    nothing = lambda _step: None  # noqa: E731
    ahead.measure("first-eager-fp32", None, nothing, [NextCase("second-eager-fp32", None)])
    assert ahead.measure("fine-eager-fp32", None, nothing, [NextCase("first-eager-fp32", None)]).blocks_us()
    assert ahead.measure("first-eager-fp32", None, nothing).case_id == "first-eager-fp32"


def test_what_fails_beside_another_case_is_tried_alone_and_nothing_is_loaded_ahead_any_more(
    ahead: Session, tmp_path: Path
) -> None:
    beside = tmp_path / "loaded.beside"
    beside.touch()

    def step(text: str) -> None:
        if text.startswith("starting"):
            starts.append(text)
            if len(starts) == 3:  # both sets of workers at first, then again
                beside.unlink()

    starts: list[str] = []
    found = ahead.measure("alone-eager-fp32", None, step, [NextCase("first-eager-fp32", None)])
    assert found.blocks_us()
    assert len(ahead.pids()) == 1


def test_a_case_that_fails_alone_too_leaves_loading_ahead_as_it_was(ahead: Session) -> None:
    with pytest.raises(LaunchError, match=r"raises-eager-fp32: loading: .*first line"):
        ahead.measure("raises-eager-fp32", None, lambda _step: None, [NextCase("first-eager-fp32", None)])
    assert ahead.measure(
        "first-eager-fp32", None, lambda _step: None, [NextCase("second-eager-fp32", None)]
    ).blocks_us()
    assert len(ahead.pids()) == 2


def test_a_case_that_fails_to_load_ahead_is_not_the_one_that_is_measured(ahead: Session) -> None:
    assert ahead.measure(
        "first-eager-fp32", None, lambda _step: None, [NextCase("raises-eager-fp32", None)]
    ).blocks_us()


def test_captures_that_are_kept_are_none_of_the_memory_of_a_case(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside them lies padding of random size: two sides of a pair would differ by it."""
    used = {"context": 500, "case": 100, "captures": 40}
    worker = object.__new__(Worker)
    worker._gpu, worker.monitor, worker.inference = True, None, object()
    worker._timer = SimpleNamespace(close=lambda: used.pop("captures"))
    worker._building = SimpleNamespace(end_case=lambda: used.pop("case"))  # type: ignore[assignment]
    monkeypatch.setattr(Worker, "_used_bytes", lambda _worker: sum(used.values()))
    assert worker.unloaded_bytes(measure=True) == 100
    assert used == {"context": 500}
