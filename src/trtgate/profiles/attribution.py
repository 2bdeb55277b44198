"""Which operators of the lowered graph, and so which PyTorch modules, a layer of an engine computes.

TensorRT tells little: a fused layer has the name of its kernel, such as `__myl_CorrMulAddAddRelu_myl0_13`, and tensors
whose names may be those of a neighbour. What can be relied on is the data flow. A tensor of the engine holds the value
of some operator, of as many elements. A layer's inputs must be a cut: everything its output needs must come from them
or be constant, and each of them must be needed. What lies between is what the layer computes, and it must fit the
operations that the layer's name lists. Those conditions are laid on all tensors at once and narrowed down until
nothing changes (arc consistency; Mackworth, Consistency in Networks of Relations, 1977). What is left is certain as far
as the conditions are: a layer is attributed to what all remaining possibilities have in common, and to nothing
otherwise.

Pure: imports neither torch nor TensorRT.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import product

from ..records.profile_record import UNKNOWN, Layer, Operator, Part
from . import kernel_names
from .operator_graph import OperatorGraph, TooManyError, size_of

NAME, DATA_FLOW, MODULE = "name", "data flow", "module"
EVIDENCE = (NAME, DATA_FLOW, MODULE)
"""The layer's own name says it; data flow, shapes and operations leave one possibility; or several, of one module."""

MOST_COMBINATIONS = 64
"""Of what a layer's inputs may hold; a layer with more is left alone."""
OUTPUT = re.compile(r"^output(\d+)$")
"""How Torch-TensorRT names an engine's outputs."""


Way = tuple[tuple[int, ...], tuple[int, ...], frozenset[int]]
"""One possibility of a layer: what its inputs hold, what its outputs hold, and what is computed."""


class Attribution:
    """The possibilities of every layer of a part, narrowed down; `apply` writes what is certain into the layers."""

    def __init__(self, part: Part) -> None:
        self._part = part
        self._graph = OperatorGraph(part)
        self._layers = [layer for layer in part.layers if layer.outputs or layer.inputs]
        self._domains: dict[str, frozenset[int] | None] = {}
        self._ways: list[list[Way] | None] = []
        self._operators = {operator.node: operator for operator in part.operators}
        self._place = {node: place for place, node in enumerate(self._operators)}
        self._kernels = [self._kernel(layer) for layer in self._layers]
        self._named = [self._graph.computed(kernel.nodes) for kernel in self._kernels]

    def apply(self) -> None:
        """Attribute every layer of the part as far as it is certain."""
        self._know_the_ends()
        for number in range(len(self._layers)):
            self._ways.append(self._possible(number))
            self._learn(number)
        self._narrow()
        for number, layer in enumerate(self._layers):
            self._write(layer, self._kernels[number], self._ways[number], self._named[number])
        for layer in self._part.layers:
            if not (layer.inputs or layer.outputs):
                kernel = self._kernel(layer)
                self._write(layer, kernel, None, self._graph.computed(kernel.nodes))
        self._withdraw_what_is_claimed_twice()

    def _kernel(self, layer: Layer) -> kernel_names.Kernel:
        """Return what a layer's name says in terms of this graph; nodes that only move values make it a move."""
        kernel = kernel_names.resolved(kernel_names.parse(layer), self._operators)
        return kernel._replace(moves_only=True) if kernel.nodes and not self._graph.computed(kernel.nodes) else kernel

    def _know_the_ends(self) -> None:
        makers = Counter(tensor.name for layer in self._layers for tensor in layer.outputs)
        self._shared = {name for name, makers in makers.items() if makers > 1}
        for name in self._part.inputs:
            self._domains[name] = frozenset((self._graph.value_of[name],))
        self._ends: dict[str, int] = {}
        for layer in self._layers:
            for tensor in layer.inputs:
                if tensor.name in self._part.inputs:
                    self._graph.elements[self._graph.value_of[tensor.name]] = size_of(tensor.shape)
        for layer in self._layers:
            for tensor in layer.outputs:
                match = OUTPUT.match(tensor.name)
                if match and int(match[1]) < len(self._part.outputs):
                    node = self._part.outputs[int(match[1])]
                    if node in self._graph.value_of:
                        self._ends[tensor.name] = self._graph.value_of[node]

    def _possible(self, number: int) -> list[Way] | None:
        """Return all possibilities of a layer from what its inputs may hold; None when nothing is known."""
        layer, kernel, named = self._layers[number], self._kernels[number], self._named[number]
        domains = [self._domains.get(tensor.name) for tensor in layer.inputs]
        known = [domain for domain in domains if domain is not None]
        if not layer.inputs or len(known) < len(domains) or math.prod(map(len, known)) > MOST_COMBINATIONS:
            return self._possible_by_name(layer, kernel, named)
        ways: list[Way] = []
        try:
            for held in product(*(sorted(domain) for domain in known)):
                ways += self._ways_from(held, layer, kernel, named)
        except TooManyError:
            ways = []
        return ways or self._possible_by_name(layer, kernel, named)

    def _possible_by_name(self, layer: Layer, kernel: kernel_names.Kernel, named: frozenset[int]) -> list[Way] | None:
        """Return what a layer's own name says of its one output: the last operator that it names.

        Of a kernel of one product that makes an output of the engine, which is a product: that one.
        """
        end = self._ends.get(layer.outputs[0].name) if layer.outputs else None
        if not named and end in self._graph.heavy and kernel.terms is not None and kernel.most_heavy == 1:
            named = frozenset((end,))
        fits = named and len(layer.outputs) == 1 and self._graph.shape_fits(max(named), size_of(layer.outputs[0].shape))
        return [((), (max(named),), named)] if fits else None

    def _ways_from(
        self, held: tuple[int, ...], layer: Layer, kernel: kernel_names.Kernel, named: frozenset[int]
    ) -> Iterator[Way]:
        cut = frozenset(held)
        candidates: list[list[tuple[int, frozenset[int]]]] = [[] for _ in layer.outputs]
        found = [
            (value, way) for value, way in self._graph.between(cut, kernel.most_heavy)
            if not kernel.moves_only or all(_is_piece(operator) for operator in self._graph.nodes(way))
        ]  # fmt: skip
        finishing = self._total(kernel_names.finishing, held)
        if len(cut) == 1:
            preparing = self._total(kernel_names.preparing, self._graph.readers[held[0]])
            if kernel.may_move(finishing | preparing):
                found += [(held[0], frozenset())]
        for place, tensor in enumerate(layer.outputs):
            end = self._ends.get(tensor.name)
            for value, way in found:
                padded = kernel.moves_only and not way and 0 <= self._graph.elements[value] < size_of(tensor.shape)
                if not (padded or self._graph.shape_fits(value, size_of(tensor.shape))):
                    continue
                if end is not None and value != end:
                    continue
                candidates[place].append((value, way))
        if math.prod(map(len, candidates)) > MOST_COMBINATIONS:
            raise TooManyError
        for chosen in product(*candidates):
            values = tuple(value for value, _ in chosen)
            whole = frozenset[int]().union(*(way for _, way in chosen))
            readers = [reader for value in values for reader in self._graph.readers[value]]
            others = finishing | self._total(kernel_names.preparing, readers)
            if len(set(values)) == len(values) and named <= whole and kernel.fits(self._graph.nodes(whole), others):
                yield held, values, whole

    def _total(self, of: Callable[[Operator], Counter[str]], values: Iterable[int]) -> Counter[str]:
        """Return all operations that kernels around these values may share."""
        return sum((of(operator) for operator in self._graph.nodes(frozenset(values))), Counter[str]())

    def _learn(self, number: int) -> None:
        layer, ways = self._layers[number], self._ways[number]
        for place, tensor in enumerate(layer.outputs):
            held = None if ways is None else frozenset(values[place] for _, values, _ in ways)
            self._domains[tensor.name] = None if tensor.name in self._shared else held or None

    def _narrow(self) -> None:
        """Strike out possibilities that no neighbour allows, until nothing changes."""
        touching: dict[str, list[int]] = {}
        for number, layer in enumerate(self._layers):
            for tensor in (*layer.inputs, *layer.outputs):
                touching.setdefault(tensor.name, []).append(number)
        waiting = list(range(len(self._layers) - 1, -1, -1))
        queued = set(waiting)
        while waiting:
            number = waiting.pop()
            queued.discard(number)
            for name in self._revise(number):
                fresh = [other for other in touching[name] if other != number and other not in queued]
                waiting += fresh
                queued.update(fresh)

    def _revise(self, number: int) -> list[str]:
        """Keep a layer's possibilities that its tensors' domains allow; returns tensors whose domain became smaller."""
        layer, ways = self._layers[number], self._ways[number]
        if not ways:
            return []
        tensors = (*layer.inputs, *layer.outputs) if ways[0][0] else tuple(layer.outputs)
        allowed = [self._domains.get(tensor.name) for tensor in tensors]
        kept = [
            way for way in ways
            if all(domain is None or value in domain for value, domain in zip((*way[0], *way[1]), allowed, strict=True))
        ]  # fmt: skip
        self._ways[number] = kept or None  # where the conditions contradict each other, nothing is certain
        changed = []
        for place, tensor in enumerate(tensors):
            held = frozenset((*way[0], *way[1])[place] for way in kept)
            if kept and held != allowed[place] and tensor.name not in self._shared:
                self._domains[tensor.name] = held
                changed.append(tensor.name)
        return changed

    def _write(self, layer: Layer, kernel: kernel_names.Kernel, ways: list[Way] | None, named: frozenset[int]) -> None:
        certain = frozenset.intersection(*(whole for _, _, whole in ways)) if ways else named
        if ways and self._graph.has_heavy(frozenset[int]().union(*(whole for _, _, whole in ways)) - certain):
            certain = frozenset()  # what takes the time is not certain
        moves = [node for node in kernel.nodes if self._graph.only_moves(node)]
        nodes = {operator.node for operator in self._graph.nodes(certain)} | set(moves)
        operators = [self._operators[node] for node in sorted(nodes, key=self._place.__getitem__)]
        layer.sources = [operator.node for operator in operators]
        layer.modules = list(dict.fromkeys(op.module for op in operators if op.module != UNKNOWN))
        if operators:
            layer.evidence = NAME if certain == named else DATA_FLOW
        elif ways:
            self._write_modules(layer, kernel, ways)

    def _write_modules(self, layer: Layer, kernel: kernel_names.Kernel, ways: list[Way]) -> None:
        """Of several possibilities, a value that is only transposed, or its bias, the module alone may be certain."""
        found = []
        for held, _, whole in ways:
            operators = self._graph.nodes(whole)
            if not whole and kernel.transposes:
                operators = [op for value in set(held) for op in self._graph.moved[value] if _is_transpose(op)]
            if not whole and not kernel.may_move(Counter()):
                operators += [op for op in self._graph.nodes(frozenset(held)) if kernel_names.finishing(op)]
            found.append({operator.module for operator in operators})
        first = found[0]
        if len(first) == 1 and UNKNOWN not in first and all(modules == first for modules in found):
            layer.modules, layer.evidence = sorted(first), MODULE

    def _withdraw_what_is_claimed_twice(self) -> None:
        """No product is computed twice, and no two layers do the same: what several claim is certain of none."""
        heavy = {operator.node for operator in self._graph.nodes(self._graph.heavy)}
        claims = Counter(node for layer in self._part.layers for node in layer.sources if node in heavy)
        alike = Counter(tuple(layer.sources) for layer in self._layers)
        made = Counter(value for ways in self._ways for value in _made(ways))
        for layer, ways in zip(self._layers, self._ways, strict=True):
            if layer.evidence == DATA_FLOW and (
                alike[tuple(layer.sources)] > 1
                or any(claims[node] > 1 for node in layer.sources)
                or any(made[value] > 1 for value in _made(ways))
            ):
                layer.sources, layer.modules, layer.evidence = [], [], ""


def attribute(part: Part) -> None:
    """Write `sources`, `modules` and `evidence` into the layers of an engine, as far as they are certain.

    Without the part's operators, what a layer's own name says is all there is.
    """
    if part.operators:
        Attribution(part).apply()
        return
    for layer in part.layers:
        said = kernel_names.parse(layer).said
        if said:
            layer.sources, layer.evidence = [one.text for one in said], NAME
            layer.modules = list(dict.fromkeys(one.module for one in said if one.module))


def _made(ways: list[Way] | None) -> set[int]:
    """Return the values that a layer is certain to compute and hand on."""
    if not ways or len(ways) > 1:
        return set()
    (_, values, whole) = ways[0]
    return set(values) & whole


def _is_piece(operator: Operator) -> bool:
    return kernel_names.short(operator.operator) in kernel_names.PIECES


def _is_transpose(operator: Operator) -> bool:
    return kernel_names.short(operator.operator) in kernel_names.TRANSPOSES
