"""What Torch-TensorRT's partitioner does, seen without reading its logs: operators, engines, segments in PyTorch."""

from __future__ import annotations

import contextlib
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from ..common.errors import one_line
from ..records import coverage_record
from ..records.profile_record import PYTORCH, TENSORRT, UNKNOWN, Operator, Part
from . import coverage_counting
from .patching import replaced
from .releases import SUPPORTED, imported, version

FUSED_ATTENTION = re.compile(r"^(aten\._scaled_dot_product_)(?:flash|efficient|cudnn)(_attention\.default)$")


class Observed:
    """The graphs that were seen; `problem` says why they can't be trusted, empty when they can."""

    def __init__(self) -> None:
        self.graphs: list[coverage_counting.LoweredGraph] = []
        self.parts: list[tuple[Part, ...]] = []
        """Of each graph its engines and segments in PyTorch, in order; without layers."""
        self.problem = ""

    @contextlib.contextmanager
    def noting(self) -> Iterator[None]:
        """Within: what goes wrong is a problem of the observation, and none of the build that is observed."""
        try:
            yield
        except Exception as error:
            self.problem = f"torch_tensorrt {version()} partitions in another way than {SUPPORTED}: {one_line(error)}"

    def coverage(self) -> coverage_record.Coverage | None:
        """Return what was seen, None when it can't be trusted."""
        return None if self.problem else coverage_counting.count(self.graphs)

    def known_parts(self) -> tuple[tuple[Part, ...], ...]:
        """Return the parts of each graph that was seen, none when they can't be trusted."""
        return () if self.problem else tuple(self.parts)


@contextlib.contextmanager
def observing() -> Iterator[Observed]:
    """Within: every graph that Torch-TensorRT partitions, in a dry run or a real compile, is noted.

    Wraps three functions that `_compiler.compile_module` looks up in `torch_tensorrt.dynamo.partitioning`: one is
    handed every lowered graph before any early return, two return the partitioned module.
    """
    imported()
    from torch_tensorrt.dynamo import partitioning

    seen = Observed()
    support, fast, whole = (
        getattr(partitioning, name) for name in ("get_graph_converter_support", "fast_partition", "global_partition")
    )

    def see_graph(gm: Any, *arguments: Any, **keywords: Any) -> Any:
        with seen.noting():
            gm.graph.eliminate_dead_code()  # as both partitioners do next: what is dead runs nowhere
            seen.graphs.append(_lowered(gm))
            seen.parts.append((_part("", gm, PYTORCH),))  # unless it is partitioned
        return support(gm, *arguments, **keywords)

    def see_partition(partition: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **keywords: Any) -> Any:
            result = partition(*arguments, **keywords)
            with seen.noting():
                seen.graphs[-1].engines = _engines(result[0])
                seen.parts[-1] = _parts(result[0])
            return result

        return wrapped

    with (
        replaced(partitioning, "get_graph_converter_support", see_graph),
        replaced(partitioning, "fast_partition", see_partition(fast)),
        replaced(partitioning, "global_partition", see_partition(whole)),
        replaced(sys, "argv", sys.argv[:1]),  # torch's splitter takes options from the command line of the process
    ):
        yield seen


def _lowered(gm: Any) -> coverage_counting.LoweredGraph:
    from torch_tensorrt.dynamo.conversion._ConverterRegistry import DYNAMO_CONVERTERS as CONVERTERS
    from torch_tensorrt.dynamo.partitioning._adjacency_partitioner import OpSupportTester

    settings = CONVERTERS.compilation_settings
    executed = settings.torch_executed_ops or ()
    support = OpSupportTester(torch_executed_ops=executed)
    unsupported: dict[str, Counter[str]] = {}
    for node in _calls(gm):
        if not support.is_node_supported({}, node):
            reason = _why_unsupported(node, executed)
            unsupported.setdefault(reason, Counter())[operator_name(node.target)] += 1
    if settings.use_fast_partitioner:
        blocks = _fast_blocks(gm, executed, all_supported=not unsupported)
    else:
        blocks = _whole_blocks(gm, executed)
    return coverage_counting.LoweredGraph(
        operators=_histogram(_calls(gm)),
        unsupported={reason: dict(sorted(names.items())) for reason, names in unsupported.items()},
        min_block_size=settings.min_block_size,
        blocks=blocks,
    )


def _why_unsupported(node: Any, torch_executed_ops: Iterable[Any]) -> str:
    from torch_tensorrt.dynamo.conversion._ConverterRegistry import DYNAMO_CONVERTERS as CONVERTERS
    from torch_tensorrt.dynamo.partitioning._global_partitioner import TorchTensorRTOperatorSupport as Support

    if node.target in torch_executed_ops or CONVERTERS.qualified_name_or_str(node.target) in torch_executed_ops:
        return coverage_record.EXCLUDED
    if node.target not in CONVERTERS:
        return coverage_record.NO_CONVERTER
    if hasattr(Support, "_has_complex_dtype") and Support._has_complex_dtype(node):  # 2.14
        return coverage_record.COMPLEX
    if node in CONVERTERS:
        return coverage_record.DATA_DEPENDENT
    settings = CONVERTERS.compilation_settings
    candidates = [entry for registry in CONVERTERS.registries for entry in _entries(registry, node.target)]
    valid = any(entry.capability_validator(node, settings) for entry in candidates)
    return coverage_record.DYNAMIC if valid else coverage_record.REFUSED


def _entries(registry: Mapping[Any, Any], target: Any) -> Iterable[Any]:
    found = registry.get(target, ())
    return found if isinstance(found, list | tuple) else ()


def _fast_blocks(gm: Any, executed: Iterable[Any], *, all_supported: bool) -> list[coverage_counting.Block]:
    """Return the engines at `min_block_size=1` of the fast partitioner, without splitting the graph."""
    from torch_tensorrt.dynamo.partitioning._adjacency_partitioner import OpSupportTester, TRTPartitioner

    support = OpSupportTester(torch_executed_ops=executed)
    partitioner = TRTPartitioner(gm, support, min_block_size=1, skip_fusion=all_supported)
    found = [part for part in partitioner.put_nodes_into_subgraphs() if part.is_acc]
    return [coverage_counting.Block(size=len(part.nodes), operators=_histogram(part.nodes)) for part in found]


def _whole_blocks(gm: Any, executed: Iterable[Any]) -> list[coverage_counting.Block]:
    """Return the engines at `min_block_size=1` of the global partitioner, which does not count views and getitem."""
    from torch_tensorrt.dynamo.partitioning._global_partitioner import TorchTensorRTOperatorSupport, TRTPartitioner

    support = TorchTensorRTOperatorSupport(torch_executed_ops=executed)
    found = TRTPartitioner(gm, support, min_block_size=1).propose_partitions()
    blocks = []
    for part in found:
        calls = [node for node in part.nodes if node.op == "call_function"]
        size = sum(operator_name(node.target) not in ("aten.view", "_operator.getitem") for node in calls)
        blocks.append(coverage_counting.Block(size=size, operators=_histogram(calls)))
    return blocks


def _engines(partitioned: Any) -> list[coverage_record.EngineOperators]:
    return [
        _engine(getattr(partitioned, node.target))
        for node in partitioned.graph.nodes
        if node.op == "call_module" and "_run_on_acc" in node.name
    ]


def _engine(submodule: Any) -> coverage_record.EngineOperators:
    nodes = list(submodule.graph.nodes)
    outputs = [given for node in nodes if node.op == "output" for given in node.all_input_nodes]
    return coverage_record.EngineOperators(
        operators=_histogram(_calls(submodule)),
        inputs=[_tensor(node) for node in nodes if node.op == "placeholder"],
        outputs=[_tensor(node) for node in outputs],
    )


def _parts(partitioned: Any) -> tuple[Part, ...]:
    """Return the parts of a partitioned graph, with their operators; one that was not split is a single part.

    Empty when not everything is in a part.
    """
    split = [node for node in partitioned.graph.nodes if node.op == "call_module"]
    if not split:
        return (_part("", partitioned, PYTORCH),)
    if any(node.op == "call_function" and not node.name.startswith("getitem") for node in partitioned.graph.nodes):
        return ()  # the global partitioner leaves what stays in PyTorch between the engines
    kinds = {node: TENSORRT if "_run_on_acc" in node.name else PYTORCH for node in split}
    return tuple(_part(node.name, getattr(partitioned, node.target), kind) for node, kind in kinds.items())


def _part(name: str, submodule: Any, kind: str) -> Part:
    nodes = list(submodule.graph.nodes)
    return Part(
        name=name,
        kind=kind,
        layers=[],
        operators=[_operator(node) for node in nodes if node.op == "call_function"],
        inputs=[node.name for node in nodes if node.op == "placeholder"],
        outputs=[given.name for node in nodes if node.op == "output" for given in node.all_input_nodes],
    )


def _operator(node: Any) -> Operator:
    value = node.meta.get("val", node.meta.get("tensor_meta"))
    values = [one for one in (value if isinstance(value, list | tuple) else [value]) if hasattr(one, "dtype")]
    return Operator(
        node=node.name,
        operator=operator_name(node.target),
        module=module_path(node.meta.get("nn_module_stack")),
        inputs=[given.name for given in node.all_input_nodes],
        shapes=[[size if isinstance(size, int) else -1 for size in one.shape] for one in values],
        dtypes=[str(one.dtype).removeprefix("torch.") for one in values],
    )


def module_path(stack: Mapping[str, Any] | None) -> str:
    """Return the innermost module of a node's `nn_module_stack`, such as `layer4.1.conv2`; empty for the model itself.

    UNKNOWN where there is no stack: Torch-TensorRT's `torch.compile` backend loses it. torch.export says
    `layer4.1.conv2`, torch.compile `L['self'].layer4[1].conv2` or
    `L['self']._modules['layer4']._modules['1']`.
    """
    if not stack:
        return UNKNOWN
    said = str(list(stack.values())[-1][0])
    said = re.sub(r"^L\[['\"](?:self|fn|mod)['\"]\]|^L__self___", "", said)
    said = re.sub(r"(?:\._modules)?\[['\"]?([^'\"\]]+)['\"]?\]", r".\1", said)
    return said.strip(".")


def _calls(gm: Any) -> list[Any]:
    return [node for node in gm.graph.nodes if node.op == "call_function"]


def _histogram(nodes: Iterable[Any]) -> dict[str, int]:
    return dict(sorted(Counter(operator_name(node.target) for node in nodes).items()))


def operator_name(target: Any) -> str:
    """Return an operator's name, such as `aten.relu.default`.

    Fused attention has one name: which of its kernels is taken is up to the card, and all have converters.
    """
    from torch.fx.node import _get_qualified_name

    name = target if isinstance(target, str) else _get_qualified_name(target)
    return FUSED_ATTENTION.sub(r"\1*\2", str(name).removeprefix("torch.ops."))


def _tensor(node: Any) -> str:
    value = node.meta.get("val", node.meta.get("tensor_meta"))
    if not hasattr(value, "shape"):
        return type(value).__name__
    return f"{str(value.dtype).removeprefix('torch.')}[{','.join(map(str, value.shape))}]"
