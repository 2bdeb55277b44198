"""How often is `trtgate ab` wrong on a CPU, beside pytest-benchmark's own gate on the same modules?

    python studies/ab_on_cpu.py [--unchanged 50] [--slower 20] [--loop 5% --limit 2% --models 2] [--json FILE]

Makes a repository of eager modules in a temporary folder and compares it with its own HEAD: unchanged, and with one
module 1.3 times as deep or, with `--loop`, with a loop of Python in its call that takes this share of its latency;
found is what its host latency finds, not the lines of Python that are counted. After each unchanged `ab`, two runs of
pytest-benchmark on the same modules, the second with --benchmark-compare-fail=median:5%, so that both meet the same
noise. Interrupted, it prints what it has. Prints counts with Clopper-Pearson intervals, the machine and the versions.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from scipy import stats

from trtgate.common import git
from trtgate.common.accelerator import detect
from trtgate.report.terminal_table import describe

DEPTH, DEEPER = 10, 13
"""Equal layers: 1.3 times as many take 1.3 times as long."""
SLOWED = "net1"
CASE_TIMEOUT_S = 900

SUITE = """
import trtgate
from nets import NETS, net

def factory(name):
    def make(batch):
        return net(*NETS[name], batch)
    return make

GRID = trtgate.grid(frontends=["eager"], precisions=["fp32"], batches=[16])
MODELS = [trtgate.Model(name, factory(name), GRID) for name in NETS]
"""
NETS = """
import torch

WIDTH = 768
NETS = {nets!r}  # name: layers, turns of a loop

class Net(torch.nn.Sequential):
    turns = 0

    def forward(self, x):
        for _ in range(self.turns):
            pass
        return super().forward(x)

def net(depth, turns, batch):
    torch.manual_seed(0)
    layers = [layer for _ in range(depth) for layer in (torch.nn.Linear(WIDTH, WIDTH), torch.nn.ReLU())]
    module = Net(*layers).eval()
    module.turns = turns
    return module, torch.randn(batch, WIDTH)
"""
PLAIN = """
import pytest
import torch
from nets import NETS, net

@pytest.mark.parametrize("name", sorted(NETS))
def test_net(benchmark, name):
    module, inputs = net(*NETS[name], 16)
    with torch.no_grad():
        benchmark(module, inputs)
"""


def nets(models: int, slowed: tuple[int, int] = (DEPTH, 0)) -> str:
    """Return the module of the nets; one of them has other layers, or a loop."""
    return NETS.format(nets={f"net{n}": slowed if f"net{n}" == SLOWED else (DEPTH, 0) for n in range(models)})


def turns_of(share: float) -> int:
    """Return how many turns of an empty loop take a share of the latency of a net; both are medians of this process."""
    import torch

    made: dict[str, Any] = {}
    exec(nets(2), made)
    device, wait = ("cuda", torch.cuda.synchronize) if torch.cuda.is_available() else ("cpu", lambda: None)
    module, inputs = (one.to(device) for one in made["net"](DEPTH, 0, 16))
    with torch.no_grad():
        latency_s = _median_s(lambda: (module(inputs), wait()))
    module, inputs = made["Net"](), torch.ones(1)
    module.turns = 10_000
    return round(share * latency_s / (_median_s(lambda: module(inputs)) / module.turns))


def _median_s(call: Callable[[], object]) -> float:
    times = []
    for _ in range(500):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def repository(folder: Path, models: int = 8) -> None:
    """Make the repository whose HEAD is the base."""
    (folder / "suite.py").write_text(SUITE)
    (folder / "nets.py").write_text(nets(models))
    (folder / "test_plain.py").write_text(PLAIN)
    (folder / "pytest.ini").write_text("[pytest]\ntrtgate_suite = suite.py\n")
    (folder / ".gitignore").write_text(".benchmarks/\n__pycache__/\n")
    person = ["-c", "user.name=study", "-c", "user.email=study@localhost"]
    for words in (["init", "-q"], ["add", "."], [*person, "commit", "-qm", "base"]):
        git.run(folder, *words).check_returncode()


def pytest_run(folder: Path, *arguments: str) -> tuple[int, str, float]:
    """Run pytest there; returns its exit code, what it printed, and the seconds it took."""
    start = time.monotonic()
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=CASE_TIMEOUT_S, check=False)
    return done.returncode, done.stdout, time.monotonic() - start


def ab(folder: Path, limit: str) -> dict[str, Any]:
    """Compare with HEAD: what host latency says of every case, and the exit code."""
    known = set(folder.glob(".trtgate/runs/*.json"))
    arguments = ("-m", "trtgate_latency", "suite.py", "--trtgate-base=HEAD", f"--trtgate-limit=host={limit}")
    code, output, seconds = pytest_run(folder, *arguments)
    fresh = sorted(set(folder.glob(".trtgate/runs/*.json")) - known)
    if not fresh:
        raise SystemExit(f"the run saved nothing, exit code {code}:\n{output[-2000:]}")
    records = [b["extra_info"]["trtgate"] for b in json.loads(fresh[-1].read_text())["benchmarks"]]
    said = {
        record["case"].partition("-")[0]: one
        for record in records for one in record["judgements"] if one["metric"] == "host"
    }  # fmt: skip
    return {
        "code": code, "seconds": seconds, "verdicts": {name: one["verdict"] for name, one in said.items()},
        "changes": {name: one["change"] for name, one in said.items()},
    }  # fmt: skip


def plain_gate(folder: Path) -> int:
    """Save a run of pytest-benchmark and compare another with it; returns the second one's exit code."""
    plain = ("-p", "no:trtgate.plugin", "test_plain.py", "--benchmark-max-time=0.5")
    pytest_run(folder, *plain, "--benchmark-save=base")
    return pytest_run(folder, *plain, "--benchmark-compare", "--benchmark-compare-fail=median:5%")[0]


def share(outcomes: Sequence[bool]) -> str:
    """Return k of n with its interval."""
    if not outcomes:
        return "not run"
    interval = stats.binomtest(sum(outcomes), len(outcomes)).proportion_ci()
    return f"{sum(outcomes)} of {len(outcomes)} ({interval.low:.1%} to {interval.high:.1%})"


def main() -> None:
    """Run everything and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--unchanged", type=int, default=50)
    parser.add_argument("--slower", type=int, default=20)
    parser.add_argument("--models", type=int, default=8)
    parser.add_argument("--loop", help="a loop of Python instead of layers: its share of the latency, such as 5%%")
    parser.add_argument("--limit", default="10%", help="of host latency")
    parser.add_argument("--no-plain", action="store_true", help="not pytest-benchmark's own gate")
    parser.add_argument("--json", type=Path, help="also write all outcomes to this file")
    options = parser.parse_args()
    found: dict[str, list[Any]] = {"unchanged": [], "plain": [], "slower": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        repository(folder, options.models)
        slowed = (DEPTH, turns_of(float(options.loop.rstrip("%")) / 100)) if options.loop else (DEEPER, 0)
        try:
            for number in range(max(options.unchanged, options.slower)):
                if number < options.unchanged:
                    found["unchanged"].append(ab(folder, options.limit))
                    found["plain"] += [] if options.no_plain else [plain_gate(folder)]
                if number < options.slower:
                    (folder / "nets.py").write_text(nets(options.models, slowed))
                    found["slower"].append(ab(folder, options.limit))
                    (folder / "nets.py").write_text(nets(options.models))
                print(f"# {number + 1}: {[runs[-1] for runs in found.values() if runs]}", flush=True)
        except KeyboardInterrupt:
            print("# interrupted")
    if options.json:
        options.json.write_text(json.dumps(found))
    report(found, f"{options.models} eager modules, limit {options.limit}", options.loop or "30%")


def report(found: dict[str, list[Any]], what: str, slower: str) -> None:
    """Print what came of it."""
    print(f"\n{describe(detect())}\n{what}")
    print(f"unchanged, red runs of trtgate ab:       {share([run['code'] != 0 for run in found['unchanged']])}")
    print(f"unchanged, red runs of pytest-benchmark: {share([code != 0 for code in found['plain']])}")
    hit = [run["verdicts"].get(SLOWED) == "regressed" and run["code"] == 1 for run in found["slower"]]
    print(f"{slower} slower, found:{share(hit):>40}")
    changes = sorted(run["changes"].get(SLOWED, math.nan) for run in found["slower"])
    if changes:
        seen = ", ".join(f"{one:+.1%}" for one in (changes[len(changes) // 2], changes[0], changes[-1]))
        print(f"seen of it (median, least, most):        {seen}")
    others = [
        verdict == "regressed" for run in found["slower"] for case, verdict in run["verdicts"].items() if case != SLOWED
    ]
    print(f"other cases of those runs called slower: {share(others)}")
    seconds = sorted(run["seconds"] for run in found["unchanged"])
    if seconds:
        print(f"an unchanged run takes {seconds[len(seconds) // 2]:.0f} s (median)")


if __name__ == "__main__":
    main()
