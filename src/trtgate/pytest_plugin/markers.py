"""The marker that gives one test its own limits: `@pytest.mark.trtgate_limit(device="0.5%")`."""

from __future__ import annotations

import msgspec
import pytest

from ..common.errors import TrtgateError
from ..common.limits import checked
from ..suite.cases import Case

LIMIT = "trtgate_limit"


def marker_limits(item: pytest.Item) -> dict[str, float]:
    """Return metric → fraction of a test's markers; of two that name a metric, the nearer to the test wins.

    Raises TrtgateError, naming the test, for an unknown metric, a value that is no limit, and limits without a name.
    """
    found: dict[str, float] = {}
    for marker in item.iter_markers(LIMIT):  # the nearest first
        where = f"{item.nodeid}: marker {LIMIT}"
        if marker.args or not marker.kwargs:
            raise TrtgateError(f'{where} takes limits by name: {LIMIT}(device="0.5%", host=0.2)')
        found = checked(marker.kwargs, where) | found
    return found


def held_to(limits: dict[str, float], case: Case) -> Case:
    """Return the case with a test's own limits, which win over the suite's."""
    settings = msgspec.structs.replace(case.settings, limits=case.settings.limits | limits)
    return msgspec.structs.replace(case, settings=settings)
