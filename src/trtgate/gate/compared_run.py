"""A saved run that `--benchmark-compare=FILE` names: read as a baseline, without what no baseline would take of it."""

from __future__ import annotations

from pathlib import Path

import msgspec

from ..common.errors import TrtgateError, explaining
from ..common.explanations import Explanation, explained
from . import baselines
from .baselines import Run


@explaining(Explanation.NOTHING_COMPARED)
def read(path: Path) -> Run:
    """Read a saved run. A case whose blocks do not count is left out, and `unused` names it.

    Raises TrtgateError as `baselines.read_baseline`, and for a run that was measured beside a base.
    """
    found = baselines.read_baseline(path)
    base = next((record.base for record in found.cases.values() if record.base), "")
    if base:
        raise TrtgateError(
            f"{path} was measured beside the base {base}, in one launch: it has no session that a run could be "
            "compared with"
        )
    void = [case_id for case_id, record in found.cases.items() if record.disturbed]
    why = "is not compared: too many of its blocks do not count there"
    lines = [explained(f"{path}: case {case_id} {why}", Explanation.VOID_BLOCKS) for case_id in void]
    cases = {case_id: record for case_id, record in found.cases.items() if not record.disturbed}
    return msgspec.structs.replace(found, cases=cases, unused=(*found.unused, *lines))
