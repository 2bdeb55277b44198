"""Does our coverage agree with the dry run that upstream prints, and is it exact at every `min_block_size`?

    python studies/coverage.py [--models resnet18,swin_t,…]

For each model (fp16, dynamo), as it is and with some operators excluded: every `min_block_size` of its table and one
beyond is asked for, and what upstream prints for the same compile is parsed. Prints one line a combination that
differs, by kind of difference, and how long it took. Needs no GPU. `--figures` prints the known figures instead,
`--cold` what one small model takes from a cold command.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import platform
import re
import resource
import subprocess
import sys
import time
from collections import Counter
from importlib import metadata
from typing import Any

MODELS = (
    "alexnet",
    "resnet18",
    "squeezenet1_0",
    "googlenet",
    "mobilenet_v2",
    "shufflenet_v2_x0_5",
    "swin_t",
    "vit_b_16",
)
EXCLUDED = ((), ("aten.relu", "aten.gelu"), ("aten.add", "aten.cat"), ("aten.native_dropout", "aten.layer_norm"))
KNOWN = {"resnet18": 89, "mobilenet_v3_large": 358, "vit_b_16": 429, "swin_t": 479, "convnext_tiny": 208}
"""Operators of the lowered graph at fp16 on 2.14."""
MOST_SIZES = 6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--figures", action="store_true")
    parser.add_argument("--cold", action="store_true")
    options = parser.parse_args()
    flavours = ("torch-tensorrt-rtx", "torch-tensorrt")
    installed = [f"{name} {metadata.version(name)}" for name in ("torch", *flavours) if _installed(name)]
    print(", ".join(installed), f"Python {platform.python_version()}, {_cpu()}")
    if options.cold:
        cold()
    elif options.figures:
        figures()
    else:
        agreement(options.models.split(","))


def agreement(names: list[str]) -> None:
    """Compare record and printed report over models, excluded operators and block sizes."""
    from trtgate.coverage import dry_run
    from trtgate.suite.cases import Case
    from trtgate.suite.settings import Settings
    from trtgate.suite.zoo import models

    factories = {model.name: model for model in models()}
    kinds: Counter[str] = Counter()
    combinations = predicted = 0
    for name in names:
        for excluded in EXCLUDED:
            settings = Settings(
                frontend="dynamo", precision="fp16", batch=1, min_block_size=1, torch_executed_ops=excluded
            )
            table = dry_run.ask(Case(factories[name], settings)).block_sizes
            sizes = sorted({1, 5, *(row.min_block_size for row in table)})
            for size in sorted({*sizes[: MOST_SIZES - 1], sizes[-1], sizes[-1] + 1}):
                case = Case(factories[name], _with_size(settings, size))
                found, report = both(case)
                differences = compare(found, report)
                combinations += 1
                expected = next((row for row in table if row.min_block_size >= size), None)
                right = (len(found.engines), found.in_tensorrt) == (
                    (0, 0) if expected is None else (expected.engines, expected.operators)
                )
                predicted += right
                kinds.update(differences)
                said = "; ".join(differences) or "agree"
                print(
                    f"{case.id:75} {found.in_tensorrt:5}/{found.total:<5} {len(found.engines):3} engines  {said}",
                    flush=True,
                )
                if not right:
                    print(f"    NOT as the table predicts: {expected}")
    print(f"\n{combinations} combinations; {predicted} as the table of min_block_size predicts")
    for kind, n in kinds.most_common():
        print(f"{n:4}  {kind}")


def _with_size(settings: Any, size: int) -> Any:
    import msgspec

    return msgspec.structs.replace(settings, min_block_size=size)


def both(case: Any) -> tuple[Any, str]:
    """Return our record and upstream's printed report of one and the same compile."""
    import torch

    from trtgate.compiling import building
    from trtgate.coverage import dry_run
    from trtgate.torch_trt import compile_calls, gpu_stand_in, partitioner

    with dry_run.unfilled():
        module, inputs = building.make(case, "cpu")
    said = io.StringIO()
    with gpu_stand_in.stand_in(), partitioner.observing() as seen, contextlib.redirect_stdout(said), torch.no_grad():
        compile_calls.compile_exported(
            torch.export.export(module, inputs.args, inputs.kwargs), inputs, case.settings, dryrun=True
        )
    return seen.counted(case.settings), said.getvalue()


def compare(found: Any, report: str) -> list[str]:
    """Return how the printed report differs, a phrase for each kind of difference."""
    differences = []
    total, supported = map(int, re.search(r"of (\d+) Total Operators, of which (\d+)", report).groups())  # type: ignore[union-attr]
    if (total, supported) != (found.total, found.supported):
        differences.append("other totals")
    sizes = [int(size) for size in re.findall(r"Number of Operators in Engine: (\d+)", report)]
    if sizes != [engine.size for engine in found.engines]:
        differences.append("other engines")
    listed = sum(
        int(n) for n in re.findall(r"^\s*torch\.ops\S+: (\d+)$|^\s*_operator\S+: (\d+)$", report, re.M) for n in n if n
    )
    if listed != found.total - found.supported:
        differences.append("unsupported operators that the report does not list")
    nodes = len(re.findall(r"^Node: ", report, re.M))
    getitems = sum(entry.count for entry in found.left if entry.operator == "_operator.getitem")
    if nodes != found.in_pytorch:
        differences.append(
            "the report's list of PyTorch nodes omits getitem"
            if nodes + getitems == found.in_pytorch
            else "another list of PyTorch nodes"
        )
    recommended = re.search(r"minimal graph segmentation, select min_block_size=(\d+)", report)
    if sizes and recommended and found.recommended and int(recommended[1]) != found.recommended[0]:
        differences.append("another recommended size")
    if not sizes and found.recommended:
        differences.append("the report recommends no size where no engine is made")
    return differences


def figures() -> None:
    """Print the figures that are known of some models, and what they cost."""
    from trtgate.coverage import dry_run
    from trtgate.suite.cases import Case
    from trtgate.suite.settings import Settings
    from trtgate.suite.zoo import models

    factories = {model.name: model for model in models()}
    print(f"{'model':22}{'operators':>10}{'known':>7}{'engines':>9}{'recommended':>13}{'seconds':>9}{'peak GB':>9}")
    for name in [*KNOWN, "vit_h_14"]:
        case = Case(factories[name], Settings(frontend="dynamo", precision="fp16", batch=1, min_block_size=5))
        if name == "resnet18":
            dry_run.ask(case)  # the import of torch_tensorrt is not the model's
        start = time.perf_counter()
        found = dry_run.ask(case)
        seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        known = KNOWN.get(name, "")
        print(
            f"{name:22}{found.total:10}{known:>7}{len(found.engines):9}{found.recommended[0]:13}{seconds:9.1f}{peak:9.2f}",
            flush=True,
        )


def cold() -> None:
    """Print where the time of one cold command goes."""
    script = (
        "import time; t = time.perf_counter(); import torch; a = time.perf_counter(); import torchvision; "
        "b = time.perf_counter(); from trtgate.torch_trt import gpu_stand_in\nwith gpu_stand_in.stand_in(): pass\n"
        "print(a - t, b - a, time.perf_counter() - b)"
    )
    parts = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout.split()
    start = time.perf_counter()
    command = "from trtgate.cli import main; import sys; sys.argv = ['trtgate', 'coverage', 'resnet18']; main()"
    subprocess.run([sys.executable, "-c", command], check=True, capture_output=True)
    whole = time.perf_counter() - start
    torch_s, vision_s, trt_s = map(float, parts)
    rest = whole - torch_s - vision_s - trt_s
    print(f"trtgate coverage resnet18: {whole:.1f} s")
    print(f"  import torch {torch_s:.1f}, torchvision {vision_s:.1f}, torch_tensorrt {trt_s:.1f}, all else {rest:.1f}")


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _cpu() -> str:
    from trtgate.common import accelerator

    device = accelerator.detect()
    return f"{device.name}, {device.cpus} CPUs" if device.kind == "cpu" else device.name


if __name__ == "__main__":
    main()
