"""A Ray cluster that a run drives: joined by its address, an actor on each device, Ray's own tasks for dry runs."""

from __future__ import annotations

import importlib.util
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from ..common.accelerator import slug
from ..common.errors import TrtgateError, one_line
from ..compiling import process_flags
from ..launches.relocated_imports import OURS
from ..records.coverage_record import Coverage
from . import ray_card
from .ray_messages import Facts, Open, Reply
from .ray_workers import CardHandle, why_lost

ADDRESS_VARIABLE = "RAY_ADDRESS"
JOIN_S, PROBE_S = 5.0, 20.0
"""How long a cluster may take to be reached, and to say that it is one."""
START_S = 120.0
"""How long its nodes may take to unpack the code and start an actor."""
PULSE_S = 1.0
GPU, CPU = "gpu", "cpu"
EXCLUDED = [
    ".git", ".venv", "venv", ".trtgate", ".env", ".env.*", "*.pem", ".netrc", "__pycache__", ".benchmarks",
    ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis",
]  # fmt: skip
"""What is not sent, beside what git ignores."""
PROBE = """
import sys
from ray._raylet import GcsClient
GcsClient(address=sys.argv[1]).internal_kv_keys(b"x", namespace=b"trtgate")
"""


def address_of(asked: str) -> str:
    """Return the address HOST:PORT that an option, or else the environment, names.

    Raises TrtgateError where none is named, or one that would start or find a cluster by itself.
    """
    address, where = asked or os.environ.get(ADDRESS_VARIABLE, ""), "--trtgate-ray" if asked else ADDRESS_VARIABLE
    if not address:
        raise TrtgateError(
            f"--trtgate-ray names no cluster: write --trtgate-ray=HOST:PORT as `ray start --head` prints it, or set "
            f"{ADDRESS_VARIABLE}"
        )
    if address.startswith("ray://"):
        raise TrtgateError(
            f"{where}={address}: Ray's client is not used: run pytest on a machine of the cluster (ray start "
            "--address=HOST:PORT --num-cpus=0 makes this one of it), and name HOST:PORT"
        )
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise TrtgateError(
            f"{where}={address}: write HOST:PORT as `ray start --head` prints it; no cluster is looked for, or started"
        )
    return address


class Cluster:
    """A cluster that this process has joined; `cards` are its devices.

    Parameters
    ----------
    address
        HOST:PORT.
    root
        The folder that is sent to the nodes.
    wanted
        Kinds of accelerators, by words of their keys, such as "h100"; empty for whichever there are: GPUs, and CPUs
        where there is none.

    Raises TrtgateError, on construction, for what is no cluster, of another Ray or Python, or has no device.

    """

    def __init__(self, address: str, root: Path, wanted: Sequence[str] = ()) -> None:
        self.address = address
        self._root = root
        self._ray = _imported()
        self._end = threading.Event()
        self.cards: list[CardHandle] = []
        self.problems: list[str] = []
        """What is wrong with devices that are left out."""
        self._join()
        try:
            self.nodes = [node for node in self._ray.nodes() if node["Alive"]]
            self._start_cards(wanted)
        except BaseException:
            self.close()
            raise
        self._thread = threading.Thread(target=self._pulse, daemon=True)
        self._thread.start()

    # Joining

    def _join(self) -> None:
        _probe(self.address)
        environment = process_flags.environment()
        runtime = {
            "working_dir": str(self._root), "py_modules": [str(OURS)], "excludes": EXCLUDED, "env_vars": environment,
        }  # fmt: skip
        try:
            with _unnamed():
                self._ray.init(
                    address=self.address, runtime_env=runtime, log_to_driver=False, logging_level=logging.ERROR,
                    configure_logging=False, include_dashboard=None,
                )  # fmt: skip
        except Exception as error:
            raise TrtgateError(f"the Ray cluster at {self.address} can't be joined: {_why(error)}") from error

    def _start_cards(self, wanted: Sequence[str]) -> None:
        """Put an actor on each device, and leave out what does not answer, or was not asked for."""
        slots = list(_slots(self.nodes, cpus_too=bool(wanted)))
        if not slots:
            raise TrtgateError(f"the Ray cluster at {self.address} has no node with a GPU or a CPU: ray status says it")
        made = []
        for node, kind in slots:
            actor = self._actor_on(node["NodeID"], kind)
            made.append((actor, actor.facts.remote(), node, kind))
        started = [one for actor, asked, node, kind in made for one in self._started(actor, asked, node, kind)]
        if not started:
            raise TrtgateError(
                f"no device of the Ray cluster at {self.address} can be used: {'; '.join(self.problems)}"
            )
        self.cards = _of_kinds(started, wanted, self.address)
        for one in started:
            if one not in self.cards:
                one.kill()
        _check_alike([one.facts for one in self.cards])

    def _actor_on(self, node: str, kind: str) -> Any:
        """Let Ray start an actor that holds a GPU of a node, or one of its CPUs."""
        ray = self._ray
        resources = {"num_gpus": 1, "num_cpus": 0} if kind == GPU else {"num_gpus": 0, "num_cpus": 1}
        strategy = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node, soft=False)
        made = ray.remote(ray_card.Card).options(
            **resources, max_concurrency=3, max_restarts=0, max_task_retries=0, scheduling_strategy=strategy
        )
        return made.remote(kind, node)

    def _started(self, actor: Any, asked: Any, node: Any, kind: str) -> Iterator[CardHandle]:
        where = f"{node['NodeManagerHostname']} ({kind}, node {node['NodeID'][:8]})"
        held = kind == GPU and not _free_gpus(self._ray, node["NodeID"])
        ready, _ = self._ray.wait([asked], timeout=JOIN_S if held else START_S)
        if not ready:
            self._ray.kill(actor)
            why = "another job of the cluster holds its GPU" if held else f"its actor did not start in {START_S:.0f} s"
            self.problems.append(f"{where}: {why}")
            return
        try:
            facts = msgspec.json.decode(self._ray.get(asked, timeout=JOIN_S), type=Facts)
        except Exception as error:
            self.problems.append(f"{where}: {why_lost(error)}")
            return
        if facts.problem or (facts.accelerator.kind != kind):
            self._ray.kill(actor)
            self.problems.append(f"{where}: {facts.problem or 'Ray says it has a GPU, and NVML sees none'}")
            return
        yield CardHandle(self._ray, actor, facts)

    def _pulse(self) -> None:
        while not self._end.wait(PULSE_S):
            for card in self.cards:
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
        task = ray.remote(ray_card.dry_run).options(num_cpus=1, max_retries=1)
        left = {task.remote(content, case_id): case_id for case_id in case_ids}
        heard = time.monotonic()
        while left:
            ready, _ = ray.wait(list(left), timeout=PULSE_S)
            for reference in ready:
                heard = time.monotonic()
                done(left.pop(reference), _coverage(ray, reference))
            if time.monotonic() - heard > silent_s:
                for reference, case_id in left.items():
                    ray.cancel(reference, force=True)
                    done(case_id, f"no node of the cluster answered within {silent_s:.0f} s")
                break
        for card in self.cards:
            if card.rests:
                card.wake(self._actor_on(card.facts.node, card.facts.accelerator.kind))

    def close(self) -> None:
        """End all actors, and leave the cluster."""
        self._end.set()
        for card in self.cards:
            card.kill()
        self.cards = []
        if self._ray.is_initialized():
            self._ray.shutdown()


def _coverage(ray: Any, reference: Any) -> Coverage | str:
    try:
        return msgspec.json.decode(
            msgspec.json.decode(ray.get(reference, timeout=JOIN_S), type=Reply).checked(), type=Coverage
        )
    except TrtgateError as error:
        return str(error)
    except Exception as error:
        return why_lost(error)


def _imported() -> Any:
    if importlib.util.find_spec("ray") is None:
        raise TrtgateError("--trtgate-ray needs Ray: pip install 'trtgate[ray]'")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray
    import ray.util.scheduling_strategies

    if ray.is_initialized():
        raise TrtgateError(
            "this process uses Ray already, and --trtgate-ray joins a cluster itself: leave out ray.init"
        )
    return ray


def _probe(address: str) -> None:
    """Raise TrtgateError where nobody, or no Ray, listens: Ray itself would try for minutes, and end this process."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=JOIN_S).close()
    except OSError as error:
        raise TrtgateError(
            f"there is no Ray cluster at {address}: {error.strerror or error}; `ray start --head` prints the address"
        ) from error
    try:
        done = subprocess.run([sys.executable, "-c", PROBE, address], timeout=PROBE_S, capture_output=True, text=True)
    except subprocess.TimeoutExpired as error:
        raise TrtgateError(f"what listens at {address} is no Ray cluster: it does not answer as one") from error
    if done.returncode:
        said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise TrtgateError(f"what listens at {address} is no Ray cluster of this Ray: {said[:200]}")


@contextmanager
def _unnamed() -> Iterator[None]:
    """Within: Ray does not tell the cluster this process's command line, which may hold secrets of URLs."""
    from ray._private import utils

    before = utils.get_entrypoint_name
    utils.get_entrypoint_name = lambda: "trtgate"
    try:
        yield
    finally:
        utils.get_entrypoint_name = before


def _why(error: Exception) -> str:
    """Return what Ray says in a line: its messages about versions have several."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if "Version mismatch" in str(error):
        return " ".join(lines)[:300]
    return one_line(error)


def _slots(nodes: Sequence[Any], *, cpus_too: bool) -> Iterator[tuple[Any, str]]:
    """Return the devices of nodes as Ray counts them: whole GPUs; where there is none, the CPUs of a node as one."""
    gpus = {node["NodeID"]: int(node["Resources"].get("GPU", 0)) for node in nodes}
    for node in nodes:
        for _ in range(gpus[node["NodeID"]]):
            yield node, GPU
    for node in nodes:
        has_cpu = node["Resources"].get("CPU", 0) >= 1 and not gpus[node["NodeID"]]
        if has_cpu and (cpus_too or not any(gpus.values())):
            yield node, CPU


def _free_gpus(ray: Any, node: str) -> float:
    """Return how many GPUs of a node no actor has, as far as Ray says."""
    found = ray._private.state.available_resources_per_node().get(node, {})
    return float(found.get("GPU", 0.0))


def _of_kinds(cards: Sequence[CardHandle], wanted: Sequence[str], address: str) -> list[CardHandle]:
    """Return the cards of one kind. Raises TrtgateError where there is none, or where there are several."""
    keys = sorted({one.facts.accelerator.key for one in cards})
    found = [one for one in cards if not wanted or any(is_kind(one.facts.accelerator.key, name) for name in wanted)]
    if not found:
        raise LackingError(f"the Ray cluster at {address} has no {' or '.join(wanted)}: it has {', '.join(keys)}")
    several = sorted({one.facts.accelerator.key for one in found})
    if len(several) > 1:
        raise TrtgateError(
            f"the Ray cluster at {address} has several kinds of accelerators ({', '.join(several)}), which have "
            "baselines of their own: name those that are to be measured with --trtgate-accelerators"
        )
    return found


class LackingError(TrtgateError):
    """The cluster has no accelerator of a kind."""


def is_kind(key: str, name: str) -> bool:
    """Whether words of an accelerator's key are those of a name: "h100" of nvidia-h100-80gb-hbm3-80gib."""
    return bool(slug(name)) and f"-{slug(name)}-" in f"-{key}-"


def _check_alike(facts: Sequence[Facts]) -> None:
    """Raise TrtgateError where cards of a kind have other versions: what they measure can't be judged together."""
    first = facts[0]
    for other in facts[1:]:
        differing = differences(first, other)
        if differing:
            raise TrtgateError(
                f"{first.name} and {other.name} differ ({', '.join(differing)}), so that their latencies can't be "
                "judged together: trtgate doctor --ray says what all nodes have"
            )


def differences(one: Facts, other: Facts) -> list[str]:
    """Return what makes results of two devices of a kind incomparable, each as 'what this / that'."""
    mine, theirs = one.accelerator.versions, other.accelerator.versions
    pairs = [(name, mine.get(name, "none"), theirs.get(name, "none")) for name in sorted({*mine, *theirs})]
    pairs.append(("Python", one.python, other.python))
    return [f"{name} {this} / {that}" for name, this, that in pairs if this != that]
