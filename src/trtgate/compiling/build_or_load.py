"""A compiled module that is right, however it is to be had: from the artifact cache, or built and put there."""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import torch

from .. import frontends
from ..common import sealed_folder
from ..common.errors import TrtgateError, is_fault, one_line
from ..common.explanations import bare, continued
from ..common.steps import OnStep
from ..common.text_columns import first_few
from ..records.coverage_record import Coverage
from ..records.measurement import Build
from ..records.program_part import Fingerprint
from ..suite.cases import Case
from ..torch_trt import runtime_cache, upstream_state
from . import artifact_cache, building, locating_in_case, program_part, stored_inputs
from .artifact_cache import ArtifactCache
from .expected_output import NOT_COMPILED, WrongOutputError
from .inference import Inference
from .output_check import Comparison
from .program_part import Identified
from .reference import Reference
from .sealed_store import SealedManifest

MOST_NAMED = 4
Checks = Callable[[Reference, Inference], Comparison]
"""Compares a module with eager. Raises TrtgateError where it is wrong."""


@dataclass
class CheckedModule:
    """A compiled module whose output was compared with eager's."""

    inference: Inference
    build: Build
    coverage: Coverage | None
    stored: bool
    """Whether the folder holds what a worker can load."""
    notes: list[str]
    """What went wrong with the cache, and was got over."""
    sha256: dict[str, str] = field(default_factory=dict)
    """File of the compiled module → its digest, where they were read."""


def build_or_load(
    case: Case, device: str, folder: Path, cache: ArtifactCache | None, step: OnStep, *, builders: int = 1,
    checks: Checks = Reference.check, shared: ArtifactCache | None = None,
    turn: Callable[[], AbstractContextManager[float]] | None = None,
) -> CheckedModule:  # fmt: skip
    """Load a case from a cache or build it, and put into `folder`, private and empty, what workers load.

    `cache` is the user's, `shared` this run's, in which the shapes of one compiled module find each other's build.
    `builders` processes are at work at once, this one counted; `checks` says how it is compared with eager. `turn` is
    entered when nothing is left to do but to build, once nobody else builds, and left when the module is compiled; it
    gives the seconds that it waited.
    Raises TrtgateError for what can't be built, or whose output is wrong. What is wrong with a cache is a note.
    """
    start = time.perf_counter()
    with upstream_state.users_code():
        reference = Reference(case, device, step, processes=builders)
        prepared, prepare_s = reference.prepare(step)
    notes: list[str] = []
    identified = _identified(case, prepared, reference, device)
    if cache is not None and identified.unread:
        notes.append(f"case {case.id}: not cached: {identified.fingerprint.problem}")
        cache = None  # after an edit of code that nobody finds the key is equal
    caches = [one for one in (shared, cache) if one is not None]
    made_from = identified.made_from if caches and frontends.stores(case) else {}
    key = artifact_cache.key_of(made_from)

    def taken() -> CheckedModule | None:
        found = (_taken(case, key, one, folder, reference, notes, step, checks) for one in caches if made_from)
        return next((one for one in found if one is not None), None)

    with contextlib.ExitStack() as stack:
        found = taken()
        differing = cache.differing(case.id, made_from) if found is None and cache is not None and made_from else []
        own_turn = stack.enter_context(contextlib.ExitStack())
        if found is None and turn is not None:  # before the lock: waiting for that has a time limit, a turn has none
            start += own_turn.enter_context(turn())
        if found is None and made_from:  # another shape, the other side of a comparison or another run may be at it
            asked = time.perf_counter()
            stack.enter_context(caches[-1].building(key))
            found = taken()
            start += time.perf_counter() - asked
        if found is not None:
            return _as_identified(found, identified)
        at_once = builders if turn is None else 1
        inference = reference.build(prepared, prepare_s, step)
        own_turn.close()
        built = _checked(case, reference, inference, folder, notes, step, checks, at_once)
        built.build = msgspec.structs.replace(built.build, ready_s=time.perf_counter() - start)
        if built.stored and (made_from or identified.fingerprint.program is not None):
            built.sha256 = sealed_folder.digests(folder)
            for name in NOT_COMPILED:
                del built.sha256[name]
        if made_from and built.stored:
            manifest = SealedManifest(
                case=case.id, made_from=made_from, created=artifact_cache.now(), build=built.build,
                coverage=built.coverage, sha256=built.sha256,
            )  # fmt: skip
            notes += [note for one in caches if (note := one.put(key, folder, manifest))]
        if differing:  # said of this run alone, so it is in no manifest
            said = f"built anew: it differs in {first_few(differing, MOST_NAMED)} from the module in the artifact cache"
            built.build = msgspec.structs.replace(built.build, remarks=(*built.build.remarks, said))
    return _as_identified(built, identified)


def _as_identified(made: CheckedModule, identified: Identified) -> CheckedModule:
    """Let a build say what it was made of, and which files hold it."""
    found = identified.fingerprint.program
    of_module = sorted(f"{name} {digest}" for name, digest in made.sha256.items()) if found is not None else []
    artifact = hashlib.sha256("\n".join(of_module).encode()).hexdigest()[:32] if of_module else ""
    made.build = msgspec.structs.replace(made.build, program=found, artifact=artifact)
    return made


def _identified(case: Case, prepared: Any, reference: Reference, device: str) -> Identified:
    if not isinstance(prepared, torch.export.ExportedProgram):
        return Identified(Fingerprint(problem="it is no exported program"), {})
    try:
        return program_part.of_program(case, prepared, reference.inputs, reference.dynamic_inputs(), device)
    except (AttributeError, ImportError, KeyError, OSError) as error:  # another release keeps what it knows elsewhere
        problem = f"nobody can tell what it is made of ({one_line(error)})"
        return Identified(Fingerprint(problem=problem), {}, unread=True)


def _checked(
    case: Case, reference: Reference, inference: Inference, folder: Path, notes: list[str], step: OnStep,
    checks: Checks, builders: int,
) -> CheckedModule:  # fmt: skip
    """Compare what was built, and store it. Raises TrtgateError as `build_or_load`."""
    build = building.figures(inference, _right(case, reference, inference, step, checks), builders)
    unseen = tuple(filter(None, [reference.unseen_state(inference)]))
    build = msgspec.structs.replace(build, remarks=(*reference.remarks, *unseen))
    stored = frontends.stores(case)
    if stored:
        step("storing")
        problem = _problem_with_storing(case, inference, reference, build, folder, notes)
        if problem:
            stored = False
            notes.append(f"case {case.id} can't be stored, so that every launch builds it: {problem}")
            sealed_folder.empty(folder)
    return CheckedModule(inference, build, inference.compiled.coverage, stored, notes)


def _right(case: Case, reference: Reference, inference: Inference, step: OnStep, checks: Checks) -> Comparison:
    """Compare what was built with eager. Raises TrtgateError where it is wrong: in what, and from where on."""
    try:
        return checks(reference, inference)
    except WrongOutputError as error:
        known = locating_in_case.whole(reference, error.compared, error.problem)
        where = locating_in_case.clause(case, reference, known, inference.compiled.build_s, step)
        if not where:
            raise
        raise TrtgateError(continued(str(error), f"; {where}")) from error


def _problem_with_storing(
    case: Case, inference: Inference, reference: Reference, build: Build, folder: Path, notes: list[str]
) -> str:
    """Put the compiled module with its kernels into the folder; returns why upstream can't, empty if it can.

    What is known to have several parts is loaded and compared too: 2.11 may store them connected wrongly.
    """
    several = build.pytorch_operators is not None and (build.engines, build.pytorch_operators) != (1, 0)
    try:
        reference.save(inference, folder)
        _store_kernels(case, inference, folder, notes)
        loaded = reference.loaded(folder) if several else None
    except (OSError, torch.cuda.OutOfMemoryError):
        raise
    except Exception as error:
        if is_fault(error):
            raise TrtgateError(
                f"case {case.id}: its compiled module can't be written to {folder}: is there space left? "
                f"({one_line(error)})"
            ) from error
        return one_line(error)
    return "" if loaded is None else reference.problem_of(loaded)


def _store_kernels(case: Case, inference: Inference, folder: Path, notes: list[str]) -> bool:
    """Put the kernels of a module's runtime cache beside it; returns whether it has any. Whatever fails is a note."""
    cache = inference.compiled.runtime_cache
    try:
        return cache is not None and runtime_cache.store(cache, folder)
    except torch.cuda.OutOfMemoryError:
        raise
    except Exception as error:
        why = error.strerror if isinstance(error, OSError) else one_line(error)
        notes.append(f"case {case.id}: its runtime cache could not be stored, so every launch compiles kernels: {why}")
        return False


def _taken(
    case: Case, key: str, cache: ArtifactCache, folder: Path, reference: Reference, notes: list[str], step: OnStep,
    checks: Checks,
) -> CheckedModule | None:  # fmt: skip
    """Return what the cache has, loaded and compared with eager; None, with a note, where that is no good."""
    manifest, problem = cache.take(key, folder)
    if manifest is None:
        notes += [f"case {case.id}: {problem}"] if problem else []
        return None
    step("loading from the cache")
    stored_inputs.save(reference.inputs, folder)
    reference.expected.save(folder)
    try:
        inference = reference.loaded(folder)
        compared = checks(reference, inference)
    except torch.cuda.OutOfMemoryError:
        raise
    except Exception as error:
        why = bare(str(error))
        notes.append(f"case {case.id}: the cached module is no good ({why}): it was removed, and is built again")
        cache.remove(key)
        sealed_folder.empty(folder)
        return None
    manifest = _with_kernels(case, key, cache, folder, inference, manifest, notes)
    assert manifest.build is not None  # the cache gives no other
    build = msgspec.structs.replace(
        manifest.build, leaf_error=compared.leaf_error, leaves=compared.counted, ways=compared.ways, cached=True,
        remarks=tuple(dict.fromkeys((*reference.remarks, *manifest.build.remarks))),
    )  # fmt: skip
    return CheckedModule(inference, build, manifest.coverage, stored=True, notes=notes, sha256=manifest.sha256)


def _with_kernels(
    case: Case, key: str, cache: ArtifactCache, folder: Path, inference: Inference, manifest: SealedManifest,
    notes: list[str],
) -> SealedManifest:  # fmt: skip
    """Put kernels that had to be compiled for a loaded module beside it, here and in the cache; returns its manifest.

    The cache had none, or those of another card, driver or TensorRT; or, where shapes are dynamic, of other shapes.
    """
    kept = inference.compiled.runtime_cache
    complete = kept is None or (kept.kept and not case.settings.dynamic)
    if complete or not _store_kernels(case, inference, folder, notes):
        return manifest
    sha256 = {**manifest.sha256, runtime_cache.FILE: sealed_folder.digest(folder / runtime_cache.FILE)}
    manifest = msgspec.structs.replace(manifest, sha256=sha256)
    note = cache.put(key, folder, manifest)
    notes += [f"case {case.id}: {note}"] if note else []
    return manifest
