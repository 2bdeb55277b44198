"""What decides how long a compiled module takes on a given machine, as data: the program part of a case."""

from __future__ import annotations

import msgspec


class ProgramPart(msgspec.Struct, frozen=True, kw_only=True):
    """All that is compiled and how, without the machine: two that are equal are compiled to the same.

    The same with and without a GPU. What of it is long is there as a digest, of 32 hexadecimal digits; a digest is
    empty where there is nothing of the kind.
    """

    graph: str
    """Operators, their arguments, shapes and dtypes; names are not in it, nor where a line stands."""
    weights: str
    """Parameters and buffers that are saved: their values, and which are one and the same."""
    constants: str
    """Tensors that the program holds beside them."""
    inputs: str
    """Shapes and values of the inputs, and how they are nested."""
    calibration: str = ""
    """What a quantized module was calibrated on."""
    operators: str = ""
    """Code of custom operators and Triton kernels in the graph."""
    conversions: str = ""
    """Converters, lowering passes and decompositions of the user's own, with their code."""
    flags: str = ""
    """What torch was told process-wide, `torch.backends` for instance."""
    libraries: str = ""
    """Files of the libraries that compile and run it."""
    settings: dict[str, str] = {}
    environment: dict[str, str] = {}
    """Variables that torch, Torch-TensorRT and CUDA's libraries read."""
    versions: dict[str, str] = {}
    """Of the libraries that compile and run it, of Python and trtgate."""
    modules: dict[str, str] = {}
    """Module → its operators, as a digest of eight digits: says where a graph differs. No part of what is compared."""


class ProgramDetail(msgspec.Struct, frozen=True, kw_only=True):
    """What says where two program parts differ, too long to be stored."""

    modules: dict[str, str] = {}
    """Module → its operators, as a digest; every module that has some."""
    tensors: dict[str, str] = {}
    """Name of a parameter, buffer or constant → its digest."""
    constants: list[str] = []
    """Those of the tensors that are constants."""
    flags: dict[str, str] = {}
    libraries: dict[str, str] = {}
    """Library → the digest of its files."""


class Fingerprint(msgspec.Struct, frozen=True, kw_only=True):
    """The program part of a case, or why nobody can tell what decides its latency."""

    program: ProgramPart | None = None
    detail: ProgramDetail = ProgramDetail()
    problem: str = ""
