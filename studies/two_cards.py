"""How much faster are two cards than one, and are the verdicts the same?

    python studies/two_cards.py FOLDER [--runs record-on-two,compare-on-two,compare-on-one] [PYTEST OPTIONS]

Runs the latency tests of `pytest benchmarks` three times with the same builds, all cached before: recording on two
cards, comparing on two, comparing on one. What a run's tests took is compared; starting, building ahead and ending is
set-up. Runs that FOLDER has are not done again, so that they may be done one at a time; the table comes with the last.
Prints the machine, the versions, the cases and the table.
"""

from __future__ import annotations

import json
from collections import Counter

import gate_runs

from trtgate.common import machine
from trtgate.common.accelerator import detect_all
from trtgate.common.text_columns import TextTable
from trtgate.report.terminal_table import describe

LATENCY = ["-m", "trtgate_latency", "--trtgate-launches=3"]
RUNS = {
    "record-on-two": [*LATENCY, "--trtgate-gpus=0,1", "--trtgate-update-baselines"],
    "compare-on-two": [*LATENCY, "--trtgate-gpus=0,1", "--benchmark-compare"],
    "compare-on-one": [*LATENCY, "--trtgate-gpus=0", "--benchmark-compare"],
}


def main() -> None:
    """Run the gate three times, and print the table."""
    asked = gate_runs.asked(__doc__, RUNS)
    folder = asked.folder
    cards = detect_all("0,1")
    print(f"2 x {describe(cards[0])}, {machine.cpus()} CPUs", flush=True)
    runs = {
        name: gate_runs.run(name, folder, folder / "caches", [*RUNS[name], *asked.more]) for name in asked.runs
    }  # fmt: skip
    if len(runs) < len(RUNS):
        return
    tests_s = {name: sum(one.test_s[gate_runs.LATENCY].values()) for name, one in runs.items()}
    alone_s = tests_s["compare-on-one"]
    table = [("run", "its tests", "of one card's", "built ahead in", "whole run", "verdicts")]
    for name, one in runs.items():
        said = ", ".join(f"{count} {verdict}" for verdict, count in Counter(one.verdicts.values()).items())
        table.append(
            (name, f"{tests_s[name]:.1f} s", f"{tests_s[name] / alone_s:.3f}", f"{one.ahead_s:.1f} s",
             f"{one.seconds:.1f} s", said)
        )  # fmt: skip
    cases = sorted(runs["compare-on-one"].medians_us)
    print(f"{len(cases)} cases: {', '.join(cases)}\n")
    print(TextTable(table))
    (baseline,) = (folder / "baselines").glob("*/latency.json")
    entries = json.loads(baseline.read_text())["benchmarks"]
    uuids = [entry["extra_info"]["trtgate"]["sessions"][-1]["uuid"] for entry in entries]
    print(f"recorded on: {', '.join(f'{uuid} {count} cases' for uuid, count in Counter(uuids).items())}")


if __name__ == "__main__":
    main()
