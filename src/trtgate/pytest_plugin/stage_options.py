"""Options of a run that is a shard or a confirmation, and what contradicts them."""

from __future__ import annotations

from typing import Any

import pytest

from ..common.errors import TrtgateError
from ..fleet import shards
from . import kept_runs


def read(config: pytest.Config) -> dict[str, Any]:
    """Return what `Options` has of them."""
    return {
        "shard": _shard(config),
        "shard_by": config.getoption("trtgate_shard_by") or shards.CASE,
        "confirm": kept_runs.to_confirm(config),
    }


def _shard(config: pytest.Config) -> str:
    """Return which shard is asked for, as it is written without needless zeros."""
    asked = config.getoption("trtgate_shard")
    if asked is None:
        if config.getoption("trtgate_shard_by"):
            raise TrtgateError("--trtgate-shard-by says how --trtgate-shard divides: add that option")
        return ""
    return str(shards.parse(asked))


def check(config: pytest.Config, *, timing_off: str) -> None:
    """Raise TrtgateError for what a run that is judged elsewhere can't do."""
    get = config.getoption
    asked = [name for name in ("shard", "confirm") if get(f"trtgate_{name}") is not None]
    if not asked:
        return
    option = f"--trtgate-{asked[0]}"
    if len(asked) > 1:
        raise TrtgateError("--trtgate-shard measures first, --trtgate-confirm what a merge suspects: drop one of them")
    if timing_off:
        raise TrtgateError(f"{option} measures for a merge, and {timing_off}: drop one of the two")
    why = {
        "trtgate_update_baselines": "a merge judges first; trtgate baseline accept stores what it wrote",
        "trtgate_gpus": "let each card take a shard of its own",
    }  # fmt: skip
    for other, said in why.items():
        if get(other):
            raise TrtgateError(f"{option} with --{other.replace('_', '-')}: {said}")
    if get("trtgate_changed") and get("trtgate_changed_seed") is None:
        raise TrtgateError(f"{option} with --trtgate-changed: add --trtgate-changed-seed N, the same for all shards")
    if isinstance(get("benchmark_compare"), str) and get("benchmark_compare"):
        raise TrtgateError(
            f"{option} takes the baseline of this accelerator, which the merge reads too: write --benchmark-compare "
            "without a file"
        )
