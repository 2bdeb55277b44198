"""The tables of `studies/states.py`: pure functions from what was measured to lines, one a section; so it is long."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from gpu_process import PROBE, PROBE_NODES
from scipy import stats

from trtgate.common.text_columns import TextTable

Rows = list[dict[str, Any]]
WITHIN = 0.0005
"""A replay is on its plateau when it stays within this share of it."""
SMOOTHED = 5
"""Blocks whose median is held against the plateau."""
TRIMMED = 0.2
"""Share of a launch's captures that is left out at either end, as in `trtgate.verdict.stored_sessions.launch_mean`."""


def print_all(document: dict[str, Any]) -> None:
    """Print the versions and the table of each section that was measured."""
    print("\n" + ", ".join(f"{name} {value}" for name, value in document["versions"].items()))
    for name, rows in document["sections"].items():
        print(f"\n## {name}" + ("" if rows else ": nothing was measured"))
        for line in TABLES[name](rows) if rows else ():
            print(line)


def mean(values: Sequence[float], unit: str = "", digits: int = 2) -> str:
    """Return a mean with the half width of its 95 % interval."""
    text = f"{statistics.fmean(values):.{digits}f}"
    if len(values) > 1:
        half = stats.t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
        text += f" ± {half:.{digits}f}"
    return text + unit


def deviation(values: Sequence[float]) -> str:
    """Return the standard deviation of logs in percent, with its 95 % interval."""
    if len(values) < 3:
        return "too few"
    df, sd = len(values) - 1, statistics.stdev(values)
    low, high = (math.sqrt(df / stats.chi2.ppf(q, df)) * sd for q in (0.975, 0.025))
    return f"{sd:.3%} ({low:.3%} to {high:.3%})"


def grouped(rows: Rows, *keys: str) -> Iterator[tuple[tuple[Any, ...], Rows]]:
    """Yield rows that agree in these keys, in the order in which they were first seen."""
    groups: dict[tuple[Any, ...], Rows] = {}
    for row in rows:
        groups.setdefault(tuple(row.get(key) for key in keys), []).append(row)
    yield from groups.items()


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yield lines with aligned columns."""
    yield from TextTable([heads, *rows], left=range(len(heads))).lines()


def streams(rows: Rows) -> Iterator[str]:
    """What another stream's work does to the probe, and per kernel."""
    groups = grouped(sorted(rows, key=_stream_order), "connections", "stream", "touch", "count")
    yield from table(
        ["connections", "replay on", "another stream", "before µs", "after µs", "ns a kernel"],
        (
            [str(connections or "default"), stream, f"{touch} {count or ''}", mean([row["before"] for row in group]),
             mean([row["after"] for row in group]),
             mean([(row["after"] - row["before"]) / PROBE_NODES * 1e3 for row in group], digits=1)]
            for (connections, stream, touch, count), group in groups
        ),
    )  # fmt: skip


def _stream_order(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["connections"] or 0, row["stream"], row["touch"] != "nothing", row["touch"], row["count"]


def others(rows: Rows) -> Iterator[str]:
    """What another process does to graphs that another stream had made slow."""
    names = [name for name in rows[0] if name not in ("condition", "before", "after")]
    yield from table(
        ["another process", *(f"{name} µs" for name in names)],
        (
            [condition, *(mean([row[name] for row in group]) for name in names)]
            for (condition,), group in grouped(rows, "condition")
        ),
    )


def nodes(rows: Rows) -> Iterator[str]:
    """Each graph in both states, its cost a node, and the constant part of it."""
    names = [name for name in rows[0] if name not in ("state", "before", "after")]
    by = dict(grouped(rows, "state"))
    fast, slow = by["switched",], by["touched",]
    lines = []
    for name in names:
        kind, size, count = name.split()
        differences = [(b[name] - a[name]) / int(count) * 1e3 for a, b in zip(fast, slow, strict=True)]
        lines.append(
            [f"{count} x {kind} {size}", mean([row[name] for row in fast]), mean([row[name] for row in slow]),
             mean(differences, digits=1)]
        )  # fmt: skip
    yield from table(["graph", "switched µs", "touched µs", "ns more a node"], lines)
    for state, group in (("switched", fast), ("touched", slow)):
        fits = [_launch_cost(row, [name for name in names if name.startswith("spin")]) for row in group]
        constant, node, per_us = zip(*fits, strict=True)
        yield (
            f"{state}: a graph of spin kernels takes {mean(constant)} µs + nodes x ({mean(node, digits=4)} µs + "
            f"{mean(per_us, digits=5)} x its kernels' nominal time)"
        )


def _launch_cost(row: dict[str, Any], names: list[str]) -> tuple[float, float, float]:
    """Return the constant of a graph, of a node, and the factor of a kernel's nominal length (least squares)."""
    design, seen = [], []
    for name in names:
        _, us, count = name.split()
        design.append([1 / row[name], int(count) / row[name], int(count) * float(us) / row[name]])
        seen.append(1.0)
    (constant, node, per_us), *_ = np.linalg.lstsq(np.array(design), np.array(seen), rcond=None)
    return float(constant), float(node), float(per_us)


ONSET_MS = (0, 10, 20, 30, 40, 60, 100, 150)


def decay(rows: Rows) -> Iterator[str]:
    """Whether a state is still there after the GPU was left alone, and after it was used."""
    waited = sorted((row for row in rows if "idle_s" in row), key=lambda row: (row["state"], row["idle_s"]))
    yield from table(
        ["state", "idle s", "repeats", "before µs", "first 4 ms after µs"],
        (
            [state, f"{idle:g}", str(len(group)), mean([row["before"] for row in group]),
             mean([row["after"] for row in group])]
            for (state, idle), group in grouped(waited, "state", "idle_s")
        ),
    )  # fmt: skip
    for (state, settled_s), group in grouped([row for row in rows if "onset" in row], "state", "settled_s"):
        middle = [statistics.median(us for _, us, _ in row["onset"]) for row in group]
        yield f"{state} {settled_s:g} s after a context switch, the 150 ms that follow: {mean(middle)} µs (median)"
        for begin, end in itertools.pairwise(ONSET_MS):
            read = [us for row in group for t, us, _ in row["onset"] if begin <= t * 1e3 < end]
            yield f"    {begin:3} to {end:3} ms  {statistics.fmean(read):8.2f} µs"
    for row in rows:
        if "used" in row:
            us = [us for _, us, _ in row["used"]]
            tenth = max(1, len(us) // 10)
            yield (
                f"{row['state']}, in use for {row['used'][-1][0]:.0f} s: {statistics.median(us[:tenth]):.2f} µs first, "
                f"{statistics.median(us[-tenth:]):.2f} µs last, between {min(us):.2f} and {max(us):.2f}"
            )


def time_to_plateau(blocks: Sequence[tuple[float, float, float]]) -> tuple[float, float]:
    """Return the seconds until a replay stays on its plateau, and how much its first block lay above it."""
    us = [us for _, us, _ in blocks]
    plateau = statistics.median(us[len(us) * 7 // 10 :])
    smooth = [statistics.median(us[at : at + SMOOTHED]) for at in range(len(us) - SMOOTHED + 1)]
    outside = [at for at, value in enumerate(smooth) if abs(value / plateau - 1) > WITHIN]
    reached = blocks[outside[-1] + 1][0] if outside else 0.0
    return reached, us[0] / plateau - 1


def warmup(rows: Rows) -> Iterator[str]:
    """How long to the plateau, by what came before."""
    lines = []
    for (graph, before, amount), group in grouped(rows, "graph", "before", "amount"):
        reached, above = zip(*(time_to_plateau(row["blocks"]) for row in group), strict=True)
        lines.append(
            [graph, f"{before} {amount:g} s", str(len(group)), mean([value * 1e3 for value in reached], digits=0),
             f"{max(reached) * 1e3:.0f}", mean([value * 100 for value in above])]
        )  # fmt: skip
    yield from table(
        ["graph", "before it", "repeats", f"ms to within {WITHIN:.2%}", "most ms", "first block % above"], lines
    )


def engines(rows: Rows) -> Iterator[str]:
    """Both states of engines with and without auxiliary streams; what loading beside does."""
    shapes = {row["case"]: row["shape"] for row in rows if "shape" in row}
    lines = []
    for (case,), group in grouped([row for row in rows if "state" in row], "case"):
        read = {
            state: [statistics.fmean(row[f"capture {n}"] for n in range(4)) for row in group if row["state"] == state]
            for state in ("switched", "touched")
        }
        more = [b - a for a, b in zip(read["switched"], read["touched"], strict=True)]
        shape = shapes[case]
        nodes_ = shape["kernels"] + shape["others"]
        lines.append(
            [case, f"{shape['kernels']} + {shape['others']}, {shape['edges']} edges", mean(read["switched"]),
             mean(read["touched"]), mean([value / nodes_ * 1e3 for value in more], digits=0)]
        )  # fmt: skip
    yield from table(["engine", "kernels + other nodes", "switched µs", "touched µs", "ns more a node"], lines)
    lines = []
    for (where,), group in grouped([row for row in rows if "loading" in row], "loading"):
        quiet = [statistics.median(us for _, us, busy in row["blocks"] if not busy) for row in group]
        busy = [[us for _, us, busy in row["blocks"] if busy] for row in group]
        lines.append(
            [where, mean(quiet), mean([statistics.median(us) for us in busy]), mean([max(us) for us in busy]),
             mean([statistics.median(us for _, us, _ in row["blocks"][-20:]) for row in group])]
        )  # fmt: skip
    yield from table(
        ["an engine is loaded in", "quiet µs", "meanwhile µs (median)", "meanwhile µs (most)", "afterwards µs"], lines
    )


def launch_mean(values: Sequence[float]) -> float:
    """Return a launch's trimmed mean of logs."""
    return float(stats.trim_mean(np.log(values), TRIMMED))


def of_captures(row: dict[str, Any]) -> list[float]:
    """Return the median of each capture's blocks on the plateau."""
    return [
        statistics.median(one["us"] for one in group)
        for _, group in grouped(sorted(row["plateau"], key=lambda one: one["capture"]), "capture")
    ]


SLOW_PROBE = 1.08
"""How far above its least reading the probe lies in the slow state, at least; 18 % were seen, 3 % within a state."""
DISTURBED = 0.01
"""A block this far from its process's median tells nothing of how latency follows the clock."""


class Clock(NamedTuple):
    """A way to measure a launch: which processes it was used in, and what it gives of a row."""

    name: str
    streams: str
    read: Callable[[dict[str, Any]], list[float]]


CLOCKS = (
    Clock("today's clock", "many", lambda row: row["today"]),
    Clock("plateau, another stream touched", "many", of_captures),
    Clock("plateau, one stream for all", "one", of_captures),
)


def launches(rows: Rows) -> Iterator[str]:
    """How far processes lie apart by each clock, and what explains it: the state, then the SM clock."""
    least = min(one["before"] for row in rows for one in row["plateau"])
    for (case,), group in grouped(rows, "case"):
        yield f"\n{case}"
        lines = []
        for clock in CLOCKS:
            of_kind = [row for row in group if row["streams"] == clock.streams]
            logs = [[math.log(us) for us in clock.read(row)] for row in of_kind]
            means = [float(stats.trim_mean(one, TRIMMED)) for one in logs]
            within = math.sqrt(statistics.fmean(statistics.variance(one) for one in logs))
            us = [math.exp(value) for value in means]
            lines.append(
                [clock.name, str(len(us)), f"{statistics.median(us):.2f}", f"{min(us):.2f}", f"{max(us):.2f}",
                 deviation(means), f"{within:.3%}"]
            )  # fmt: skip
        heads = ["clock", "processes", "median µs", "least", "most", "sd between processes", "between captures"]
        yield from table(heads, lines)
        yield from _today(group)
        lines = []
        for clock in CLOCKS[1:]:
            of_kind = [row for row in group if row["streams"] == clock.streams]
            in_state = [row for row in of_kind if _is_slow(row, least) == (clock.streams == "many")]
            if len(in_state) > 2:
                lines.append([clock.name, f"{len(in_state)} of {len(of_kind)}", *_explained(in_state)])
        heads = ["of these", "in that state", "sd between them", "SM clock taken out", "blocks", "clock out", "slope"]
        yield from table(heads, lines)


def _is_slow(row: dict[str, Any], least: float) -> bool:
    return statistics.median(one["before"] for one in row["plateau"]) > SLOW_PROBE * least


def _today(rows: Rows) -> Iterator[str]:
    """Whether the level of a process is its own, whichever clock reads it; and the first capture of today's clock."""
    both = [(launch_mean(row["today"]), launch_mean(of_captures(row))) for row in rows if "today" in row]
    if len(both) < 3:
        return
    first = [math.log(row["today"][0]) - statistics.median(np.log(row["today"])) for row in rows if "today" in row]
    yield (
        f"today's clock and the plateau of the same processes: correlation {np.corrcoef(np.array(both).T)[0, 1]:.2f}; "
        f"the first capture of a launch against its median: {mean([100 * value for value in first])} %"
    )


def _explained(rows: Rows) -> list[str]:
    """Return how far processes of one state and their blocks lie apart, without and with the SM clock taken out.

    The slope of log latency on log clock is that within processes, where the clock moves and the load does not.
    """
    us = [np.log([one["us"] for one in row["plateau"]]) for row in rows]
    clock = [np.log([one["mhz"] for one in row["plateau"]]) for row in rows]
    kept = [np.abs(one - np.median(one)) < DISTURBED for one in us]
    us, clock = ([one[of] for one, of in zip(logs, kept, strict=True)] for logs in (us, clock))
    moved = [(a - a.mean(), b - b.mean()) for a, b in zip(us, clock, strict=True)]
    slope = float(sum((a * b).sum() for a, b in moved) / sum((b * b).sum() for _, b in moved))
    reference = statistics.fmean(float(one.mean()) for one in clock)
    taken_out = [a - slope * (b - reference) for a, b in zip(us, clock, strict=True)]
    between = [deviation([float(one.mean()) for one in logs]) for logs in (us, taken_out)]
    within = [math.sqrt(statistics.fmean(float(one.var(ddof=1)) for one in logs)) for logs in (us, taken_out)]
    return [*between, *(f"{one:.3%}" for one in within), f"{slope:.2f}"]


def loads(rows: Rows) -> Iterator[str]:
    """How far loads lie apart in each state, all of them and those of a process, and if the kernels differ or the gaps.

    A probe is compared with its own process's alone: those of two lie further apart than loads.
    """
    least = {
        process: min(one["before"] for row in of for one in row["plateau"])
        for (process,), of in grouped(rows, "process")
    }
    lines = []
    for (case,), group in grouped(rows, "case"):
        for streams in ("one", "many"):
            of_state = [row for row in group if _is_slow(row, least[row["process"]]) == (streams == "many")]
            if len(of_state) > 2:
                lines.append([case, streams, *_of_loads(of_state)])
    heads = ["engine", "streams", "loads", "sd between loads", "of a process", "between captures", "with the kernels"]
    yield from table(heads, lines)


def _of_loads(rows: Rows) -> list[str]:
    """Return how many loads there are, how far they lie apart, and if their kernels' own time says it."""
    levels = [launch_mean(of_captures(row)) for row in rows]
    by_process = [[launch_mean(of_captures(row)) for row in of] for _, of in grouped(rows, "process")]
    squares = sum(statistics.variance(one) * (len(one) - 1) for one in by_process if len(one) > 1)
    freedom = sum(len(one) - 1 for one in by_process)
    within = f"{math.sqrt(squares / freedom):.3%} ({freedom} d.o.f.)" if freedom else ""
    captures = math.sqrt(statistics.fmean(statistics.variance(np.log(of_captures(row))) for row in rows))
    kernels = [math.log(sum(row["kernels"]["us"])) for row in rows if "kernels" in row]
    together = f"{np.corrcoef(levels, kernels)[0, 1]:.2f}" if len(kernels) == len(rows) else ""
    return [str(len(rows)), deviation(levels), within, f"{captures:.3%}", together]


def weights(rows: Rows) -> Iterator[str]:
    """How far processes lie apart, and readings of one whose weights stay or are copied (root mean squares)."""
    lines = []
    for (case,), group in grouped(rows, "case"):
        levels = [
            statistics.fmean(math.log(row["us"]) for row in of if row["placed"] == "as before")
            for _, of in grouped(group, "process")
        ]
        within = []
        for placed in ("as before", "anew"):
            readings = [
                [math.log(row["us"]) for row in of if row["placed"] == placed] for _, of in grouped(group, "process")
            ]
            squares = [statistics.variance(one) for one in readings if len(one) > 1]
            within.append(f"{math.sqrt(statistics.fmean(squares)):.3%}" if squares else "")
        lines.append([case, f"{math.exp(statistics.fmean(levels)):.2f}", deviation(levels), *within])
    heads = ["case", "µs", "between processes", "within one, weights as before", "within one, copied"]
    yield from table(heads, lines)


SINCE_SWITCH_MS = (0, 5, 10, 20, 40, 70, 100)


def pairs(rows: Rows) -> Iterator[str]:
    """A model's latency since the partner's turn ended, by partner."""
    lines = []
    by = dict(grouped([row for row in rows if "blocks" in row], "partner"))
    for begin, end in itertools.pairwise(SINCE_SWITCH_MS):
        read = {
            partner: [
                statistics.fmean(us for t, us, _ in row["blocks"] if begin <= t * 1e3 < end)
                for row in group
                if any(begin <= t * 1e3 < end for t, _, _ in row["blocks"])
            ]
            for (partner,), group in by.items()
        }
        lines += _beside_partners(f"{begin} to {end} ms", read)
    yield from table(["since the partner's turn", "beside itself µs", "beside matmul µs", "difference"], lines)


def turns(rows: Rows) -> Iterator[str]:
    """A model's latency as turns of a pair read it; the interval of a difference by partner is Welch's.

    `vain` are turns whose warm-up waited to its end for the latency of before.
    """
    read = dict(grouped(rows, "partner", "after"))
    lines = []
    for (partner, after), group in sorted(read.items()):
        logs = np.log([row["us"] for row in group])
        vain = str(sum(not row["steady"] for row in group))
        took = mean([row["seconds"] for row in group])
        lines.append(
            [partner, after, str(len(logs)), f"{math.exp(logs.mean()):.2f}", f"{logs.std(ddof=1):.3%}", took, vain]
        )
    yield from table(["beside", "after", "turns", "µs", "standard deviation", "s a turn", "vain"], lines)
    for after in ("the partner", "itself"):
        same, matmul = (np.log([row["us"] for row in read.get((one, after), ())]) for one in ("same", "matmul"))
        if min(len(same), len(matmul)) > 1:
            found = stats.ttest_ind(matmul, same, equal_var=False)
            low, high = (math.expm1(end) for end in found.confidence_interval(0.95))
            change = math.expm1(matmul.mean() - same.mean())
            yield f"after {after}, beside matrix products {change:+.3%} (95 % {low:+.3%} to {high:+.3%})"


def _beside_partners(when: str, read: dict[str, list[float]]) -> list[list[str]]:
    """Return a row of the latency beside either partner; none where the study ended before it had both."""
    same, matmul = read.get("same"), read.get("matmul")
    if not same or not matmul:
        return []
    return [[when, mean(same), mean(matmul), f"{statistics.fmean(matmul) / statistics.fmean(same) - 1:+.3%}"]]


def server(rows: Rows) -> Iterator[str]:
    """In which state calls leave the GPU."""
    yield from table(
        ["after a switch", f"{PROBE} µs", "a call queued without a graph µs"],
        (
            [doing, mean([row["probe"] for row in group]),
             mean([row["queued"] for row in group]) if "queued" in group[0] else ""]
            for (doing,), group in grouped(rows, "doing")
        ),
    )  # fmt: skip


TABLES: dict[str, Callable[[Rows], Iterator[str]]] = {
    one.__name__: one
    for one in (streams, others, nodes, decay, warmup, engines, launches, loads, weights, pairs, turns, server)
}
