"""What Torch-TensorRT's partitioner does, seen without reading its logs: operators, engines, segments in PyTorch."""

from __future__ import annotations

import contextlib
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ..common.errors import TrtgateError, one_line
from ..records import coverage_record
from ..records.profile_record import PYTORCH, TENSORRT, UNKNOWN, Operator, Part
from . import coverage_counting
from .coverage_counting import Call, Calls
from .disabled_converters import Withheld
from .dynamo_frames import LeftOut
from .patching import replaced
from .releases import SUPPORTED, imported, version
from .source_lines import source_line
from .unsupported_operators import why_unsupported

if TYPE_CHECKING:
    from ..suite.settings import Settings

FUSED_ATTENTION = re.compile(r"^(aten\._scaled_dot_product_)(?:flash|efficient|cudnn)(_attention\.default)$")


class PartitionerError(Exception):
    """The partitioner itself can't partition a graph."""


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
        except PartitionerError as error:
            self.problem = str(error)
        except Exception as error:
            self.problem = f"torch_tensorrt {version()} partitions in another way than {SUPPORTED}: {one_line(error)}"

    def coverage(self, settings: Settings, left_out: LeftOut | None = None) -> coverage_record.Coverage | None:
        """Return what was seen, with what Dynamo left out of it; None when it can't be trusted."""
        return None if self.problem else self.counted(settings, left_out)

    def counted(self, settings: Settings, left_out: LeftOut | None = None) -> coverage_record.Coverage:
        """Return what was seen, with what Dynamo left out of it. Raises TrtgateError when it can't be trusted."""
        if self.problem:
            raise TrtgateError(self.problem)
        left_out = left_out or LeftOut()
        return coverage_counting.count(
            self.graphs, left_out.graph_breaks, left_out.skipped, min_block_size=settings.min_block_size or 1
        )

    def known_parts(self) -> tuple[tuple[Part, ...], ...]:
        """Return the parts of each graph that was seen, none when they can't be trusted."""
        return () if self.problem else tuple(self.parts)


@contextlib.contextmanager
def observing(withheld: Withheld | None = None) -> Iterator[Observed]:
    """Within: every graph that Torch-TensorRT partitions, in a dry run or a real compile, is noted.

    `withheld` is what `disabled_converters.withheld` took out of the registry.

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
            seen.graphs.append(_lowered(gm, withheld or {}))
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


def _lowered(gm: Any, withheld: Withheld) -> coverage_counting.LoweredGraph:
    from torch_tensorrt.dynamo.conversion._ConverterRegistry import DYNAMO_CONVERTERS as CONVERTERS
    from torch_tensorrt.dynamo.partitioning._adjacency_partitioner import OpSupportTester

    settings = CONVERTERS.compilation_settings
    executed = settings.torch_executed_ops or ()
    support = OpSupportTester(torch_executed_ops=executed)
    calls = _calls(gm)
    unsupported: dict[str, list[Any]] = {}
    for node in calls:
        if not support.is_node_supported({}, node):
            unsupported.setdefault(why_unsupported(node, executed, withheld), []).append(node)
    some_supported = len(calls) > sum(map(len, unsupported.values()))  # else upstream returns before it partitions
    return coverage_counting.LoweredGraph(
        calls=_counted(calls),
        unsupported={reason: _counted(nodes) for reason, nodes in unsupported.items()},
        min_block_size=settings.min_block_size,
        blocks=_blocks(gm, settings, executed, all_supported=not unsupported) if some_supported else [],
    )


def _blocks(gm: Any, settings: Any, executed: Iterable[Any], *, all_supported: bool) -> list[coverage_counting.Block]:
    """Return the engines at `min_block_size=1`: as upstream, the global partitioner's where the fast one fails."""
    from torch.fx.passes.splitter_base import FxNetSplitterInternalError

    if settings.use_fast_partitioner:
        with contextlib.suppress(FxNetSplitterInternalError):
            return _fast_blocks(gm, executed, all_supported=all_supported)
    return _whole_blocks(gm, executed)


def _fast_blocks(gm: Any, executed: Iterable[Any], *, all_supported: bool) -> list[coverage_counting.Block]:
    """Return the engines at `min_block_size=1` of the fast partitioner, without splitting the graph."""
    from torch_tensorrt.dynamo.partitioning._adjacency_partitioner import OpSupportTester, TRTPartitioner

    support = OpSupportTester(torch_executed_ops=executed)
    partitioner = TRTPartitioner(gm, support, min_block_size=1, skip_fusion=all_supported)
    with _of_the_partitioner():
        found = [part for part in partitioner.put_nodes_into_subgraphs() if part.is_acc]
    return [coverage_counting.Block(size=len(part.nodes), calls=_counted(part.nodes)) for part in found]


def _whole_blocks(gm: Any, executed: Iterable[Any]) -> list[coverage_counting.Block]:
    """Return the engines at `min_block_size=1` of the global partitioner, which does not count views and getitem."""
    from torch_tensorrt.dynamo.partitioning._global_partitioner import TorchTensorRTOperatorSupport, TRTPartitioner

    support = TorchTensorRTOperatorSupport(torch_executed_ops=executed)
    partitioner = TRTPartitioner(gm, support, min_block_size=1)
    with _of_the_partitioner():
        found = partitioner.propose_partitions()
    blocks = []
    for part in found:
        calls = [node for node in part.nodes if node.op == "call_function"]
        size = sum(operator_name(node.target) not in ("aten.view", "_operator.getitem") for node in calls)
        blocks.append(coverage_counting.Block(size=size, calls=_counted(calls)))
    return blocks


@contextlib.contextmanager
def _of_the_partitioner() -> Iterator[None]:
    """Within: an error is the partitioner's own. What tells that its code is another one is raised as it is."""
    from torch.fx.passes.splitter_base import FxNetSplitterInternalError

    try:
        yield
    except (FxNetSplitterInternalError, AttributeError, ImportError, TypeError):
        raise
    except Exception as error:
        said = f"the partitioner of torch_tensorrt {version()} fails at this graph: {one_line(error)}"
        raise PartitionerError(said) from error


def _engines(partitioned: Any) -> list[coverage_counting.Engine]:
    return [
        _engine(getattr(partitioned, node.target))
        for node in partitioned.graph.nodes
        if node.op == "call_module" and "_run_on_acc" in node.name
    ]


def _engine(submodule: Any) -> coverage_counting.Engine:
    nodes = list(submodule.graph.nodes)
    outputs = [given for node in nodes if node.op == "output" for given in node.all_input_nodes]
    return coverage_counting.Engine(
        calls=_counted(_calls(submodule)),
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


def _counted(nodes: Iterable[Any]) -> Calls:
    return dict(Counter(Call(operator_name(node.target), source_line(node)) for node in nodes))


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
