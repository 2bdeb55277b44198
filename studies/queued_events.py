"""How steady is device latency between launches where no CUDA graph can be captured: by queued events?

    python studies/queued_events.py [--launches 10] [--json FILE]

Builds modules with a dynamic axis whose kernels TensorRT-RTX swaps while they run (of torch_tensorrt before 2.13 all
that have one): an encoder of small kernels, and resnet18. As many processes load each and take turns on the GPU in
random order; each times it with no state of the GPU set, with that of several streams, and all on one stream in that
of one.
A standard deviation is that of the logs of launches, with its 95 % interval (chi-squared). Needs a GPU that nothing
else uses.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import tempfile
from pathlib import Path
from typing import Any

from gpu_process import case_source, gate_states, remotes
from states_tables import deviation

SUITE = """
import torch
import torchvision

import trtgate

DYNAMIC = {"frontends": ("dynamo",), "precisions": ("fp16",), "min_block_size": 1, "specialization": "lazy"}


class Layer(torch.nn.Module):
    def __init__(self, width):
        super().__init__()
        self.qkv, self.out = torch.nn.Linear(width, 3 * width), torch.nn.Linear(width, width)

    def forward(self, x):
        q, k, v = self.qkv(x).chunk(3, -1)
        return torch.relu(x + self.out(torch.softmax(q @ k.transpose(1, 2) / 8, -1) @ v))


def tokens(batch, seq):
    return torch.linspace(-1, 1, batch * seq * 64).reshape(batch, seq, 64)


@trtgate.model(inputs=tokens, dynamic={"seq": (16, 64, 256)}, at=[{"seq": 64}], **DYNAMIC)
def encoder():
    torch.manual_seed(0)
    return torch.nn.Sequential(*(Layer(64) for _ in range(4))).eval()


def images(batch, tiles):
    side = 32 * tiles
    return torch.linspace(-1, 1, batch * 3 * side * side).reshape(batch, 3, side, side)


@trtgate.model(inputs=images, dynamic={"tiles": (3, 7, 10)}, at=[{"tiles": 7}], **DYNAMIC)
def resnet18():
    torch.manual_seed(0)
    return torchvision.models.resnet18(weights=None).eval()
"""
WAYS = {"no state set": "", "several streams": "many", "one stream": "one"}


def main() -> None:
    """Build, load in all launches, let them measure one after the other, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--launches", type=int, default=10)
    parser.add_argument("--json", type=Path, help="also write all figures to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        suite = Path(folder) / "suite_of_study.py"
        suite.write_text(SUITE)
        document = measured(str(suite), Path(folder), options.launches)
    if options.json:
        options.json.write_text(json.dumps(document))
    report(document)


def measured(suite: str, folder: Path, launches: int) -> dict[str, Any]:
    """Return versions, and of each case a row for each launch: way → what was read, twice."""
    folders = built(suite, folder)
    document: dict[str, Any] = {"cases": {}}
    with gate_states() as switcher, remotes(launches, switcher=switcher, suite=suite) as loaded:
        document["versions"] = loaded[0].ask("versions")
        for case_id in folders:
            for remote in loaded:
                remote.send("load", case_id=case_id, folder=folders[case_id])
            for remote in loaded:
                remote.receive()
            rows = document["cases"][case_id] = []
            for remote in random.sample(loaded, len(loaded)):
                row: dict[str, Any] = {way: [] for way in WAYS}
                for way in random.sample([*WAYS] * 2, 2 * len(WAYS)):
                    row[way].append(remote.ask("queued", seed=random.getrandbits(30), streams=WAYS[way]))
                rows.append(row)
            print(f"# {case_id}: {len(rows)} launches", flush=True)
    return document


def built(suite: str, folder: Path) -> dict[str, str]:
    """Build all cases of a suite at once; returns the folder of each."""
    folders = {case_id: folder / f"built {number}" for number, case_id in enumerate(case_source(suite).load().cases)}
    with remotes(len(folders), suite=suite) as builders:
        for builder, (case_id, stored) in zip(builders, folders.items(), strict=True):
            stored.mkdir(mode=0o700)
            builder.send("build", case_id=case_id, folder=str(stored))
        for builder in builders:
            builder.receive()
    return {case_id: str(stored) for case_id, stored in folders.items()}


def report(document: dict[str, Any]) -> None:
    """Print a table for each case."""
    print(f"\n{', '.join(f'{name} {value}' for name, value in document['versions'].items())}")
    for case_id, rows in document["cases"].items():
        print(f"\n{case_id}, {len(rows)} launches of one build, each twice")
        print("| state | median µs | sd between launches (95 %) | between a launch's two | s | void | not steady |")
        print("|---|---|---|---|---|---|---|")
        for way in WAYS:
            pairs = [[math.log(one["us"]) for one in row[way]] for row in rows]
            pairs = [pair for pair in pairs if all(map(math.isfinite, pair))]  # a launch without a block told nothing
            if not pairs:
                print(f"| {way} | no block held | | | | | |")
                continue
            means = [statistics.fmean(pair) for pair in pairs]
            apart = math.sqrt(statistics.fmean((one - other) ** 2 / 2 for one, other in pairs))
            every = [one for row in rows for one in row[way]]
            print(
                f"| {way} | {math.exp(statistics.median(means)):.2f} | {deviation(means)} | {apart:.3%} | "
                f"{statistics.fmean(one['seconds'] for one in every):.1f} | {sum(len(one['void']) for one in every)} | "
                f"{sum(not one['steady'] for one in every)} |"
            )
        problems = {one["problem"] for row in rows for way in WAYS for one in row[way]} - {""}
        within = [statistics.stdev(map(math.log, one["captures_us"])) for row in rows for one in row["no state set"]]
        print(f"blocks of a launch, no state set: sd {statistics.fmean(within):.3%}; problems: {sorted(problems)[:2]}")


if __name__ == "__main__":
    main()
