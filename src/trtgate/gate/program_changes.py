"""In what two program parts differ, in words. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..common.text_columns import first_few
from ..records.program_part import Fingerprint, ProgramPart

SHOWN = 3
"""So many modules, tensors or libraries are named."""
DIGESTS = {
    "weights": "weights", "constants": "constants of the program", "inputs": "the inputs' shapes or values",
    "calibration": "calibration data", "operators": "code of custom operators or Triton kernels",
    "conversions": "the suite's own converters, lowering passes or decompositions", "flags": "flags of torch",
    "libraries": "files of the libraries that compile",
}  # fmt: skip
"""Digest → what it is of."""
RANDOM = "what its factory returns differs from call to call: seed what is random"
VALUES = ("weights", "constants", "inputs")
"""What a factory without a seed makes anew each time."""


def same(before: ProgramPart, now: ProgramPart) -> bool:
    """Whether two programs are compiled to the same on the same machine."""
    return not _differing(before, now)


def differ_in_values(before: Fingerprint, now: Fingerprint) -> bool:
    """Whether two cases differ in what a factory without a seed makes anew each time."""
    one, other = before.program, now.program
    return one is not None and other is not None and bool(set(_differing(one, other)) & set(VALUES))


def changes(before: Fingerprint, now: Fingerprint) -> list[str]:
    """Return what differs between two cases, each in a few words, or why that can't be said; empty for nothing.

    Modules, tensors and the like are named as far as details are known of both.
    """
    if before.program is None or now.program is None:
        return [f"can't be fingerprinted: {now.problem or before.problem or 'nothing is stored of its program'}"]
    found: list[str] = []
    for name in _differing(before.program, now.program):
        if name == "graph":
            found.append(_of_graph(before, now))
        elif name in DIGESTS:
            found.append(_of_digest(name, before, now))
        else:
            what = {"settings": "setting ", "environment": "variable ", "versions": ""}[name]
            found += _of_texts(what, getattr(before.program, name), getattr(now.program, name))
    return found


def _differing(before: ProgramPart, now: ProgramPart) -> list[str]:
    names = [name for name in ProgramPart.__struct_fields__ if name != "modules"]
    return [name for name in names if getattr(before, name) != getattr(now, name)]


def _of_graph(before: Fingerprint, now: Fingerprint) -> str:
    assert before.program is not None
    assert now.program is not None
    known = bool(before.detail.modules and now.detail.modules)
    one, other = (before.detail, now.detail) if known else (before.program, now.program)
    modules = _names(one.modules, other.modules)
    if not modules:
        return "operators: what they read, or their order"
    return f"operators of {_listed([name or 'the model itself' for name in modules])}"


def _of_digest(name: str, before: Fingerprint, now: Fingerprint) -> str:
    held = {"flags": "flags", "libraries": "libraries", "weights": "tensors", "constants": "tensors"}.get(name)
    if held is None:
        return DIGESTS[name]
    one, other = getattr(before.detail, held), getattr(now.detail, held)
    if not (one and other):
        return DIGESTS[name]
    differing = _names(one, other)
    if held == "tensors":
        differing = [each for each in differing if (each in before.detail.constants) == (name == "constants")]
        differing = [each for each in differing if each in one and each in other] or differing
        return f"{name} {_listed(differing)}" if differing else f"which {name} are one and the same, or are used where"
    return f"{DIGESTS[name]}: {_listed(differing)}"


def _of_texts(what: str, before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    names = _names(before, now)
    return [f"{what}{name} {before.get(name, 'unset')} → {now.get(name, 'unset')}" for name in names]


def _names(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Return the names of what two mappings do not have in common, in their order."""
    return [name for name in {**before, **now} if before.get(name) != now.get(name)]


def _listed(names: Iterable[str]) -> str:
    return first_few(list(names), SHOWN)
