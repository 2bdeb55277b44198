"""Draw the three pictures of docs/gpu-states.md from recorded data: `make charts`. Nothing is measured here.

Recorded are the captures of one session of `baselines/`, read by a clock that did not set the state of the GPU, and
the blocks of `tests/data/h100_resnet18_blocks_in_time.json`. A turn is drawn from the plan that the gate measures by.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import charts

from trtgate.timing.plans import ON_GPU

ROOT = Path(__file__).parent.parent
BASELINE = ROOT / "baselines" / "nvidia-h100-80gb-hbm3-80gib" / "latency.json"
BLOCKS = ROOT / "tests" / "data" / "h100_resnet18_blocks_in_time.json"
WIDTH, LEFT, RIGHT, TOP = 780, 70, 756, 76
SESSION = "GPU-b48b9250"
"""The card of the session that shows the two states."""
MODELS = {
    "vit_b_16 fp32 batch 1": "vit_b_16-dynamo-fp32-b1-mbs5",
    "mobilenet_v3_large fp16 batch 8": "mobilenet_v3_large-dynamo-fp16-b8-mbs5",
}
SETTING_MS = 44
"""What setting the state takes (docs/gpu-states.md)."""
HOST = "host"
IN_A_TURN = "The captures come first, then the state is set. No other process uses the GPU."
IN_A_BLOCK = "The host queues all of it while the spin kernel runs, so no gap is the host's."
INTERLEAVED = (
    "Captures take turns in random order: a slow moment meets all alike. 18 recorded blocks, with their milliseconds:"
)

Points = list[tuple[float, float]]


def plot(
    title: str, series: dict[str, Points], *, x_ticks: dict[float, str], y_ticks: dict[float, str], x_title: str,
    notes: Iterable[tuple[str, float, float]] = (), height: int = 380, size: float = 7,
) -> str:  # fmt: skip
    """Return a picture of points. Raises ValueError where one lies off the axes."""
    bottom = height - 56

    def x_of(value: float) -> float:
        return round(LEFT + _share(value, x_ticks, title) * (RIGHT - LEFT), 1)

    def y_of(value: float) -> float:
        return round(bottom - _share(value, y_ticks, title) * (bottom - TOP), 1)

    legend, at = [], 22.0
    for name in series:
        legend.append((name, round(at, 1), 50))
        at += 34 + 7.2 * len(name)
    return charts.TEMPLATES.get_template("plot.svg.jinja").render(
        title=title, width=WIDTH, height=height, left=LEFT, right=RIGHT, top=TOP, bottom=bottom, legend=legend,
        shapes=charts.SHAPES[:1] * len(series), size=size, x_title=x_title,
        x_ticks=[(x_of(value), said) for value, said in x_ticks.items()],
        y_ticks=[(y_of(value), said) for value, said in y_ticks.items()],
        marks=[(number, [(x_of(x), y_of(y)) for x, y in points]) for number, points in enumerate(series.values())],
        notes=[(text, x_of(x), y_of(y)) for text, x, y in notes],
    )  # fmt: skip


def _share(value: float, ticks: dict[float, str], title: str) -> float:
    share = (value - min(ticks)) / (max(ticks) - min(ticks))
    if not 0 <= share <= 1:
        raise ValueError(f"{title}: {value} lies off the axis")
    return share


def two_states() -> str:
    """Return the captures of three launches in the order in which they were measured, against their median."""
    stored = {one["param"]: one["extra_info"]["trtgate"] for one in json.loads(BASELINE.read_text())["benchmarks"]}
    series = {}
    for model, (name, case_id) in enumerate(MODELS.items()):
        session = next(one for one in stored[case_id]["sessions"] if one["uuid"].startswith(SESSION))
        points = []
        for launch in session["metrics"]["device"]:
            middle = statistics.median(launch)
            points += [(number + 0.24 * model - 0.12, us / middle - 1) for number, us in enumerate(launch, 1)]
        series[name] = points
    return plot(
        "Two states: each capture of three launches, H100, device latency against the launch's median", series,
        x_ticks={0.5: "", 1: "1", 6: "6", 12: "12", 13: "", 18: "18", 24: "24", 24.5: ""},
        y_ticks={-0.08: "-8 %", -0.06: "-6 %", -0.04: "-4 %", -0.02: "-2 %", 0: "0", 0.02: "+2 %"},
        x_title="capture, in the order measured: a turn of 12, the turns of other processes, a turn of 12",
        notes=[
            ("one stream: right after another process's turn", 6.8, -0.067),
            ("many streams: every later capture", 6.5, 0.011),
        ],
    )  # fmt: skip


def plateaus() -> str:
    """Return all device blocks of five launches over time, each against the last rounds of its arm."""
    series = {}
    for number, blocks in enumerate(json.loads(BLOCKS.read_text())["launches"], 1):
        device = [block for block in blocks if block[1] != HOST]
        settled = {
            arm: statistics.median([us for _, name, us in device if name == arm][-10:])
            for arm in {name for _, name, _ in device}
        }
        series[f"launch {number}"] = [(ms, us / settled[arm] - 1) for ms, arm, us in device if ms <= 600]
    return plot(
        "Plateaus: each block of five launches against the last ten of its capture, resnet18, H100", series,
        x_ticks={ms: f"{ms}" for ms in range(0, 601, 100)},
        y_ticks={-0.005: "-0.5 %", 0: "0", 0.005: "+0.5 %", 0.01: "+1 %", 0.015: "+1.5 %"},
        x_title="milliseconds since the first block",
        notes=[("on a step: blocks agree, and are slow", 300, 0.0125), ("on the plateau", 300, -0.0035)], size=5,
    )  # fmt: skip


Box = tuple[str, str, float, float, int]


def a_turn() -> str:
    """Return how a turn goes: its parts to scale, as the plan has them, a block, and the order of recorded blocks."""
    plan = ON_GPU
    parts = [
        (f"{plan.captures} captures", "not to scale", 105.0, 5),
        ("set", f"{SETTING_MS} ms", float(SETTING_MS), 1),
        ("warm-up", f"{1e3 * plan.warmup_s:g} ms or more", 1e3 * plan.warmup_s, 5),
        ("blocks", f"{plan.captures} of {1e3 * plan.block_s:g} ms", 1e3 * plan.block_s * plan.captures, 0),
        ("host", f"{1e3 * plan.host_s:g} ms", 1e3 * plan.host_s, 2),
        ("single", f"{1e3 * plan.tail_s:g} ms", 1e3 * plan.tail_s, 3),
    ]
    block = [
        ("probe", "which state?", 90.0, 1), ("spin kernel", "the GPU waits", 150.0, 5), ("event", "", 60.0, 4),
        ("replays of one capture, back to back", f"{1e3 * plan.block_s:g} ms; their mean is a sample", 300.0, 0),
        ("event", "", 60.0, 4), ("probe", "still?", 80.0, 1),
    ]  # fmt: skip
    recorded = json.loads(BLOCKS.read_text())["launches"][0]
    arms = sorted({arm for _, arm, _ in recorded} - {HOST})
    order = [block for block in recorded if block[1] != HOST][:18]
    boxes = [(arm, f"{ms:g}", 1.0, arms.index(arm)) for ms, arm, _ in order]
    rows = [
        ("A turn of one process", IN_A_TURN, 56, parts),
        ("A block", IN_A_BLOCK, 162, block),
        ("Interleaved blocks", INTERLEAVED, 268, boxes),
    ]  # fmt: skip
    return charts.TEMPLATES.get_template("turn.svg.jinja").render(
        title="How a turn of measuring looks", width=WIDTH, height=362,
        rows=[(heading, said, y, _across(some)) for heading, said, y, some in rows],
    )  # fmt: skip


def _across(parts: Sequence[tuple[str, str, float, int]]) -> list[Box]:
    """Return boxes side by side over the whole width."""
    gap, whole = 4.0, sum(wide for _, _, wide, _ in parts)
    scale = (WIDTH - 32 - gap * (len(parts) - 1)) / whole
    boxes, x = [], 16.0
    for text, below, wide, series in parts:
        boxes.append((text, below, round(x, 1), round(wide * scale, 1), series))
        x += wide * scale + gap
    return boxes


DRAWN: dict[str, Callable[[], str]] = {
    "states-streams": two_states,
    "states-plateaus": plateaus,
    "states-turn": a_turn,
}
"""File name in docs/pictures/, without .svg → what draws it."""
