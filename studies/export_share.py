"""What of a build is exporting, and what it would cost to send the exported program to the card's node.

    python studies/export_share.py [--models resnet18,resnet50,mobilenet_v3_large,vit_b_16,swin_t]

For each model, in fp16, on the CPU, one thread: making the model, exporting it, writing the program as
`torch.export.save` does, and reading it again, all in seconds of CPU time, so that other work counts little; its bytes;
and what building took on an H100 in all (the seconds of `studies/cluster_simulation.py`).
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Callable
from typing import Any

import torch
from cluster_simulation import BUILD_S

from trtgate.common import machine
from trtgate.common.accelerator import detect
from trtgate.common.text_columns import TextTable
from trtgate.compiling import building
from trtgate.report.terminal_table import describe
from trtgate.suite import zoo
from trtgate.suite.cases import Case
from trtgate.suite.settings import Settings
from trtgate.torch_trt import exporting


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """Return what something gave, and how many seconds of CPU time it took."""
    start = time.process_time()
    found = work()
    return found, time.process_time() - start


def row(name: str) -> tuple[str, ...]:
    """Return the row of a model."""
    model = next(one for one in zoo.models() if one.name == name)
    settings = Settings(frontend="dynamo", precision="fp16", batch=1)
    (module, inputs), make_s = timed(lambda: building.make(Case(model, settings), "cpu"))
    program, export_s = timed(lambda: exporting.export(module, inputs, settings))
    file = io.BytesIO()
    _, save_s = timed(lambda: torch.export.save(program, file))
    file.seek(0)
    _, load_s = timed(lambda: torch.export.load(file))
    seconds = (make_s, export_s, save_s, load_s)
    size = f"{file.getbuffer().nbytes / 2**20:.0f} MiB"
    return (name, *(f"{one:.1f} s" for one in seconds), size, f"{BUILD_S[name]:g} s")


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(BUILD_S))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{describe(detect())}, {machine.cpus()} CPUs\n")
    row(asked.models.split(",")[0])  # what is imported with the first export
    rows = [("model", "making it", "exporting", "writing", "reading", "program", "built on an H100 in")]
    print(TextTable([*rows, *map(row, asked.models.split(","))]))


if __name__ == "__main__":
    main()
