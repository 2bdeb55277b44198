"""Which wrong outputs does the comparison with eager catch, and does it refuse right ones?

    python studies/wrong_outputs.py [--nets resnet18 vit] [--precisions fp32 fp16 bf16 tf32] [--inductor]
        [--device cuda] [--record FOLDER] [--outputs FILE ...]

Small networks with random weights run at fp32, fp16 and bf16; what they compute is returned as eleven kinds of output.
Right outputs are the same computed in another way: with other memory formats, kernels and numbers of threads, image by
image, in fp32 (fp16, bf16) or fp64 (fp32) and cast; with `--inductor` by Inductor too. At tf32, which a GPU has, eager
is strict fp32 and the others round. Each must pass. Then each leaf of those that were cast, the furthest from eager, is
made wrong in one way, and the output must fail. Prints versions, how far right outputs are from eager at the most, how
many were refused, and the share of wrong ones that is caught. `--record` stores what the networks computed, of a GPU
for instance, in a file for each network and precision, with every so many channels of its features; `--outputs` reads
such files in the place of running networks, and runs nothing that is in them. Longer than other files: networks,
outputs and what is done to them.
"""

from __future__ import annotations

import argparse
import dataclasses
import platform
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
import torchvision

from trtgate.common.text_columns import TextTable
from trtgate.compiling import output_check
from trtgate.compiling.fp32_arithmetic import allow_tf32, strict_fp32
from trtgate.compiling.leaf_comparison import MEASURED, kind_of
from trtgate.suite.random_weights import condition, threads

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16, "tf32": torch.float32}
IMAGES, SIZE = 8, 256
RECORDED = 1 << 16
"""Values of the features that are stored at most."""
TIES = {"fp32": 0.0, "fp16": 0.1, "bf16": 0.25, "tf32": 0.1}
"""Share of classes that may be another: the two best logits of an image may be nearer than rounding."""
Outputs = dict[str, Any]
"""The kind of output → the output."""
Computed = tuple[torch.Tensor, ...]
"""Features, pooled features and logits of a network."""


@dataclasses.dataclass
class Result:
    """An output as a dataclass."""

    logits: torch.Tensor
    hidden: torch.Tensor
    loss: torch.Tensor | None = None


class Parts(torch.nn.Module):
    """A network of torchvision that returns its map of features, their means, and its logits."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> Computed:
        """Return features, pooled features and logits."""
        net = self.network
        if isinstance(net, torchvision.models.VisionTransformer):
            patches = net._process_input(images)
            first = net.class_token.expand(len(images), -1, -1)
            features = net.encoder(torch.cat([first, patches], dim=1))
            return features, features[:, 0], net.heads(features[:, 0])
        if isinstance(net, torchvision.models.ResNet):
            stem = net.maxpool(net.relu(net.bn1(net.conv1(images))))
            features = net.layer4(net.layer3(net.layer2(net.layer1(stem))))
        else:
            features = net.features(images)
        pooled = net.avgpool(features).flatten(1)
        head = net.fc if hasattr(net, "fc") else net.classifier
        return features, pooled, head(pooled)


NETS: dict[str, Callable[[], torch.nn.Module]] = {
    "resnet18": torchvision.models.resnet18,
    "mobilenet_v3_small": torchvision.models.mobilenet_v3_small,
    "efficientnet_b0": torchvision.models.efficientnet_b0,
    "vit": lambda: torchvision.models.VisionTransformer(
        image_size=SIZE, patch_size=32, num_layers=8, num_heads=6, hidden_dim=384, mlp_dim=1536
    ),
}


def kinds_of_output(computed: Computed) -> Outputs:
    """Return what a network computed as eleven kinds of output, peaked and sparse tensors among them.

    One has a row for each place of each image.
    """
    features, pooled, logits = computed
    maps = features.ndim == 4
    rows = (features.flatten(2).transpose(1, 2) if maps else features[:, 1:]).flatten(0, 1)
    peaked = (6 * torch.nn.functional.layer_norm(logits, logits.shape[1:])).softmax(1)
    sparse = (torch.nn.functional.layer_norm(features, features.shape[1:]) - 2).relu()
    scores, classes = peaked.max(1)
    boxes = pooled[:, :360].reshape(IMAGES, 90, 4).sigmoid() * 600 + 20
    return {
        "tensor": logits,
        "tuple": (features, logits),
        "dict": {"logits": logits, "probabilities": peaked},
        "nested": {"maps": [features, sparse], "head": (logits, {"pooled": pooled})},
        "dataclass": Result(logits, features),
        "detections": [
            {"boxes": boxes[image], "scores": (pooled[image, :90] * 4).sigmoid(), "labels": classes[image : image + 1]}
            for image in range(2)
        ],
        "spectrum": torch.fft.rfft(features.float(), dim=-1),
        "logits and classes": {"logits": logits, "classes": classes, "best": scores},
        "rows": torch.nn.functional.normalize(rows, dim=1),
        "tiny beside big": (features * 100, logits * 1e-2),
        "masked": logits.masked_fill(torch.arange(logits.shape[1], device=logits.device) % 3 == 0, float("-inf")),
    }


def right_ones(name: str, precision: str, args: argparse.Namespace) -> Iterator[tuple[str, Computed, Computed]]:
    """Yield each other way of computing, what eager computes, and what is computed that way."""
    torch.manual_seed(0)
    network = NETS[name]()
    coarse = torch.nn.functional.interpolate(2 * torch.randn(IMAGES, 3, 6, 6), (SIZE, SIZE), mode="bicubic")
    images = coarse + torch.linspace(0.1, 1.0, IMAGES)[:, None, None, None] * torch.randn(IMAGES, 3, SIZE, SIZE)
    condition(network, images)
    dtype = DTYPES[precision]
    parts = Parts(network).eval().requires_grad_(False).to(args.device, dtype)
    images = images.to(args.device, dtype)

    def outputs(call: Callable[[], Any], within: AbstractContextManager[Any] | None = None) -> Computed:
        with torch.no_grad(), within or nullcontext(), rounded() if others_round else nullcontext():
            return tuple(part.to(dtype).contiguous() for part in call())

    others_round = False
    eager = outputs(lambda: parts(images))
    others_round = precision == "tf32"
    if others_round:
        yield "cast to TF32", eager, outputs(lambda: parts(images))
    yield "one thread", eager, outputs(lambda: parts(images), threads(1))
    yield "other kernels", eager, outputs(lambda: parts(images), torch.backends.mkldnn.flags(enabled=False))
    one_by_one = outputs(lambda: tuple(map(torch.cat, zip(*(parts(image[None]) for image in images), strict=True))))
    yield "image by image", eager, one_by_one
    if not others_round:
        wider = torch.float64 if precision == "fp32" else torch.float32
        yield f"in {wider} and cast", eager, outputs(lambda: parts.to(wider)(images.to(wider)))
        parts.to(dtype)
    last = torch.channels_last
    yield "channels last", eager, outputs(lambda: parts.to(memory_format=last)(images.to(memory_format=last)))
    if args.inductor:
        torch._dynamo.reset()
        yield "inductor", eager, outputs(lambda: torch.compile(parts)(images))


@contextmanager
def rounded() -> Iterator[None]:
    """Within: fp32 is computed as TF32, where the device can."""
    allow_tf32(True)
    try:
        yield
    finally:
        allow_tf32(False)


# Wrong outputs

Change = Callable[[torch.Tensor], torch.Tensor | None]
"""Makes a leaf wrong; None where it can't be made so."""


def permuted(value: torch.Tensor) -> torch.Tensor | None:
    axis = next((axis for axis, length in enumerate(value.shape) if length > 1), None)
    return None if axis is None or value.ndim == axis + 1 else value.roll(1, axis)


def channel_zeroed(value: torch.Tensor) -> torch.Tensor | None:
    """Return a tensor with one slice along its second axis zero; None of one that has no axis of eight or more."""
    if value.ndim < 2 or value.shape[1] < 8:
        return None
    changed = value.clone()
    changed[:, 3] = 0
    return changed


def zeroed(share: float) -> Change:
    def change(value: torch.Tensor) -> torch.Tensor | None:
        count = round(share * value.numel())
        if not count:
            return None
        places = torch.randperm(value.numel(), generator=torch.Generator().manual_seed(1))[:count]
        changed = value.clone().flatten()
        changed[places.to(value.device)] = 0
        return changed.reshape(value.shape)

    return change


def one_nan(value: torch.Tensor) -> torch.Tensor:
    changed = value.clone()
    changed.view(-1)[value.numel() // 2] = float("nan")
    return changed


def other_dtype(value: torch.Tensor) -> torch.Tensor:
    return value.to(torch.complex128 if value.is_complex() else torch.float64)


CHANGES: dict[str, Change] = {
    "sign": lambda value: -value,
    "rows permuted": permuted,
    "1 channel zero": channel_zeroed,
    **{f"times {factor}": lambda value, factor=factor: value * factor for factor in (1.01, 1.05, 1.1, 1.5)},  # type: ignore[misc]
    "another dtype": other_dtype,
    "NaN in one place": one_nan,
    **{f"{100 * share:g} % of values zero": zeroed(share) for share in (0.001, 0.01, 0.1)},
}
ROWS = (8, 64, 512)
FIGURES = ("relative_l2", "worst_slice", "largest", "small_slice")


def rebuilt(output: Any, changed: Any, leaf: Any) -> Any:
    """Return an output with one leaf replaced."""
    if output is leaf:
        return changed
    if isinstance(output, dict):
        return {key: rebuilt(value, changed, leaf) for key, value in output.items()}
    if isinstance(output, (list, tuple)):
        return type(output)(rebuilt(value, changed, leaf) for value in output)
    if isinstance(output, Result):
        return Result(*(rebuilt(value, changed, leaf) for value in vars(output).values()))
    return output


def renamed(output: Any, leaf: Any) -> Any:
    """Return an output in which the key of a leaf is another."""
    if isinstance(output, dict):
        return {"renamed" if value is leaf else key: renamed(value, leaf) for key, value in output.items()}
    if isinstance(output, (list, tuple)):
        return type(output)(renamed(value, leaf) for value in output)
    return output


def wrong_ones(output: Any) -> Iterator[tuple[str, Any]]:
    """Yield what was done to a right output, and the wrong one."""
    for path, value in output_check.leaves(output):
        if not isinstance(value, torch.Tensor) or kind_of(value) not in MEASURED:
            continue
        for name, change in CHANGES.items():
            changed = change(value)
            if changed is not None:
                yield name, rebuilt(output, changed, value)
        if path.endswith('"]'):
            yield "key renamed", renamed(output, value)


def row_ones(eager: torch.Tensor, output: torch.Tensor) -> Iterator[tuple[str, torch.Tensor, torch.Tensor]]:
    """Yield what is wrong, eager's rows, and rows of which one is of another image."""
    for count in ROWS:
        if len(output) >= count:
            changed = output[:count].clone()
            changed[count // 2] = output[-1 if count < len(output) else 0]
            yield f"1 of {count} rows another", eager[:count], changed


# The study


class Tally:
    """What was caught and refused."""

    def __init__(self) -> None:
        self.right: dict[str, list[str]] = defaultdict(list)
        """Precision → problem of each right output."""
        self.furthest: dict[tuple[str, str], tuple[float, str]] = defaultdict(lambda: (0.0, ""))
        """Precision and figure → the largest of right outputs, and where that was."""
        self.wrong: dict[tuple[str, str], list[bool]] = defaultdict(list)

    def take(self, precision: str, what: str, eager: Any, output: Any) -> None:
        """Count a right output, and what is made of it."""
        tolerances = dict.fromkeys(("classes", "labels"), TIES[precision])
        compared = output_check.compare(eager, output)
        names = {leaf.name for leaf in compared.leaves}
        tolerances = {name: share for name, share in tolerances.items() if name in names}
        problem = compared.problem(precision, tolerances)
        self.right[precision].append(f"{precision} {what}: {problem}" if problem else "")
        for leaf in compared.leaves:
            for figure in FIGURES:
                found = getattr(leaf, figure), f"{what}, {leaf.path}"
                self.furthest[precision, figure] = max(self.furthest[precision, figure], found)
        if "cast" not in what:
            return
        for done, wrong in wrong_ones(output):
            self.wrong[done, precision].append(bool(output_check.compare(eager, wrong).problem(precision, tolerances)))
        if isinstance(eager, torch.Tensor) and what.endswith("rows"):
            for done, rows, wrong in row_ones(eager, output):
                self.wrong[done, precision].append(bool(output_check.compare(rows, wrong).problem(precision)))

    def print(self) -> None:
        """Print what was counted."""
        precisions = [precision for precision in DTYPES if precision in self.right]
        for precision in precisions:
            refused = [problem for problem in self.right[precision] if problem]
            print(f"{precision}: {len(refused)} of {len(self.right[precision])} right outputs are refused")
            for problem in refused:
                print("   ", problem)
        rows: list[tuple[str, ...]] = [("furthest right output", *precisions)]
        rows += [(name, *(f"{self.furthest[one, name][0]:.1e}" for one in precisions)) for name in FIGURES]
        print(TextTable(rows))
        for (precision, figure), (_, where) in self.furthest.items():
            print(f"    {precision} {figure}: {where}")
        rows = [("wrong outputs caught", *precisions)]
        for done in dict.fromkeys(done for done, _ in self.wrong):
            caught = [self.wrong[done, one] for one in precisions]
            rows.append((done, *(f"{sum(one)} of {len(one)}" for one in caught)))
        print(TextTable(rows))


def thinned(computed: Computed) -> Computed:
    """Return what a network computed on the CPU, with as many channels of its features as are stored."""
    features, *others = (part.cpu() for part in computed)
    channels = torch.arange(0, features.shape[1 if features.ndim == 4 else 2], -(-features.numel() // RECORDED))
    return (features.index_select(1 if features.ndim == 4 else 2, channels), *others)


def record(name: str, precision: str, args: argparse.Namespace) -> None:
    """Store what a network computes in eager and in each other way that gives anything else."""
    found: dict[str, Computed] = {}
    for way, eager, other in right_ones(name, precision, args):
        found["eager"] = thinned(eager)
        if not all(map(torch.equal, eager, other)):
            found[way] = thinned(other)
    file = Path(args.record) / f"{name}-{precision}.pt"
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(found, file)
    print(f"{file}: {', '.join(found)}; {file.stat().st_size / 1e6:.1f} MB", flush=True)


def recorded(file: Path) -> Iterator[tuple[str, Computed, Computed]]:
    """Yield what `record` stored as `right_ones` yields it."""
    found = torch.load(file, weights_only=True)
    eager = found.pop("eager")
    for way, other in found.items():
        yield way, eager, other


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", nargs="+", default=list(NETS), choices=list(NETS))
    parser.add_argument("--precisions", nargs="+", default=["fp32", "fp16", "bf16"], choices=list(DTYPES))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--inductor", action="store_true")
    parser.add_argument("--record", metavar="FOLDER")
    parser.add_argument("--outputs", nargs="+", metavar="FILE", default=[])
    args = parser.parse_args()
    print(f"torch {torch.__version__}, torchvision {torchvision.__version__}, Python {platform.python_version()}")
    asked = [tuple(Path(file).stem.rsplit("-", 1)) for file in args.outputs]
    tally = Tally()
    for place, (name, precision) in enumerate(asked or [(net, one) for net in args.nets for one in args.precisions]):
        with strict_fp32():
            if args.record:
                record(name, precision, args)
                continue
            ways = recorded(Path(args.outputs[place])) if asked else right_ones(name, precision, args)
            for way, eager, other in ways:
                wanted, got = kinds_of_output(eager), kinds_of_output(other)
                for kind in wanted:
                    tally.take(precision, f"{name}, {way}, {kind}", wanted[kind], got[kind])
    if not args.record:
        tally.print()


if __name__ == "__main__":
    main()
