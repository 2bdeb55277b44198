"""A Ray cluster that a run drives: joined by its address, an actor on each device, Ray's own tasks for dry runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from ..common.errors import TrtgateError
from ..launches.prebuild import HOST_BYTES_EACH, MOST
from ..records.coverage_record import Coverage
from . import ray_card, ray_dry_runs
from .card_handle import CardHandle, why_lost
from .ray_messages import Facts, Open, Reply
from .ray_nodes import ANSWER_S, CPU, GPU, PULSE_S, START_S, Nodes, differences, kinds_of, name_of, slots

AT_ONCE = 8
"""Calls that an actor takes at once beside building: its work, what waits for that, and the pulse."""


class _Made(NamedTuple):
    """An actor that was asked for, where, and of which kind its device is to be."""

    actor: Any
    where: str
    kind: str


class Cluster(Nodes):
    """A cluster that this process has joined; `cards` are its devices.

    Parameters
    ----------
    address
        HOST:PORT.
    root
        The folder that is sent to the nodes.
    builders
        How many cases a device is asked to build at once, at most.
    wanted
        Kinds of accelerators, by words of their keys, such as "h100"; empty for whichever there are: GPUs, and CPUs
        where there is none.

    Raises TrtgateError, on construction, for what is no cluster, of another Ray or Python, or has no device.

    """

    def __init__(self, address: str, root: Path, wanted: Sequence[str] = (), builders: int = MOST) -> None:
        self.cards: list[CardHandle] = []
        self._builders = builders
        self._end = threading.Event()
        super().__init__(address, root)
        try:
            self._start_cards(wanted)
        except BaseException:
            self.close()
            raise
        self._thread = threading.Thread(target=self._pulse, daemon=True)
        self._thread.start()

    def _start_cards(self, wanted: Sequence[str]) -> None:
        """Put an actor on each device, and leave out what does not answer, or was not asked for."""
        known = self.facts()
        kinds = {one.accelerator.key for one in known if not one.problem}
        key = chosen(kinds, wanted, self.address) if kinds else ""
        has = {one.node for one in known if one.accelerator.key == key}
        kind = next((one.accelerator.kind for one in known if one.accelerator.key == key), CPU)
        made, deadline = {}, time.monotonic() + ANSWER_S
        for node in [one for one in self.nodes if one["NodeID"] in has]:
            for _ in range(self._free(node, kind, deadline)):
                actor = self._actor_on(node, kind)
                made[actor.facts.remote()] = _Made(actor, name_of(node), kind)
        started = self._started(made)
        if not started:
            raise TrtgateError(
                f"no device of the Ray cluster at {self.address} can be used: {'; '.join(self.problems)}"
            )
        self.cards = [one for one in started if one.facts.accelerator.key == key]
        for one in started:
            if one not in self.cards:
                one.kill()
        check_alike([one.facts for one in self.cards])

    def _actor_on(self, node: Any, kind: str) -> Any:
        """Let Ray start an actor that holds a GPU of a node, or one of its CPUs."""
        ray, cpus = self._ray, int(node["Resources"].get("CPU", 0))
        resources = {"num_gpus": 1, "num_cpus": 0} if kind == GPU else {"num_gpus": 0, "num_cpus": 1}
        made = ray.remote(ray_card.Card).options(
            **resources, max_concurrency=AT_ONCE + self._builders, max_restarts=0, max_task_retries=0,
            scheduling_strategy=self._on(node["NodeID"]),
        )  # fmt: skip
        return made.remote(kind, node["NodeID"], cpus, slots(node, kind))

    def _free(self, node: Any, kind: str, deadline: float) -> int:
        """Return how many devices of a node no other job holds, and keep the problem where it is not all of them."""
        count, free = slots(node, kind), 0
        while count:  # what an earlier run held may be on its way back
            left = self._ray._private.state.available_resources_per_node().get(node["NodeID"], {})
            free = min(count, int(left.get(kind.upper(), 0)))
            if free == count or time.monotonic() > deadline:
                break
            time.sleep(0.5)
        if free < count:
            what = f"{count - free} of {count} GPUs" if kind == GPU else "its CPUs"
            self.problems.append(f"{name_of(node)}: another job of the cluster holds {what}")
        return free

    def _started(self, made: dict[Any, _Made]) -> list[CardHandle]:
        """Wait for actors, by Ray's reference to their facts; returns those that can measure."""
        left, found, deadline = dict(made), list[CardHandle](), time.monotonic() + START_S
        while left and time.monotonic() < deadline:
            self._head.check()
            ready, _ = self._ray.wait(list(left), timeout=PULSE_S)
            for reference in ready:
                found += self._usable(reference, left.pop(reference))
            for card in found:
                card.pulse()  # else it takes the run for gone
        for one in left.values():
            self._ray.kill(one.actor)
            self.problems.append(f"{one.where}: its actor did not start within {START_S:.0f} s")
        return found

    def _usable(self, reference: Any, made: _Made) -> list[CardHandle]:
        """Return the card of an actor that has answered, or keep what is wrong with it."""
        try:
            facts = msgspec.json.decode(self._ray.get(reference, timeout=ANSWER_S), type=Facts)
        except Exception as error:
            self.problems.append(f"{made.where}: {why_lost(error)}")
            return []
        if not facts.problem and facts.accelerator.kind == made.kind:
            return [CardHandle(self._ray, made.actor, facts)]
        self._ray.kill(made.actor)
        self.problems.append(f"{made.where}: {facts.problem or 'Ray says it has a GPU, and NVML sees none'}")
        return []

    def _pulse(self) -> None:
        while not self._end.wait(PULSE_S):
            for card in self.cards:
                if self._head.gone:
                    card.lose(self._head.gone)
                card.pulse()

    # What it does

    def coverages(
        self, suite: Open, case_ids: Sequence[str], done: Callable[[str, Coverage | str], None], silent_s: float
    ) -> None:
        """Ask for the coverage of cases as Ray's tasks, each by a CPU of any node, and once more where a node is lost.

        `done` is told of each when it is there: its coverage, or why there is none. Where nothing comes for `silent_s`
        the others are given up.
        """
        ray, content = self._ray, msgspec.json.encode(suite)
        for card in self.cards:
            if card.facts.accelerator.kind == CPU:
                card.rest()  # its CPU may be the only one of its node
        memory = min(HOST_BYTES_EACH, max(int(node["Resources"].get("memory", 0)) for node in self.nodes))
        task = ray.remote(ray_dry_runs.dry_run).options(num_cpus=1, memory=memory, max_retries=1)
        left = {task.remote(content, case_id): case_id for case_id in case_ids}
        heard = time.monotonic()
        while left:
            ready, _ = ray.wait(list(left), timeout=PULSE_S)
            for reference in ready:
                heard = time.monotonic()
                done(left.pop(reference), _coverage(ray, reference))
            silent = time.monotonic() - heard > silent_s
            if silent or self._head.gone:
                for reference, case_id in left.items():
                    if silent:
                        ray.cancel(reference, force=True)
                    done(case_id, self._head.gone or f"no node of the cluster answered within {silent_s:.0f} s")
                break
        by_id = {node["NodeID"]: node for node in self.nodes}
        for card in self.cards:
            if card.rests:
                card.wake(self._actor_on(by_id[card.facts.node], card.facts.accelerator.kind))

    def close(self) -> None:
        """End all actors, and leave the cluster."""
        self._end.set()
        for card in self.cards:
            card.kill()
        self.cards = []
        super().close()


def _coverage(ray: Any, reference: Any) -> Coverage | str:
    try:
        return msgspec.json.decode(
            msgspec.json.decode(ray.get(reference, timeout=ANSWER_S), type=Reply).checked(), type=Coverage
        )
    except TrtgateError as error:
        return str(error)
    except Exception as error:
        return why_lost(error)


def chosen(keys: Collection[str], wanted: Sequence[str], address: str) -> str:
    """Return the one kind to be measured. Raises TrtgateError where there is none, or where there are several."""
    found = kinds_of(keys, wanted)
    if not found:
        has = ", ".join(sorted(keys))
        raise LackingError(f"the Ray cluster at {address} has no {' or '.join(wanted)}: it has {has}")
    if len(found) > 1:
        raise TrtgateError(
            f"the Ray cluster at {address} has several kinds of accelerators ({', '.join(found)}), which have "
            "baselines of their own: name those that are to be measured with --trtgate-accelerators"
        )
    return found[0]


class LackingError(TrtgateError):
    """The cluster has no accelerator of a kind."""


def check_alike(facts: Sequence[Facts]) -> None:
    """Raise TrtgateError where cards of a kind have other versions: what they measure can't be judged together."""
    first = facts[0]
    for other in facts[1:]:
        differing = differences(first, other)
        if differing:
            raise TrtgateError(
                f"{first.name} and {other.name} differ ({', '.join(differing)}), so that their latencies can't be "
                "judged together: trtgate doctor --ray says what all nodes have"
            )
