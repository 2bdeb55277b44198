"""What the name of an engine's layer says: nodes of the graph, or the operations that a fused kernel lists.

Myelin, TensorRT's fuser, calls a kernel by its operations in order, such as `__myl_CorrMulAddAddRelu_myl0_13`: whole
words, or three letters each where there are many (`__myl_ResAddMeaSubMulMeaAddSqrDivMulAdd_myl0_4`). Torch-TensorRT
calls a layer `[CONVOLUTION]-[aten_ops.convolution.default]-[layer4.1.conv2/convolution_19]`: type, operator, module and
node. Seen on TensorRT-RTX 1.4 and in public reports of TensorRT 8.6 to 10.15.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from ..records.profile_record import UNKNOWN, Layer, Operator

LAYER = re.compile(r"\[[^\[\]]+\]-\[([^\[\]]+)\]-\[(?:([^\[\]]*)/)?([^\[\]/]+)\]")
RUN = ("ForeignNode", "...")
"""What a name has that gives the first and the last of a run of layers, and leaves out those between."""
FUSED = re.compile(r"^__myl_(?:bb\d+_\d+_)?([A-Za-z0-9]+?)(?:_myl\d+_\d+)?$")
WORD = re.compile(r"[A-Z][a-z0-9]*")
ATTENTION = "mha"
ANY = 1 << 20
COPY = "Reformatting CopyNode"

MOVING = frozenset("mov con tra res cop sli cas rep pad gat shu squ uns spl".split())
"""Operations that move values, or make zeros beside them (a convolution's channels are padded by `MoveConc`)."""
TRANSPOSES = frozenset(("permute", "transpose", "t"))
PIECES = frozenset("select slice cat split split_with_sizes chunk getitem unbind index_select narrow stack".split())
"""Operators that take values apart or put them together."""

Range = tuple[int, int]

_NORM: Mapping[str, Range] = {"mea": (1, 3), "mul": (0, 4), "add": (0, 4), "sub": (0, 2), "sqr": (0, 2), "div": (0, 2)}
_PRODUCT: Mapping[str, Range] = {"product": (1, 1), "add": (0, 1)}
TERMS: Mapping[str, Mapping[str, Range]] = {
    "convolution": {"product": (1, 1), "add": (0, 1)},
    "linear": _PRODUCT,
    "addmm": _PRODUCT,
    "baddbmm": _PRODUCT,
    "mm": {"product": (1, 1)},
    "bmm": {"product": (1, 1)},
    "matmul": {"product": (1, 1)},
    "_native_batch_norm_legit_no_training": {"mul": (0, 1), "add": (0, 1)},
    "batch_norm": {"mul": (0, 1), "add": (0, 1)},
    "native_layer_norm": _NORM,
    "layer_norm": _NORM,
    "native_group_norm": _NORM,
    "relu": {"rel": (1, 1)},
    "add": {"add": (1, 1), "mul": (0, 1)},
    "sub": {"sub": (1, 1), "mul": (0, 1)},
    "mul": {"mul": (1, 1)},
    "div": {"div": (0, 1), "mul": (0, 1)},
    "mean": {"mea": (0, 1), "sum": (0, 1), "mul": (0, 1), "div": (0, 1)},
    "sum": {"sum": (1, 1)},
    "max_pool2d": {"max": (0, 1)},
    "gelu": {"erf": (0, 1), "tan": (0, 1), "mul": (1, 6), "add": (0, 3), "div": (0, 1), "gel": (0, 1)},
    "sigmoid": {"sig": (0, 1), "neg": (0, 1), "exp": (0, 1), "add": (0, 1), "div": (0, 1)},
    "_softmax": {"max": (0, 1), "sub": (0, 1), "exp": (1, 1), "sum": (0, 1), "div": (0, 1), "mul": (0, 1)},
}
"""Operator → operation of a kernel's name → how often it may stand there, least and most.

`product` is any convolution or matrix product. An operator that is not listed may be anything.
"""
COUNTED = frozenset(term for terms in TERMS.values() for term in terms)
BIASED = frozenset("convolution linear addmm baddbmm".split())
"""Products whose bias another kernel may add, when they have one: three inputs then."""
PRODUCTS = frozenset("cor fc gem mat dot bmm".split())
ATTENTIONS = frozenset("scaled_dot_product_attention _scaled_dot_product_*_attention".split())
HEAVY = frozenset("convolution linear addmm baddbmm mm bmm matmul".split()) | ATTENTIONS


@lru_cache(maxsize=4096)
def short(operator: str) -> str:
    """Return an operator's name without namespace and overload: `aten.relu.default` is relu."""
    parts = operator.split(".")
    name = parts[1] if len(parts) > 2 else parts[-1]
    return name.rstrip("_") if not name.startswith("_") else name


def finishing(operator: Operator) -> Counter[str]:
    """Return what the kernel that takes an operator's result may do of it: add the bias."""
    return Counter(["add"] if short(operator.operator) in BIASED and len(operator.inputs) > 2 else [])


def preparing(operator: Operator) -> Counter[str]:
    """Return what the kernel that makes an operator's input may do of it: scale an attention's query or key."""
    return Counter(["mul"] if short(operator.operator) in ATTENTIONS else [])


def is_heavy(operator: str) -> bool:
    """Whether it is a convolution, a matrix product or attention: what no compiler computes twice."""
    return short(operator) in HEAVY


class Said(NamedTuple):
    """One layer of Torch-TensorRT's network as a name has it, such as aten_ops.linear.default, fc, linear_add_bias."""

    target: str
    module: str
    text: str


class Kernel(NamedTuple):
    """What a layer's name says. `terms` is None where it lists no operations."""

    said: tuple[Said, ...] = ()
    nodes: tuple[str, ...] = ()
    """What is said, as nodes of the graph."""
    terms: Counter[str] | None = None
    most_heavy: int = ANY
    moves_only: bool = False
    transposes: bool = False

    def may_move(self, others: Counter[str]) -> bool:
        """Whether it may do nothing but move values along, and `others`; a kernel that says nothing may do that too."""
        if self.terms is None:
            return self.moves_only or not self.said
        return set(self.terms - others) <= MOVING

    def fits(self, operators: Sequence[Operator], others: Counter[str]) -> bool:
        """Whether operators can be what the kernel computes: each operation of the one is found in the other.

        `others` are operations that it may list besides, of operators that other kernels compute most of.
        """
        if self.nodes:
            return all(op.node in self.nodes or short(op.operator) in PIECES for op in operators)
        if self.terms is None:
            return True
        names = tuple(sorted(short(operator.operator) for operator in operators))
        return _fit(frozenset(self.terms.items()), names, frozenset(others.items()))


@lru_cache(maxsize=4096)
def _fit(listed: frozenset[tuple[str, int]], names: tuple[str, ...], others: frozenset[tuple[str, int]]) -> bool:
    """Whether operators of these names can be what a kernel lists; networks repeat themselves, so answers are kept."""
    terms, least, most = Counter(dict(listed)), Counter[str](), Counter(dict(others))
    anything = False
    for name in names:
        if name in PIECES:
            continue
        anything |= name not in TERMS
        for term, (low, high) in TERMS.get(name, {}).items():
            least[term] += low
            most[term] += high
    return all(least[term] <= terms[term] for term in least) and (
        anything or all(terms[term] <= most[term] for term in terms if term in COUNTED)
    )


def parse(layer: Layer) -> Kernel:
    """Return what a layer's name, and its metadata where TensorRT keeps it, say."""
    is_run = any(mark in layer.name for mark in RUN)
    found = [] if is_run else LAYER.findall(layer.name)
    found = found or LAYER.findall(layer.metadata)
    if found:
        return Kernel(tuple(dict.fromkeys(Said(*parts) for parts in found)))
    if is_run:
        return Kernel()
    if ATTENTION in layer.name:
        return Kernel(most_heavy=3)
    if layer.name.startswith(COPY):
        return Kernel(most_heavy=0, moves_only=True)
    match = FUSED.match(layer.name)
    if match is None:
        return Kernel()
    terms = _terms(match[1])
    return Kernel(terms=terms, most_heavy=terms["product"], moves_only=set(terms) <= MOVING, transposes="tra" in terms)


def resolved(kernel: Kernel, operators: Mapping[str, Operator]) -> Kernel:
    """Return the kernel with the nodes of the graph that its name means; one that says nothing where any is not found.

    Converters put suffixes behind a node's name (`linear_add_bias`, `split_1`), and nodes are numbered alike: the
    longest node that the text begins with, of the same operator and module, is meant.
    """
    found = [_operator(said, operators) for said in kernel.said]
    nodes = tuple(dict.fromkeys(operator.node for operator in found if operator is not None))
    if None in found:
        return Kernel()
    return kernel._replace(nodes=nodes, most_heavy=len(nodes) if nodes else kernel.most_heavy)


def _operator(said: Said, operators: Mapping[str, Operator]) -> Operator | None:
    text = said.text
    while text:
        operator = operators.get(text)
        if operator is not None and _means(said, operator):
            return operator
        text = text.rpartition("_")[0]
    return None


def _means(said: Said, operator: Operator) -> bool:
    known = said.module and operator.module != UNKNOWN
    same_module = not known or operator.module == said.module or operator.module.startswith(f"{said.module}.")
    wanted, name = short(said.target), short(operator.operator)
    fused = "_scaled_dot_product_"
    return same_module and (wanted == name or (wanted.startswith(fused) and name.startswith(fused)))


@lru_cache(maxsize=4096)
def _terms(listed: str) -> Counter[str]:
    words = [word.lower() for word in WORD.findall(listed)]
    return Counter("product" if word[:3] in PRODUCTS or word == "conv" else word[:3] for word in words)
