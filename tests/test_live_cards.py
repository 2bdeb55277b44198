"""The live table of a cluster's devices, on a terminal that a test reads."""

from __future__ import annotations

import io
import time
import types
from pathlib import Path
from typing import cast

from rich.console import Console

from trtgate.gate.card_jobs import CardState
from trtgate.gate.gpu_queue import GpuQueue
from trtgate.pytest_plugin import live_cards
from trtgate.report import card_table
from trtgate.report.card_table import CardRow, Progress


def shown(progress: Progress) -> str:
    file = io.StringIO()
    Console(file=file, width=120).print(card_table.table(progress))
    return file.getvalue()


def test_all_devices_are_in_one_table_with_their_cases_and_steps() -> None:
    rows = [
        CardRow(host="a1 0f3c", device="GPU-1", case_id="net-eager-fp32-b1", text="measuring", seconds=12.4, done=3),
        CardRow(host="a2 77aa", device="GPU-2"),
        CardRow(host="a3 9b2d", device="GPU-3", lost="its node died"),
    ]
    lines = shown(Progress("h100: 3 of 24 cases", rows)).splitlines()
    assert lines[0].strip() == "h100: 3 of 24 cases"
    assert [line.split() for line in lines[1:]] == [
        ["node", "device", "done", "case", "step"],
        ["a1", "0f3c", "GPU-1", "3", "net-eager-fp32-b1", "measuring", "…", "12", "s"],
        ["a2", "77aa", "GPU-2", "0", "waits"],
        ["a3", "9b2d", "GPU-3", "0", "lost:", "its", "node", "died"],
    ]


def test_of_very_many_devices_those_that_are_longest_at_their_step_are_shown() -> None:
    rows = [CardRow(host="a", device=f"GPU-{number}", text="building", seconds=float(number)) for number in range(64)]
    said = shown(Progress("t", rows))
    assert "GPU-63" in said
    assert "GPU-31" not in said
    assert "and 32 more" in said


def test_what_a_node_says_gives_a_terminal_no_orders() -> None:
    said = shown(Progress("t", [CardRow(host="a", device="b", case_id="x\x1b[31m[red]y[/red]", text="s")]))
    assert "\x1b" not in said
    assert "[red]y[/red]" in said


def test_the_table_is_drawn_and_taken_away() -> None:
    file = io.StringIO()
    progress = Progress("title", [CardRow(host="a", device="b", case_id="net", text="building")])
    with live_cards.live_table(file, lambda: [progress]):
        pass
    assert "building" in file.getvalue()
    assert file.getvalue().endswith("\x1b[2K")  # the last line of it is cleared


def test_a_run_of_one_kind_tells_the_run_that_started_it_how_far_it_is(tmp_path: Path) -> None:
    path = tmp_path / "progress.json"
    assert live_cards.read(path) is None
    progress = Progress("l4: 1 of 2 cases", [CardRow(host="a", device="b", done=1)])
    live_cards.write(path, progress)
    assert live_cards.read(path) == progress
    path.write_text("{")
    assert live_cards.read(path) is None


def test_a_device_that_builds_several_cases_shows_the_one_that_has_been_at_its_step_longest() -> None:
    now = time.monotonic()
    state = CardState("a", builders=2, steps={"net": ("building", now - 5), "wide": ("building", now - 9)}, done=4)
    idle = CardState("b", lost="a power cut")
    queue = cast("GpuQueue", types.SimpleNamespace(cards={"GPU-1": state, "GPU-2": idle}))
    one, other = live_cards.rows_of(queue, {"GPU-1": ("a", "GPU-1"), "GPU-2": ("b", "GPU-2")})
    assert (one.host, one.case_id, one.text, one.done) == ("a", "wide and 1 more", "building", 4)
    assert one.seconds >= 9
    assert (other.case_id, other.text, other.lost) == ("", "", "a power cut")
