"""Why an operator that the partitioner does not take stays in PyTorch."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from typing import Any

from ..records import coverage_record
from .disabled_converters import Withheld


def why_unsupported(node: Any, torch_executed_ops: Iterable[Any], withheld: Withheld) -> str:
    """Return why upstream's partitioner does not take a node, one of `coverage_record`'s reasons."""
    from torch_tensorrt.dynamo.conversion._ConverterRegistry import DYNAMO_CONVERTERS as CONVERTERS
    from torch_tensorrt.dynamo.partitioning._global_partitioner import TorchTensorRTOperatorSupport as Support

    if node.target in torch_executed_ops or CONVERTERS.qualified_name_or_str(node.target) in torch_executed_ops:
        return coverage_record.EXCLUDED
    settings = CONVERTERS.compilation_settings
    for entry, why in withheld.get(node.target, ()):
        if entry.capability_validator(node, settings):
            falls_back = getattr(settings, "fallback_data_dependent_ops", False) and entry.requires_output_allocator
            return coverage_record.DATA_DEPENDENT if falls_back else coverage_record.disabled(why)
    if node.target not in CONVERTERS:
        return coverage_record.NO_CONVERTER
    if hasattr(Support, "_has_complex_dtype") and Support._has_complex_dtype(node):  # 2.14
        return coverage_record.COMPLEX
    if node in CONVERTERS:
        return coverage_record.DATA_DEPENDENT
    if node.target is operator.getitem and node.args[0].op == "call_function":
        return why_unsupported(node.args[0], torch_executed_ops, withheld)  # it goes where its operand goes
    candidates = [entry for registry in CONVERTERS.registries for entry in _entries(registry, node.target)]
    valid = any(entry.capability_validator(node, settings) for entry in candidates)
    return coverage_record.DYNAMIC if valid else coverage_record.REFUSED


def _entries(registry: Mapping[Any, Any], target: Any) -> Iterable[Any]:
    found = registry.get(target, ())
    return found if isinstance(found, list | tuple) else ()
