"""What an exported program is, as digests: its graph without names, the names, and every byte of its tensors."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch.export.graph_signature import InputKind

from ..torch_trt import code_values, custom_operators

SYMBOL = re.compile(r"\b[su]\d+\b")
"""Sizes that vary, as torch calls them: the number is of a name, and means nothing."""
OF_QUANTIZERS = re.compile(r".*_quantizer\._(amax|global_amax|pre_quant_scale|scale|double_scale|bias_value|zeros?)")
"""Names of what modelopt's calibration finds: it follows from weights and calibration data, and rounding differs."""


class ProgramDigests(NamedTuple):
    """An exported program as SHA-256 digests; `weights` and `constants` are in the order in which they are used."""

    graph: str
    weights: str
    constants: str
    calibrated: str
    """What calibration found."""
    names: str
    """Names of modules and nodes, and devices: a compiled module keeps them, and computes the same with others."""
    modules: dict[str, str]
    """Module → its own operators."""
    tensors: dict[str, str]
    """Name of a tensor → its digest."""
    constant_names: list[str]


class _Lifted(NamedTuple):
    """A tensor that a program holds, which is an input of its graph."""

    name: str
    kind: str
    value: Any


class Digest:
    """A SHA-256 of texts and of what a tensor holds; each is told from the next."""

    def __init__(self, *texts: str) -> None:
        self._sha = hashlib.sha256()
        self.feed(*texts)

    def feed(self, *texts: str) -> None:
        """Add texts."""
        for text in texts:
            encoded = text.encode()
            self._sha.update(len(encoded).to_bytes(8, "little"))
            self._sha.update(encoded)

    def feed_tensor(self, value: Any) -> None:
        """Add a tensor's bytes. Raises NotImplementedError or RuntimeError where they can't be read."""
        if not isinstance(value, torch.Tensor):
            raise NotImplementedError(f"a constant of type {type(value).__name__}")
        self.feed(repr([str(value.dtype), tuple(value.shape), value.stride(), value.requires_grad]))
        self._sha.update(code_values.bytes_of(value))

    def text(self) -> str:
        """Return it, in hexadecimal digits."""
        return self._sha.hexdigest()


def of_program(program: torch.export.ExportedProgram, device: str, *, calibrated_here: bool = False) -> ProgramDigests:
    """Return digests that two programs share only if they compute the same with the same tensors.

    Where a line stands in a file is in none of them. `device` is where the program was made: what lies there is told
    from what lies elsewhere, and no matter which device it is. What calibration found is apart where it was
    `calibrated_here`: what a model brings along is its own.
    Raises NotImplementedError or RuntimeError for a tensor whose bytes can't be read, such as a sparse one.
    """
    lifted = _lifted(program)
    graph = _Graph(device, lifted)
    text = graph.of(program.graph_module)
    root = program.module_call_graph[0].signature
    specs = "" if root is None else f"{root.in_spec!r} {root.out_spec!r}"
    outputs = [(str(one.kind), graph.tensor_named(one.target)) for one in program.graph_signature.output_specs]
    ranges = sorted(f"{graph.symbols(str(name))} {one}" for name, one in program.range_constraints.items())
    unused = [name for name in lifted if name not in graph.used]
    order = [*graph.used, *sorted(unused)]
    tensors = {lifted[name].name: _of_tensor(lifted[name].value) for name in order}
    kinds = {"weights": Digest(), "constants": Digest(), "calibrated": Digest()}
    firsts: dict[Any, int] = {}
    for place, name in enumerate(order):
        one = lifted[name]
        same = firsts.setdefault(_storage(one.value), place)  # a tied weight is one
        if name in unused and same != place:
            continue
        kinds[_kind(one, calibrated_here)].feed(
            one.kind, str(same) if name in graph.used else "unused", tensors[one.name]
        )
    return ProgramDigests(
        graph=Digest(text, specs, repr(outputs), repr(ranges)).text(),
        **{kind: digest.text() for kind, digest in kinds.items()},
        names=_names(program),
        modules={path: digest.text() for path, digest in graph.modules.items()},
        tensors=tensors,
        constant_names=[one.name for one in lifted.values() if _kind(one, calibrated_here) == "constants"],
    )


def of_values(values: Any, device: str) -> str:
    """Return the digest of inputs: how they are nested, shapes and values. Raises as `of_program`."""
    from torch.utils import _pytree as pytree

    leaves, spec = pytree.tree_flatten(values)
    found = Digest(repr(spec))
    for leaf in leaves:
        if isinstance(leaf, torch.Tensor):
            found.feed("device" if _same_device(leaf.device, device) else str(leaf.device))
            found.feed_tensor(leaf)
        else:
            found.feed(type(leaf).__name__, repr(leaf))
    return found.text()


def _lifted(program: torch.export.ExportedProgram) -> dict[str, _Lifted]:
    """Return placeholder → the tensor or other object that it stands for; inputs are none of these."""
    found = {}
    for spec in program.graph_signature.input_specs:
        if spec.kind in (InputKind.USER_INPUT, InputKind.TOKEN) or spec.target is None:
            continue
        persistent = spec.kind is not InputKind.BUFFER or spec.persistent
        kind = spec.kind.name if persistent else "CONSTANT_TENSOR"
        values: Mapping[str, Any] = program.state_dict if spec.target in program.state_dict else program.constants
        found[spec.arg.name] = _Lifted(spec.target, kind, values.get(spec.target))
    return found


def _kind(one: _Lifted, calibrated_here: bool) -> str:
    if calibrated_here and OF_QUANTIZERS.fullmatch(one.name):
        return "calibrated"
    return "weights" if one.kind in ("PARAMETER", "BUFFER") else "constants"


def _of_tensor(value: Any) -> str:
    found = Digest()
    found.feed_tensor(value)
    return found.text()


def _storage(value: Any) -> Any:
    """Return what two names of the same memory share; a tensor without any is itself alone."""
    if value.numel() == 0:
        return object()
    return value.untyped_storage().data_ptr(), value.storage_offset(), tuple(value.shape), value.stride()


def _same_device(device: torch.device, of_case: str) -> bool:
    return device.type == torch.device(of_case).type


class _Graph:
    """Writes graphs without the names in them: nodes, tensors and sizes are numbered as they come."""

    def __init__(self, device: str, lifted: Mapping[str, _Lifted]) -> None:
        self._device, self._lifted = device, lifted
        self._nodes: dict[torch.fx.Node, str] = {}
        self._symbols: dict[str, str] = {}
        self.used: dict[str, str] = {}
        """Placeholder of a tensor → what it is called here, in the order of first use."""
        self.modules: dict[str, Digest] = {}

    def of(self, module: torch.fx.GraphModule, *, within: bool = False) -> str:
        """Return a graph as a text; `within` says that it belongs to another one.

        Strides are those of inputs. They decide those of all that is computed, on one kind of device: fused attention
        lays its output out otherwise on a CPU than on a GPU.
        """
        lines = []
        for node in module.graph.nodes:
            if node.op == "placeholder" and node.name in self._lifted:
                continue
            if node.op == "get_attr":
                value = _attribute(module, str(node.target))
                self._nodes[node] = (
                    f"graph({self.of(value, within=True)})" if _is_graph(value) else f"tensor({_of_tensor(value)})"
                )
                continue
            keywords = sorted(custom_operators.arguments(node).items())
            line = f"{node.op} {self._target(node)} {self._text(node.args)} {self._text(keywords)}"
            shape = self._value(node.meta.get("val"), strides=node.op == "placeholder" and not within)
            self._nodes[node] = f"%{len(self._nodes)}"
            lines.append(f"{line} -> {shape}")
            if node.op not in ("placeholder", "output"):
                self._of_module(node, shape)
        return "\n".join(lines)

    def _of_module(self, node: torch.fx.Node, shape: str) -> None:
        """Add an operator to its module: not what it reads, which is numbered otherwise after a change before it."""
        stack = list((node.meta.get("nn_module_stack") or {}).values())
        path = str(stack[-1][0]) if stack else ""
        keywords = sorted(custom_operators.arguments(node).items())
        plain = [one for one in _leaves((node.args, keywords)) if not isinstance(one, torch.fx.Node)]
        self.modules.setdefault(path, Digest()).feed(self._target(node), self._text(plain), shape)

    def tensor_named(self, target: str | None) -> str:
        """Return what is written for a tensor of that name, such as a buffer that a call changes."""
        held = next((place for place, one in self._lifted.items() if one.name == target), None)
        return str(target and "input") if held is None else self._tensor(held)

    def _tensor(self, placeholder: str) -> str:
        return self.used.setdefault(placeholder, f"tensor{len(self.used)}")

    def symbols(self, text: str) -> str:
        """Return a text with the sizes that vary in it numbered as they came."""
        return SYMBOL.sub(lambda found: self._symbols.setdefault(found[0], f"size{len(self._symbols)}"), text)

    def _target(self, node: torch.fx.Node) -> str:
        if node.op in ("placeholder", "output"):
            return ""
        target: Any = node.target
        if isinstance(target, str | torch._ops.OpOverload | torch._ops.HigherOrderOperator):
            return str(target)
        return f"{getattr(target, '__module__', '')}.{getattr(target, '__qualname__', target)}"

    def _text(self, value: Any) -> str:
        if isinstance(value, torch.fx.Node):
            if value.op == "placeholder" and value.name in self._lifted:
                return self._tensor(value.name)
            return self._nodes[value]
        if isinstance(value, dict):
            value = sorted(value.items())
        if isinstance(value, list | tuple):
            return f"[{', '.join(map(self._text, value))}]"
        if isinstance(value, slice):
            return f"slice{self._text([value.start, value.stop, value.step])}"
        if isinstance(value, torch.device):
            return "device" if _same_device(value, self._device) else str(value)
        if isinstance(value, torch.SymInt | torch.SymFloat | torch.SymBool):
            return self.symbols(str(value))
        return f"{type(value).__name__} {value!r}"

    def _value(self, value: Any, *, strides: bool) -> str:
        """Return what a tensor is without what is in it; of anything else its text."""
        if isinstance(value, list | tuple):
            return f"[{', '.join(self._value(one, strides=strides) for one in value)}]"
        if not isinstance(value, torch.Tensor):
            return self._text(value)
        layout = f"{value.dtype} {tuple(value.shape)} {value.stride() if strides else ''} {value.requires_grad}"
        return f"{self._text(value.device)} {self.symbols(layout)}"


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, list | tuple):
        for one in value:
            yield from _leaves(one)
    else:
        yield value


def _is_graph(value: Any) -> bool:
    return isinstance(value, torch.fx.GraphModule)


def _attribute(module: Any, target: str) -> Any:
    for name in target.split("."):
        module = getattr(module, name)
    return module


def _names(program: torch.export.ExportedProgram) -> str:
    found = Digest()
    for name, module in program.graph_module.named_modules():
        if isinstance(module, torch.fx.GraphModule):
            found.feed(name)
            for node in module.graph.nodes:
                stack = node.meta.get("nn_module_stack") or {}
                found.feed(node.name, repr([(str(path), str(kind)) for path, kind in stack.values()]))
                found.feed(*(str(one.device) for one in _leaves(node.meta.get("val")) if isinstance(one, torch.Tensor)))
    signature = program.graph_signature
    found.feed(*(f"{one.arg} {one.target}" for one in (*signature.input_specs, *signature.output_specs)))
    return found.text()
