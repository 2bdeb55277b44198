"""Options of a run on a Ray cluster, and what contradicts them."""

from __future__ import annotations

from typing import Any

import pytest

from ..common.errors import TrtgateError

WITHOUT = {
    "trtgate_gpus": "a cluster's devices are those of its nodes",
    "trtgate_shard": "a cluster takes the place of shards",
    "trtgate_confirm": "confirm on a machine with such an accelerator",
    "trtgate_build_only": "each node has an artifact cache of its own: run it there",
}
"""Options that a run on a cluster does not take, and why."""


def address(config: pytest.Config) -> str:
    """Return the address of the cluster that is asked for. Raises TrtgateError where none is named."""
    from ..fleet.ray_join import address_of

    return address_of(config.getoption("trtgate_ray"))


def several_kinds(config: pytest.Config) -> bool:
    """Whether a run is asked for on more than one kind of accelerator."""
    return config.getoption("trtgate_ray") is not None and len(config.getoption("trtgate_accelerators")) > 1


def read(config: pytest.Config, *, beside_base: bool, distributed: bool) -> dict[str, Any]:
    """Return what `Options` has of them. Raises TrtgateError for no address, and for what contradicts it."""
    get = config.getoption
    asked = get("trtgate_ray")
    if asked is None:
        if get("trtgate_accelerators"):
            raise TrtgateError("--trtgate-accelerators chooses among a cluster's: name it with --trtgate-ray")
        return {}
    for option, why in WITHOUT.items():
        if get(option):
            raise TrtgateError(f"--trtgate-ray with --{option.replace('_', '-')}: {why}: drop one of them")
    if beside_base:
        raise TrtgateError("--trtgate-ray is about stored baselines, a base is measured on one card: drop one of them")
    if distributed:
        raise TrtgateError("--trtgate-ray drives all nodes from one process: drop -n")
    return {"ray": address(config), "accelerators": get("trtgate_accelerators")}
