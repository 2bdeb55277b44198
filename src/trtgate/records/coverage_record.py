"""What Torch-TensorRT takes of a graph, in which engines, and why the rest stays in PyTorch, as data."""

from __future__ import annotations

import math

import msgspec

NO_CONVERTER = "no converter"
REFUSED = "validator refused"
EXCLUDED = "excluded by torch_executed_ops"
COMPLEX = "complex tensors"
DYNAMIC = "its converter takes no dynamic shapes"
DATA_DEPENDENT = "data-dependent shape, kept in PyTorch by fallback_data_dependent_ops"
PARTITIONER = "left out by the partitioner"
DISABLED = "its converter is disabled in this build"


def disabled(why: str) -> str:
    """Return the reason of operators whose converter the installed build refuses to run, with upstream's words."""
    return f"{DISABLED} ({why})"


def too_small(min_block_size: int) -> str:
    """Return the reason of operators whose engine would be smaller than `min_block_size`."""
    return f"engine smaller than min_block_size {min_block_size}"


class EngineOperators(msgspec.Struct, frozen=True, kw_only=True):
    """One TensorRT engine: operator → count, and its tensors, such as `float16[1,3,224,224]`."""

    operators: dict[str, int]
    inputs: list[str]
    outputs: list[str]

    @property
    def size(self) -> int:
        """How many operators it holds."""
        return sum(self.operators.values())


class Left(msgspec.Struct, frozen=True, kw_only=True):
    """Operators of one kind that stay in PyTorch for one reason."""

    operator: str
    reason: str
    count: int
    sources: dict[str, int] = {}
    """Line of source, such as `models/net.py:12: x = torch.special.bessel_j0(x)` → how many of them it made. Without
    those whose line is not known; empty in files of before."""


class BlockSize(msgspec.Struct, frozen=True, kw_only=True):
    """What every `min_block_size` up to this one gives, down to the next smaller one of the table."""

    min_block_size: int
    engines: int
    operators: int
    """In TensorRT."""


class Coverage(msgspec.Struct, kw_only=True):
    """What Torch-TensorRT takes of a model under one setting.

    `total` operators are the lowered graph's calls, `getitem` included; `supported` of them have a converter that
    accepts them; `in_tensorrt` are in `engines`, `in_pytorch` are not.
    """

    min_block_size: int
    total: int
    supported: int
    in_tensorrt: int
    in_pytorch: int
    left: list[Left]
    """Everything that stays in PyTorch, by operator and reason."""
    engines: list[EngineOperators]
    block_sizes: list[BlockSize]
    graphs: int = 1
    """How many graphs torch.compile made; one for an exported program."""
    graph_breaks: dict[str, int] = {}
    """Reason → count."""
    skipped: dict[str, int] = {}
    """Reason → count, of frames that Dynamo skipped: what they hold runs in PyTorch, and is in none of the counts."""

    @property
    def adds_up(self) -> bool:
        """Whether the counts agree: what is in engines and what is left are all operators, and none is negative."""
        in_engines = [count for engine in self.engines for count in engine.operators.values()]
        left = [entry.count for entry in self.left]
        sums = (sum(in_engines), sum(left), self.in_tensorrt + self.in_pytorch)
        return min([0, *in_engines, *left]) == 0 and sums == (self.in_tensorrt, self.in_pytorch, self.total)

    @property
    def average_size(self) -> float:
        """Operators per engine; 0 without engines."""
        return self.in_tensorrt / len(self.engines) if self.engines else 0.0

    @property
    def most(self) -> int:
        """Operators of the largest engine."""
        return max((engine.size for engine in self.engines), default=0)

    @property
    def recommended(self) -> list[int]:
        """`min_block_size` for the fewest engines, and for a moderate number of them where that is another one.

        The dry run's rule (torch_tensorrt.dynamo._DryRunTracker): the largest engine's operators, and the
        average rounded up; of the engines at `min_block_size=1`, so that they do not depend on the size asked for.
        """
        if not self.block_sizes:
            return []
        finest = self.block_sizes[0]
        sizes = {self.block_sizes[-1].min_block_size, math.ceil(finest.operators / finest.engines)}
        return sorted(sizes, reverse=True)
