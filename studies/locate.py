"""Does `trtgate locate` name the module that is wrong?

    python studies/locate.py [--frontends aot_eager inductor] [--faults 20] [--models resnet18 vit_b_16 encoder]
        [--device cuda]

In a network with random weights one module, drawn with a seed among all that are called, is made wrong when it is
compiled: its output is scaled, shifted along an axis, negated, or a slice of it is zero. Faults that leave the output
of the network within its tolerance are counted, and others drawn. The network is compiled and searched as `trtgate
locate` does. Prints for each frontend and network how often the planted module is named, how many submodules were
compiled for it, and the seconds that a search takes; and every search that names another module.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torchvision

from trtgate import Case, Model, Settings
from trtgate.common.text_columns import TextTable
from trtgate.compiling import locating_in_case
from trtgate.compiling.location import Location
from trtgate.compiling.reference import Reference
from trtgate.suite.random_weights import condition

SIZE = 64
"""Pixels of an image's side."""


class SelfAttention(torch.nn.Module):
    """As BERT's: query, key and value apart, a mask that is added to the scores."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.output = (torch.nn.Linear(width, width) for _ in range(4))

    def forward(self, hidden: torch.Tensor, *, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        split = (*hidden.shape[:2], self.heads, -1)
        query, key, value = (one(hidden).view(split).transpose(1, 2) for one in (self.query, self.key, self.value))
        weights = (query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5 + mask).softmax(-1)
        return self.output((weights @ value).transpose(1, 2).flatten(2)), weights


class EncoderLayer(torch.nn.Module):
    """A layer of BERT: attention and a feed-forward network, each added and normalised."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = SelfAttention(width, heads)
        self.attention_norm, self.norm = torch.nn.LayerNorm(width), torch.nn.LayerNorm(width)
        self.intermediate, self.gelu = torch.nn.Linear(width, 4 * width), torch.nn.GELU()
        self.output = torch.nn.Linear(4 * width, width)

    def forward(self, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        hidden = self.attention_norm(hidden + self.attention(hidden, mask=mask)[0])
        return self.norm(hidden + self.output(self.gelu(self.intermediate(hidden))))


class Encoder(torch.nn.Module):
    """An encoder as BERT's: embeddings, six layers, a pooler."""

    def __init__(self, width: int = 256, heads: int = 4, layers: int = 6) -> None:
        super().__init__()
        self.words, self.positions = torch.nn.Embedding(1000, width), torch.nn.Embedding(64, width)
        self.norm = torch.nn.LayerNorm(width)
        self.layers = torch.nn.ModuleList(EncoderLayer(width, heads) for _ in range(layers))
        self.pooler, self.tanh = torch.nn.Linear(width, width), torch.nn.Tanh()

    def forward(self, tokens: torch.Tensor, lengths: torch.Tensor) -> dict[str, torch.Tensor]:
        places = torch.arange(tokens.shape[1], device=tokens.device)
        mask = torch.where(places[None] < lengths[:, None], 0.0, -1e4)[:, None, None]
        hidden = self.norm(self.words(tokens) + self.positions(places))
        for layer in self.layers:
            hidden = layer(hidden, mask)
        return {"hidden": hidden, "pooled": self.tanh(self.pooler(hidden[:, 0]))}


def of_images(make: Callable[[], torch.nn.Module]) -> Any:
    images = torch.randn(2, 3, SIZE, SIZE)
    module = make()
    condition(module, images)
    return module, images


NETWORKS: dict[str, Callable[[], Any]] = {
    "resnet18": lambda: of_images(torchvision.models.resnet18),
    "vit_b_16": lambda: of_images(lambda: torchvision.models.vit_b_16(image_size=SIZE)),
    "encoder": lambda: (Encoder(), (torch.randint(0, 1000, (2, 32)), torch.tensor([32, 20]))),
}


def zero_slice(value: torch.Tensor) -> torch.Tensor:
    """Return it with a quarter of its last axis zero."""
    keep = torch.ones(value.shape[-1], device=value.device, dtype=value.dtype)
    keep[: -(-value.shape[-1] // 4)] = 0
    return value * keep


FAULTS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "scaled": lambda value: value * 1.2,
    "negated": lambda value: -value,
    "shifted": lambda value: value.roll(1, -1),
    "zero slice": zero_slice,
}


def planted(forward: Callable[..., Any], fault: Callable[[torch.Tensor], torch.Tensor]) -> Callable[..., Any]:
    """Return a forward whose output, or its first tensor, is wrong when it is compiled."""

    def wrong(*args: Any, **kwargs: Any) -> Any:
        result = forward(*args, **kwargs)
        if not torch.compiler.is_compiling():
            return result
        return (fault(result[0]), *result[1:]) if isinstance(result, tuple) else fault(result)

    return wrong


def called(module: torch.nn.Module, inputs: Any) -> list[str]:
    """Return the paths of the submodules that are called."""
    found: dict[str, None] = {}
    hooks = [
        one.register_forward_pre_hook(lambda _module, _args, name=name: found.setdefault(name))
        for name, one in module.named_modules()
        if name
    ]
    with torch.no_grad():
        module(*(inputs if isinstance(inputs, tuple) else (inputs,)))
    for hook in hooks:
        hook.remove()
    return list(found)


@contextmanager
def quiet() -> Iterator[None]:
    """Within: seeded, so that every fault meets the same network."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def search(network: str, frontend: str, path: str, fault: str, device: str = "cpu") -> tuple[Location | None, float]:
    """Plant a fault and search; None where the output stays within its tolerance. Seconds are those of the search."""

    def factory() -> Any:
        with quiet():
            module, inputs = NETWORKS[network]()
        module.eval()
        wrong = module.get_submodule(path)
        wrong.forward = planted(wrong.forward, FAULTS[fault])
        return module, inputs

    settings = Settings(frontend=frontend)
    case = Case(Model(network, factory, [settings]), settings)
    reference = Reference(case, device, lambda _step: None)
    inference = reference.build(*reference.prepare(lambda _step: None), lambda _step: None)
    compared, problem = reference.expected.compared(case, inference)
    if not problem:
        return None, 0.0
    known = locating_in_case.whole(reference, compared, problem)
    start = time.perf_counter()
    found = locating_in_case.locate(case, reference, known, locating_in_case.judge_of(reference), None)
    return found, time.perf_counter() - start


def study(network: str, frontend: str, faults: int, device: str) -> tuple[str, ...]:
    """Return the row of a network."""
    with quiet():
        module, inputs = NETWORKS[network]()
    drawn, paths = random.Random(network), called(module.eval(), inputs)
    named = hidden = 0
    seconds: list[float] = []
    compiles: list[int] = []
    while len(seconds) < faults:
        path, fault = drawn.choice(paths), drawn.choice(list(FAULTS))
        found, took = search(network, frontend, path, fault, device)
        if found is None:
            hidden += 1
            continue
        seconds.append(took)
        compiles.append(len(found.checked))
        if path in (found.wrong.path, found.suspect):
            named += 1
        else:
            print(f"    {frontend}, {network}: {fault} {path}: {found.sentence()}", flush=True)
    print(f"    {frontend}, {network}: {named} of {faults}", flush=True)
    return (
        frontend, network, f"{named} of {faults}", str(hidden), f"{statistics.median(compiles):.0f}",
        f"{statistics.median(seconds):.0f}", f"{max(seconds):.0f}",
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frontends", nargs="+", default=["aot_eager", "inductor"])
    parser.add_argument("--models", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--faults", type=int, default=20)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    versions = f"torch {torch.__version__}, torchvision {torchvision.__version__}, Python {platform.python_version()}"
    print(f"{versions}, {os.cpu_count()} CPUs", flush=True)
    rows: list[tuple[str, ...]]
    rows = [("frontend", "network", "named", "no effect", "submodules compiled", "median s", "longest s")]
    rows += [
        study(network, frontend, args.faults, args.device) for frontend in args.frontends for network in args.models
    ]
    print(TextTable(rows, left=(0, 1)))


if __name__ == "__main__":
    main()
