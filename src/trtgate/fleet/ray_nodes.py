"""The nodes of a Ray cluster: what they say of themselves, by tasks that hold nothing of them."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import msgspec

from ..common.accelerator import slug
from . import ray_card
from .card_handle import why_lost
from .ray_head import HeadWatch
from .ray_join import joined
from .ray_messages import Facts

ANSWER_S = 5.0
"""How long what is there already may take to be handed over."""
PULSE_S = 1.0
START_S = 120.0
"""How long a node may take to unpack the code and start a process."""
GPU, CPU = "gpu", "cpu"


class Nodes:
    """A cluster that this process has joined; `root` is the folder that is sent to it, None for none.

    Raises TrtgateError, on construction, for what is no cluster, or one of another Ray or Python.
    """

    def __init__(self, address: str, root: Path | None) -> None:
        self.address = address
        self._ray = joined(address, root)
        self._head = HeadWatch(address)
        self.nodes = [node for node in self._ray.nodes() if node["Alive"]]
        self.problems: list[str] = []
        """What is wrong with nodes or devices."""

    def facts(self) -> list[Facts]:
        """Return what all nodes say of their devices, and keep the problems of those that don't; nothing is held.

        Raises TrtgateError where the head is lost.
        """
        ray = self._ray
        task = ray.remote(ray_card.node_facts)
        asked = {
            task.options(num_cpus=0, max_retries=0, scheduling_strategy=self._on(node["NodeID"])).remote(
                node["NodeID"]
            ): node
            for node in self.nodes
        }
        late, ready, deadline = list(asked), [], time.monotonic() + START_S
        while late and time.monotonic() < deadline:
            self._head.check()
            answers, late = ray.wait(late, num_returns=len(late), timeout=PULSE_S)
            ready += answers
        found: list[Facts] = []
        for reference in ready:
            try:
                found += msgspec.json.decode(ray.get(reference, timeout=ANSWER_S), type=list[Facts])
            except Exception as error:
                self.problems.append(f"{name_of(asked[reference])}: {why_lost(error)}")
        self.problems += [f"{name_of(asked[one])}: it did not answer within {START_S:.0f} s" for one in late]
        self.problems += [f"{one.name}: {one.problem}" for one in found if one.problem]
        return found

    def _on(self, node: str) -> Any:
        return self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node, soft=False)

    def close(self) -> None:
        """Leave the cluster."""
        self._head.close()
        if self._ray.is_initialized():
            self._ray.shutdown()


def slots(node: Any, kind: str) -> int:
    """Return how many devices Ray counts on a node: whole GPUs, or its CPUs as one."""
    return int(node["Resources"].get("GPU", 0)) if kind == GPU else int(node["Resources"].get("CPU", 0) >= 1)


def name_of(node: Any) -> str:
    """Return what messages call a node."""
    return f"{node['NodeManagerHostname']} (node {node['NodeID'][:8]})"


def kinds_of(keys: Collection[str], wanted: Sequence[str]) -> list[str]:
    """Return the keys that are wanted; of all, where nothing is, those of GPUs if there are any."""
    if not wanted:
        gpus = [key for key in keys if not key.startswith(f"{CPU}-")]
        return sorted(gpus or keys)
    return sorted(key for key in keys if any(is_kind(key, name) for name in wanted))


def is_kind(key: str, name: str) -> bool:
    """Whether words of an accelerator's key are those of a name: "h100" of nvidia-h100-80gb-hbm3-80gib."""
    return bool(slug(name)) and f"-{slug(name)}-" in f"-{key}-"


def differences(one: Facts, other: Facts) -> list[str]:
    """Return what makes results of two devices of a kind incomparable, each as 'what this / that'."""
    mine, theirs = one.accelerator.versions, other.accelerator.versions
    pairs = [(name, mine.get(name, "none"), theirs.get(name, "none")) for name in sorted({*mine, *theirs})]
    pairs.append(("Python", one.python, other.python))
    return [f"{name} {this} / {that}" for name, this, that in pairs if this != that]
