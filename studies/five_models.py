"""How long does somebody wait who gates five models: recorded from nothing, compared from the cache, one model changed?

    python studies/five_models.py FOLDER [--runs record,plain,again,changed] [PYTEST OPTIONS]

Makes a repository in FOLDER with a suite of five models that `benchmarks/suite.py` has not; maxvit_t is among them,
which is slow to load. Every run is a process of its own and begins as a user begins it, with default settings:

record    `pytest benchmarks --trtgate-update-baselines`, nothing cached
plain     `pytest benchmarks --benchmark-compare`, all builds cached
again     the same once more: what differs between these two is chance
changed   `pytest benchmarks --benchmark-compare --trtgate-changed` after an edit of one model, which must be built

Runs that FOLDER has are not done again. On a CPU the models run in eager PyTorch, which tries the study and tells
nothing about engines. Prints the machine, the versions and a table. Needs a GPU that nothing else uses.
"""

from __future__ import annotations

from collections import Counter

import gate_runs

from trtgate.common import machine
from trtgate.common.accelerator import detect
from trtgate.common.text_columns import TextTable
from trtgate.report.terminal_table import describe

RUNS = {
    "record": ["--trtgate-update-baselines"],
    "plain": ["--benchmark-compare"],
    "again": ["--benchmark-compare"],
    "changed": ["--benchmark-compare", "--trtgate-changed"],
}
SUITE = '''
"""Five classifiers of torchvision with seeded random weights."""

from functools import partial

import trtgate
from trtgate.suite.random_weights import condition

CHANGED = {changed}
NAMES = ("maxvit_t", "efficientnet_b0", "densenet121", "regnet_y_400mf", "convnext_tiny")


def classifier(name, batch):
    import torch
    import torchvision

    torch.manual_seed(0)
    module = getattr(torchvision.models, name)(weights=None)
    condition(module, torch.randn(2, 3, 224, 224))
    module = module.eval()
    if CHANGED and name == "regnet_y_400mf":
        module = torch.nn.Sequential(module, torch.nn.Softmax(-1))
    return module, torch.randn(batch, 3, 224, 224)


GRID = trtgate.grid(frontends=["{frontend}"], precisions=["{precision}"], batches=[1])
MODELS = [trtgate.Model(name, partial(classifier, name), GRID) for name in NAMES]
'''


def main() -> None:
    """Run the gate as often as asked, and print the table."""
    asked = gate_runs.asked(__doc__, RUNS)
    folder, repository = asked.folder, asked.folder / "repository"
    print(f"{describe(detect())}, {machine.cpus()} CPUs", flush=True)
    table: list[tuple[str, ...]] = [("run", "exit", "whole run", "built ahead in", "its latency tests", "verdicts")]
    runs = []
    for name in asked.runs:
        gate_runs.write_suite(repository, SUITE, changed=name == "changed")
        one = gate_runs.run(name, folder, folder / "caches", [*RUNS[name], *asked.more], repository)
        runs.append(one)
        tests_s = sum(one.test_s.get(gate_runs.LATENCY, {}).values())
        said = ", ".join(f"{count} {verdict}" for verdict, count in sorted(Counter(one.verdicts.values()).items()))
        seconds = (f"{value:.1f} s" if value else "-" for value in (one.seconds, one.ahead_s, tests_s))
        table.append((name, str(one.exit_status), *seconds, said))
    print(TextTable(table, left=(0, 5)), end="\n\n")
    print(gate_runs.spent_table(runs))


if __name__ == "__main__":
    main()
