"""Everything that depends on which torch_tensorrt and TensorRT are installed: 2.11 to 2.14, RTX or standard.

torch_tensorrt is imported inside functions only: it takes seconds, and on a machine without a GPU it fails.
"""

from __future__ import annotations

import ast
import base64
import contextlib
import copy
import difflib
import importlib
import importlib.util
import io
import logging
import os
import re
import sys
import tempfile
import types
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import accelerator, coverage, precisions, quantization_packages
from .errors import TrtgateError, one_line
from .profiles.record import PYTORCH, TENSORRT, UNKNOWN, Operator, Part
from .settings import TORCHSCRIPT_FRONTENDS

if TYPE_CHECKING:
    import torch

    from .settings import Settings

SUPPORTED = "2.11 to 2.14"
FUSED_ATTENTION = re.compile(r"^(aten\._scaled_dot_product_)(?:flash|efficient|cudnn)(_attention\.default)$")
FLAVOURS = {"torch-tensorrt-rtx": "rtx", "torch-tensorrt": "standard"}


def flavour() -> str | None:
    """Return "rtx" or "standard" as installed, None when torch_tensorrt is not."""
    return next((FLAVOURS[name] for name in accelerator.installed(FLAVOURS)), None)


def version() -> str:
    """Return the installed version without its local part, such as "2.14.0"; empty when there is none."""
    return next(iter(accelerator.installed(FLAVOURS).values()), "").partition("+")[0]


def release() -> str:
    """Return what stored coverage calls the installed release, such as "rtx-2.14.0"."""
    return f"{flavour() or ''}-{version()}"


def unavailable() -> str:
    """Return why TensorRT can't be used at all; empty when it can, as far as is known without importing it."""
    if importlib.util.find_spec("torch_tensorrt") is None:
        return "torch_tensorrt is not installed: pip install 'trtgate[rtx]' or 'trtgate[standard]'"
    return ""


def fp32_is_tf32() -> bool:
    """Whether fp32 layers round their operands to TF32 whatever `disable_tf32` says.

    So on RTX 2.11 (TensorRT-RTX 1.4): outputs are bit for bit the same with the option on and off, with TF32's error.
    """
    return flavour() == "rtx"


PLAIN_TYPES = {"bool": bool, "int": int, "float": float, "str": str}


def imported() -> Any:
    """Import torch_tensorrt: after nvidia-modelopt where a case is quantized, else without it.

    It takes that one's operators only if it finds it at its own import, which costs 10 s more.
    """
    if "torch_tensorrt" in sys.modules:
        return sys.modules["torch_tensorrt"]
    if precisions.asked & precisions.QUANTIZED:
        quantization_packages.import_modelopt()
        return importlib.import_module("torch_tensorrt")
    with _hidden("modelopt"):
        return importlib.import_module("torch_tensorrt")


@contextlib.contextmanager
def _hidden(package: str) -> Iterator[None]:
    """Within: a package that was not imported yet can't be."""
    if package in sys.modules:
        yield
        return
    sys.modules[package] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[package]


LEGACY = {"fx": "fx", "ts_trace": "ts", "ts_script": "ts"}
"""Frontend → the folder of torch_tensorrt that a build without it lacks."""


def lacks(frontend: str) -> str:
    """Return why the installed build has no such frontend; empty when it has, or none is installed."""
    spec = importlib.util.find_spec("torch_tensorrt")
    if frontend not in LEGACY or spec is None or spec.origin is None:
        return ""
    there = (Path(spec.origin).parent / LEGACY[frontend]).is_dir()
    return "" if there else f"this build of torch_tensorrt ({release()}) has no {LEGACY[frontend]} frontend"


def option_types(frontend: str = "dynamo") -> dict[str, str]:
    """Return the options of a frontend with their types as the source has them; importing it would need a GPU.

    The fields of `CompilationSettings`, or for TorchScript the parameters of `torch_tensorrt.ts.compile`.
    Raises TrtgateError when torch_tensorrt is not installed, or its source is another.
    """
    spec = importlib.util.find_spec("torch_tensorrt")
    if spec is None or spec.origin is None:
        raise TrtgateError(unavailable())
    torchscript = frontend in TORCHSCRIPT_FRONTENDS
    source = Path(spec.origin).parent / ("ts/_compiler.py" if torchscript else "dynamo/_settings.py")
    for node in ast.parse(source.read_text(encoding="utf-8")).body if source.is_file() else ():
        if torchscript and isinstance(node, ast.FunctionDef) and node.name == "compile":
            return {item.arg: ast.unparse(item.annotation) for item in node.args.args[1:] if item.annotation}
        if isinstance(node, ast.ClassDef) and node.name == "CompilationSettings":
            return {
                item.target.id: ast.unparse(item.annotation)
                for item in node.body
                if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
            }
    raise TrtgateError(f"{source}: no such options; torch_tensorrt {SUPPORTED} is supported")


def check_options(case_id: str, settings: Settings) -> None:
    """Raise TrtgateError for an option that torch_tensorrt would swallow in silence, or of another type."""
    if not settings.options or unavailable():
        return
    known = option_types(settings.frontend)
    for name, value in settings.options.items():
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            where = "torch_tensorrt.ts.compile" if settings.frontend in TORCHSCRIPT_FRONTENDS else "CompilationSettings"
            hint = f"did you mean {close[0]!r}?" if close else f"see {where}"
            raise TrtgateError(f"case {case_id}: unknown compile option {name!r}; {hint}")
        wanted = known[name]
        plain = plain_types(wanted)
        if not plain:
            raise TrtgateError(
                f"case {case_id}: compile option {name!r} is a {wanted}, and a suite holds numbers and texts"
            )
        if not any(_is_a(value, kind) for kind in plain):
            raise TrtgateError(f"case {case_id}: compile option {name}={value!r} must be a {' or '.join(plain)}")


def plain_types(annotation: str) -> list[str]:
    """Return which of PLAIN_TYPES an option's type takes, such as bool and str of `Union[bool, str]`."""
    return [kind for kind in PLAIN_TYPES if re.search(rf"\b{kind}\b", annotation)]


def _is_a(value: object, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "bool"
    return isinstance(value, PLAIN_TYPES[kind]) or (kind == "float" and isinstance(value, int))


def options_of(settings: Settings) -> dict[str, Any]:
    """Return the options of `dynamo.compile` and of `torch.compile`'s backend that settings mean.

    fp32 means fp32: TF32 is off unless the precision says otherwise. Raises TrtgateError for an unknown operator.
    """
    options: dict[str, Any] = {"min_block_size": settings.min_block_size}
    if settings.torch_executed_ops:
        options["torch_executed_ops"] = executed_operators(settings.torch_executed_ops)
    if settings.precision in ("fp32", "tf32"):
        options["disable_tf32"] = settings.precision == "fp32"
    if settings.runtime and has_runtimes():
        options["use_python_runtime"] = settings.runtime == "python"
    return options | settings.options


def has_runtimes() -> bool:
    """Whether one may choose between the C++ and the Python runtime: up to 2.11; later ones take what there is."""
    return not unavailable() and "use_python_runtime" in option_types()


def arguments_of(settings: Settings, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return what a compiler is told of the inputs: themselves, or the sizes that a dynamic batch may take."""
    if settings.dynamic_batch is None:
        return inputs
    torch_tensorrt = imported()

    least, optimal, largest = settings.dynamic_batch
    return tuple(
        torch_tensorrt.Input(
            min_shape=(least, *value.shape[1:]), opt_shape=(optimal, *value.shape[1:]),
            max_shape=(largest, *value.shape[1:]), dtype=value.dtype,
        )
        for value in inputs
    )  # fmt: skip


def compile_exported(
    program: torch.export.ExportedProgram, inputs: tuple[Any, ...], settings: Settings
) -> torch.nn.Module:
    """Compile an exported program with `torch_tensorrt.dynamo.compile`.

    `use_explicit_typing` stays at its default: weights and inputs are cast before export, since
    `enabled_precisions` raises on 2.11 and is ignored on 2.14.
    """
    torch_tensorrt = imported()

    given = arguments_of(settings, inputs)
    return torch_tensorrt.dynamo.compile(program, arg_inputs=given, **options_of(settings))


def compile_torchscript(module: torch.jit.ScriptModule, inputs: tuple[Any, ...], settings: Settings) -> Any:
    """Compile a traced or scripted module with `torch_tensorrt.ts.compile`, its layers in the module's own types."""
    import torch

    torch_tensorrt = imported()

    kinds = {value.dtype for value in inputs if value.is_floating_point()} or {torch.float32}
    options: dict[str, Any] = {
        "min_block_size": settings.min_block_size, "enabled_precisions": kinds,
        "torch_executed_ops": [_schema_name(name) for name in settings.torch_executed_ops],
        "disable_tf32": settings.precision != "tf32",
    }  # fmt: skip
    given = list(arguments_of(settings, inputs))
    return torch_tensorrt.ts.compile(module, inputs=given, **options | settings.options)


def _schema_name(name: str) -> str:
    """Return an operator as TorchScript calls it: `aten::relu` for `aten.relu` or `aten.relu.default`."""
    namespace, _, rest = name.removeprefix("torch.ops.").partition(".")
    return f"{namespace}::{rest.removesuffix('.default')}"


def load_torchscript(file: Path) -> Any:
    """Load what `torch.jit.save` stored; the runtime that its engines need comes with torch_tensorrt."""
    import torch

    imported()

    return torch.jit.load(str(file))


def torchscript_engine_bytes(module: Any) -> list[int]:
    """Return the serialized size of every engine of a TorchScript module, in bytes."""
    kept = (getattr(module, node.s("name")) for node in _attributes(module.graph))
    return [max(map(_decoded_bytes, _texts(engine.__getstate__()))) for engine in kept]


def _texts(state: Any) -> Iterator[str | bytes]:
    """Return all texts of an engine's state, however they are nested; the longest is the serialized engine."""
    if isinstance(state, str | bytes):
        yield state
    elif isinstance(state, list | tuple):
        for part in state:
            yield from _texts(part)


def _decoded_bytes(text: str | bytes) -> int:
    try:
        return len(base64.b64decode(text, validate=True))
    except ValueError:
        return len(text)


def _attributes(graph: Any) -> Iterator[Any]:
    """Return the nodes of a TorchScript graph that fetch an engine."""
    for node in graph.findAllNodes("prim::GetAttr"):
        if "tensorrt.Engine" in str(node.output().type()):
            yield node


def compile_fx(module: torch.nn.Module, inputs: tuple[Any, ...], settings: Settings) -> Any:
    """Compile with the legacy FX frontend, which counts operators of an engine as `min_acc_module_size`."""
    fx = imported().fx
    lower = {"fp16": fx.utils.LowerPrecision.FP16, "fp32": fx.utils.LowerPrecision.FP32}
    if settings.precision not in lower:
        raise TrtgateError(f"the fx frontend knows fp32 and fp16, not {settings.precision}")
    return fx.compile(
        module, list(inputs), min_acc_module_size=settings.min_block_size, lower_precision=lower[settings.precision],
        explicit_batch_dimension=True, **settings.options,
    )  # fmt: skip


def set_cudagraphs(*, on: bool) -> None:
    """Switch Torch-TensorRT's CUDA-graph mode, which is the process's: each engine is recorded and replayed by itself.

    Upstream's wrapper for a module with parts in PyTorch is left out: it knows the parts by their names, which a loaded
    module does not have, so that what is checked and what is measured would differ.
    """
    if on:
        imported()
        from torch_tensorrt import runtime

        runtime.set_cudagraphs_mode(True)
    elif "torch_tensorrt.runtime" in sys.modules:
        sys.modules["torch_tensorrt.runtime"].set_cudagraphs_mode(False)


def torch_compile(module: torch.nn.Module, settings: Settings, compiled: list[torch.nn.Module]) -> Callable[..., Any]:
    """Return `torch.compile(module)` with Torch-TensorRT's backend; what it makes of each graph is added to `compiled`.

    A graph that fails to build raises: upstream's default is to run it in PyTorch, with a warning.
    """
    import torch

    imported()
    from torch_tensorrt.dynamo.backend.backends import torch_tensorrt_backend

    wanted = {**options_of(settings), "pass_through_build_failures": True}

    def backend(gm: Any, inputs: Any) -> Any:
        made = torch_tensorrt_backend(gm, inputs, options=wanted)
        compiled.append(made)
        return made

    return torch.compile(module, backend=backend, dynamic=None if settings.dynamic_batch else False)


def save(module: torch.nn.Module, inputs: tuple[Any, ...], file: Path) -> None:
    """Store a compiled module with its engines (2.11's own engine cache fails on hits with RTX)."""
    torch_tensorrt = imported()

    torch_tensorrt.save(module, str(file), output_format="exported_program", arg_inputs=inputs, retrace=False)


def load(file: Path) -> torch.nn.Module:
    """Load what `save` stored. It unpickles: only for files that this user's own session just wrote."""
    torch_tensorrt = imported()

    return torch_tensorrt.load(str(file)).module()


def engine_bytes(module: torch.nn.Module) -> list[int]:
    """Return the serialized size of every TensorRT engine of a compiled module, in bytes."""
    engines = [getattr(child, "serialized_engine", None) for child in module.modules()]
    return [len(engine) for engine in engines if isinstance(engine, bytes | bytearray)]


def features() -> dict[str, bool]:
    """Return `ENABLED_FEATURES` of the installed build. Imports torch_tensorrt, so it needs a GPU."""
    imported()
    from torch_tensorrt._features import ENABLED_FEATURES

    return {name: bool(value) for name, value in ENABLED_FEATURES._asdict().items()}


# What the partitioner does, seen without reading its logs (2.11 to 2.14 alike)


class Observed:
    """The graphs that were seen; `problem` says why they can't be trusted, empty when they can."""

    def __init__(self) -> None:
        self.graphs: list[coverage.Graph] = []
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

    def coverage(self) -> coverage.Coverage | None:
        """Return what was seen, None when it can't be trusted."""
        return None if self.problem else coverage.count(self.graphs)

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


def _lowered(gm: Any) -> coverage.Graph:
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
    return coverage.Graph(
        operators=_histogram(_calls(gm)),
        unsupported={reason: dict(sorted(names.items())) for reason, names in unsupported.items()},
        min_block_size=settings.min_block_size,
        blocks=blocks,
    )


def _why_unsupported(node: Any, torch_executed_ops: Iterable[Any]) -> str:
    from torch_tensorrt.dynamo.conversion._ConverterRegistry import DYNAMO_CONVERTERS as CONVERTERS
    from torch_tensorrt.dynamo.partitioning._global_partitioner import TorchTensorRTOperatorSupport as Support

    if node.target in torch_executed_ops or CONVERTERS.qualified_name_or_str(node.target) in torch_executed_ops:
        return coverage.EXCLUDED
    if node.target not in CONVERTERS:
        return coverage.NO_CONVERTER
    if hasattr(Support, "_has_complex_dtype") and Support._has_complex_dtype(node):  # 2.14
        return coverage.COMPLEX
    if node in CONVERTERS:
        return coverage.DATA_DEPENDENT
    settings = CONVERTERS.compilation_settings
    candidates = [entry for registry in CONVERTERS.registries for entry in _entries(registry, node.target)]
    valid = any(entry.capability_validator(node, settings) for entry in candidates)
    return coverage.DYNAMIC if valid else coverage.REFUSED


def _entries(registry: Mapping[Any, Any], target: Any) -> Iterable[Any]:
    found = registry.get(target, ())
    return found if isinstance(found, list | tuple) else ()


def _fast_blocks(gm: Any, executed: Iterable[Any], *, all_supported: bool) -> list[coverage.Block]:
    """Return the engines at `min_block_size=1` of the fast partitioner, without splitting the graph."""
    from torch_tensorrt.dynamo.partitioning._adjacency_partitioner import OpSupportTester, TRTPartitioner

    support = OpSupportTester(torch_executed_ops=executed)
    partitioner = TRTPartitioner(gm, support, min_block_size=1, skip_fusion=all_supported)
    found = [part for part in partitioner.put_nodes_into_subgraphs() if part.is_acc]
    return [coverage.Block(size=len(part.nodes), operators=_histogram(part.nodes)) for part in found]


def _whole_blocks(gm: Any, executed: Iterable[Any]) -> list[coverage.Block]:
    """Return the engines at `min_block_size=1` of the global partitioner, which does not count views and getitem."""
    from torch_tensorrt.dynamo.partitioning._global_partitioner import TorchTensorRTOperatorSupport, TRTPartitioner

    support = TorchTensorRTOperatorSupport(torch_executed_ops=executed)
    found = TRTPartitioner(gm, support, min_block_size=1).propose_partitions()
    blocks = []
    for part in found:
        calls = [node for node in part.nodes if node.op == "call_function"]
        size = sum(operator_name(node.target) not in ("aten.view", "_operator.getitem") for node in calls)
        blocks.append(coverage.Block(size=size, operators=_histogram(calls)))
    return blocks


def _engines(partitioned: Any) -> list[coverage.Engine]:
    return [
        _engine(getattr(partitioned, node.target))
        for node in partitioned.graph.nodes
        if node.op == "call_module" and "_run_on_acc" in node.name
    ]


def _engine(submodule: Any) -> coverage.Engine:
    nodes = list(submodule.graph.nodes)
    outputs = [given for node in nodes if node.op == "output" for given in node.all_input_nodes]
    return coverage.Engine(
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


def executed_operators(names: Iterable[str]) -> set[str]:
    """Return `torch_executed_ops` as upstream compares them, with overload: `torch.ops.aten.relu.default`.

    `aten.relu` means all its overloads. Raises TrtgateError for an operator that torch does not have.
    """
    import torch

    found = set()
    for given in names:
        namespace, _, rest = given.removeprefix("torch.ops.").partition(".")
        packet_name, _, overload = rest.partition(".")
        packet = getattr(getattr(torch.ops, namespace, None), packet_name, None) if packet_name else None
        if packet is None or (overload and overload not in packet.overloads()):
            raise TrtgateError(f"torch_executed_ops: torch has no operator {given!r}; {_nearest_operator(given)}")
        found |= {
            f"torch.ops.{namespace}.{packet_name}.{name}" for name in ([overload] if overload else packet.overloads())
        }
    return found


def _nearest_operator(given: str) -> str:
    import torch

    known = {schema.name.replace("::", ".") for schema in torch._C._jit_get_all_schemas()}
    plain = ".".join(given.removeprefix("torch.ops.").split(".")[:2])
    close = difflib.get_close_matches(plain if "." in plain else f"aten.{plain}", known, n=1)
    return f"did you mean {close[0]!r}?" if close else "write it as aten.relu or aten.relu.default"


# Standing in for a GPU

CAPABILITY = (9, 0)
"""Of the GPU that is stood in for: an H100."""


@contextlib.contextmanager
def dry() -> Iterator[None]:
    """Within: torch_tensorrt can be imported and asked for dry runs, with or without a GPU; nothing runs on one.

    Without a GPU (2.11 to 2.14): importing asks for the current device and its capability, or its properties;
    `dynamo.compile` asks for free memory. Everywhere: segments that stay in PyTorch stay on the CPU, attention is a
    GPU's, and what upstream prints and logs is kept back.
    """
    import torch

    with contextlib.ExitStack() as stack:
        if not torch.cuda.is_available():
            for name, answer in _answers().items():
                stack.enter_context(replaced(torch.cuda, name, answer))
        if "torch_tensorrt" not in sys.modules:
            with _quiet_descriptor(2):
                imported()
        from torch_tensorrt.dynamo import _compiler
        from torch_tensorrt.dynamo.backend import backends

        stack.enter_context(replaced(_compiler, "to_torch_device", lambda _device: torch.device("cpu")))
        for owner in (_compiler, backends):
            wrapped = _with_attention_of_a_gpu(owner.get_decompositions)
            stack.enter_context(replaced(owner, "get_decompositions", wrapped))
        stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
        stack.enter_context(_no_logging())
        yield


def _answers() -> dict[str, Callable[..., Any]]:
    major, minor = CAPABILITY
    memory = 80 << 30
    properties = types.SimpleNamespace(
        name="stand-in", major=major, minor=minor, total_memory=memory, multi_processor_count=132
    )
    return {
        "current_device": lambda: 0,
        "get_device_capability": lambda _device=None: CAPABILITY,
        "get_device_properties": lambda _device=None: properties,
        "mem_get_info": lambda _device=None: (memory, memory),
    }


def dry_compile(program: torch.export.ExportedProgram, inputs: tuple[Any, ...], settings: Settings) -> None:
    """Partition an exported program as `compile_exported` would, and build nothing."""
    torch_tensorrt = imported()

    given = arguments_of(settings, inputs)
    torch_tensorrt.dynamo.compile(program, arg_inputs=given, dryrun=True, **options_of(settings))


def dry_torch_compile(module: torch.nn.Module, inputs: tuple[Any, ...], settings: Settings) -> dict[str, int]:
    """Hand every graph that `torch.compile` makes of the module to Torch-TensorRT's backend, building nothing.

    The graphs themselves are run by PyTorch, so that what follows a graph break is reached. Returns the graph
    breaks: reason → count.
    """
    import torch
    from torch_tensorrt.dynamo.backend.backends import torch_tensorrt_backend

    wanted = {**options_of(settings), "dryrun": True, "pass_through_build_failures": True}
    breaks: Counter[str] = Counter()

    def backend(gm: Any, samples: Any) -> Any:
        why = getattr(gm, "compile_subgraph_reason", None)  # as torch._dynamo.explain reads it
        if why is not None and why.graph_break:
            breaks[f"{why.reason.strip().splitlines()[0]}{_place(why.user_stack)}"] += 1
        copied = torch.fx.GraphModule(gm, copy.deepcopy(gm.graph))  # lowering changes it in place
        torch_tensorrt_backend(copied, samples, options=wanted)
        return gm

    torch.compiler.reset()
    try:
        torch.compile(module, backend=backend, dynamic=None if settings.dynamic_batch else False)(*inputs)
    finally:
        torch.compiler.reset()
    return dict(breaks)


def _place(stack: Iterable[Any]) -> str:
    frames = list(stack or ())
    return f" at {Path(frames[-1].filename).name}:{frames[-1].name}" if frames else ""


def _with_attention_of_a_gpu(get_decompositions: Callable[..., Any]) -> Callable[..., Any]:
    """Make attention traced on a CPU be a GPU's: flash attention in half precision, else efficient.

    2.14's decompositions of an exported program keep `scaled_dot_product_attention` whole; 2.11's, and
    `torch.compile`'s on all versions, pick the device's kernel, and no converter takes the CPU's. Hopper takes cuDNN's
    in half precision; `operator_name` calls them all alike.
    """
    import torch

    aten = torch.ops.aten

    def attention(
        query: Any, key: Any, value: Any, dropout_p: float = 0.0, is_causal: bool = False,
        *, attn_mask: Any = None, scale: float | None = None,
    ) -> tuple[Any, Any]:  # fmt: skip
        if attn_mask is None and query.dtype in (torch.float16, torch.bfloat16):
            found = aten._scaled_dot_product_flash_attention(query, key, value, dropout_p, is_causal, scale=scale)
        else:
            found = aten._scaled_dot_product_efficient_attention(
                query, key, value, attn_mask, False, dropout_p, is_causal, scale=scale
            )
        return found[0], found[1]

    def wrapped(*arguments: Any, **keywords: Any) -> Any:
        cpu_kernel = aten._scaled_dot_product_flash_attention_for_cpu.default
        return {**get_decompositions(*arguments, **keywords), cpu_kernel: attention}

    return wrapped


@contextlib.contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Within: an attribute has another value."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


@contextlib.contextmanager
def _no_logging() -> Iterator[None]:
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


@contextlib.contextmanager
def _quiet_descriptor(descriptor: int) -> Iterator[None]:
    """Within: what C++ code writes to a descriptor is kept back, and written after all if an exception ends it."""
    kept = os.dup(descriptor)
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), descriptor)
        try:
            yield
        except BaseException:
            os.dup2(kept, descriptor)
            said.seek(0)
            os.write(descriptor, said.read())
            raise
        finally:
            os.dup2(kept, descriptor)
            os.close(kept)
