"""The options of Torch-TensorRT's frontends: which there are, of which types, and which of them settings mean."""

from __future__ import annotations

import ast
import difflib
import importlib.util
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..common.errors import TrtgateError
from ..suite import precisions
from ..suite.settings import TORCHSCRIPT_FRONTENDS
from .releases import SUPPORTED, imported, unavailable

if TYPE_CHECKING:
    import torch

    from ..suite.model_inputs import Inputs
    from ..suite.settings import Settings
    from .dynamic_inputs import DynamicInputs, ProfileShapes

AUTOCAST_DTYPE = "autocast_low_precision_type"
"""The one field of `CompilationSettings` that is a dtype and that settings do not say otherwise (2.11 to 2.14)."""
AUTOCAST_DTYPES = {"float16": "fp16", "bfloat16": "bf16"}
"""Names of the dtypes that it takes → the precision that it rounds as."""
PLAIN_TYPES = {"bool": bool, "int": int, "float": float, "str": str}


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
        if _is_dtype(wanted):
            _check_dtype(case_id, name, value)
            continue
        plain = plain_types(wanted)
        if not plain:
            raise TrtgateError(
                f"case {case_id}: compile option {name!r} is a {wanted}, and a suite holds numbers and texts"
            )
        if not any(_is_a(value, kind) for kind in plain):
            raise TrtgateError(f"case {case_id}: compile option {name}={value!r} must be a {' or '.join(plain)}")

    if AUTOCAST_DTYPE in settings.options and not settings.options.get("enable_autocast"):
        raise TrtgateError(
            f"case {case_id}: compile option {AUTOCAST_DTYPE} has no effect without enable_autocast=True"
        )


def _is_dtype(annotation: str) -> bool:
    """Whether an option's type is one dtype; a suite holds its name."""
    return re.search(r"\bdtype\b", annotation) is not None and not re.search(r"Set|Collection|List", annotation)


def _check_dtype(case_id: str, name: str, value: object) -> None:
    if value not in AUTOCAST_DTYPES:
        close = difflib.get_close_matches(str(value), AUTOCAST_DTYPES, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(AUTOCAST_DTYPES)}"
        raise TrtgateError(f"case {case_id}: compile option {name}={value!r} is no dtype that it takes; {hint}")


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
    if settings.precision in ("fp32", "tf32", precisions.AS_IS):
        options["disable_tf32"] = settings.precision != "tf32"
    if settings.runtime and has_runtimes():
        options["use_python_runtime"] = settings.runtime == "python"
    return options | {name: _as_upstream(name, value) for name, value in settings.options.items()}


def _as_upstream(name: str, value: Any) -> Any:
    """Return an option as upstream takes it: a dtype for its name."""
    import torch

    return getattr(torch, str(value), value) if name == AUTOCAST_DTYPE else value


def has_runtimes() -> bool:
    """Whether one may choose between the C++ and the Python runtime: up to 2.11; later ones take what there is."""
    return not unavailable() and "use_python_runtime" in option_types()


def arguments_of(inputs: Inputs, dynamic: DynamicInputs | None = None) -> tuple[Any, ...]:
    """Return what a compiler is told of the leaves of the inputs, in order, as a graph has its placeholders.

    Of a tensor itself, or the shapes that it may have; of a constant, which is part of the graph, None.
    Upstream takes structures too, of tuples, lists and dicts alone and without texts (2.11 to 2.14).
    """
    import torch
    from torch.utils import _pytree as pytree

    leaves = pytree.tree_leaves(inputs)
    tensors = (leaf for leaf in leaves if isinstance(leaf, torch.Tensor))
    told = iter(map(_taken, tensors) if dynamic is None else map(_input_of, tensors, dynamic.shapes))
    return tuple(next(told) if isinstance(leaf, torch.Tensor) else None for leaf in leaves)


def _taken(value: torch.Tensor) -> torch.Tensor:
    """Return a tensor of the same shape that upstream takes: it refuses odd strides, and lets a call have them."""
    import torch

    usual = value.is_contiguous() or (value.ndim == 4 and value.is_contiguous(memory_format=torch.channels_last))
    return value if usual else value.contiguous()


def _input_of(value: torch.Tensor, profiles: Sequence[ProfileShapes]) -> Any:
    """Return a tensor that never varies itself, else its `torch_tensorrt.Input`."""
    if len({shape for profile in profiles for shape in profile}) == 1:
        return _taken(value)
    shapes = [{"min_shape": one.least, "opt_shape": one.optimal, "max_shape": one.largest} for one in profiles]
    given: dict[str, Any] = {"profiles": shapes} if len(shapes) > 1 else dict(shapes[0])
    return imported().Input(dtype=value.dtype, **given)


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
