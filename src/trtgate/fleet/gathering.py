"""Which of several files are the shards of one run: each once, none foreign, and what of it is missing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from ..common.explanations import Explanation, explained
from ..common.notices import Notice, Severity
from ..common.text_columns import first_few, number_of
from .manifest import Manifest, differences
from .stage_record import CONFIRMATION, StageFile

MOST_NAMED = 3
"""Cases of a missing shard that are named."""


class Gathering(msgspec.Struct, frozen=True, kw_only=True):
    """The files of one run on one kind of accelerator."""

    manifest: Manifest
    files: list[StageFile]
    """All that have this manifest, those too that do not count."""
    shards: dict[str, StageFile]
    """Part → its first complete attempt; without parts that are missing."""
    confirmations: list[StageFile]
    """Complete ones, the first one first."""
    notices: list[Notice]
    """What is wrong with the files, and which of them do not count."""

    @property
    def first(self) -> StageFile:
        """Any file of it: what they have in common is said by this one."""
        return next(iter((*self.shards.values(), *self.files)))

    @property
    def missing(self) -> list[str]:
        """The cases of shards that are missing."""
        parts = [part for part in self.manifest.names if part not in self.shards]
        return [case for part in parts for case in self.manifest.shard_of(part)]


def gathered(files: Sequence[StageFile]) -> list[Gathering]:
    """Return the runs that some files are of, one for each kind of accelerator, in the order of the files."""
    keys = dict.fromkeys(file.record.manifest.key for file in files)
    kinds = [_gathered([file for file in files if file.record.manifest.key == key]) for key in keys]
    return [_beside(one, kinds[0].manifest) for one in kinds]


def _gathered(files: Sequence[StageFile]) -> Gathering:
    manifest = _common(files)
    own = [file for file in files if file.record.manifest.digest == manifest.digest]
    notices = [
        _error(f"{file.name} is foreign: {differences(file.record.manifest, manifest)}")
        for file in files
        if file not in own
    ]
    shards: dict[str, StageFile] = {}
    of_part: dict[str, list[StageFile]] = {}
    for file in own:
        of_part.setdefault(file.record.part, []).append(file)
    for part in manifest.names:
        attempts = of_part.get(part, [])
        complete = _first_first(file for file in attempts if file.record.complete)
        if complete:
            shards[part] = complete[0]
            notices += [_doubled(file, complete[0]) for file in complete[1:]]
        notices += [_about_incomplete(file, counted=bool(complete)) for file in attempts if not file.record.complete]
    notices += _about_missing(manifest, [part for part in manifest.names if part not in shards])
    confirming = of_part.get(CONFIRMATION, [])
    notices += [_about_incomplete(file, counted=True) for file in confirming if not file.record.complete]
    return Gathering(
        manifest=manifest,
        files=own,
        shards=shards,
        confirmations=_first_first(file for file in confirming if file.record.complete),
        notices=notices,
    )


def _beside(kind: Gathering, first: Manifest) -> Gathering:
    """Return a kind's run, which is red where it is of another commit than the first one's."""
    mine = kind.manifest
    if mine.commit == first.commit:
        return kind
    said = f"{mine.key} was measured at commit {_short(mine)}, and {first.key} at {_short(first)}: merge runs of one"
    return msgspec.structs.replace(kind, notices=[*kind.notices, _error(said)])


def _common(files: Sequence[StageFile]) -> Manifest:
    """Return the manifest of which most shards are complete; of several the one that is named first."""
    parts: dict[str, set[str]] = {}
    for file in files:
        complete = parts.setdefault(file.record.manifest.digest, set())
        complete |= {file.record.part} if file.record.complete else set()
    wanted = max(parts, key=lambda digest: len(parts[digest]))
    return next(file.record.manifest for file in files if file.record.manifest.digest == wanted)


def _first_first(files: Iterable[StageFile]) -> list[StageFile]:
    return sorted(files, key=lambda file: (file.record.started, file.record.attempt))


def _doubled(file: StageFile, counted: StageFile) -> Notice:
    if file.record.attempt == counted.record.attempt:
        return _error(f"{file.name} is doubled: it is the run of {counted.path} again")
    return _error(
        f"{file.name} is doubled: the first complete attempt counts, {counted.path}; measuring again until it is "
        "green would be no gate"
    )


def _about_incomplete(file: StageFile, *, counted: bool) -> Notice:
    said = f"{file.name} was not run to its end, and does not count"
    return Notice(said) if counted else _error(said)


def _about_missing(manifest: Manifest, parts: Sequence[str]) -> list[Notice]:
    """Say which shards are missing: each that has cases, and all others in one line."""
    where, said = f"of {manifest.key} at commit {_short(manifest)}", []
    for part in parts:
        if cases := manifest.shard_of(part):
            many = number_of(len(cases), "case")
            said.append(f"shard {part} {where} did not measure {many}: {first_few(cases, MOST_NAMED)}")
    if empty := [part for part in parts if not manifest.shard_of(part)]:
        said.append(f"shards {where} that have no case: {first_few(empty, MOST_NAMED)}")
    return [Notice(explained(text, Explanation.SHARD_MISSING), Severity.MISSING) for text in said]


def _short(manifest: Manifest) -> str:
    return manifest.commit[:12] or "unknown"


def _error(text: str) -> Notice:
    return Notice(explained(text, Explanation.SHARD_REJECTED), Severity.ERROR)
