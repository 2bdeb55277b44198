"""Parts of a module that stay in PyTorch while the rest is compiled: what is wrong by its surroundings shows so."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import torch

from ..records.profile_record import TENSORRT, UNKNOWN, Part
from ..torch_trt import compile_options

ATTENTION_KERNELS = ("flash", "efficient", "cudnn")
"""What stands for the `*` of fused attention in the names of `Part.operators`."""


@contextlib.contextmanager
def disabled(modules: Iterable[torch.nn.Module]) -> Iterator[None]:
    """Within: torch.compile compiles no call of these modules."""
    changed: list[tuple[dict[str, Any], Any]] = []
    try:
        for module in dict.fromkeys(modules):
            own = vars(module)
            changed.append((own, own.get("forward")))
            own["forward"] = torch.compiler.disable(module.forward)
        yield
    finally:
        for own, before in reversed(changed):
            if before is None:
                del own["forward"]
            else:
                own["forward"] = before


def operators_of(graphs: Iterable[tuple[Part, ...]]) -> dict[str, list[str]]:
    """Return the operators in engines, in order of first use, and of each the paths of the modules that it came from.

    What `torch_executed_ops` can't name, such as `_operator.getitem`, is no operator of torch and left out.
    """
    found: dict[str, list[str]] = {}
    for part in (part for graph in graphs for part in graph if part.kind == TENSORRT):
        for one in part.operators:
            if not one.operator.startswith("_operator."):
                users = found.setdefault(one.operator, [])
                if one.module not in ("", UNKNOWN, *users):
                    users.append(one.module)
    return found


def executed_names(operators: Iterable[str]) -> tuple[str, ...]:
    """Return operators of `operators_of` as `Settings.torch_executed_ops` has them.

    Raises TrtgateError for one that torch does not have.
    """
    names = [
        name.replace("*", kernel)
        for name in operators
        for kernel in (ATTENTION_KERNELS if "*" in name else ATTENTION_KERNELS[:1])
    ]
    compile_options.executed_operators(names)
    return tuple(names)
