"""What a Ray cluster of two local nodes gives and costs: verdicts, seconds a case, the zoo's coverage, a lost node.

    python studies/cluster.py verdicts     # 24 small CPU cases: the verdicts of one machine?
    python studies/cluster.py overhead     # what Ray adds a case
    python studies/cluster.py coverage [--models A,B]   # the zoo's coverage by both nodes, and by one process
    python studies/cluster.py lost         # a node killed in the middle: each case has one result

Nodes are processes of this machine, of one CPU each as Ray counts; no GPU is shown to them. The time of the models is
scripted, so that verdicts depend on no machine. Prints the machine and the versions above each table.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.pytest_folder import LEAN, edited  # noqa: E402
from tests.ray_nodes import LocalCluster  # noqa: E402
from tests.suites import suite_text  # noqa: E402
from trtgate.common import machine  # noqa: E402
from trtgate.common.accelerator import detect  # noqa: E402
from trtgate.common.text_columns import aligned  # noqa: E402
from trtgate.report.terminal_table import describe  # noqa: E402

CASES, SLOW, FEW = 24, 4, 4
SESSIONS = 9
TIMEOUT_S = 1200.0
WAITING = """

def waiting(name):
    if IN_WORKER:
        open(f"{at}/{{name}}-{{os.getppid()}}", "w").close()
        while not os.path.exists("{go}"):
            time.sleep(0.05)
"""
"""Follows a suite whose workers say that they are at work, and wait until they may go on."""


class Ran(NamedTuple):
    """A run of pytest: how it ended, in how many seconds, what it said."""

    status: int
    seconds: float
    output: str


class Checkout:
    """A folder with a suite of small models, and runs of it."""

    def __init__(self, folder: Path, count: int = CASES) -> None:
        self.path = folder
        (folder / "pytest.ini").write_text("[pytest]\ntrtgate_suite = suite.py\n")
        self.suite(count)

    def suite(self, count: int, slow: Sequence[str] = (), statement: str = "pause({seconds})", more: str = "") -> None:
        """Write the suite: models that take 2 ms, slow ones twice that."""
        names = [f"net{number:02}" for number in range(count)]
        statements = {name: statement.format(seconds=0.004 if name in slow else 0.002, name=name) for name in names}
        (self.path / "suite.py").write_text(suite_text((), statements) + more)

    def environment(self) -> dict[str, str]:
        """Return what a run has beside this process's environment."""
        folders = {name: str(self.path / name) for name in ("state", "cache")}
        return {
            **os.environ, "CUDA_VISIBLE_DEVICES": "", "TRTGATE_LOCK_DIR": str(self.path), "COLUMNS": "160",
            "XDG_STATE_HOME": folders["state"], "TRTGATE_CACHE_DIR": folders["cache"],
            "PYTHONPATH": f"{ROOT / 'src'}:{os.environ.get('PYTHONPATH', '')}", "RAY_USAGE_STATS_ENABLED": "0",
        }  # fmt: skip

    def start(self, *options: str) -> subprocess.Popen[str]:
        """Start a run."""
        command = [sys.executable, "-m", "pytest", *LEAN, "-p", "trtgate.plugin", "suite.py", *options]
        return subprocess.Popen(
            command, cwd=self.path, env=self.environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def run(self, *options: str) -> Ran:
        """Run the suite."""
        start = time.perf_counter()
        process = self.start(*options)
        try:
            output, _ = process.communicate(timeout=TIMEOUT_S)
        finally:
            process.kill()
        return Ran(process.returncode, time.perf_counter() - start, output)

    def verdicts(self, name: str) -> dict[str, str]:
        """Return case → verdict of a run's report."""
        return {one["case_id"]: one["said"] for one in json.loads((self.path / name).read_text())["cases"]}


@contextmanager
def prepared(count: int = CASES, nodes: int = 2) -> Iterator[tuple[Checkout, LocalCluster]]:
    """Within: a checkout, and a cluster of nodes of one CPU."""
    with tempfile.TemporaryDirectory(prefix="trtgate-cluster-") as folder:
        checkout = Checkout(Path(folder), count)
        cluster = LocalCluster(Path(folder), nodes=nodes)
        try:
            yield checkout, cluster
        finally:
            cluster.close()


def about() -> str:
    """Return the machine and the versions."""
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    return f"{describe(detect())}, ray {version('ray')}, {machine.cpus()} CPUs, load before {load}\n"


def verdicts() -> None:
    """Compare the verdicts of one machine with those of two nodes."""
    with prepared() as (checkout, cluster):
        must(checkout.run("-m", "trtgate_latency", "--trtgate-launches=1", "--trtgate-update-baselines"))
        more_sessions(checkout.path)
        checkout.suite(CASES, [f"net{number:02}" for number in range(0, CASES, CASES // SLOW)])
        options = ("-m", "trtgate_latency", "--trtgate-launches=1", "--benchmark-compare")
        found = {}
        for name, more in (("one machine", ()), ("two nodes", (f"--trtgate-ray={cluster.address}",))):
            report = f"{name.replace(' ', '-')}.json"
            found[name] = (checkout.run(*options, *more, f"--trtgate-report={report}"), checkout.verdicts(report))
    rows = [("run", "wall", "exit", "verdicts")]
    for name, (ran, its) in found.items():
        said = ", ".join(f"{count} {verdict}" for verdict, count in sorted(Counter(its.values()).items()))
        rows.append((name, f"{ran.seconds:.1f} s", str(ran.status), said))
    print("\n".join(aligned(rows, left=(0, 3))))
    one, two = (its for _, its in found.values())
    differing = sorted(case for case in one.keys() | two.keys() if one.get(case) != two.get(case))
    print(f"{len(one)} cases, {len(differing)} of other verdicts{': ' * bool(differing)}{', '.join(differing)}")


def more_sessions(folder: Path) -> None:
    """Let a baseline have sessions that differ by 0.2 %, so that verdicts are proven."""
    (baseline,) = folder.glob("baselines/*/latency.json")
    with edited(baseline) as document:
        for entry in document["benchmarks"]:
            record = entry["extra_info"]["trtgate"]
            (one,) = record["sessions"]
            one["state"]["canary_us"] = {}
            record["sessions"] = [session(one, number) for number in range(SESSIONS)]


def session(one: dict[str, Any], number: int) -> dict[str, Any]:
    """Return a stored session that is a little faster or slower, of another day."""
    factor = 1 + 0.002 * (number * 7 % 5 - 2)
    metrics = {name: [[us * factor for us in each] for each in launches] for name, launches in one["metrics"].items()}
    return {**one, "recorded": f"2026-01-{1 + number:02}T00:00:00+00:00", "metrics": metrics}


def overhead() -> None:
    """Compare what a case more takes on one node with what it takes without Ray; set-up is in neither."""
    rows = [("run", f"{FEW} cases", f"{CASES} cases", "a case")]
    each = {}
    with prepared(nodes=1) as (checkout, cluster):
        for name, more in (("without Ray", ()), ("one node", (f"--trtgate-ray={cluster.address}",))):
            took = {}
            for count in (FEW, CASES):
                checkout.suite(count)
                took[count] = must(checkout.run("-m", "trtgate_latency", "--trtgate-launches=1", *more)).seconds
            each[name] = (took[CASES] - took[FEW]) / (CASES - FEW)
            rows.append((name, f"{took[FEW]:.1f} s", f"{took[CASES]:.1f} s", f"{each[name]:.3f} s"))
    print("\n".join(aligned(rows)))
    print(f"Ray adds {each['one node'] - each['without Ray']:.3f} s a case")


def coverage(models: str) -> None:
    """Ask for the zoo's coverage by one process, and by two nodes."""
    options = ["-m", "trtgate_coverage", "--trtgate-zoo", *([f"--trtgate-models={models}"] if models else [])]
    rows = [("run", "wall", "exit", "cases", "unlike the other run's")]
    found: dict[str, tuple[Ran, dict[str, tuple[Any, ...]]]] = {}
    with prepared() as (checkout, cluster):
        for name, more in (("one process", []), ("two nodes", [f"--trtgate-ray={cluster.address}"])):
            report = f"{name.replace(' ', '-')}.json"
            ran = checkout.run(*options, *more, f"--trtgate-report={report}")
            its = json.loads((checkout.path / report).read_text())["coverage"]
            found[name] = ran, {one["case_id"]: (one["in_tensorrt"], one["total"], one["engines"]) for one in its}
    (_, one), (_, two) = found.values()
    unlike = sum(one.get(case) != two.get(case) for case in one.keys() | two.keys())
    for name, (ran, cases) in found.items():
        rows.append((name, f"{ran.seconds:.1f} s", str(ran.status), str(len(cases)), str(unlike)))
    print("\n".join(aligned(rows)))


def lost() -> None:
    """Kill one of three nodes when it is at work, and count the results of each case."""
    with prepared(nodes=2) as (checkout, cluster):
        victim = cluster.add()
        at, go = checkout.path / "at", checkout.path / "go"
        at.mkdir()
        checkout.suite(CASES, statement="waiting({name!r}) or pause({seconds})", more=WAITING.format(at=at, go=go))
        start = time.perf_counter()
        run = checkout.start("-m", "trtgate_latency", "--trtgate-launches=1", f"--trtgate-ray={cluster.address}")
        while len({path.name.rpartition("-")[2] for path in at.iterdir()}) < 3:
            if run.poll() is not None or time.perf_counter() - start > TIMEOUT_S:
                print(run.communicate()[0])
                raise RuntimeError("three nodes were never at work")
            time.sleep(0.1)
        cluster.kill(victim)
        killed = time.perf_counter()
        go.touch()
        output, _ = run.communicate(timeout=TIMEOUT_S)
        seconds = time.perf_counter() - killed
        (file,) = checkout.path.glob(".trtgate/runs/*.json")
        results = Counter(one["extra_info"]["trtgate"]["case"] for one in json.loads(file.read_text())["benchmarks"])
    print(output.splitlines()[-1])
    print(f"exit code {run.returncode}; {seconds:.1f} s from the kill to the end")
    print(
        f"{len(results)} of {CASES} cases have a result, {sum(count > 1 for count in results.values())} more than one"
    )


def must(ran: Ran) -> Ran:
    """Return a run that ended well. Raises RuntimeError for another."""
    if ran.status != 0:
        raise RuntimeError(ran.output)
    return ran


def main() -> None:
    """Make one of the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=("verdicts", "overhead", "coverage", "lost"))
    parser.add_argument("--models", default="", help="of the zoo; all by default")
    asked = parser.parse_args()
    print(about(), flush=True)
    tables = {"verdicts": verdicts, "overhead": overhead, "lost": lost, "coverage": lambda: coverage(asked.models)}
    tables[asked.table]()


if __name__ == "__main__":
    main()
