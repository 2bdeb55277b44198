"""What people read."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from trtgate import verdict
from trtgate.common.text_columns import Display
from trtgate.gate import sentences
from trtgate.report import terminal_table
from trtgate.report.case_row import CaseRow
from trtgate.report.progress_line import ProgressLine, how_far
from trtgate.verdict import Judgement, Verdict


def judgement(factor: float, metric: str = "device") -> Judgement:
    prior = verdict.PRIORS["device", True]
    return verdict.judge_stored(metric, np.log([100 * factor]), [np.log([100.0])], prior, limit=0.01, tests=10)


def row(case: str, factor: float) -> CaseRow:
    found = judgement(factor)
    return CaseRow(
        case_id=case, verdict=found.verdict, latency_us=100 * factor, judgement=found, others={"host": 300.0}
    )


def test_a_regression_is_one_sentence_with_all_that_matters() -> None:
    said = sentences.sentence("net-dynamo-fp16-b1-mbs5", Verdict.REGRESSED, [judgement(1.05)], "device")
    for part in ("net-dynamo-fp16-b1-mbs5", "device latency", "100 µs", "105 µs", "+5.00%", "limit 1 %"):
        assert part in said
    assert "\n" not in said


def counted(metric: str, places: str) -> Judgement:
    return msgspec.structs.replace(verdict.judge_exact(metric, 41, 34, limit=0.05), groups=places)


def test_a_case_that_is_slower_and_calls_more_is_slower_and_each_place_is_said_once() -> None:
    more = [counted("cuda_calls", "+7 cuLaunchKernel"), counted("kernel_launches", "+7 cuLaunchKernel")]
    said = sentences.sentence("net", Verdict.REGRESSED, [judgement(1.05), *more], "device")
    assert said.startswith("net is slower: device latency ")
    assert said.count("+7 cuLaunchKernel") == 1
    assert said.endswith("; kernel launches a call 34 → 41 (+20.59%), limit 5 % (+7 cuLaunchKernel)")
    apart = [counted("cuda_calls", "+7 cuLaunchKernel"), counted("memory_operations", "+1 cudaMemcpyAsync")]
    assert sentences.sentence("net", Verdict.REGRESSED, apart, "device").count(" (+") == 4
    assert sentences.sentence("net", Verdict.REGRESSED, apart, "device").startswith("net got worse: CUDA calls a call ")


def test_a_case_that_is_unchanged_is_so_in_a_sentence_about_its_latency() -> None:
    counts = [msgspec.structs.replace(counted("engines", ""), verdict=Verdict.UNCHANGED)]
    said = sentences.sentence("net", Verdict.UNCHANGED, [*counts, judgement(1.0)], "device")
    assert said.startswith("net is unchanged: device latency 100 µs → 100 µs")
    assert "engines" not in said


def test_underpowered_says_what_would_have_been_seen() -> None:
    found = verdict.judge_stored(
        "host", np.log([100.0]), [np.log([100.0])], verdict.PRIORS["cpu", True], limit=0.01, tests=1
    )
    said = sentences.sentence("net", Verdict.UNDERPOWERED, [found], "host")
    assert "only a change above" in said
    assert "1 stored session " in said


def test_one_line_sums_the_cases_up() -> None:
    rows = [row("a", 1.0), row("b", 1.2), row("c", 1.2)]
    assert terminal_table.counts(rows) == "3 cases: 2 regressed, 1 unchanged"
    assert terminal_table.counts(rows[:1]) == "1 case: 1 unchanged"


@pytest.mark.parametrize("us", [0.5, 42.0, 999.9, 1000.0, 2.5e6])
def test_durations_have_a_unit_and_five_digits(us: float) -> None:
    number, unit = sentences.duration(us).split()
    assert float(number.replace(",", "")) == pytest.approx(us / (1e3 if unit == "ms" else 1), rel=1e-4)


@pytest.mark.parametrize(
    ("number", "said"),
    [(0.0, "0"), (1e-5, "1e-05"), (0.0123456, "0.0123"), (171.0, "171"), (999.7, "1,000"), (4489.0, "4,489")],
)
def test_counts_and_limits_have_no_power_of_ten_above_a_thousand(number: float, said: str) -> None:
    assert sentences.value(number, "") == said
    assert sentences.percent(number / 100) == f"{said} %"


@pytest.mark.parametrize("width", [80, 120, 200])
def test_the_table_fits_the_terminal_and_puts_the_worst_first(width: int) -> None:
    rows = [
        row("a-model-of-average-name-dynamo-fp16-b1-mbs5", 1.0),
        row("slow-dynamo-fp16-b8-mbs5", 1.2),
        row("fast", 0.8),
    ]
    lines = terminal_table.table(rows).lines(Display(width=width))
    text = "\n".join(lines)
    assert max(map(len, lines)) <= width
    assert [word in text for word in ("regressed", "improved", "unchanged")] == [True] * 3
    assert text.index("slow-dynamo") < text.index("fast") < text.index("a-model-of")
    assert "\x1b" not in text


def test_a_live_line_is_overwritten_and_removed() -> None:
    written: list[str] = []
    progress = ProgressLine(lambda text: pytest.fail(f"a line of its own: {text}"), written.append)
    progress.step("case: export")
    progress.step("case: build")
    progress.done()
    assert written[-1] == ""


def test_short_steps_leave_no_line_where_there_is_no_terminal() -> None:
    written: list[str] = []
    progress = ProgressLine(written.append, None)
    progress.step("case: export")
    progress.done()
    assert written == []


@pytest.mark.parametrize(
    ("done", "to_do", "elapsed_s", "said"),
    [
        ([], [None] * 16, 12, "[1 of 16] "),
        ([], [5.0] * 16, 0.5, "[1 of 16, about 80 s left] "),
        ([None], [None] * 15, 20, "[2 of 16, about 5 min left] "),
        ([None] * 15, [None], 300, "[16 of 16, about 20 s left] "),
        ([None] * 16, [], 320, "[16 of 16, about 0 s left] "),
        ([2.0], [10.0, 10.0], 4, "[2 of 3, about 40 s left] "),  # twice as slow as when it was recorded
        ([2.0, 10.0], [None], 6, "[3 of 3, about 3 s left] "),  # as a typical one
    ],
)
def test_the_live_line_says_how_long_the_run_will_take_by_what_was_recorded(
    done: list[float | None], to_do: list[float | None], elapsed_s: float, said: str
) -> None:
    assert how_far(done, to_do, elapsed_s) == said


@pytest.mark.parametrize(
    ("width", "lost"), [(200, []), (95, ["host"]), (82, ["host", "baseline"]), (70, ["host", "baseline", "detects"])]
)
def test_a_narrow_terminal_loses_columns_before_it_folds_ids(width: int, lost: list[str]) -> None:
    lines = terminal_table.table([row("resnet18-dynamo-fp16-b1-mbs5", 1.2)]).lines(Display(width=width))
    text = "\n".join(lines)
    assert "resnet18-dynamo-fp16-b1-mbs5 " in text
    assert "regressed" in text
    assert max(map(len, lines)) <= width
    assert [name for name in ("host", "baseline", "detects") if name not in text] == lost


def test_hostile_case_ids_are_text_in_the_table() -> None:
    hostile = row("[red]a[/red]\x1b]0;title\x07\nb\u202e", 1.2)
    text = "\n".join(terminal_table.table([hostile]).lines(Display(width=200, color=True)))
    assert "[red]a[/red] ]0;title  b" in text
    assert "\u202e" not in text
    assert "\x1b]" not in text
