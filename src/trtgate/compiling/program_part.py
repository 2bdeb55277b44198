"""The program part of a case, of its exported program: what decides its latency beside the machine; and a build's key.

One look at a program gives both. The key of a compiled module has names and devices beside, which it keeps, and lacks
the inputs' values and what is chosen when it runs: other cases may load it.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import torch

from ..common import accelerator, library_files, sealed_folder
from ..common.errors import TrtgateError
from ..common.version import VERSION
from ..records.program_part import Fingerprint, ProgramDetail, ProgramPart
from ..suite import precisions, samples
from ..suite.cases import Case
from ..suite.model_inputs import Inputs
from ..suite.settings import Settings
from ..torch_trt import compile_options, custom_operators, dynamic_engines, own_conversions
from ..torch_trt.dynamic_inputs import DynamicInputs
from . import process_flags, program_fingerprint
from .program_fingerprint import Digest, ProgramDigests

DIGITS, FEW_DIGITS = 32, 8
MOST_MODULES = 24
"""So many modules are stored of a program; where it has more, they are told by the ones that hold them."""
UNORDERED = ("options", "torch_executed_ops")
"""Settings whose order decides nothing."""
OF_THE_GATE = ("limits", "tolerances", "quarantine", "expected_failure", "needs_gpu")
"""Settings that say how a case is judged, and where."""
MODELOPT = "nvidia-modelopt"


class Identified(NamedTuple):
    """What a case is."""

    fingerprint: Fingerprint
    made_from: dict[str, str]
    """What decides the compiled module, beside code that can't be found; empty where that can't be said."""
    unread: bool = False
    """Whether that is so since a tensor can't be read, or code can't be found."""


def of_program(
    case: Case, program: torch.export.ExportedProgram, inputs: Inputs, dynamic: DynamicInputs | None, device: str
) -> Identified:
    """Return what a case is, exported on `device`, with its inputs as they are measured.

    A fingerprint whose `problem` says so has no program part: a tensor that can't be read, or code that can't be found.
    """
    try:
        quantized = case.settings.precision in precisions.QUANTIZED
        digests = program_fingerprint.of_program(program, device, calibrated_here=quantized)
        of_inputs = program_fingerprint.of_values(inputs, device)
    except (NotImplementedError, RuntimeError, TypeError) as error:
        return Identified(Fingerprint(problem=f"its weights can't be read ({error})"), {}, unread=True)
    problems: list[str] = []
    settings, flags = case.settings, process_flags.flags()
    operators = _tried(lambda: custom_operators.fingerprint(program), problems)
    conversions = _tried(lambda: own_conversions.fingerprint(of_custom=operators != ""), problems)
    libraries = _tried(lambda: dict(_libraries(settings.precision)), problems) or {}
    files = _files_of_options(settings)
    part = ProgramPart(
        graph=digests.graph[:DIGITS],
        weights=digests.weights[:DIGITS],
        constants=digests.constants[:DIGITS],
        inputs=of_inputs[:DIGITS],
        calibration=_calibration(case, inputs, dynamic, device)[:DIGITS],
        operators=(operators or "")[:DIGITS],
        conversions=(conversions or "")[:DIGITS],
        flags=_of_texts(flags)[:DIGITS],
        libraries=_of_texts(libraries)[:DIGITS],
        settings=_settings(settings, dynamic) | files,
        environment=process_flags.environment(),
        versions=_versions(settings.precision),
        modules={path: digest[:FEW_DIGITS] for path, digest in few(digests.modules).items()},
    )
    detail = ProgramDetail(
        modules=digests.modules, tensors=digests.tensors, constants=digests.constant_names, flags=flags,
        libraries=libraries,
    )  # fmt: skip
    problem = "; ".join(problems)
    fingerprint = Fingerprint(program=None if problem else part, detail=detail, problem=problem)
    return Identified(fingerprint, _made_from(settings, part, digests, dynamic, files), unread=bool(problem))


def few(modules: Mapping[str, str], most: int = MOST_MODULES) -> dict[str, str]:
    """Return modules with their digests, or, of too many, those that hold them, as deep as there are few enough."""
    depth = max((path.count(".") for path in modules), default=0) + 1
    while True:
        found: dict[str, Digest] = {}
        for path, digest in modules.items():
            found.setdefault(".".join(path.split(".")[:depth]), Digest()).feed(path.rpartition(".")[2], digest)
        if len(found) <= most or depth == 1:
            return {path: digest.text() for path, digest in list(found.items())[:most]}
        depth -= 1


def _tried(ask: Any, problems: list[str]) -> Any:
    try:
        return ask()
    except (TrtgateError, library_files.Unlisted) as error:
        problems.append(str(error))
        return None


@cache
def _libraries(precision: str) -> Mapping[str, str]:
    return library_files.digests((MODELOPT,) if precision in precisions.QUANTIZED else ())


def _versions(precision: str) -> dict[str, str]:
    found = {name: version for name, version in accelerator.installed().items() if name not in accelerator.AROUND_IT}
    if precision in precisions.QUANTIZED:
        found |= accelerator.installed((MODELOPT,))
    python = ".".join(platform.python_version_tuple()[:2])
    return {**found, "cuda of torch": str(torch.version.cuda), "python": python, "trtgate": VERSION}


def _settings(settings: Settings, dynamic: DynamicInputs | None) -> dict[str, str]:
    """Return what settings say that is not as it is by default, and what follows from them."""
    given = msgspec.structs.asdict(settings)
    defaults = msgspec.structs.asdict(Settings(frontend=settings.frontend))
    found = {
        name: _text(_ordered(value) if name in UNORDERED else value)
        for name, value in given.items()
        if name not in OF_THE_GATE and (value != defaults[name] or name in ("frontend", "precision"))
    }
    if dynamic is not None:
        found["optimization profiles"] = repr(dynamic.shapes)
        found["specialization"] = dynamic_engines.strategy(settings)
    return found


def _files_of_options(settings: Settings) -> dict[str, str]:
    """Return the digests of files below the working folder that options name, such as a timing cache.

    What lies elsewhere is the machine's, and the same for all revisions.
    """
    paths = {name: Path(value) for name, value in settings.options.items() if isinstance(value, str) and value}
    return {
        f"file of option {name}": sealed_folder.digest(path)
        for name, path in paths.items()
        if path.absolute().is_relative_to(Path.cwd()) and path.is_file()
    }


def _calibration(case: Case, inputs: Inputs, dynamic: DynamicInputs | None, device: str) -> str:
    if case.settings.precision not in precisions.QUANTIZED:
        return ""
    from ..torch_trt import quantization

    at_optimum = Case(case.model, case.settings.at_optimum)
    example = inputs if dynamic is None else dynamic.example
    fed = samples.of(at_optimum, example, quantization.CALIBRATION_BATCHES, seed=samples.CALIBRATION)
    return Digest(*(program_fingerprint.of_values(one, device) for one in fed)).text()


def _made_from(
    settings: Settings, part: ProgramPart, digests: ProgramDigests, dynamic: DynamicInputs | None,
    files: Mapping[str, str],
) -> dict[str, str]:  # fmt: skip
    """Return everything that decides the compiled module, as an artifact's key has it."""
    try:
        options = compile_options.options_of(settings)
    except TrtgateError:
        return {}  # building says what is wrong
    found = {
        "graph": digests.graph,
        "weights": digests.weights,
        "constants": digests.constants,
        "calibration": digests.calibrated,
        "names of modules": digests.names,
        "frontend": settings.frontend,
        "precision": settings.precision,
        "dynamic": repr(settings.dynamic),
        "optimization profiles": repr(dynamic and dynamic.shapes),  # a program knows no optimum
        "specialization": dynamic_engines.strategy(settings),
        "verbosity": settings.profiling_verbosity,
        "flags": part.flags,
        "libraries": part.libraries,
        **{f"option {name}": _text(value) for name, value in options.items()},
        **files,
        **{f"variable {name}": value for name, value in part.environment.items()},
        **part.versions,
    }
    found |= {
        name: value for name, value in (("operators", part.operators), ("own conversions", part.conversions)) if value
    }
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        found |= {"device": properties.name, "compute capability": f"{properties.major}.{properties.minor}"}
    return found


def _of_texts(texts: Mapping[str, str]) -> str:
    return Digest(*(f"{name} {value}" for name, value in sorted(texts.items()))).text()


def _ordered(value: Any) -> Any:
    """Return a mapping by its names, a collection of operators by theirs; whatever they hold is as it is."""
    if not isinstance(value, Mapping):
        return sorted(value, key=str)
    return {name: sorted(one) if isinstance(one, set | frozenset) else one for name, one in sorted(value.items())}


def _text(value: Any) -> str:
    return repr(sorted(map(str, value))) if isinstance(value, set | frozenset) else repr(value)
