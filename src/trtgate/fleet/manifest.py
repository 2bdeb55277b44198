"""What all shards of a run have in common: the whole of the run, before it was divided, and how it is to be judged."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from ..common.errors import TrtgateError
from ..common.limits import checked as checked_limits
from ..common.metrics import METRICS
from ..common.text_columns import first_few
from ..gate.run_options import ChangedOnly
from ..launches.relocated_imports import OURS
from ..suite.cases import Case, Model
from ..suite.settings import Settings
from .shards import MOST


class ManifestCase(msgspec.Struct, frozen=True, kw_only=True):
    """A case that has a latency test, and its limits as this run has them: metric → fraction."""

    id: str
    model: str
    settings: dict[str, Any]
    limits: dict[str, float]

    @property
    def case(self) -> Case:
        """The case, of a model that can't be made. Raises TrtgateError where the settings are none, or not of it."""
        try:
            found = Case(Model(self.model, _not_made, ()), msgspec.convert(self.settings, Settings))
        except msgspec.ValidationError as error:
            raise TrtgateError(f"case {self.id!r}: {error}") from error
        if found.id != self.id:
            raise TrtgateError(f"case {self.id!r} has the settings of {found.id!r}")
        return found


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """A run before it was divided. Shards with equal manifests are shards of one run."""

    key: str
    """The accelerator's."""
    kind: str
    """"gpu" or "cpu"."""
    versions: dict[str, str]
    """What makes and runs compiled modules, as `Accelerator.versions` has it."""
    trtgate: str
    """Its version."""
    commit: str
    dirty: bool
    """Whether files that git knows differed from the commit."""
    suite: str
    """Digest of the files that the suites were imported from."""
    baseline: str
    """Digest of the baseline that latencies are judged by; empty where there is none, or a base."""
    compare: bool
    base: str = ""
    """The base as it was asked for; empty where a stored baseline judges."""
    base_commit: str = ""
    require: tuple[str, ...] = ()
    launches: int
    streams: str
    cold_starts: int
    load: int = 0
    changed: ChangedOnly | None = None
    """How device latencies are left out that nothing changed."""
    tests: int
    """How many judgements of all cases share the error rate."""
    by: str
    shards: list[list[str]]
    """The cases of each shard, those too that have no latency test."""
    cases: list[ManifestCase]
    """Those that have one, in the order of the run; what is not in `skipped` is timed."""
    skipped: dict[str, str] = {}
    """Case → why this accelerator can't take it."""
    left_out: list[str] = []
    """Cases of the baseline that a filter left out, as asked."""
    filters_typed: bool = True
    """Whether such a filter was typed, not found in addopts or a conftest."""

    def shard_of(self, part: str) -> list[str]:
        """Return the cases of a shard that is named as `2/8`; empty for another name."""
        number, _, count = part.partition("/")
        if count != str(len(self.shards)) or not re.fullmatch("[1-9][0-9]{0,5}", number):
            return []
        return self.shards[int(number) - 1] if int(number) <= len(self.shards) else []

    @property
    def names(self) -> list[str]:
        """The names of the shards: `1/2`, `2/2`."""
        return [f"{number}/{len(self.shards)}" for number in range(1, len(self.shards) + 1)]

    @property
    def timed(self) -> list[str]:
        """The cases that are timed."""
        return [one.id for one in self.cases if one.id not in self.skipped]

    @property
    def digest(self) -> str:
        """What equal manifests have in common, and no others."""
        return hashlib.sha256(msgspec.json.encode(self, order="sorted")).hexdigest()

    def check(self) -> None:
        """Raise TrtgateError for what no run of ours writes."""
        spread = [case for shard in self.shards for case in shard]
        tested = [case.id for case in self.cases]
        if not self.shards or len(set(spread)) < len(spread) or len(set(tested)) < len(tested):
            raise TrtgateError("a case is in its manifest twice, or no shard is")
        if len(self.shards) > MOST:
            raise TrtgateError(f"its manifest has {len(self.shards)} shards, and a run has {MOST} at most")
        if not set(tested) <= set(spread):
            raise TrtgateError(f"no shard has {first_few(sorted(set(tested) - set(spread)), 2)}")
        if self.tests < 1:
            raise TrtgateError(f"its manifest counts {self.tests} judgements")
        for one in self.cases:
            if not set(METRICS) <= checked_limits(one.limits, f"case {one.id!r}", parsed=True).keys():
                raise TrtgateError(f"case {one.id!r} has no limit for some metric")
            one.case  # noqa: B018 - raises


def differences(one: Manifest, others: Manifest) -> str:
    """Return in what a shard's manifest differs from that of the others, in words; empty where it does not."""
    found = []
    for name in Manifest.__struct_fields__:
        mine, theirs = getattr(one, name), getattr(others, name)
        if mine == theirs:
            continue
        if isinstance(mine, dict | list):
            found.append(f"other {SAID.get(name, name)}{_which(mine, theirs)}")
        else:
            found.append(f"{SAID.get(name, name)} {_short(mine)}, the others have {_short(theirs)}")
    return "; ".join(found)


SAID = {
    "suite": "files of the suite with digest", "baseline": "a baseline with digest", "tests": "a family of tests of",
    "cases": "cases or limits", "shards": "division into shards", "skipped": "cases that the accelerator can't take",
    "left_out": "cases left out", "dirty": "changes beside the commit", "by": "shards by",
}  # fmt: skip


def _short(value: object) -> str:
    text = str(value) or "none"
    return text[:12] if len(text) >= 40 else text


def _which(mine: Any, theirs: Any) -> str:
    """Return what differs of two versions or the like, as far as that takes few words."""
    if not isinstance(mine, dict):
        return ""
    names = [name for name in sorted({*mine, *theirs}) if mine.get(name) != theirs.get(name)]
    said = [f"{name} {mine.get(name, 'none')}, the others {theirs.get(name, 'none')}" for name in names]
    return f": {first_few(said, 2)}"


def _not_made() -> Any:
    raise TrtgateError("a case of a manifest can be judged, not made")


def digest_of_suite(root: str, files: Mapping[str, str]) -> str:
    """Return what tells the files that a suite was imported from from others, wherever the checkout lies."""
    own = os.path.join(OURS, "")
    real = os.path.realpath(root)
    found = sorted((os.path.relpath(path, real), digest) for path, digest in files.items() if not path.startswith(own))
    return hashlib.sha256(msgspec.json.encode(found)).hexdigest()
