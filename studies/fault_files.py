"""Damaged files for the campaign of `faults.py`: each kind that trtgate stores, damaged and used all the same.

What must come of it: one readable line, or the tool goes on rightly; other stored data stay. Whoever reads a file that
can't be read tells of it, and a module that is twice as slow as its baseline never passes without a line.
"""

from __future__ import annotations

import json
import random
import re
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import fault_mutations
import msgspec
from fault_runs import ALPHA, BETA, ROOT, SLOW, Attempt, Came, Ended, Place, Result, lost, told, trtgate_main, worst

from tests import forks, profile_data
from tests.pytest_folder import edited
from trtgate.common import git, sealed_folder
from trtgate.common.run_file import GrowingRun
from trtgate.compiling import artifact_cache
from trtgate.compiling.artifact_cache import ArtifactCache
from trtgate.compiling.sealed_store import SealedManifest
from trtgate.coverage import coverage_baselines, coverage_gate
from trtgate.gate import kept_artifacts
from trtgate.profiles import profile_files, profile_gate
from trtgate.records.coverage_record import Left
from trtgate.records.measurement import Build
from trtgate.suite.cases import Case, Model
from trtgate.suite.declaring import grid
from trtgate.timing.device_lock import device_lock

FAMILY = "damaged files"
SESSIONS = 9
"""So many that their own spread says what is seen, and twice as slow is seen for sure."""
MADE_FROM = {"program": "1"}
KEY, OTHER = (artifact_cache.key_of({"program": number}) for number in ("1", "2"))
RECORDED = "2026-01-02T03:04:05+00:00"
RELEASE = "rtx-2.14.0"
SOCKETS: dict[str, str] = {}
"""The server of forks for workers; who starts the campaign fills it."""
WORDS = ("underpowered", "incomparable", "NEW", "new", "WARNING", "unconfirmed")
"""What a line says of a case that is not called good."""
EXPLAINS = re.compile(r"ERROR|[Ee]rror: |FAILED|MISSING|lost")
"""What a line says of a run or command that does not end with 0."""
NET = """
import trtgate


def net():
    import torch

    torch.manual_seed(0)
    return torch.nn.Linear(4, 4).eval(), torch.ones(1, 4)
"""


# All that trtgate stores, once


def fill(place: Place) -> None:
    """Store a file of every kind."""
    for asked in (("--trtgate-update-baselines",), ("--benchmark-compare", "--trtgate-report=report.json"), ()):
        _must(place.gate("--trtgate-launches=1", *asked))
    _more_sessions(place.baseline)
    _must(place.gate("--trtgate-launches=1", "--benchmark-compare"))
    document = json.loads(place.runs()[0].read_bytes())
    growing = GrowingRun(place.runs()[0].with_name("20260101T000000-1-killed.json"), document)
    growing.add(document["benchmarks"])
    for release in ("rtx-2.11.0", RELEASE):
        copied = place.checkout / "baselines" / "coverage" / release / "alexnet.json"
        copied.parent.mkdir(parents=True)
        copied.write_bytes((ROOT / "baselines" / "coverage" / release / "alexnet.json").read_bytes())
    profile = profile_data.resnet18_profile()
    profile_files.store_baseline(place.checkout / "baselines", profile.accelerator.key, profile)
    profile_files.write_folder(place.checkout / "profile", profile, {})
    _must(place.forked(lambda: _fill_cache(place)))
    (place.checkout / "net.py").write_text(NET)
    _must(place.forked(lambda: _store_weights(place.checkout / "net.safetensors")))
    _must(_sweep(place))
    identity = ("-c", "user.name=Study", "-c", "user.email=study@example.org", "-c", "commit.gpgsign=false")
    for command in (("init", "--quiet"), ("add", "--all"), (*identity, "commit", "--quiet", "--message=all")):
        git.run(place.checkout, *command).check_returncode()


def _must(ended: Ended) -> None:
    if ended.status != 0:
        raise RuntimeError(ended.output)


def _more_sessions(baseline: Path) -> None:
    with edited(baseline) as document:
        for entry in document["benchmarks"]:
            record = entry["extra_info"]["trtgate"]
            (one,) = record["sessions"]
            record["sessions"] = [_session(one, number) for number in range(SESSIONS)]


def _session(one: dict[str, Any], number: int) -> dict[str, Any]:
    factor = 1 + 0.002 * (number * 7 % 5 - 2)
    metrics = {name: [[us * factor for us in each] for each in launches] for name, launches in one["metrics"].items()}
    return {**one, "recorded": f"2026-01-{1 + number:02}T00:00:00+00:00", "metrics": metrics}


def _built(folder: Path) -> Path:
    folder.mkdir(mode=0o700)
    (folder / "compiled.pt2").write_bytes(b"compiled" * 100)
    return folder


def _fill_cache(place: Place) -> int:
    cache = ArtifactCache(artifact_cache.default_folder())
    for name, made_from in (("net", MADE_FROM), ("other", {"program": "2"})):
        folder = _built(place.root / "tmp" / name)
        manifest = SealedManifest(
            case=f"{name}-dynamo-fp16", made_from=made_from, created=RECORDED, build=Build(build_s=1.0),
            sha256=sealed_folder.digests(folder),
        )  # fmt: skip
        print(cache.put(artifact_cache.key_of(made_from), folder, manifest))
    kept = _built(place.root / "tmp" / "kept")
    kept_artifacts.keep(place.checkout / ".trtgate", kept, ALPHA, RECORDED, profile_data.H100)
    return 0


def _store_weights(path: Path) -> int:
    import torch
    from safetensors.torch import save_file

    save_file(torch.nn.Linear(4, 4).state_dict(), path)
    return 0


# What reads them


class Use(NamedTuple):
    """Something that reads a stored file.

    `reads`: it must tell of one that can't be read. `removes` is a case that it is to remove. `spares`: files
    that it may remove or replace. `slow`: alpha is twice as slow in it.
    """

    name: str
    run: Callable[[Place], Ended]
    reads: bool = True
    removes: str = ""
    spares: str = ""
    slow: bool = False
    word: str = ""
    """What it says of the file, in the place of its name."""


class Kind(NamedTuple):
    """A kind of stored file, what can be damaged in it, and what uses it; `weight` is how often it is taken."""

    find: Callable[[Place], Path]
    damages: Sequence[str]
    uses: Sequence[Use]
    weight: int = 1
    unreadable: Callable[[bytes], bool] | None = None
    """Whether its content can't be read; None where no reader can know."""


def _command(name: str, *arguments: str, **how: Any) -> Use:
    return Use(name, lambda place: place.command(*arguments), **how)


def _compare(*arguments: str) -> Use:
    asked = ("--benchmark-compare", "--trtgate-launches=1", *arguments)
    return Use("compare", lambda place: place.gate(*asked, **{SLOW: "alpha"}), slow=True)


def _update() -> Use:
    asked = ("--trtgate-launches=1", "--trtgate-update-baselines", "--trtgate-accept=*")
    return Use("update", lambda place: place.gate(*asked))


def _sweep(place: Place, *arguments: str) -> Ended:
    asked = ("--set", "frontend=eager", "--set", "precision=fp32", "--launches=1", "--inputs=2", "--timeout=30")
    named = arguments or ("alpha", "--vary", "batch=1,2")

    def action() -> int:
        with forks.forked(SOCKETS):
            return trtgate_main("sweep", *named, *asked)

    return place.forked(action)


def _of_cache(place: Place, *, put: bool) -> str:
    """Take an entry as a build does, or store it anew."""
    cache, folder = ArtifactCache(artifact_cache.default_folder()), place.root / "tmp" / "taken"
    folder.mkdir(mode=0o700)
    if put:
        built = _built(place.root / "tmp" / "again")
        manifest = SealedManifest(
            case="net-dynamo-fp16", made_from=MADE_FROM, created=RECORDED, build=Build(build_s=1.0),
            sha256=sealed_folder.digests(built),
        )  # fmt: skip
        return cache.put(KEY, built, manifest)
    found, said = cache.take(KEY, folder)
    good = found is None or (folder / "compiled.pt2").read_bytes() == b"compiled" * 100
    return said if good else "Traceback (most recent call last): the cache gave another module"


def _coverage(place: Place) -> str:
    """Judge a coverage that lost an operator, as a test does."""
    root = place.checkout / "baselines"
    suffix, stored = next(
        iter(coverage_baselines.read(ROOT / "baselines/coverage" / RELEASE / "alexnet.json").cases.items())
    )
    first, *others = stored.engines
    (operator, count), *kept = first.operators.items()
    lost = Left(operator=operator, reason="no converter", count=count)
    found = msgspec.structs.replace(
        stored, engines=[msgspec.structs.replace(first, operators=dict(kept)), *others], left=[*stored.left, lost],
        in_tensorrt=stored.in_tensorrt - count, in_pytorch=stored.in_pytorch + count,
    )  # fmt: skip
    (settings,) = [one for one in grid(["dynamo"], ["fp16", "fp32"], [1]) if one.suffix == suffix]
    result = coverage_gate.judge(
        Case(Model("alexnet", lambda batch: batch, [settings]), settings), found, root, RELEASE
    )
    if result.verdict in (coverage_gate.CoverageVerdict.UNCHANGED, coverage_gate.CoverageVerdict.IMPROVED):
        raise SystemExit(0)  # silent: neither the line nor another exit code
    return f"NEW {ALPHA} {result.sentence}"


def _store_coverage(place: Place) -> str:
    (suffix, found), *_ = coverage_baselines.read(
        ROOT / "baselines/coverage" / RELEASE / "alexnet.json"
    ).cases.items()  # fmt: skip
    coverage_baselines.store(place.checkout / "baselines", RELEASE, "alexnet", f"{suffix}-more", found)
    return "stored"


def _told(name: str, action: Callable[[Place], Any], **how: Any) -> Use:
    return Use(name, lambda place: place.forked(lambda: told(lambda: action(place))), **how)


def _lock(_place: Place) -> str:
    with device_lock("cpu", 10, lambda _waited: None):
        return "locked"


def _one(pattern: str) -> Callable[[Place], Path]:
    return lambda place: next(iter(sorted(place.root.glob(pattern))))


def _not_json(content: bytes) -> bool:
    try:
        json.loads(content.decode(), parse_constant=lambda name: 1 / 0)
    except (ValueError, RecursionError, ZeroDivisionError):
        return True
    return False


def _a_line_is_not_json(content: bytes) -> bool:
    return any(_not_json(line) for line in content.split(b"\n") if line.strip())


JSON = [*fault_mutations.OF_BYTES, *fault_mutations.OF_JSON, *fault_mutations.OF_KIND]
BYTES = [*fault_mutations.OF_BYTES, *fault_mutations.OF_KIND]
AT_THE_TOP = "its folder a file"
"""What can't be done to a file of the checkout's own folder."""
PROFILE = "baselines/nvidia-h100-80gb-hbm3-80gib/profiles/resnet18-dynamo-fp16-b1-mbs5.json"
CACHE = "home/.cache/trtgate/artifacts/entries"
OURS = f"{CACHE}/{KEY}*"
OF_CACHE = (
    _told("take", lambda place: _of_cache(place, put=False), word="cached module", spares=OURS),
    _told("put", lambda place: _of_cache(place, put=True), reads=False, spares=OURS),
    _command("cache info", "cache", "info", reads=False),
    _command("cache clear", "cache", "clear", "other*", reads=False, spares=f"{CACHE}/{OTHER}*"),
)  # fmt: skip


def _accept(place: Place, number: int) -> Ended:
    return place.command("baseline", "accept", str(place.kept_runs[number]), "*")


def _of_run(number: int) -> tuple[Use, ...]:
    """Return what uses a saved run, the oldest being 0."""
    return (
        _command("history", "history", "*"), Use("accept", lambda place: _accept(place, number)),
        Use("show", lambda place: place.command("baseline", "show", str(place.kept_runs[number]))),
        Use("compare", lambda place: place.gate(
            f"--benchmark-compare={place.kept_runs[number]}", "--trtgate-launches=1", **{SLOW: "alpha"}), slow=True),
        Use("record", _update().run, reads=False),
    )  # fmt: skip


KINDS: dict[str, Kind] = {
    "latency.json": Kind(
        lambda place: place.baseline, JSON,
        (
            _compare(), _update(), _command("show", "baseline", "show"),
            Use("accept", lambda place: _accept(place, 0)),
            Use("diff", lambda place: place.command("baseline", "diff", str(place.baseline), str(place.kept_runs[0]))),
            _command("remove", "baseline", "remove", BETA, removes=BETA),
        ), 3, _not_json,
    ),
    "saved run": Kind(lambda place: place.kept_runs[1], JSON, _of_run(1), 1, _not_json),
    "run that was killed": Kind(lambda place: place.kept_runs[0], JSON, _of_run(0), 1, None),
    "coverage": Kind(
        _one(f"checkout/baselines/coverage/{RELEASE}/alexnet.json"), JSON,
        (
            _told("judge", _coverage, slow=True), _told("store", _store_coverage, reads=False),
            _command("diff", "coverage", "diff", "rtx-2.11.0", RELEASE),
            _command("remove", "baseline", "remove", BETA, removes=BETA),
        ), 1, _not_json,
    ),
    "stored profile": Kind(
        _one(f"checkout/{PROFILE}"), JSON,
        (
            _told("judge", lambda place: profile_gate.judge(
                profile_data.resnet18_profile(), place.checkout / "baselines", profile_data.H100.key).sentence),
            _command("diff", "profile", "diff", "profile", PROFILE), _command("show", "profile", "show", PROFILE),
            _command("remove", "baseline", "remove", BETA, removes=BETA, reads=False),
        ), 1, _not_json,
    ),
    "profile": Kind(
        _one("checkout/profile/profile.json"), JSON,
        (_command("show", "profile", "show", "profile"), _command("diff", "profile", "diff", PROFILE, "profile")), 1,
        _not_json,
    ),
    "sweep journal": Kind(
        _one("checkout/.trtgate/sweeps/*.jsonl"), JSON, (Use("sweep", _sweep),), 1, _a_line_is_not_json
    ),
    "cache manifest": Kind(_one(f"{CACHE}/{KEY}/entry.json"), JSON, OF_CACHE, 1, _not_json),
    "cached module": Kind(_one(f"{CACHE}/{KEY}/compiled.pt2"), BYTES, OF_CACHE, 1, lambda _content: True),
    "kept module": Kind(
        _one("checkout/.trtgate/baseline-artifacts/*/*/entry.json"), JSON,
        (_told("find", lambda place: kept_artifacts.find(
            place.checkout / ".trtgate", ALPHA, RECORDED, profile_data.H100), word="baseline-artifacts"),), 1,
        _not_json,
    ),
    "report": Kind(
        _one("checkout/report.json"), [how for how in JSON if how != AT_THE_TOP],
        (
            _command("markdown", "report", "report.json"),
            _command("HTML", "report", "report.json", "--html", "out.html"),
        ), 1, _not_json,
    ),
    "settings": Kind(
        _one("checkout/pytest.ini"), [how for how in BYTES if how != AT_THE_TOP],
        (  # what is no file is none for pytest, and so for us
            _compare(), _update(), _command("show", "baseline", "show"), _command("history", "history", "*"),
            Use("sweep", _sweep), _command("init", "init", "--force"),
        ), 1, None,
    ),
    "weights": Kind(
        _one("checkout/net.safetensors"), [how for how in BYTES if how != AT_THE_TOP],
        (Use("sweep", lambda place: _sweep(place, "net:net", "--weights", "net=net.safetensors")),), 1, None,
    ),
    "lock": Kind(
        _one("locks/trtgate-cpu.lock"), [*fault_mutations.OF_KIND],
        (_told("lock", _lock), Use("sweep", lambda place: _sweep(place, "alpha", "--fresh"), spares="*.jsonl")),
    ),
}  # fmt: skip


# Attempts


def pairs() -> list[tuple[str, str]]:
    """Return kinds and how they are damaged, as often as they weigh."""
    return [(name, how) for name, kind in KINDS.items() for how in list(kind.damages) * kind.weight]


def tried(place: Place, attempt: Attempt) -> Result:
    """Damage a file for each of its uses, and judge what comes of it."""
    kind, found = KINDS[attempt.kind], []
    for use in kind.uses:
        place.restore()
        target = kind.find(place)
        fault_mutations.ALL[attempt.how](target, random.Random(attempt.seed))
        came, why = _judged(place, kind, use, target)
        found.append((came, f"{use.name}: {why}"))
    return Result(attempt, *worst(found))


def _judged(place: Place, kind: Kind, use: Use, target: Path) -> tuple[Came, str]:
    pytests = target.name == "pytest.ini"  # which reads it first, and may end with a traceback of its own
    before, was = place.stored(), _type(target)
    unreadable = not pytests and _unreadable(kind, target)
    ended = use.run(place)
    bad = ended.broken("trtgate/" if pytests else "")
    if bad is not None:
        return bad, ended.output
    gone = lost(place, before, removed=use.removes, spared=use.spares)
    if not gone and not use.spares and _type(target) != was:
        gone = f"{target.name} is something else now"
    if gone:
        return Came.LOST, f"{gone}\n{ended.output}"
    if ended.status != 0 and not any(EXPLAINS.search(line) for line in ended.lines):
        return Came.SILENT, f"exit code {ended.status}, and no line says why\n{ended.output}"
    told_of = ended.says(use.word or target.name) or ended.status != 0
    if unreadable and use.reads and not told_of:
        return Came.SILENT, f"it can't be read, and nobody says so\n{ended.output}"
    if use.slow and ended.status == 0 and not any(ended.says("alpha", word) for word in WORDS):
        return Came.SILENT, f"twice as slow, exit code 0\n{ended.output}"
    return (Came.LINE, ended.output) if told_of else (Came.HELD, ended.output)


def _unreadable(kind: Kind, target: Path) -> bool:
    try:
        return not target.is_file() or (kind.unreadable is not None and kind.unreadable(target.read_bytes()))
    except OSError:
        return True


def _type(path: Path) -> int:
    try:
        return stat.S_IFMT(path.lstat().st_mode)
    except OSError:
        return 0
