"""A real Ray cluster of local nodes, for the tests of one file."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

STORE_BYTES = 80 << 20
DEADLINE_S = 240.0


class LocalCluster:
    """Nodes of one CPU each on this machine, under an environment that shows no GPU."""

    def __init__(self, folder: Path, nodes: int = 2) -> None:
        from ray.cluster_utils import Cluster

        self.variables = {
            "RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0", "CUDA_VISIBLE_DEVICES": "",
            "XDG_STATE_HOME": str(folder / "state"), "TRTGATE_CACHE_DIR": str(folder / "cache"),
            "TRTGATE_LOCK_DIR": str(folder), "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        with environment(self.variables):
            self._cluster = Cluster(initialize_head=True, head_node_args=_arguments(1))
        for _ in range(nodes - 1):
            self.add()

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    def add(self, *, cpus: int = 1, gpus: int = 0, **variables: str) -> Any:
        """Start one more node, and return it."""
        given = {**self.variables, **variables}
        if gpus:
            given.pop("CUDA_VISIBLE_DEVICES")
        with environment(given), _without("CUDA_VISIBLE_DEVICES" if gpus else ""):
            return self._cluster.add_node(**_arguments(cpus), num_gpus=gpus)

    def kill(self, node: Any, *, known: bool = True) -> None:
        """End a node as a power cut does, and wait until the cluster has `known` of it."""
        self._cluster.remove_node(node, allow_graceful=False)
        if known:
            self._cluster.wait_for_nodes(timeout=DEADLINE_S)

    def kill_head(self) -> None:
        """End the process that knows the cluster, as a power cut of its machine does."""
        self._cluster.head_node.kill_gcs_server(check_alive=False)

    def actors(self) -> list[int]:
        """Return the process ids of trtgate's actors on these nodes."""
        mine = f"TRTGATE_LOCK_DIR={self.variables['TRTGATE_LOCK_DIR']}".encode()
        found = []
        for path in Path("/proc").iterdir():
            try:
                if path.name.isdigit() and (path / "cmdline").read_bytes().startswith(b"ray::Card"):
                    found += [int(path.name)] if mine in (path / "environ").read_bytes().split(b"\0") else []
            except OSError:  # it has ended
                continue
        return found

    def nodes(self) -> list[Any]:
        return list(self._cluster.list_all_nodes())

    def close(self) -> None:
        for node in self.nodes():
            node.kill_all_processes(check_alive=False, allow_graceful=False)


def _arguments(cpus: int) -> dict[str, Any]:
    return {
        "num_cpus": cpus, "include_dashboard": False, "include_log_monitor": False, "object_store_memory": STORE_BYTES,
    }  # fmt: skip


@contextmanager
def environment(variables: dict[str, str]) -> Iterator[None]:
    """Within: this process, and what it starts, has these variables too."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


@contextmanager
def _without(name: str) -> Iterator[None]:
    before = os.environ.pop(name, None)
    try:
        yield
    finally:
        if before is not None:
            os.environ[name] = before


def wait_until(so: Any) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not so():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)
