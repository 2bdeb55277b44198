"""Does a profile add up, is it attributed, do its top layers stay the same; and how fast is it worked on?

    python studies/profiles.py [MODEL ...] [--launches 5] [--out DIR]
    python studies/profiles.py --speed

On a GPU: profiles each model at fp16, batch 1, in processes of their own, and prints the sum of the layers against
device latency without a profiler, what lies between the two, the share of time attributed to modules, and how many of
the top five layers are the same in all launches. With --speed, anywhere: parsing, attribution and comparison of a
profile of 5,000 layers. Prints the machine and the versions.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from trtgate.common.accelerator import detect
from trtgate.common.text_columns import TextTable
from trtgate.profiles import profile_files
from trtgate.profiles.attribution import attribute
from trtgate.profiles.differences import compare
from trtgate.profiles.engine_information import layers_of
from trtgate.profiles.layer_times import timed
from trtgate.records.profile_record import Operator, Part, Profile
from trtgate.report.terminal_table import describe

MODELS = ("resnet18", "vit_b_16")
TOP = 5
BLOCKS = 2500
SHAPE = [1, 64, 56, 56]


def profiles_of(models: Sequence[str], launches: int, out: Path) -> dict[str, list[Profile]]:
    """Profile models in processes of their own, each building its own engines; the device's lock lets one time."""
    started = []
    for number in range(launches):
        command = [sys.executable, "-c", "from trtgate.cli import main; main()", "profile", *models]
        started.append(subprocess.Popen([*command, "-o", str(out / str(number))], stdout=subprocess.DEVNULL))
    if sum(process.wait() for process in started):  # all are waited for
        raise SystemExit("a launch failed; what it said is above")
    return {
        model: [profile_files.read(path) for path in sorted(out.glob(f"*/{model}-*/{profile_files.PROFILE}"))]
        for model in models
    }


def row(model: str, found: list[Profile]) -> tuple[str, ...]:
    """Return the table's line of a model, from its first launch; the top layers from all."""
    profile, gap = found[0], found[0].breakdown
    tops = [set(_names_by_time(one)[:TOP]) for one in found]
    device = profile.device_us or 0.0
    between = ("", "", "", "")
    if gap is not None:
        between = tuple(f"{us:.1f}" for us in (gap.kernels_us, gap.copies_us, gap.between_us, gap.profiler_us))  # type: ignore[assignment]
    return (
        model, f"{device:.1f}", f"{profile.sum_us:.1f}", f"{profile.sum_us / device - 1:+.1%}", *between,
        str(sum(1 for _ in profile.layers())), f"{profile.attributed:.1%}", f"{len(set.intersection(*tops))} of {TOP}",
    )  # fmt: skip


def _names_by_time(profile: Profile) -> list[str]:
    ranked = sorted(profile.layers(), key=lambda found: -found[1].median_us)
    return [" ".join(layer.sources) or layer.name for _, layer in ranked]


def document(blocks: int) -> tuple[str, Part]:
    """Return what an inspector would say of a chain of residual blocks, two layers each, and its operators."""
    layers, operators, taken, held = [], [], "x", "x"
    for block in range(blocks):
        names = [f"{kind}{block}" for kind in ("ca", "ba", "ra", "cb", "bb", "add", "rb")]
        inputs = [[taken], [names[0]], [names[1]], [names[2]], [names[3]], [names[4], taken], [names[5]]]
        kinds = ("convolution", "batch_norm", "relu", "convolution", "batch_norm", "add", "relu")
        operators += [
            Operator(
                node=name, operator=f"aten.{kind}.default", module=f"block{block}.{name}", inputs=given, shapes=[SHAPE]
            )
            for name, kind, given in zip(names, kinds, inputs, strict=True)
        ]
        middle, end = f"m{block}", "output0" if block == blocks - 1 else f"e{block}"
        layers.append(_layer("__myl_CorrMulAddRelu", 2 * block, [held], middle))
        layers.append(_layer("__myl_CorrMulAddAddRelu", 2 * block + 1, [held, middle], end))
        taken, held = names[-1], end
    part = Part(name="p", kind="tensorrt", layers=[], operators=operators, inputs=["x"], outputs=[taken])
    return json.dumps({"Layers": layers, "Bindings": ["x", "output0"]}), part


def _layer(name: str, number: int, taken: list[str], made: str) -> dict[str, object]:
    def tensor(of: str) -> dict[str, object]:
        return {"Name": of, "Dimensions": SHAPE, "Format/Datatype": "Half"}

    return {
        "Name": f"{name}_myl0_{number}", "LayerType": "runtime_fusion", "TacticName": "", "StreamId": 0,
        "Inputs": [tensor(of) for of in taken], "Outputs": [tensor(made)],
    }  # fmt: skip


def speed() -> list[tuple[str, str]]:
    """Return step → seconds, fastest of three."""
    text, part = document(BLOCKS)
    accelerator = detect()

    def parsed() -> None:
        part.layers = layers_of(json.loads(text))

    def statistics() -> None:
        timed(part, [[float(number % 7 + block % 3) for block in range(20)] for number in range(2 * BLOCKS)])

    steps: dict[str, Callable[[], object]] = {
        "parsing the inspector's JSON": parsed,
        "medians and intervals": statistics,
        "attribution": lambda: attribute(part),
    }
    found = [(name, f"{_fastest(step):.2f} s") for name, step in steps.items()]
    before = Profile(case_id="a", accelerator=accelerator, recorded="", runtime="", calls=1, parts=[part])
    changed = msgspec.json.decode(msgspec.json.encode(part), type=Part)
    for layer in changed.layers[::100]:
        layer.tactic, layer.blocks_us = "another", [us + 1 for us in layer.blocks_us]
    del changed.layers[BLOCKS]
    after = msgspec.structs.replace(before, parts=[changed])
    found.append(("comparison, 1 % of layers changed", f"{_fastest(lambda: compare(before, after)):.2f} s"))
    known = sum(bool(layer.evidence) for layer in part.layers)
    return [*found, ("attributed", f"{known} of {len(part.layers)} layers")]


def _fastest(step: Callable[[], object]) -> float:
    taken = []
    for _ in range(3):
        start = time.perf_counter()
        step()
        taken.append(time.perf_counter() - start)
    return min(taken)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=MODELS)
    parser.add_argument("--launches", type=int, default=5)
    parser.add_argument("--out", type=Path, help="keep the profiles here")
    parser.add_argument("--speed", action="store_true")
    options = parser.parse_args()
    print(describe(detect()))
    if options.speed:
        print(TextTable([("5,000 layers", ""), *speed()]))
        return
    head = (
        "model", "device µs", "layers µs", "apart", "kernels µs", "copies µs", "between µs", "profiler µs", "layers",
        "attributed", f"top {TOP} in all launches",
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as temporary:
        found = profiles_of(options.models, options.launches, options.out or Path(temporary))
    rows = [row(model, profiles) for model, profiles in found.items()]
    print(TextTable([head, *rows]))


if __name__ == "__main__":
    main()
