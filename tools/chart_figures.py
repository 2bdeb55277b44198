"""Reads figures from the tables of docs/measured/: Markdown tables, and what `trtgate sweep` printed."""

from __future__ import annotations

import re
from dataclasses import dataclass

MICROSECONDS = {"µs": 1.0, "ms": 1e3, "s": 1e6}
DURATION = re.compile(r"(\d+(?:\.\d+)?) (µs|ms|s)\b")
POINT = re.compile(
    r"^  (?P<name>\S.*?) {2,}(?P<device>[\d.]+ (?:µs|ms))(?P<queued> \*)?"
    r"(?: +(?P<change>[+-][\d.]+)% ± (?P<half>[\d.]+)% +(?P<verdict>same|slower|faster))?"
    r" +(?P<host>[\d.]+ (?:µs|ms))"
)
CASE = re.compile(r"^(?P<model>\S+), against (?P<default>\S+)$")


@dataclass(frozen=True)
class Point:
    """A row of a sweep."""

    name: str
    device_us: float
    host_us: float
    change: float | None
    """Of the device latency against the default, as a fraction; None for the default itself."""
    half: float
    """Half of its interval, as a fraction."""
    verdict: str
    """same, slower or faster; empty for the default."""
    queued: bool
    """Whether its device latency is one of queued calls, which compares with no other."""


@dataclass(frozen=True)
class Sweep:
    """One table that `trtgate sweep` printed."""

    model: str
    points: tuple[Point, ...]


def microseconds(cell: str) -> float | None:
    """Return the first duration of a cell in microseconds; None where it has none."""
    found = DURATION.search(cell)
    return float(found[1]) * MICROSECONDS[found[2]] if found else None


def table(text: str, first: str) -> list[dict[str, str]]:
    """Return the rows of the Markdown table whose first heading is `first`, as heading → cell.

    Raises ValueError where the text has no such table, or several.
    """
    blocks = re.findall(rf"^\| {re.escape(first)} \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", text, re.MULTILINE)
    headings = re.findall(rf"^\| {re.escape(first)} \|.*$", text, re.MULTILINE)
    if len(blocks) != 1:
        raise ValueError(f"{len(blocks)} tables begin with the heading {first!r}, not one")
    names = _cells(headings[0])
    return [dict(zip(names, _cells(line), strict=True)) for line in blocks[0].splitlines()]


def _cells(line: str) -> list[str]:
    return [cell.strip().strip("`") for cell in line.strip().strip("|").split("|")]


def sweeps(text: str) -> list[Sweep]:
    """Return all tables of sweeps in a page, in their order. Raises ValueError for a row that can't be read."""
    found: list[tuple[str, list[Point]]] = []
    for block in re.findall(r"^```\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            case = CASE.match(line)
            if case:
                found.append((case["model"], []))
            elif found and line.startswith("  ") and "  point " not in line and not _is_a_problem(line):
                found[-1][1].append(_point(line))
    return [Sweep(model, tuple(points)) for model, points in found]


def _is_a_problem(line: str) -> bool:
    """Whether a row says why there are no figures: `precision=fp8: …`."""
    return re.match(r"^  \S+: ", line) is not None


def _point(line: str) -> Point:
    row = POINT.match(line)
    if row is None:
        raise ValueError(f"not a row of a sweep: {line.strip()}")
    device_us, host_us = microseconds(row["device"]), microseconds(row["host"])
    assert device_us is not None
    assert host_us is not None
    change = float(row["change"]) / 100 if row["change"] else None
    half, verdict, queued = float(row["half"] or 0) / 100, row["verdict"] or "", row["queued"] is not None
    return Point(row["name"], device_us, host_us, change, half, verdict, queued)
