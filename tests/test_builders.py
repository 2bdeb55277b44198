"""Who builds what of a session: how many at once, where a case that is kept lies, what ends before timing."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, cast

from trtgate.common.accelerator import Accelerator
from trtgate.launches.builders import Builders
from trtgate.launches.prebuild import GIB
from trtgate.launches.worker_handle import WorkerHandle
from trtgate.launches.worker_pool import WorkerPool
from trtgate.pytest_plugin import prebuilding

LONG_S = 30.0
GPU = Accelerator(kind="gpu", name="test", memory_bytes=80 * GIB, uuid="GPU-1")
CPU = Accelerator(kind="cpu", name="test", cpus=64)


class Handle:
    def __init__(self, name: str) -> None:
        self.name, self.cases, self.ended = name, list[str](), False


class Pool:
    def __init__(self) -> None:
        self.started: list[str] = []
        self.ended: list[str] = []

    def start(self, name: str) -> WorkerHandle:
        self.started.append(name)
        return cast("WorkerHandle", Handle(name))

    def end(self, *handles: Any) -> None:
        self.ended += [one.name for one in handles]


class Launches:
    """A group of launches whose first one builds."""

    def __init__(self) -> None:
        self.forgot: list[str] = []

    def first(self) -> Any:
        return Handle("worker-0")

    def forget(self, worker: Any) -> None:
        self.forgot.append(worker.name)


def builders(count: int, launches: Launches | None = None) -> tuple[Builders, Pool]:
    pool = Pool()
    return Builders(cast("WorkerPool", pool), pool.start, cast("Any", launches), count), pool


def silent(_text: str) -> None:
    pass


def used(made: Builders, case_id: str) -> str:
    with made.at_work(case_id, silent) as builder:
        return str(cast("Any", builder).name)


def side_by_side(count: int, work: Callable[[int], None]) -> None:
    threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG_S)
        assert not thread.is_alive()


def test_one_builder_builds_case_after_case() -> None:
    made, pool = builders(1)
    assert [used(made, name) for name in "abc"] == ["builder"] * 3
    assert pool.started == ["builder"]


def test_the_first_may_import_before_it_is_needed() -> None:
    made, pool = builders(2)
    made.start_first()
    assert used(made, "a") == "builder"
    assert pool.started == ["builder"]


def test_as_many_as_are_allowed_are_at_work_and_what_comes_more_waits() -> None:
    made, pool = builders(2)
    both, most, now = threading.Barrier(2), [0], [0]
    guard = threading.Lock()

    def build(number: int) -> None:
        with made.at_work(f"case{number}", silent):
            with guard:
                now[0] += 1
                most[0] = max(most[0], now[0])
            both.wait(LONG_S)
            with guard:
                now[0] -= 1

    side_by_side(4, build)
    assert most == [2]
    assert sorted(pool.started) == ["builder", "builder-1"]


def test_what_was_built_is_profiled_by_the_process_that_built_it() -> None:
    made, _pool = builders(3)
    both, who = threading.Barrier(3), {}

    def build(number: int) -> None:
        with made.at_work(f"case{number}", silent) as builder:
            who[f"case{number}"] = cast("Any", builder).name
            both.wait(LONG_S)

    side_by_side(3, build)
    assert {name: used(made, name) for name in who} == who
    assert used(made, "another") == "builder"


def test_before_something_is_timed_all_but_the_first_end_and_start_again_when_they_are_needed() -> None:
    made, pool = builders(2)
    both = threading.Barrier(2)

    def build(number: int) -> None:
        with made.at_work(f"case{number}", silent):
            both.wait(LONG_S)

    side_by_side(2, build)
    made.end_spare()
    made.end_spare()
    assert pool.ended == ["builder-1"]
    side_by_side(2, build)
    assert sorted(pool.started) == ["builder", "builder-1", "builder-1"]


def test_one_that_ended_is_replaced() -> None:
    made, pool = builders(1)
    with made.at_work("a", silent) as builder:
        builder.ended = True
    assert pool.ended == ["builder"]
    assert used(made, "a") == "builder"
    assert pool.started == ["builder", "builder"]


def test_on_a_cpu_the_first_is_a_launch_and_further_ones_only_build() -> None:
    launches = Launches()
    made, pool = builders(2, launches)
    with made.at_work("a", silent) as first, made.at_work("b", silent) as second:
        assert [cast("Any", one).name for one in (first, second)] == ["worker-0", "builder-1"]
        first.ended = True
    assert (pool.started, launches.forgot) == (["builder-1"], ["worker-0"])


class Asked:
    def __init__(self, prebuild: int | None, *, in_turn: bool = False) -> None:
        self.prebuild, self.builds_in_turn = prebuild, in_turn


def on_a_node(asked: Asked, device: Accelerator, room: int, devices: int) -> tuple[int, bool]:
    return prebuilding.on_a_node(cast("Any", asked), device, room, devices)


def test_a_device_of_a_node_has_builders_by_its_share_as_a_host_of_its_own() -> None:
    by_itself, asked_auto = Asked(prebuilding.AUTO, in_turn=True), Asked(prebuilding.AUTO)
    assert on_a_node(by_itself, GPU, 12, 1) == (6, True)  # build times are judged
    assert on_a_node(by_itself, GPU, 12, 8) == (8, False)  # all devices of the node build at once anyway
    assert on_a_node(asked_auto, GPU, 12, 1) == (8, False)
    assert on_a_node(by_itself, GPU, 1, 1) == (1, True)
    assert on_a_node(asked_auto, Accelerator(kind="gpu", name="small", memory_bytes=12 * GIB), 12, 1) == (2, False)
    assert on_a_node(Asked(3), GPU, 1, 8) == (3, False)
    assert on_a_node(Asked(None), GPU, 12, 8) == (1, False)  # --trtgate-prebuild=0
    assert on_a_node(by_itself, CPU, 12, 1) == (1, False)
    assert on_a_node(asked_auto, CPU, 12, 1) == (8, False)
