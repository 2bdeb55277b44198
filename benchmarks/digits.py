"""A small classifier, trained on scikit-learn's digits: what quantizing costs means something here.

`python benchmarks/digits.py` trains it anew, in seconds, and stores its weights.
"""

from __future__ import annotations

import copy
import gzip
import importlib.util
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from trtgate.suite.random_weights import threads

SEED = 20240229
EPOCHS, BATCH, LEARNING_RATE = 12, 64, 2e-3
WEIGHTS = Path(__file__).with_name("digits.npz")
"""Stored, since each process of a run would train for 5 s, and on another CPU end with other last bits."""
TEST_EVERY = 4
"""Every fourth image is kept out of the training."""


def digits(batch: int) -> tuple[Any, Any]:
    """Return the trained classifier and a batch of images that it was not trained on."""
    images, _ = _data(test=True)
    return copy.deepcopy(_trained()), images[:batch]


def samples(count: int, seed: int) -> Iterator[Any]:
    """Yield images that it was not trained on, in an order that the seed decides; the same again after the last."""
    import torch

    images, _ = _data(test=True)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    for number in range(count):
        yield images[order[number % len(order)]][None]


def accuracy(module: Any) -> float:
    """Return the share of the kept images that a module classifies right."""
    import torch

    images, labels = _data(test=True)
    with torch.no_grad():
        return float((module(images).argmax(1) == labels).double().mean())


@lru_cache
def _data(*, test: bool) -> tuple[Any, Any]:
    """Return images, (n, 1, 8, 8) from 0 to 1, and labels. Reads the file; importing scikit-learn takes seconds."""
    import numpy as np
    import torch

    spec = importlib.util.find_spec("sklearn")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("scikit-learn ships the digits, and is not installed: pip install 'trtgate[quant]'")
    with gzip.open(Path(spec.submodule_search_locations[0], "datasets", "data", "digits.csv.gz"), "rt") as file:
        rows = np.loadtxt(file, delimiter=",")
    rows = rows[(np.arange(len(rows)) % TEST_EVERY == 0) == test]
    images = torch.tensor(rows[:, :64] / 16.0, dtype=torch.float32).reshape(-1, 1, 8, 8)
    return images, torch.tensor(rows[:, 64], dtype=torch.int64)


@lru_cache
def _trained() -> Any:
    """Return the classifier with the weights that `python benchmarks/digits.py` stored: the same on every machine."""
    import numpy as np
    import torch

    module = _layers()
    with np.load(WEIGHTS, allow_pickle=False) as stored:
        state = {name: torch.from_numpy(stored[name]) for name in stored.files}
    module.load_state_dict(state)
    return module.eval().requires_grad_(False)


def _layers() -> Any:
    import torch

    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 32, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(32, 64, 3, padding=1, stride=2),
        torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(64 * 16, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10),
    )  # fmt: skip


def _fitted() -> Any:
    """Train it, in about 5 s, by one thread."""
    import torch

    generator = torch.Generator().manual_seed(SEED)
    module = _layers()
    with torch.no_grad():
        for parameter in module.parameters():
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 1
            scale = (2.0 / fan_in) ** 0.5 if parameter.ndim > 1 else 0.0
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
    images, labels = _data(test=False)
    optimizer = torch.optim.Adam(module.parameters(), lr=LEARNING_RATE)
    with torch.enable_grad():
        for _ in range(EPOCHS):
            order = torch.randperm(len(images), generator=generator)
            for chosen in order.split(BATCH):
                loss = torch.nn.functional.cross_entropy(module(images[chosen]), labels[chosen])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    return module.eval().requires_grad_(False)


def main() -> None:
    """Train it, and store its weights."""
    import numpy as np

    with threads(1):
        module = _fitted()
    np.savez_compressed(WEIGHTS, **{name: value.numpy() for name, value in module.state_dict().items()})
    print(f"{WEIGHTS.name}: {accuracy(module):.1%} of the images that it was not trained on")


if __name__ == "__main__":
    main()
