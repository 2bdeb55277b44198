"""Do two cards of one host give by Ray what they give by `--trtgate-gpus`, and what does Ray cost?

    python studies/two_cards_by_ray.py FOLDER [--runs record,by-one,by-gpus,by-ray] [PYTEST OPTIONS]

Runs the latency tests of 24 cases of `pytest benchmarks` four times: recording on two cards, comparing on one,
with `--trtgate-gpus=0,1`, and with `--trtgate-ray` on a cluster of this machine alone, which is started for that and
ended again. Comparisons build nothing that the artifact cache has. Needs `pip install 'trtgate[ray]'`. Runs that
FOLDER has are not done again. Prints the machine, the versions, the table, and which cases have another verdict.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import gate_runs

from trtgate.common import machine
from trtgate.common.accelerator import detect_all
from trtgate.common.text_columns import TextTable
from trtgate.report.terminal_table import describe

CASES = [
    "--trtgate-frontends=dynamo,inductor,eager", "--trtgate-precisions=fp16",
    "--trtgate-models=resnet18,resnet50,mobilenet_v3_large,vit_b_16",
]  # fmt: skip
"""Four models in three frontends at two batch sizes."""
LATENCY = ["-m", "trtgate_latency", "--trtgate-launches=3"]
RUNS = {
    "record": [*LATENCY, "--trtgate-gpus=0,1", "--trtgate-update-baselines"],
    "by-one": [*LATENCY, "--trtgate-gpus=0", "--benchmark-compare"],
    "by-gpus": [*LATENCY, "--trtgate-gpus=0,1", "--benchmark-compare"],
    "by-ray": [*LATENCY, "--benchmark-compare"],
}


@contextmanager
def cluster(cards: int, caches: Path) -> Iterator[str]:
    """Within: Ray runs on this machine, with so many GPUs; its processes use the caches of the other runs."""
    os.environ |= {
        "RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0", "TRTGATE_CACHE_DIR": str(caches / "artifacts"),
        "TORCHINDUCTOR_CACHE_DIR": str(caches / "inductor"), "CUDA_CACHE_PATH": str(caches / "cuda"),
        "PYTHONPATH": f"{gate_runs.ROOT / 'src'}:{os.environ.get('PYTHONPATH', '')}",
    }  # fmt: skip
    from ray.cluster_utils import Cluster

    made = Cluster(
        initialize_head=True, head_node_args={"num_cpus": machine.cpus(), "num_gpus": cards, "include_dashboard": False}
    )
    try:
        yield str(made.address)
    finally:
        made.shutdown()


def main() -> None:
    """Run the gate four times, and print the table."""
    asked = gate_runs.asked(__doc__, RUNS)
    folder = asked.folder
    cards = detect_all("0,1")
    print(f"2 x {describe(cards[0])}, ray {version('ray')}, {machine.cpus()} CPUs", flush=True)
    runs: dict[str, gate_runs.GateRun] = {}
    for name in asked.runs:
        given = [*RUNS[name], *(asked.more or CASES)]
        if name == "by-ray" and not (folder / f"{name}.json").exists():
            with cluster(len(cards), folder / "caches") as address:
                runs[name] = gate_runs.run(name, folder, folder / "caches", [*given, f"--trtgate-ray={address}"])
        else:
            runs[name] = gate_runs.run(name, folder, folder / "caches", given)
    if len(runs) < len(RUNS):
        return
    table: list[tuple[str, ...]] = [("run", "exit", "whole run", "built ahead in", "its tests", "verdicts")]
    for name, one in runs.items():
        said = ", ".join(f"{count} {verdict}" for verdict, count in sorted(Counter(one.verdicts.values()).items()))
        tests_s = sum(one.test_s.get(gate_runs.LATENCY, {}).values())
        seconds = (one.seconds, one.ahead_s, tests_s)
        table.append((name, str(one.exit_status), *(f"{value:.1f} s" for value in seconds), said))
    print(TextTable(table, left=(0, 5)))
    gpus, ray = runs["by-gpus"], runs["by-ray"]
    for name in ("by-gpus", "by-ray"):
        print(f"{name}: {runs[name].seconds / runs['by-one'].seconds:.2f} of one card's time")
    cases = sorted(gpus.medians_us.keys() & ray.medians_us.keys())
    apart = sorted(abs(ray.medians_us[case] / gpus.medians_us[case] - 1) for case in cases)
    print(f"{len(cases)} cases; Ray adds {(ray.seconds - gpus.seconds) / len(cases):+.2f} s a case, set-up included")
    print(f"latencies differ by {apart[len(apart) // 2]:.2%} in the median, by {apart[-1]:.2%} at most")
    for case in sorted(gpus.verdicts.keys() | ray.verdicts.keys()):
        if gpus.verdicts.get(case) != ray.verdicts.get(case):
            print(f"{case}: {gpus.verdicts.get(case)} by --trtgate-gpus, {ray.verdicts.get(case)} by Ray")


if __name__ == "__main__":
    main()
