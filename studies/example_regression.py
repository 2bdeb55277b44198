"""A regression to look at: squeeze-and-excitation is added to the last stage of one of two models.

    python studies/example_regression.py FOLDER [--runs record,slower] [PYTEST OPTIONS]

Makes a repository in FOLDER with a suite of two models, records it, and compares it after the edit, with profiles. The
report of the second run, FOLDER/slower-report.json, is the example of the documentation (`make examples`). Runs that
FOLDER has are not done again. On a CPU the models run in eager PyTorch and have no profiles. Prints the machine, the
versions, and what the second run found. Needs a GPU that nothing else uses.
"""

from __future__ import annotations

import gate_runs

from trtgate.common import machine
from trtgate.common.accelerator import detect
from trtgate.report.terminal_table import describe

RUNS = {"record": ["--trtgate-update-baselines"], "slower": ["--benchmark-compare"]}
SUITE = '''
"""Two classifiers of torchvision with seeded random weights."""

from functools import partial

import trtgate
from trtgate.suite.random_weights import condition

WEIGHED = {weighed}
"""Whether the channels of resnet18's last stage are weighed."""


def classifier(name, batch):
    import torch
    import torchvision

    torch.manual_seed(0)
    module = getattr(torchvision.models, name)(weights=None)
    if WEIGHED and name == "resnet18":
        first, second = module.layer4
        weigh = [torchvision.ops.SqueezeExcitation(512, 32) for _ in range(2)]
        module.layer4 = torch.nn.Sequential(first, weigh[0], second, weigh[1])
    condition(module, torch.randn(2, 3, 224, 224))
    return module.eval(), torch.randn(batch, 3, 224, 224)


GRID = trtgate.grid(frontends=["{frontend}"], precisions=["{precision}"], batches=[1])
MODELS = [trtgate.Model(name, partial(classifier, name), GRID) for name in ("resnet18", "mobilenet_v3_large")]
'''


def main() -> None:
    """Record, edit, compare, and print what the comparison said."""
    asked = gate_runs.asked(__doc__, RUNS)
    repository = asked.folder / "repository"
    print(f"{describe(detect())}, {machine.cpus()} CPUs", flush=True)
    for name in asked.runs:
        gate_runs.write_suite(repository, SUITE, weighed=name == "slower")
        one = gate_runs.run(name, asked.folder, asked.folder / "caches", [*RUNS[name], *asked.more], repository)
        print(*[f"{case}: {verdict}" for case, verdict in one.verdicts.items()], *one.lines, sep="\n")


if __name__ == "__main__":
    main()
