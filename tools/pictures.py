"""Make the documentation's two pictures from a real run on this machine's CPU, in about three minutes.

    make pictures

A suite of five small models is recorded SESSIONS times in a temporary folder. Then one of them gets slower, its softmax
in float64 instead of float32, and the suite is compared with what was recorded: `terminal.png` is what pytest writes,
`report.png` the upper part of the HTML report. Nothing is drawn by hand. Where the machine was too busy to find the one
slower model, to call no other slower and to prove most of them unchanged, no picture is written.
"""

from __future__ import annotations

import fcntl
import io
import os
import pty
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image  # torchvision asks for it
from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from trtgate.commands import report_files
from trtgate.common import git
from trtgate.report import run_report
from trtgate.verdict import Verdict

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PICTURES = Path(__file__).parent.parent / "docs" / "pictures"
MOST_BYTES = 300_000
SESSIONS = 9
"""From 8 on their own spread decides, not a prior."""
LAUNCHES = 2
COLUMNS = 118
REPORT_WIDTH = 1200
SCALE = 1.5
"""Pixels of a picture for each of a page."""

SLOWER = "attention-eager-fp32-b1"
LEAST_UNCHANGED = 3
"""Of the other four."""
COMMAND = ["pytest", "suite.py", "--benchmark-compare", "--benchmark-quiet", "--trtgate-report=run.json"]
BEGINS = "= FAILURES ="
"""The line from which on the terminal is shown; above it stand versions, folders and dots."""

INI = """\
[pytest]
trtgate_suite = suite.py
trtgate_limits = host=40%
"""

SUITE = """\
import os
import trtgate

SOFTMAX = "float64" if "SLOWER" in os.environ else "float32"

cpu = trtgate.model(frontends=("eager",), precisions=("fp32",))


def made(layers, *shape):
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    return torch.nn.Sequential(*layers()).eval(), torch.randn(shape)


@cpu
def attention(batch):
    import torch

    class Attention(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.qkv = torch.nn.Linear(64, 3 * 64)
            self.out = torch.nn.Linear(64, 64)

        def forward(self, x):
            q, k, v = self.qkv(x).unflatten(-1, (3, 4, 16)).permute(2, 0, 3, 1, 4)
            scores = q @ k.mT / 16**0.5
            shares = scores.softmax(-1, dtype=getattr(torch, SOFTMAX)).to(x.dtype)
            return x + self.out((shares @ v).transpose(1, 2).flatten(2))

    return made(lambda: [Attention() for _ in range(4)], batch, 128, 64)


@cpu
def autoencoder(batch):
    from torch.nn import Linear, ReLU

    sizes = (512, 128, 32, 128, 512)
    return made(lambda: [m for a, b in zip(sizes, sizes[1:]) for m in (Linear(a, b), ReLU())], batch, 256, 512)


@cpu
def convnet(batch):
    from torch.nn import Conv2d, ReLU

    sizes = (3, 16, 32, 64, 64)
    return made(
        lambda: [m for a, b in zip(sizes, sizes[1:]) for m in (Conv2d(a, b, 3, 2, 1), ReLU())], batch, 3, 128, 128
    )


@cpu
def mlp(batch):
    from torch.nn import GELU, Linear

    return made(lambda: [m for _ in range(4) for m in (Linear(256, 256), GELU())], batch, 128, 256)


@cpu
def patches(batch):
    from torch.nn import GELU, Conv2d, Flatten, Linear

    return made(
        lambda: [Conv2d(3, 96, 8, 8), Flatten(2), Linear(256, 256), GELU(), Linear(256, 96)], batch, 3, 128, 128
    )
"""

DARK = TerminalTheme(
    (13, 17, 23),
    (230, 237, 243),
    [(72, 79, 88), (255, 123, 114), (63, 185, 80), (210, 153, 34), (88, 166, 255), (188, 140, 255), (57, 197, 207),
     (177, 186, 196)],
    [(110, 118, 129), (255, 161, 152), (86, 211, 100), (227, 179, 65), (121, 192, 255), (210, 168, 255), (86, 212, 221),
     (255, 255, 255)],
)  # fmt: skip
PAGE = """\
<!DOCTYPE html><meta charset="utf-8">
<style>
html {{ background: {background}; }}
pre {{ display: inline-block; margin: 0; padding: 18px 22px; color: {foreground}; background: {background};
  font: 14px/1.4 "DejaVu Sans Mono", Menlo, Consolas, monospace; }}
</style>
<pre>{code}</pre>
"""


# Runs


def environment(**more: str) -> dict[str, str]:
    """Return the environment of a run that nothing from outside changes, and that sees no GPU."""
    changing = ("PYTEST_", "GITHUB_", "TRTGATE_")
    others = {"COLUMNS", "LINES", "CI", "NO_COLOR", "FORCE_COLOR", "PY_COLORS", "BUILD_NUMBER"}
    kept = {name: value for name, value in os.environ.items() if not name.startswith(changing) and name not in others}
    return {**kept, "TERM": "xterm-256color", "CUDA_VISIBLE_DEVICES": "", **more}


def write_suite(folder: Path) -> None:
    """Write the suite, and commit it, since a run names its commit."""
    (folder / "pytest.ini").write_text(INI)
    (folder / "suite.py").write_text(SUITE)
    (folder / ".gitignore").write_text("*\n!suite.py\n!pytest.ini\n")
    author = ["-c", "user.name=trtgate", "-c", "user.email=trtgate@localhost", "-c", "commit.gpgsign=false"]
    for command in (["init", "-q", "-b", "main"], ["add", "suite.py", "pytest.ini"], ["commit", "-q", "-m", "A suite"]):
        git.run(folder, *author, *command).check_returncode()


def record(folder: Path) -> None:
    """Record the suite once more."""
    options = ["-m", "trtgate_latency", f"--trtgate-launches={LAUNCHES}"]
    stored = ["--trtgate-update-baselines", "--trtgate-accept=*"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "suite.py", *options, *stored], cwd=folder, env=environment(),
        text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"pictures: a session was not recorded\n{done.stdout}")


def in_terminal(command: list[str], folder: Path, env: dict[str, str]) -> str:
    """Run a command in a pseudo terminal of COLUMNS columns; returns all that it wrote."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, COLUMNS, 0, 0))
    with subprocess.Popen(command, cwd=folder, env=env, stdin=theirs, stdout=theirs, stderr=theirs):
        os.close(theirs)
        written = b"".join(read_all(ours))
    os.close(ours)
    return written.decode()


def read_all(descriptor: int) -> Iterator[bytes]:
    """Yield what is written to a terminal until the last writer is gone."""
    while True:
        try:
            part = os.read(descriptor, 65536)
        except OSError:  # how Linux says that the other side was closed
            return
        if not part:
            return
        yield part


def check(report: run_report.RunReport) -> None:
    """End unless the run found the slower model, called no other slower, and proved most of the others unchanged."""
    said = {case.case_id: case.said for case in report.cases}
    verdicts = list(said.values())
    clear = verdicts.count(Verdict.REGRESSED) == 1 and verdicts.count(Verdict.UNCHANGED) >= LEAST_UNCHANGED
    if said[SLOWER] != Verdict.REGRESSED or not clear:
        found = ", ".join(f"{case_id} {verdict}" for case_id, verdict in said.items())
        raise SystemExit(f"pictures: the machine is too busy for clear verdicts ({found}); run it again when it is not")


# Pictures


def terminal_page(written: str) -> str:
    """Return a page that shows the command and what it wrote from BEGINS on; long lines are wrapped between words."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, highlight=False)
    lines = written.replace("\r\n", "\n").rstrip().split("\n")
    first = next(number for number, line in enumerate(lines) if BEGINS in line)
    console.print(Text(f"$ {' '.join(COMMAND)}", style="bold"), "", *map(Text.from_ansi, lines[first:]), sep="\n")
    return console.export_html(theme=DARK, inline_styles=True, code_format=PAGE)


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start a headless Chromium. Ends with one line where there is none."""
    executable = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if executable is None:
        raise SystemExit("pictures: no Chromium on this machine (chromium, chromium-browser or google-chrome on PATH)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield browser
        browser.close()


def opened(browser: Browser, path: Path, width: int) -> Page:
    """Open a file, `width` pixels wide."""
    page = browser.new_page(viewport={"width": width, "height": 900}, device_scale_factor=SCALE)
    page.goto(path.as_uri())
    return page


def save(name: str, screenshot: bytes) -> int:
    """Write a screenshot with a palette of 64 colours; returns its size in bytes."""
    path = PICTURES / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.open(io.BytesIO(screenshot)).convert("RGB").quantize(64, dither=Image.Dither.NONE).save(path, optimize=True)
    size = path.stat().st_size
    print(f"{path.relative_to(PICTURES.parent.parent)}: {size / 1000:.0f} kB")
    return size


def of_terminal(browser: Browser, path: Path) -> bytes:
    """Return a picture of all that the terminal shows."""
    return opened(browser, path, 1400).locator("pre").screenshot()


def of_report(browser: Browser, path: Path) -> bytes:
    """Return a picture of the report's upper part, to the end of the first case and its charts."""
    page = opened(browser, path, REPORT_WIDTH)
    first: Any = page.locator("details[data-case]").first
    first.locator(".js-plotly-plot .main-svg").nth(1).wait_for()
    page.wait_for_timeout(500)  # the last of a chart is drawn after it is there
    box = first.bounding_box()
    height = box["y"] + box["height"] + 5  # less than the gap before the next case
    return page.screenshot(full_page=True, clip={"x": 0, "y": 0, "width": REPORT_WIDTH, "height": height})


def main() -> None:
    """Record, compare, take the pictures."""
    with chromium() as browser, tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_suite(folder)
        for number in range(SESSIONS):
            print(f"recording session {number + 1} of {SESSIONS}", flush=True)
            record(folder)
        print("comparing", flush=True)
        written = in_terminal([sys.executable, "-m", *COMMAND], folder, environment(SLOWER="1"))
        print(written)
        report = run_report.read(folder / "run.json")
        check(report)
        (folder / "terminal.html").write_text(terminal_page(written))
        report_files.make(report, to_markdown=None, to_html=folder / "report.html")
        size = save("terminal.png", of_terminal(browser, folder / "terminal.html"))
        size += save("report.png", of_report(browser, folder / "report.html"))
    if size >= MOST_BYTES:
        raise SystemExit(f"pictures: they have {size / 1000:.0f} kB together; at most {MOST_BYTES / 1000:.0f} kB")


if __name__ == "__main__":
    main()
