"""What a precision means: the dtype that weights and inputs are cast to, the arithmetic, how it is quantized."""

from __future__ import annotations

import msgspec


class Precision(msgspec.Struct, frozen=True, kw_only=True):
    """A precision that a case can ask for."""

    name: str
    dtype: str
    """What floating-point weights and inputs are cast to, as torch names it; empty where nothing is cast."""
    quantized: str = ""
    """The configuration of nvidia-modelopt that quantizes the module; empty where it is not quantized."""
    capability: tuple[int, int] = (0, 0)
    """The compute capability that it needs."""


AS_IS = "as_is"
"""Casts nothing: the module is measured with the dtypes that its factory gave it."""
CASTS_NOTHING = f'precision "{AS_IS}" casts nothing'
"""What to do about a cast, in the words of every sentence that advises it."""

ALL = {
    precision.name: precision
    for precision in (
        Precision(name="fp32", dtype="float32"),
        Precision(name="tf32", dtype="float32", capability=(8, 0)),
        Precision(name="fp16", dtype="float16"),
        Precision(name="bf16", dtype="bfloat16", capability=(8, 0)),
        Precision(name=AS_IS, dtype=""),
        Precision(name="int8", dtype="float16", quantized="INT8_DEFAULT_CFG"),
        Precision(name="int8_weights", dtype="float16", quantized="INT8_WEIGHT_ONLY_CFG"),
        Precision(name="fp8", dtype="float16", quantized="FP8_DEFAULT_CFG", capability=(8, 9)),
    )
}
"""By name. Quantized layers compute in integers or fp8, what is left in fp16."""

QUANTIZED = frozenset(name for name, precision in ALL.items() if precision.quantized)
