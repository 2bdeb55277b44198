"""Rows for github-action-benchmark, with its input `tool: customSmallerIsBetter`.

Its file is a JSON array of objects: `name`, `unit`, `value`, and `range` and `extra`, which may be missing
(README of benchmark-action/github-action-benchmark, "Custom benchmarks"; BenchmarkResult in its src/extract.ts). It
compares values of one name from commit to commit, so a name has all that must be the same: case, metric, accelerator.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from ..common.errors import TrtgateError
from ..common.escaping import plain
from .export_rows import ExportRow

IN_A_TABLE = str.maketrans("`|", "'¦")
"""The action writes names between backticks into a table of Markdown."""


def render(rows: Sequence[ExportRow]) -> str:
    """Return the file. Raises TrtgateError where two rows are the same metric of a case on one kind of accelerator."""
    named: dict[str, ExportRow] = {}
    for row in rows:
        name = _name(row)
        if name in named:
            raise TrtgateError(
                f"{row.case} is there twice on {row.accelerator}, and github-action-benchmark takes one value of each "
                "case and commit: export one run"
            )
        named[name] = row
    return json.dumps([_entry(name, row) for name, row in named.items()], indent=1) + "\n"


def _name(row: ExportRow) -> str:
    return plain(f"{row.case} {row.metric} ({row.accelerator})").translate(IN_A_TABLE)


def _entry(name: str, row: ExportRow) -> dict[str, str | float]:
    entry: dict[str, str | float] = {"name": name, "unit": row.unit, "value": row.value}
    width = _half_interval(row)
    if width:
        entry["range"] = f"± {width:.4g}"
    entry["extra"] = "\n".join(map(plain, _extra(row)))
    return entry


def _half_interval(row: ExportRow) -> float:
    """Return half the interval of the change in the row's unit; 0 where there is none.

    A baseline of 0 has changes in the unit itself.
    """
    if row.low is None or row.high is None or row.baseline is None:
        return 0.0
    in_units = row.unit == "bytes/call" or not row.baseline
    return (row.high - row.low) / 2 * (1.0 if in_units else row.baseline)


def _extra(row: ExportRow) -> list[str]:
    lines = [f"verdict: {row.verdict}"] * bool(row.verdict)
    if row.baseline is not None:
        lines.append(f"baseline: {row.baseline:.6g} {row.unit}")
    lines += [f"card: {row.card}"] * bool(row.card)
    return [*lines, *(f"{name}: {version}" for name, version in sorted(row.versions.items()))]
