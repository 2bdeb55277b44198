"""Draw the charts of docs/measured/ from the tables of its pages: `make charts`. Nothing is measured here.

A chart is an SVG of rows with marks (`chart.svg.jinja`). Its text is text. Each series has a shape beside its colour;
colours are close to those that Okabe and Ito chose for colour-blind readers. The chart has a ground of its own, light
or dark, so that it is readable on any page.
"""

from __future__ import annotations

import math
import re
import statistics
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader

sys.path.insert(0, str(Path(__file__).parent))
from chart_figures import Sweep, microseconds, sweeps, table

DOCS = Path(__file__).parent.parent / "docs"
PAGES, PICTURES = DOCS / "measured", DOCS / "pictures"
MOST_BYTES = 600_000
"""Of all pictures of the documents together."""

WIDTH, LEFT, RIGHT, TOP = 780, 270, 34, 64
LANE, PADDING = 5, 12
"""Pixels between marks of one row, and around them."""
SHAPES = (
    "M-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0-9 0z",
    "M-4-4h8v8h-8z",
    "M0-5.5L5 4h-10z",
    "M0-5.5L5 0L0 5.5L-5 0z",
    "M0 5.5L5-4h-10z",
    "M-5-2h3v-3h4v3h3v4h-3v3h-4v-3h-3z",
)


@dataclass(frozen=True)
class Mark:
    """One figure of a row."""

    series: int
    value: float
    half: float = 0.0
    """Half of its interval."""


@dataclass(frozen=True)
class Row:
    """A label with its marks; without marks a heading."""

    label: str
    marks: tuple[Mark, ...] = ()
    figure: str = ""
    """The figure in words, at the right; for rows of one mark."""


@dataclass(frozen=True)
class Chart:
    """What is drawn. `ticks` maps positions on the axis to what is written there; the first and last are its ends."""

    title: str
    rows: tuple[Row, ...]
    series: tuple[str, ...]
    ticks: dict[float, str]
    log: bool = False
    base: float | None = None
    """Where a line marks what the others are compared with."""


TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True,
    keep_trailing_newline=True,
)  # fmt: skip


def drawn(chart: Chart) -> str:
    """Return a chart as SVG. Raises ValueError where a mark lies off its axis."""
    named = any(row.figure for row in chart.rows)
    ends = min(chart.ticks), max(chart.ticks)
    right = WIDTH - (160 if named else RIGHT)

    def across(value: float) -> float:
        scale = math.log if chart.log else float
        share = (scale(value) - scale(ends[0])) / (scale(ends[1]) - scale(ends[0]))
        if not -1e-9 <= share <= 1 + 1e-9:
            raise ValueError(f"{chart.title}: {value} lies off the axis, {ends[0]} to {ends[1]}")
        return round(LEFT + share * (right - LEFT), 1)

    legend, top = _legend(chart.series) if len(chart.series) > 1 else ([], TOP - 24)
    rows, y = [], top + PADDING
    for row in chart.rows:
        lanes = len(chart.series) if len({mark.series for mark in row.marks}) > 1 else 1
        middle = y + lanes * LANE / 2
        marks = []
        for mark in row.marks:
            lane = middle + ((mark.series + 0.5) * LANE - lanes * LANE / 2 if lanes > 1 else 0)
            low, high = (across(min(max(mark.value + way * mark.half, ends[0]), ends[1])) for way in (-1, 1))
            marks.append((mark.series, across(mark.value), round(lane, 1), low, high))
        rows.append((row, round(middle, 1), marks))
        y += lanes * LANE + PADDING + 5
    return TEMPLATES.get_template("chart.svg.jinja").render(
        chart=chart, width=WIDTH, height=round(y + 26), left=LEFT, top=top, bottom=round(y), legend=legend, rows=rows,
        ticks=[(across(value), said) for value, said in chart.ticks.items()], shapes=SHAPES,
        base=None if chart.base is None else across(chart.base),
    )  # fmt: skip


def _legend(series: Iterable[str]) -> tuple[list[tuple[str, float, float]], float]:
    """Return where each name of a series stands, and where the rows begin below them."""
    x, y = 22.0, TOP - 16.0
    found: list[tuple[str, float, float]] = []
    for name in series:
        wide = 30 + 7.2 * len(name)
        if x + wide > WIDTH:
            x, y = 22.0, y + 20
        found.append((name, round(x, 1), y))
        x += wide
    return found, y + 14


# What is drawn


def page(name: str) -> str:
    """Return the text of a page."""
    return (PAGES / f"{name}.md").read_text(encoding="utf-8")


def percent(change: float, half: float) -> str:
    """Return a change with its interval as it is written: +12.43 % ± 0.31 %."""
    return f"{change * 100:+.2f} % ± {half * 100:.2f} %"


def duration(us: float) -> str:
    """Return a duration in microseconds as it is written."""
    return f"{us:.0f} µs" if us < 1000 else f"{us / 1000:.2f} ms"


def percents(*ticks: float) -> dict[float, str]:
    """Return ticks of changes."""
    return {tick: f"{tick * 100:+.3g} %" if tick else "0" for tick in ticks}


def of_frontends(heading: str, title: str, names: tuple[str, ...], ticks: tuple[float, ...]) -> Chart:
    """Return the latencies of frontends as multiples of dynamo's."""
    rows = []
    for row in table(page("frontends"), heading):
        base = microseconds(row["dynamo"])
        assert base is not None
        values = [(number, microseconds(row[name])) for number, name in enumerate(names)]
        rows.append(Row(row[heading], tuple(Mark(number, us / base) for number, us in values if us is not None)))
    rows = [row for row in rows if row.marks]
    return Chart(title, tuple(rows), names, {tick: f"{tick:g} x" for tick in ticks}, log=True, base=1.0)


FRONTENDS = ("torch_compile", "ts_trace", "ts_script", "inductor", "aot_eager", "eager")


def frontends_device() -> Chart:
    """Return what frontends take on the device."""
    title = "Device latency as a multiple of dynamo's, fp16, H100; lower is better"
    return of_frontends("device", title, FRONTENDS, (0.7, 1, 1.5, 2, 3, 5))


def frontends_host() -> Chart:
    """Return what frontends take on the host."""
    title = "Host latency as a multiple of dynamo's, fp16, H100; lower is better"
    return of_frontends("host", title, FRONTENDS, (0.5, 1, 2, 5, 10, 20))


def torchscript() -> Chart:
    """Return what TorchScript takes on the device, for models that it gets right."""
    title = "Device latency of TorchScript as a multiple of dynamo's, fp16, H100; lower is better"
    return of_frontends("device", title, ("ts_trace", "ts_script"), (0.9, 0.95, 1, 1.05, 1.1))


VERDICTS = ("same", "slower", "faster")


def changes(found: list[Sweep], title: str, ticks: dict[float, str], name: Callable[[str], str]) -> Chart:
    """Return the changes of sweeps against their defaults, with intervals."""
    rows = []
    for sweep in found:
        rows.append(Row(sweep.model))
        for point in sweep.points:
            if point.change is not None:
                mark = Mark(VERDICTS.index(point.verdict), point.change, point.half)
                rows.append(Row(name(point.name), (mark,), percent(point.change, point.half)))
    used = [
        verdict for number, verdict in enumerate(VERDICTS) if any(m.series == number for r in rows for m in r.marks)
    ]
    return Chart(title, tuple(rows), VERDICTS if len(used) > 1 else VERDICTS[:1], ticks, base=0.0)


def precisions() -> Chart:
    """Return device latencies by precision."""
    title = "Change of device latency against fp16, batch 8, H100; 98 % intervals"
    ticks = percents(-0.25, 0, 0.25, 0.5, 1, 1.5)
    return changes(sweeps(page("precisions")), title, ticks, lambda name: name.removeprefix("precision="))


def optimization_level() -> Chart:
    """Return device latencies by optimization level."""
    title = "Change of device latency against the default, by optimization_level, batch 8, H100; 98 % intervals"
    ticks = percents(-0.015, -0.01, -0.005, 0, 0.005, 0.01, 0.015)
    return changes(
        sweeps(page("optimization-level")), title, ticks, lambda name: name.replace("optimization_level=", "level ")
    )


def host_latencies(found: list[Sweep], title: str, ticks: tuple[float, ...], name: Callable[[str], str]) -> Chart:
    """Return the host latencies of sweeps."""
    rows = []
    for sweep in found:
        rows.append(Row(sweep.model))
        rows += [Row(name(one.name), (Mark(0, one.host_us),), duration(one.host_us)) for one in sweep.points]
    return Chart(title, tuple(rows), ("host",), {tick: f"{tick / 1000:g} ms" for tick in ticks})


def runtimes() -> Chart:
    """Return host latencies by runtime."""
    words = {"default": "default (C++)", "runtime=cpp": "C++", "runtime=python": "Python"}

    def name(point: str) -> str:
        runtime, graphs, _ = point.partition(" cudagraphs=on")
        return words[runtime] + (" with CUDA graphs" if graphs else "")

    title = "Host latency, fp16, batch 1, H100; lower is better"
    return host_latencies(sweeps(page("runtimes")), title, (0, 250, 500, 750, 1000, 1250), name)


def inductor_modes() -> Chart:
    """Return host latencies by mode of Inductor."""
    title = "Host latency with Inductor, fp16, batch 1, H100; lower is better"
    ticks = (0, 250, 500, 750, 1000, 1250)
    return host_latencies(sweeps(page("inductor-modes")), title, ticks, lambda name: name.removeprefix("mode="))


SIZES = ("size 1", "size 5, the default", "size 100", "recommended")


def size_of(point: str) -> int:
    """Return which of SIZES a point has; a number that is no other is a recommended one."""
    found = re.search(r"min_block_size=(\d+)", point)
    return {"1": 0, "5": 1, "100": 2}.get(found[1], 3) if found else 1


def min_block_size() -> Chart:
    """Return device latencies by min_block_size, of models with an operator in PyTorch and of whole ones."""
    found: dict[str, set[Mark]] = {}
    for sweep in (*sweeps(page("min-block-size")), *sweeps(page("cost-of-an-engine"))):
        for point in sweep.points:
            operator = re.search(r"torch_executed_ops=(\S+)", point.name)
            if point.change is not None:
                label = f"{sweep.model}, {operator[1] if operator else 'nothing'}"
                found.setdefault(label, set()).add(Mark(size_of(point.name), point.change))
    ordered = sorted(found, key=lambda label: ("nothing" not in label, label))
    rows = [Row(label, tuple(sorted(found[label], key=lambda mark: (mark.series, mark.value)))) for label in ordered]
    title = "Device latency against one engine, by what stays in PyTorch and min_block_size, batch 8, H100"
    return Chart(title, tuple(rows), SIZES, percents(-0.25, 0, 0.25, 0.5, 0.75, 1, 1.25, 1.5), base=0.0)


def cost_of_an_engine() -> Chart:
    """Return what each cut of a graph costs."""
    rows = []
    for row in table(page("cost-of-an-engine"), "model"):
        values = [microseconds(row["device"]), microseconds(row["host"])]
        marks = tuple(Mark(number, us) for number, us in enumerate(values) if us is not None)
        rows.append(Row(f"{row['model']}, {row['in PyTorch'].replace('`', '')}", marks))
    title = "What each cut of the graph costs, batch 8, H100; lower is better"
    ticks = {tick: f"{tick:g} µs" for tick in (10.0, 20.0, 50.0, 100.0, 200.0, 300.0)}
    return Chart(title, tuple(rows), ("device", "host"), ticks, log=True)


def cards() -> Chart:
    """Return how far each launch of a case lies from the median of all."""
    found = table(page("cards"), "µs")
    names = tuple(heading for heading in found[0] if heading != "µs")
    rows = []
    for row in found:
        values = [(number, float(us)) for number, name in enumerate(names) for us in re.findall(r"[\d.]+", row[name])]
        middle = statistics.median(us for _, us in values)
        rows.append(Row(row["µs"], tuple(Mark(number, us / middle - 1) for number, us in values)))
    title = "Device latency of each launch against the median of its case, H100s"
    return Chart(title, tuple(rows), names, percents(-0.08, -0.06, -0.04, -0.02, 0, 0.02, 0.04), base=0.0)


CHARTS: dict[str, Callable[[], Chart]] = {
    "frontends-device": frontends_device,
    "frontends-host": frontends_host,
    "precisions": precisions,
    "runtimes": runtimes,
    "inductor-modes": inductor_modes,
    "min-block-size": min_block_size,
    "cost-of-an-engine": cost_of_an_engine,
    "optimization-level": optimization_level,
    "torchscript": torchscript,
    "cards": cards,
}
"""File name in docs/pictures/, without .svg → what it shows."""


def main() -> None:
    """Draw all of them, and the pictures of the GPU's states."""
    import state_pictures

    for name, make in CHARTS.items():
        (PICTURES / f"{name}.svg").write_text(drawn(make()), encoding="utf-8")
    for name, draw in state_pictures.DRAWN.items():
        (PICTURES / f"{name}.svg").write_text(draw(), encoding="utf-8")
    size = sum(file.stat().st_size for file in PICTURES.iterdir())
    count, most = len(CHARTS) + len(state_pictures.DRAWN), MOST_BYTES / 1000
    print(f"docs/pictures: {count} charts drawn; {size / 1000:.0f} kB in all, at most {most:.0f} kB")


if __name__ == "__main__":
    main()
