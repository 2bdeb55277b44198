"""`trtgate doctor --ray`: what the nodes of a Ray cluster are, what each can run, and what differs between them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

import msgspec

from ..common.accelerator import GIB
from ..common.steps import OnStep
from ..common.text_columns import aligned
from ..common.version import VERSION
from ..fleet.ray_join import address_of
from ..fleet.ray_messages import Facts
from ..fleet.ray_nodes import GPU, Nodes, differences


class ClusterReport(msgspec.Struct, frozen=True, kw_only=True):
    """All devices of a cluster, and what follows from them."""

    address: str
    devices: list[Facts]
    gpus_of_ray: dict[str, int]
    """Node → how many GPUs Ray counts there."""
    problems: list[str]
    notes: list[str]


def examine(asked: str, step: OnStep) -> ClusterReport:
    """Ask all nodes of a cluster. Raises TrtgateError where it can't be joined."""
    address = address_of(asked)
    step(f"joining {address}")
    nodes = Nodes(address, None)
    try:
        step(f"asking {len(nodes.nodes)} nodes")
        found = sorted(nodes.facts(), key=lambda one: (one.accelerator.key, one.host, one.node, one.accelerator.uuid))
        counted = {node["NodeID"]: int(node["Resources"].get("GPU", 0)) for node in nodes.nodes}
        problems = [*nodes.problems, *problems_of(found, counted)]
        return ClusterReport(
            address=address, devices=found, gpus_of_ray=counted, problems=problems, notes=list(_notes(found))
        )
    finally:
        nodes.close()


def problems_of(found: Sequence[Facts], gpus_of_ray: dict[str, int]) -> list[str]:
    """Return what makes results of these devices incomparable, or keeps them from being used."""
    said: list[str] = []
    for key, of_kind in groupby(found, key=lambda one: one.accelerator.key):
        first, *others = of_kind
        said += [
            f"{key}: {first.name} and {other.name} differ, and are not measured in one run: {', '.join(differing)}"
            for other in others
            if (differing := differences(first, other))
        ]
    for node, counted in gpus_of_ray.items():
        mine = [one for one in found if one.node == node]
        seen = sum(one.accelerator.kind == GPU for one in mine)
        if mine and seen != counted:
            said.append(f"{mine[0].host} (node {node[:8]}): Ray counts {counted} GPUs, and NVML sees {seen}")
    return said


def _notes(found: Sequence[Facts]) -> Iterator[str]:
    for one in found:
        if one.nice > 0:
            yield (
                f"{one.name}: its processes run at niceness {one.nice} and get less of the CPU than others: start Ray "
                "there with RAY_worker_niceness=0"
            )
        if one.processes:
            yield f"{one.name}: other processes compute on it: {', '.join(one.processes)}"
        if one.trtgate not in ("", VERSION):
            yield f"{one.name}: trtgate {one.trtgate} is installed there, and not used: a run sends its own, {VERSION}"


def lines(report: ClusterReport) -> list[str]:
    """Return the report as text: a row a device, what differs, what each can run."""
    head = ("node", "host", "device", "driver", "torch", "torch_tensorrt", "Python", "key")
    rows = [head, *(_row(one) for one in report.devices)]
    said = [f"Ray cluster at {report.address}", *aligned(rows, left=range(len(head))), ""]
    for where, runs in _what_runs(report.devices).items():
        said.append(f"{where} runs {runs}")
    said += [f"note: {note}" for note in report.notes]
    if not report.problems:
        return [*said, "", "Nothing is broken, and devices of a kind are alike."]
    return [*said, "", *(f"BROKEN: {problem}" for problem in report.problems)]


def _row(one: Facts) -> tuple[str, ...]:
    here, versions = one.accelerator, one.accelerator.versions
    memory = f" {here.memory_bytes / GIB:.0f} GiB" if here.memory_bytes else f" {here.cpus} CPUs"
    flavours = ("torch-tensorrt-rtx", "torch-tensorrt")
    tensorrt = next((f"{versions[name]} ({name})" for name in flavours if name in versions), "none")
    cells = (f"{here.name}{memory} {here.uuid}".strip(), here.driver, versions.get("torch", ""), tensorrt, one.python)
    return (one.node[:8], one.host, *(cell or "none" for cell in cells), here.key)


def _what_runs(found: Sequence[Facts]) -> dict[str, str]:
    """Return which devices run what, those together that run the same."""
    of_what: dict[str, list[str]] = {}
    for one in found:
        lacking: dict[str, list[str]] = {}
        for name, why in one.frontends.items():
            lacking.setdefault(why, []).append(name)
        runs = ", ".join(lacking.pop("", ["nothing"]))
        others = [f"not {', '.join(names)}: {why}" for why, names in lacking.items()]
        of_what.setdefault("; ".join([runs, *others]), []).append(one.node[:8])
    return {" ".join(dict.fromkeys(nodes)): runs for runs, nodes in of_what.items()}
