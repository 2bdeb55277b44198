"""Makes the pictures of the README from a real run: `make pictures`.

A suite of two torchvision models is measured on this machine, CPU or GPU, over some commits of which one makes a model
slower; then its table and its HTML report are drawn. Needs Chromium.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).resolve().parent.parent
PICTURES = ROOT / "docs" / "pictures"
SUITE = """
from functools import partial

import torch
import torchvision
import trtgate

LAYERS = {layers}


def make(name, batch):
    torch.manual_seed(0)
    model = getattr(torchvision.models, name)(weights=None).eval()
    if name == "resnet18":
        more = [torch.nn.Conv2d(512, 512, 3, padding=1) for _ in range(LAYERS)]
        model.layer4.append(torch.nn.Sequential(*more))
    return model, torch.randn(batch, 3, 224, 224)


CASES = trtgate.grid(frontends=["eager"], precisions=["fp32"], batches=[1, 4])
MODELS = [trtgate.Model(name, partial(make, name), CASES) for name in ("resnet18", "mobilenet_v3_large")]
"""
RUNS = 6
WIDTH = 100


def run(folder: Path, layers: int, *options: str) -> None:
    """Run the suite once with so many layers added to resnet18, as a commit of its own."""
    (folder / "suite.py").write_text(SUITE.format(layers=layers))
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "commit", "--quiet", "--allow-empty", "-am", f"{layers} layers"], cwd=folder, check=True)
    command = [sys.executable, "-m", "pytest", "-q", "-m", "trtgate_latency", "suite.py", *options]
    subprocess.run(command, cwd=folder, check=False, stdout=subprocess.DEVNULL)


def terminal(report_path: Path) -> None:
    """Draw what a terminal shows at the end of the run."""
    from trtgate.case_result import Row
    from trtgate.report import document, terminal

    report = document.read(report_path)
    rows = [
        Row(
            case_id=case.case_id, verdict=terminal.Verdict(case.said), latency_us=case.medians_us[case.primary],
            judgement=document.primary_judgement(case), others={},
        )
        for case in report.cases
    ]  # fmt: skip
    drawn = Console(record=True, width=WIDTH, file=open(os.devnull, "w"))  # noqa: SIM115
    drawn.print(Text("$ pytest benchmarks --benchmark-compare", style="bold"))
    drawn.print(
        Text(terminal.describe(report.accelerator)), Text.from_ansi(terminal.table(rows, width=WIDTH, color=True))
    )
    for case in report.cases:
        if case.outcome == document.FAILED:
            drawn.print(Text(f"{case.sentence}\n{case.advice}", style="red"))
    drawn.save_svg(str(PICTURES / "terminal.svg"), title="trtgate")


def page(report_path: Path) -> None:
    """Draw the HTML report as Chromium shows it."""
    from playwright.sync_api import sync_playwright

    from trtgate.report import document, html

    path = report_path.with_suffix(".html")
    path.write_text(html.render(document.read(report_path)))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        opened = browser.new_page(viewport={"width": 1100, "height": 900}, color_scheme="light")
        opened.goto(path.as_uri())
        opened.wait_for_selector(".scatterlayer .point")
        opened.screenshot(path=PICTURES / "report.png")
        browser.close()


def main() -> None:
    """Make both pictures."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "pytest.ini").write_text("[pytest]\ntrtgate_suite = suite.py\n")
        (folder / "suite.py").write_text("")
        subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
        subprocess.run(["git", "add", "."], cwd=folder, check=True)
        for _ in range(RUNS):
            run(folder, 1, "--trtgate-update-baselines")
        for _ in range(RUNS - 1):
            run(folder, 2, "--benchmark-compare")
        run(folder, 2, "--benchmark-compare", "--trtgate-report=report.json")
        PICTURES.mkdir(exist_ok=True)
        terminal(folder / "report.json")
        page(folder / "report.json")


if __name__ == "__main__":
    main()
