"""What runs on a node of a cluster, and how a run drives it, without Ray: the workers are real."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from trtgate import Case, Settings
from trtgate.common.errors import TrtgateError
from trtgate.compiling.artifact_cache import CacheRequest
from trtgate.fleet import ray_card
from trtgate.fleet.card_handle import CardHandle
from trtgate.fleet.ray_card import Card, room
from trtgate.fleet.ray_messages import Open
from trtgate.fleet.ray_workers import RayWorkers
from trtgate.launches.session import NextCase
from trtgate.launches.worker_handle import LaunchError
from trtgate.suite.suite_source import SuiteSource

from .loopback_ray import Actor, LoopbackRay
from .suites import suite_text

TIMEOUT_S = 60.0
TOGETHER = "exec({text!r}) if IN_WORKER and not measuring() else None"


def together(folder: Path, name: str, other: str) -> str:
    """Return a statement that waits until two cases are at work at once."""
    text = f"open({str(folder / name)!r}, 'w').close()\nwhile not os.path.exists({str(folder / other)!r}): pass"
    return TOGETHER.format(text=text)


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, forked: None) -> Path:
    """A folder that Ray would have unpacked, in a process that an actor may change as it needs."""
    (tmp_path / "root").mkdir()
    monkeypatch.chdir(tmp_path / "root")
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name, value in {
        "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "TRTGATE_LOCK_DIR": str(tmp_path),
        "XDG_STATE_HOME": str(tmp_path / "state"), "TRTGATE_CACHE_DIR": str(tmp_path / "cache"),
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(Card, "_watch", lambda _card: None)  # its thread would end this process, later than the test
    monkeypatch.setattr(ray_card, "as_the_node_has_it", lambda: None)
    return tmp_path / "root"


class Run:
    """A run that drives one device."""

    def __init__(self, root: Path, builders: int = 1, cases_at_once: int = 1) -> None:
        card, self.ray = Card("cpu", "0123456789", 1, 1), LoopbackRay()
        self.handle = CardHandle(self.ray, Actor(card, self.ray.pool), card._facts)
        opened = Open(
            source=SuiteSource(root=str(root), suites=("suite.py",)), folder=str(root), path=[], streams="one",
            cold_starts=0, load=0, launches=1, timeout_s=TIMEOUT_S, tensorrt=False, builders=builders,
            cases_at_once=cases_at_once,
        )  # fmt: skip
        self.workers = RayWorkers(self.handle, opened)
        self.workers.start()

    def build(self, name: str, step: Callable[[str], None] = lambda _text: None) -> Any:
        case = Case(_model(name), Settings(frontend="eager", precision="fp32", batch=1))
        return self.workers.build(case, step, CacheRequest(folder="", limit_bytes=1 << 20), builders=2)


def _model(name: str) -> Any:
    from trtgate import Model

    return Model(name, lambda: None, ())


@pytest.fixture
def driven(node: Path) -> Iterator[Callable[..., Run]]:
    runs: list[Run] = []

    def drive(**keywords: Any) -> Run:
        runs.append(Run(node, **keywords))
        return runs[-1]

    yield drive
    for run in runs:
        run.workers.close()


def test_a_case_is_built_and_measured_and_one_that_dies_says_so(node: Path, driven: Callable[..., Run]) -> None:
    (node / "suite.py").write_text(suite_text((), {"alpha": "pause(0.002)", "dies": "os._exit(7)"}))
    run = driven()
    assert run.build("alpha").checked().build is not None
    measured = run.workers.session.measure("alpha-eager-fp32-b1", None, lambda _text: None)
    assert all(us > 0 for us in measured.blocks_us())
    with pytest.raises(TrtgateError, match="dies-eager-fp32-b1: building: the worker ended with exit code 7"):
        run.build("dies").checked()
    assert run.handle.busy is False


def test_a_case_is_built_again_in_a_process_that_leaves_nothing_where_nothing_is_stored(
    node: Path, driven: Callable[..., Run]
) -> None:
    (node / "suite.py").write_text(suite_text((), {"alpha": "pause(0.002)"}))
    run = driven()
    cache = CacheRequest(folder=str(node))
    again = run.workers.build_again("alpha-eager-fp32-b1", pairs_next=False, cache=cache).checked()
    assert again.build is not None
    assert again.artifact is None
    with pytest.raises(LaunchError, match="case nobody is not in the suite"):
        run.workers.build_again("nobody", pairs_next=False)
    assert not list(node.parent.rglob("again-*"))


def test_the_steps_of_a_case_are_told_while_the_node_is_at_it(node: Path, driven: Callable[..., Run]) -> None:
    go = node / "go"
    waits = f"exec({f'while not os.path.exists({str(go)!r}): pass'!r}) if IN_WORKER else None"
    (node / "suite.py").write_text(suite_text((), {"waits": waits}))
    run, steps = driven(), list[str]()

    def step(text: str) -> None:
        run.handle.pulse()
        steps.append(text)
        if text == "building":  # it goes on when its step was told
            go.touch()

    assert run.build("waits", step).checked().build is not None
    assert steps[-1] == "building"


def test_a_device_builds_two_cases_at_once_where_it_is_asked_to(node: Path, driven: Callable[..., Run]) -> None:
    names = {"one": "two", "two": "one"}
    (node / "suite.py").write_text(suite_text((), {name: together(node, name, names[name]) for name in names}))
    run, made = driven(builders=2), dict[str, Any]()
    threads = [
        threading.Thread(target=lambda name=name: made.update({name: run.build(name)}), daemon=True) for name in names
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * TIMEOUT_S)
    assert {name: built.checked().build.builders for name, built in made.items()} == {"one": 2, "two": 2}


def test_a_run_that_ends_while_a_device_is_at_work_ends_its_actor_at_once(
    node: Path, driven: Callable[..., Run]
) -> None:
    run, begun = driven(), threading.Event()
    never, under_way = run.ray.pool.submit(lambda: (begun.wait(TIMEOUT_S), b"{}")[1]), threading.Event()
    waiting = threading.Thread(target=lambda: run.handle.answer(never, lambda _text: under_way.set()), daemon=True)
    waiting.start()
    assert under_way.wait(TIMEOUT_S)
    run.workers.stop()
    assert len(run.ray.killed) == 1
    begun.set()
    waiting.join(TIMEOUT_S)


def test_a_node_without_what_the_suite_imports_says_so_for_each_case(node: Path, driven: Callable[..., Run]) -> None:
    (node / "suite.py").write_text("import only_where_pytest_runs\n")
    run = driven()
    for _ in range(2):
        with pytest.raises(TrtgateError) as raised:
            run.build("alpha").checked()
        said = str(raised.value)
        assert "can't be imported: ModuleNotFoundError: No module named 'only_where_pytest_runs'" in said
        assert "\n" not in said


SILENT = """
from trtgate.fleet import ray_card

ray_card.SILENT_S = 0.2
ray_card.Card("cpu", "node", 1, 1)
input()
"""


def test_an_actor_that_hears_nothing_of_its_run_ends_itself(node: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", SILENT], stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.wait(TIMEOUT_S) == 1


def test_a_device_has_its_share_of_the_cpus_and_memory_of_its_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trtgate.common.machine.cpus", lambda: 64)
    monkeypatch.setattr("trtgate.common.machine.memory_bytes", lambda: 256 << 30)
    assert room(cpus=64, devices=1) == 64
    assert room(cpus=64, devices=8) == 8
    assert room(cpus=16, devices=8) == 2  # Ray was told that the node has no more
    assert room(cpus=128, devices=8) == 8  # and the machine has no more
    assert room(cpus=0, devices=1) == 1
    monkeypatch.setattr("trtgate.common.machine.memory_bytes", lambda: 64 << 30)
    assert room(cpus=64, devices=8) == 2


def test_a_case_is_loaded_with_the_one_that_is_measured_next(node: Path, driven: Callable[..., Run]) -> None:
    """Each waits until the other is being loaded, too: one by one neither would ever be."""
    factories = {"alpha": together(node, "alpha", "beta"), "beta": together(node, "beta", "alpha")}
    (node / "suite.py").write_text(suite_text((), factories))
    session = driven(cases_at_once=2).workers.session
    after = [NextCase("beta-eager-fp32-b1", None)]
    found = [
        session.measure("alpha-eager-fp32-b1", None, lambda _text: None, after),
        session.measure_host("beta-eager-fp32-b1", None, lambda _text: None),
    ]
    assert all(one.launches for one in found)
