"""How long does a fleet's history take: compacting runs of real size, and one case's history over millions of rows?

    python studies/fleet_history.py [--runs 1000] [--rows 10000000] [--folder DIR]

Writes so many runs, each as large as the committed baseline of an H100 with its 24 cases, and lets `trtgate runs
compact` take them. Then writes so many rows into one compacted file, 1,000 cases on 10 cards, in which one in a hundred
cases got 3 % slower half way, and asks `trtgate history` for one case, for those of a pattern, and for a branch since a
date. Each is a process of its own, imports included. Prints seconds, bytes, the most memory, the machine and versions.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import json
import multiprocessing
import os
import platform
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import duckdb

from trtgate.common.text_columns import TextTable
from trtgate.gate import compacted_runs

PATTERN = Path(__file__).parent.parent / "baselines" / "nvidia-h100-80gb-hbm3-80gib" / "latency.json"
CASES, CARDS = 1000, 10
KEY = "nvidia-h100-80gb-hbm3-80gib"
BEGAN = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


def real_sized(folder: Path, count: int) -> None:
    """Write so many runs, one every two hours, on several cards."""
    pattern = json.loads(PATTERN.read_text())
    for number in range(count):
        recorded = (BEGAN + datetime.timedelta(hours=2 * number)).isoformat()
        document: dict[str, Any] = copy.deepcopy(pattern)
        document["commit_info"] = {"id": f"{number // 4:040x}", "branch": "main", "dirty": False}
        for entry in document["benchmarks"]:
            for session in entry["extra_info"]["trtgate"]["sessions"]:
                session["recorded"], session["uuid"] = recorded, f"GPU-{number % CARDS}"
        (folder / f"{number:06}.json").write_text(json.dumps(document))


def many_rows(folder: Path, count: int) -> None:
    """Write a file of rows, as compacting would have left it."""
    place = folder / compacted_runs.FOLDER
    place.mkdir(parents=True)
    runs = count // CASES
    duckdb.execute("SET enable_progress_bar = false")
    columns = f"""
        '{KEY}' AS accelerator, 'GPU-' || (run % {CARDS}) AS card,
        'model' || printf('%03d', c) || '-dynamo-fp16-b1-mbs5' AS case_id, 'device' AS metric,
        'cuda_graph_one_stream' AS clock,
        strftime(TIMESTAMP '2026-01-01' + to_minutes(30 * run), '%Y-%m-%dT%H:%M:%S+00:00') AS recorded,
        printf('%06d.json', run) AS run, printf('%040x', run // 4) AS commit_id,
        CASE WHEN run % 5 = 0 THEN 'feature' ELSE 'main' END AS branch, false AS dirty,
        (100 + c % 50) * (1 + 0.001 * (run % {CARDS})) * (1 + 0.002 * (random() - 0.5))
            * (CASE WHEN c % 100 = 0 AND run > {runs // 2} THEN 1.03 ELSE 1 END) AS latency_us,
        'unchanged' AS verdict, false AS beside_base, false AS disturbed"""
    rows = place / "20260101T000000-study.parquet"
    duckdb.execute(
        f"COPY (SELECT {columns} FROM range({runs}) r(run), range({CASES}) k(c) "
        f"ORDER BY case_id, accelerator, card, recorded) TO '{rows}' (FORMAT parquet, COMPRESSION zstd)"
    )
    names = [f"{run:06}.json" for run in range(runs)]
    cases = [f"model{case:03}-dynamo-fp16-b1-mbs5" for case in range(CASES)]
    manifest = {
        "trtgate_compacted": 1,
        "rows": runs * CASES,
        "bytes": rows.stat().st_size,
        "runs": names,
        "cases": {KEY: cases},
    }
    rows.with_suffix(".json").write_text(json.dumps(manifest))


def asked(*arguments: str) -> tuple[str, str, str]:
    """Run a command; returns its seconds, its most memory, and its last line."""
    with tempfile.TemporaryFile("w+") as said:
        start = time.perf_counter()
        process = subprocess.Popen([sys.executable, "-m", "trtgate", *arguments], stdout=said)
        _, status, used = os.wait4(process.pid, 0)
        taken = time.perf_counter() - start
        if status:
            raise SystemExit(f"{arguments} failed")
        said.seek(0)
        return f"{taken:.1f} s", f"{used.ru_maxrss / 1024:.0f} MiB", said.read().strip().splitlines()[-1]


def size_of(folder: Path) -> str:
    return f"{sum(file.stat().st_size for file in folder.rglob('*') if file.is_file()) / 2**20:.1f} MiB"


def main() -> None:
    """Write, ask, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--folder", type=Path, default=None, help="where the files go; a temporary folder by default")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        runs, rows = Path(name) / "runs", Path(name) / "rows"
        runs.mkdir()
        real_sized(runs, given.runs)
        table = [("what", "files", "took", "most memory")]
        of_runs = size_of(runs)
        took, most, said = asked("runs", "compact", "--runs", str(runs))
        table.append((f"{given.runs:,} runs compacted", of_runs, took, most))
        writer = multiprocessing.get_context("spawn").Process(target=many_rows, args=(rows, given.rows))
        writer.start()  # what this process holds when it starts another is counted as the other's
        writer.join()
        of = ("--runs", str(rows), "--accelerator", KEY)
        for what, arguments in (
            ("one case", ("model500-dynamo-fp16-b1-mbs5",)),
            ("one case, main, since a date", ("model500-*", "--branch", "main", "--since", "2026-05-01")),
            ("ten cases by a pattern", ("model50?-*",)),
        ):
            took, most, _ = asked("history", *arguments, *of)
            table.append((f"{given.rows:,} rows: {what}", size_of(rows), took, most))
    print(TextTable(table))
    print(said)
    versions = ", ".join(f"{package} {metadata.version(package)}" for package in ("duckdb", "apache-otava", "numpy"))
    print(f"{os.cpu_count()} CPUs ({platform.machine()}), Python {platform.python_version()}, {versions}")


if __name__ == "__main__":
    main()
