"""How long does an HTML report take to be made, how large is it, and how long does a browser need?

    python studies/reports.py [--cases 500] [--runs 30] [--keep FILE]

Makes a run of many cases with made-up figures, each with a history of many runs with a step, and the report of it;
opens that in headless Chromium, where there is one, and sorts its table. Prints the machine and the versions.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from pathlib import Path

from trtgate.common.accelerator import detect
from trtgate.common.text_columns import TextTable
from trtgate.gate.history import Commit, HistoryPoint, analysed
from trtgate.profiles.profile_summary import LayerTime
from trtgate.report import html, markdown
from trtgate.report.run_report import CaseReport, CoverageReport, LayersReport, Matrix, RunReport
from trtgate.report.terminal_table import describe
from trtgate.verdict import Judgement, Verdict

METRICS = ("device", "host", "enqueue", "build", "engine_bytes", "gpu_memory")
SAID = ("unchanged",) * 12 + ("regressed", "improved", "underpowered", "new")


def made(cases: int, runs: int, seed: int = 0) -> RunReport:
    """Return a run of many cases."""
    rng = random.Random(seed)
    found = [_case(f"model_{number}-dynamo-fp16-b{number % 9}-mbs5", runs, rng) for number in range(cases)]
    names = [case.case_id for case in found]
    return RunReport(
        outcome="failed", exit_status=1, created="2026-01-01T00:00:00+00:00", seconds=1234.0, accelerator=detect(),
        against="baseline baselines/latency.json", command=["pytest", "benchmarks"],
        commit=Commit(id="0123456789abcdef0123456789abcdef01234567", branch="main"), cases=found,
        coverage=[
            CoverageReport(
                case_id=name, outcome="passed", said="unchanged", sentence=f"{name} is unchanged", in_tensorrt=97,
                total=100, engines=2, release="rtx-2.14.0",
            )
            for name in names[:100]
        ],
        profiles=[_layers(name, rng) for name in names[:50]],
        matrix=Matrix(
            releases=["rtx-2.11.0", "rtx-2.14.0"], shares={name: [rng.random(), rng.random()] for name in names[:100]}
        ),
    )  # fmt: skip


def _case(name: str, runs: int, rng: random.Random) -> CaseReport:
    said, middle = rng.choice(SAID), rng.uniform(50, 5000)
    change = {"regressed": 0.03, "improved": -0.03}.get(said, 0.0) + rng.gauss(0, 0.001)
    judgements = [
        Judgement(
            metric=metric, verdict=Verdict.UNCHANGED, now=middle * (1 + change), baseline=middle, change=change,
            low=change - 0.002, high=change + 0.002, limit=0.01, threshold=0.01, detectable=0.004,
            evidence="3 stored sessions",
        )
        for metric in METRICS
    ]  # fmt: skip
    points = [
        HistoryPoint(
            recorded=f"2026-01-{1 + run % 28:02}T00:00:00+00:00", run=f"{run}.json", commit=f"{run:040x}",
            branch="main", dirty=False, latency_us=middle * (1.0 if run < runs // 2 else 1.02) * rng.gauss(1, 0.001),
            verdict="unchanged",
        )
        for run in range(runs)
    ]  # fmt: skip
    return CaseReport(
        case_id=name, outcome="failed" if said == "regressed" else "passed", said=said, sentence=f"{name} is {said}",
        settings={"frontend": "dynamo", "precision": "fp16", "batch": 1}, primary="device",
        medians_us={"device": middle * (1 + change), "host": 2 * middle}, judgements=judgements,
        figures={"build_s": 10.0, "engine_bytes": 2e7, "engines": 1, "load_s": 1.0},
        captures_us=[[middle * (1 + change) * rng.gauss(1, 0.001) for _ in range(12)] for _ in range(3)],
        base_captures_us=[[middle * rng.gauss(1, 0.001) for _ in range(12)] for _ in range(5)],
        history=analysed("device", "cuda_graph", "GPU-1", points),
    )  # fmt: skip


def _layers(name: str, rng: random.Random) -> LayersReport:
    layers = [
        LayerTime(name=f"__myl_CorrMulAddRelu_myl0_{number}", modules=[f"layer{number}.conv"], us=us)
        for number, us in enumerate(sorted((rng.uniform(1, 50) for _ in range(30)), reverse=True))
    ]
    modules = {layer.modules[0]: layer.us for layer in layers}
    return LayersReport(
        case_id=name, outcome="passed", said="unchanged", sentence=f"{name}: the same layers", device_us=500.0,
        sum_us=700.0, attributed=0.98, layers=layers, modules=modules,
    )  # fmt: skip


def in_browser(path: Path) -> list[tuple[str, str]]:
    """Open the report and sort its table; returns seconds."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page = browser.new_page()
        start = time.perf_counter()
        page.goto(path.as_uri())
        opened = time.perf_counter() - start
        page.locator(".js-plotly-plot").first.wait_for()
        drawn = time.perf_counter() - start
        start = time.perf_counter()
        page.get_by_role("button", name="change %").click()
        page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        sorted_in = time.perf_counter() - start
        version = browser.version
        browser.close()
    return [
        (f"opened by Chromium {version}", f"{opened:.2f} s"),
        ("the first failed case's charts drawn", f"{drawn:.2f} s"),
        ("sorted", f"{sorted_in:.2f} s"),
    ]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=500)
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--keep", type=Path, help="keep the report here")
    options = parser.parse_args()
    print(describe(detect()))
    start = time.perf_counter()
    report = made(options.cases, options.runs)
    analysed_in = time.perf_counter() - start
    start = time.perf_counter()
    content = html.render(report)
    rows = [
        (f"{options.cases} cases, {options.runs} runs each: histories looked through", f"{analysed_in:.2f} s"),
        ("HTML made", f"{time.perf_counter() - start:.2f} s"),
        ("its size", f"{len(content.encode()) / 1e6:.1f} MB"),
        ("Markdown", f"{len(markdown.render(report)):,} characters"),
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = (options.keep or Path(folder) / "report.html").absolute()
        path.write_text(content)
        rows += in_browser(path)
    print(TextTable(rows))


if __name__ == "__main__":
    main()
