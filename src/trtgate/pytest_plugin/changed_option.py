"""`--trtgate-changed`: how a run leaves out the device latency of what did not change, and what goes with that."""

from __future__ import annotations

import random

import pytest

from ..common.errors import TrtgateError
from ..gate.run_options import CHANGED_DAYS, ChangedOnly


def read(config: pytest.Config, *, comparing: bool, beside_base: bool) -> ChangedOnly | None:
    """Return how it is done; None where it is not asked for. Raises TrtgateError for what contradicts it."""
    days, seed = config.getoption("trtgate_changed_days"), config.getoption("trtgate_changed_seed")
    if not config.getoption("trtgate_changed"):
        if days != CHANGED_DAYS or seed is not None:
            raise TrtgateError("--trtgate-changed-days and --trtgate-changed-seed go with --trtgate-changed: add it")
        return None
    if config.getoption("trtgate_update_baselines"):
        raise TrtgateError("--trtgate-changed leaves latencies out, and a recording needs all of them: drop one")
    if beside_base:
        raise TrtgateError("--trtgate-changed is about stored sessions, and a base has none: ask trtgate affected")
    if not comparing:
        raise TrtgateError("--trtgate-changed needs sessions to be the same as: add --benchmark-compare")
    if not 0 < days < float("inf"):
        raise TrtgateError(f"--trtgate-changed-days {days:g}: write a positive number of days")
    return ChangedOnly(days=days, seed=random.randrange(1 << 31) if seed is None else seed)
