"""Kept compiled modules are unpickled: only what is this user's alone, unchanged, and of the right session is found."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from trtgate.common.accelerator import Accelerator
from trtgate.common.errors import TrtgateError
from trtgate.common.run_folder import RunFolder
from trtgate.compiling import sealed_store
from trtgate.compiling.artifact_cache import CacheRequest
from trtgate.gate import kept_artifacts
from trtgate.gate.base_measurer import BaseMeasurer
from trtgate.gate.driver import NoneKeptError
from trtgate.gate.measurers import StoredMeasurer, Workers
from trtgate.gate.policy import Evidence, Measured, Pair, Rebuild, Rebuilt, Situation, next_step
from trtgate.launches.prebuild import Prebuilt
from trtgate.launches.worker_handle import LaunchError
from trtgate.pytest_plugin.gate_run import GateRun
from trtgate.pytest_plugin.latency_tests import TIMER, LatencyGate, ReplayTimer
from trtgate.records.measurement import Build, CaseMeasurement
from trtgate.suite.cases import Case
from trtgate.verdict import LOOKS

from .scripted_measurer import CASE as CASE_OF_GPU
from .scripted_measurer import HERE, TENSORRT, measurement, record

CARD = Accelerator(kind="gpu", name="NVIDIA Test", uuid="GPU-1", libraries={"torch": "2.11"})
CASE, RECORDED = "tiny-dynamo-fp16-b1", "2026-01-02T03:04:05+00:00"


def artifact(folder: Path, content: bytes = b"compiled") -> Path:
    folder.mkdir(mode=0o700)
    for name in ("module.ep", "inputs.pt"):
        (folder / name).write_bytes(content + name.encode())
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A store that has one artifact."""
    kept_artifacts.keep(tmp_path / "store", artifact(tmp_path / "built"), CASE, RECORDED, CARD)
    return tmp_path / "store"


def find(root: Path, case: str = CASE, recorded: str = RECORDED, card: Accelerator = CARD) -> tuple[Path | None, str]:
    return kept_artifacts.find(root, case, recorded, card)


def place_in(root: Path) -> Path:
    found, reason = find(root)
    assert found is not None, reason
    return found


def test_what_is_kept_is_moved_and_found(root: Path, tmp_path: Path) -> None:
    found, reason = find(root)
    assert found is not None
    assert reason == ""
    assert (found / "module.ep").read_bytes() == b"compiledmodule.ep"
    assert not (tmp_path / "built").exists()
    assert root in found.parents


def test_other_cases_and_empty_stores_have_none(root: Path, tmp_path: Path) -> None:
    assert find(root, case="tiny-dynamo-fp16-b2") == (None, "none is kept on this machine")
    assert find(tmp_path / "nowhere") == (None, "none is kept on this machine")


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"recorded": "2026-01-02T03:04:06+00:00"}, "another session"),
        ({"card": msgspec.structs.replace(CARD, uuid="GPU-2")}, "another card"),
        ({"card": msgspec.structs.replace(CARD, libraries={"torch": "2.12"})}, "other versions"),
        ({"card": msgspec.structs.replace(CARD, libraries={"torch": "2.11", "more": "1"})}, "other versions"),
        ({"card": msgspec.structs.replace(CARD, name="NVIDIA Other")}, "none is kept"),
    ],
)
def test_what_was_kept_of_something_else(root: Path, asked: dict[str, object], reason: str) -> None:
    found, said = find(root, **asked)  # type: ignore[arg-type]
    assert found is None
    assert reason in said


def test_a_changed_byte(root: Path) -> None:
    file = place_in(root) / "module.ep"
    content = bytearray(file.read_bytes())
    content[3] ^= 1
    file.write_bytes(content)
    assert find(root) == (None, f"{file} is not what was stored")


def test_a_file_that_is_gone(root: Path) -> None:
    (place_in(root) / "inputs.pt").unlink()
    found, reason = find(root)
    assert found is None
    assert "can't be read" in reason
    assert "inputs.pt" in reason


@pytest.mark.parametrize("name", ["", "module.ep", "entry.json"])
@pytest.mark.parametrize("bit", [0o020, 0o002], ids=["group", "others"])
def test_what_others_may_write(root: Path, name: str, bit: int) -> None:
    path = place_in(root) / name
    path.chmod(path.stat().st_mode | bit)
    found, reason = find(root)
    assert found is None
    assert "not this user's alone" in reason


@pytest.mark.parametrize("linked", ["file", "folder", "added"])
def test_a_link(root: Path, tmp_path: Path, linked: str) -> None:
    """Even one to the very same bytes: what it points to may not be the user's."""
    place = place_in(root)
    path = {"file": place / "module.ep", "folder": place, "added": place / "more"}[linked]
    target = tmp_path / "elsewhere"
    if linked == "added":
        target.write_bytes(b"")
    else:
        path.rename(target)
    path.symlink_to(target)
    found, reason = find(root)
    assert found is None
    assert "not this user's alone" in reason


@pytest.mark.parametrize("text", [None, "", "{}", '{"case": 1'])
def test_no_manifest_or_a_broken_one(root: Path, text: str | None) -> None:
    manifest = place_in(root) / sealed_store.MANIFEST
    if text is None:
        manifest.unlink()
    else:
        manifest.write_text(text)
    found, reason = find(root)
    assert found is None
    assert "can't be read" in reason


def test_a_newer_one_takes_the_place_of_the_older(root: Path, tmp_path: Path) -> None:
    before = place_in(root)
    kept_artifacts.keep(root, artifact(tmp_path / "newer", b"newer"), CASE, "later", CARD)
    assert find(root) == (None, "the kept one is of another session")
    after, _ = find(root, recorded="later")
    assert after == before
    assert (after / "module.ep").read_bytes() == b"newermodule.ep"
    assert list(before.parent.iterdir()) == [before]


def test_a_umask_that_lets_a_group_write_does_not_make_it_useless(tmp_path: Path) -> None:
    """Some distributions' default, 002."""
    before = os.umask(0o002)
    try:
        kept_artifacts.keep(tmp_path / "store", artifact(tmp_path / "built"), CASE, RECORDED, CARD)
    finally:
        os.umask(before)
    found, reason = find(tmp_path / "store")
    assert found is not None, reason
    assert [path.stat().st_mode & 0o077 for path in (found, *found.iterdir())] == [0, 0, 0, 0]


def test_what_can_not_be_kept(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file where the folder should be")
    with pytest.raises(TrtgateError, match="tiny-dynamo-fp16-b1 could not be kept"):
        kept_artifacts.keep(tmp_path / "store", artifact(tmp_path / "built"), CASE, RECORDED, CARD)
    with pytest.raises(TrtgateError, match="could not be kept"):
        kept_artifacts.keep(tmp_path / "other", tmp_path / "never-built", CASE, RECORDED, CARD)


def test_a_second_stage_asks_for_the_kept_module_of_the_clock_that_the_first_one_timed_with(tmp_path: Path) -> None:
    first = measurement(110.0, 110.1, 109.9)
    situation = Situation(
        case=CASE_OF_GPU, accelerator=HERE, limit_of=lambda _metric: 0.03, tests=3, record=record((100.0, 100.0)),
        pairable=True, evidence=Evidence(first=Measured(first)),
    )  # fmt: skip
    assert next_step(situation) == Pair(LOOKS[0], ("device",))
    workers: Any = SimpleNamespace(
        accelerator=HERE, kept=lambda case_id, recorded: kept_artifacts.find(tmp_path, case_id, recorded, HERE)
    )
    measurer = StoredMeasurer(workers, situation, tmp_path, None)
    with pytest.raises(NoneKeptError, match="none is kept on this machine"):
        measurer.pairs(Pair(LOOKS[0], ("device",)), lambda _text: None)


def test_what_was_built_again_is_what_fresh_launches_measure(tmp_path: Path) -> None:
    before, again = (Build(build_s=1.0, artifact=name) for name in ("before", "again"))
    timed: list[Path | None] = []

    def measure(_case_id: str, folder: Path | None, _step: Any, _after: Any) -> CaseMeasurement:
        timed.append(folder)
        return measurement(110.0, 110.1, 109.9)

    session = SimpleNamespace(renew=lambda: None, measure=measure)
    made = Prebuilt(case_id=CASE_OF_GPU.id, build=again, artifact=tmp_path / "again")
    workers: Any = SimpleNamespace(
        session=session, cold_starts=0, load=0, build_again=lambda _case_id, *, pairs_next, cache: made
    )
    situation = Situation(case=CASE_OF_GPU, accelerator=HERE, limit_of=lambda _metric: 0.03, tests=3)
    measurer = StoredMeasurer(workers, situation, tmp_path / "before", before)

    def quiet(_step: str) -> None: ...

    assert measurer.measure_fresh(quiet).build == before
    assert measurer.rebuild(Rebuild(), quiet) == Rebuilt(again)
    assert measurer.measure_fresh(quiet).build == again
    assert timed == [tmp_path / "before", tmp_path / "again"]


HERE_ANEW = Build(build_s=1.0, artifact="here")


@pytest.mark.parametrize(
    ("built", "measured", "already"),
    [
        (HERE_ANEW, Build(build_s=1.0, artifact="there"), True),
        (HERE_ANEW, HERE_ANEW, False),
        (msgspec.structs.replace(HERE_ANEW, cached=True), Build(build_s=1.0, artifact="there"), False),
        (Build(build_s=1.0), Build(build_s=1.0, artifact="there"), False),
    ],
    ids=["another build", "the same", "from the cache", "nothing stored"],
)
def test_what_was_built_here_for_a_run_elsewhere_is_its_second_build(
    built: Build, measured: Build, already: bool, tmp_path: Path
) -> None:
    again = Build(build_s=2.0, artifact="again")
    first = msgspec.structs.replace(measurement(110.0, 110.1, 109.9), build=measured)
    base = msgspec.structs.replace(first, build=Build(build_s=1.0, artifact="base there"))
    workers: Any = SimpleNamespace(
        free=shutil.rmtree, kept=lambda *_given: (None, "none is kept"), accelerator=HERE, folder=RunFolder(tmp_path),
        build_again=lambda case_id, *, pairs_next, cache: Prebuilt(case_id=case_id, build=again),
    )  # fmt: skip
    situation = Situation(
        case=CASE_OF_GPU, accelerator=HERE, limit_of=lambda _metric: 0.03, tests=3,
        evidence=Evidence(first=Measured(first, base)),
    )  # fmt: skip
    found = StoredMeasurer(workers, situation, tmp_path, built).rebuild(Rebuild(), lambda _text: None)
    assert found == Rebuilt(built if already else again)

    class Pairs:
        def greet(self, _pair: Any) -> None: ...

        def imported(self) -> None: ...

        def fresh(self, **_how: Any) -> Any:
            return contextlib.nullcontext()

        def build(self, _pair: Any, _case_id: str, folders: dict[str, Path]) -> Any:
            return {name: SimpleNamespace(build=again, stored=True) for name in folders}

    workers.pairs = Pairs()
    ahead = {
        "candidate": Prebuilt(case_id=CASE_OF_GPU.id, build=built, artifact=tmp_path),
        "base": Prebuilt(case_id=CASE_OF_GPU.id, build=Build(build_s=1.0, artifact="base here"), artifact=tmp_path),
    }
    with BaseMeasurer(workers, situation, ahead) as beside:
        found = beside.rebuild(Rebuild(), lambda _text: None)
    assert found == (Rebuilt(built, ahead["base"].build) if already else Rebuilt(again, again))
    workers.folder.close()


@pytest.mark.parametrize("digests", [("before", "again"), ("", "")])
@pytest.mark.parametrize(("again_us", "kept"), [(110.0, "again"), (None, "before")])
def test_the_module_that_was_measured_is_kept_with_what_is_accepted(
    digests: tuple[str, str], again_us: float | None, kept: str, tmp_path: Path
) -> None:
    """What some frontends store has no digest. Without fresh launches what was measured first is stored."""
    before, again = (Build(build_s=seconds, artifact=one) for seconds, one in zip((100, 101), digests, strict=True))
    built, rebuilt = artifact(tmp_path / "before", b"before"), artifact(tmp_path / "again", b"again")
    us = [100.0 if again_us is None else 110.0, again_us]
    session = SimpleNamespace(renew=lambda: None, measure=lambda *_given: measurement(*[us.pop(0)] * 3))
    workers: Any = SimpleNamespace(
        accelerator=HERE, session=session, cold_starts=0, load=0, free=shutil.rmtree,
        kept=lambda *_given: (None, "none is kept"),
        build_again=lambda case_id, *, pairs_next, cache: Prebuilt(case_id=case_id, build=again, artifact=rebuilt),
    )  # fmt: skip
    found: list[bytes] = []
    run: Any = GateRun.__new__(GateRun)
    situation = Situation(
        case=TENSORRT, accelerator=HERE, limit_of=lambda _metric: 0.03, tests=3, update=True, accepted=True,
        record=record((100.0, 100.0, 100.0), figures={"build_s": 10.0}),
    )  # fmt: skip
    run.__dict__ |= {
        "options": SimpleNamespace(update=True, cache=None), "devices": SimpleNamespace(here=True),
        "workers": [workers],
        "gate": SimpleNamespace(keep=lambda _case, folder: found.append((folder / "module.ep").read_bytes())),
        "stage": None, "resuming": None, "gpu_queue": None, "latency_tests": [], "prebuilt": {}, "cases_at_once": 1,
        "progress": lambda _case_id: contextlib.nullcontext(lambda _text: None),
        "_situation": lambda *_given, **_more: situation,
    }  # fmt: skip
    item: Any = SimpleNamespace(nodeid="test_latency", stash={TIMER: ReplayTimer()})
    result = LatencyGate(run, item, {})._measured(TENSORRT, SimpleNamespace(artifact=built, build=before))  # type: ignore[arg-type]
    assert (result.stored, result.measurement.build) == (True, again if kept == "again" else before)
    assert found == [f"{kept}module.ep".encode()]
    assert (built.exists(), rebuilt.exists()) == (True, False)


@pytest.mark.parametrize(("case", "used"), [(TENSORRT, True), (CASE_OF_GPU, False)])
def test_what_is_built_again_takes_the_place_of_the_module_that_was_suspected_in_the_cache(
    case: Case, used: bool, tmp_path: Path
) -> None:
    """Else each run would take a slow build from there, suspect it, and build it again. Eager PyTorch has no builds."""
    cache, asked = CacheRequest(folder=str(tmp_path / "cache")), list[CacheRequest | None]()

    def build_fresh(_case_id: str, _folder: Path, _imported: Any, cache: CacheRequest | None) -> Any:
        asked.append(cache)
        return SimpleNamespace(build=Build(build_s=1.0), stored=True, coverage=None, agreement=None, notes=[])

    workers = Workers.__new__(Workers)
    workers.folder = RunFolder(tmp_path)
    workers.session = SimpleNamespace(build_fresh=build_fresh)  # type: ignore[assignment]
    workers.pairs = SimpleNamespace(imported=lambda: None)  # type: ignore[assignment]
    situation = Situation(case=case, accelerator=HERE, limit_of=lambda _metric: 0.03, tests=3)
    with StoredMeasurer(workers, situation, None, None, cache=cache) as measurer:
        measurer.rebuild(Rebuild(), lambda _text: None)
    assert asked == [msgspec.structs.replace(cache, rebuild=True) if used else None]
    workers.folder.close()


def test_a_build_again_that_fails_leaves_nothing_on_the_disk(tmp_path: Path) -> None:
    def build_fresh(_case_id: str, folder: Path, _imported: Any, _cache: Any) -> None:
        (folder / "module.ep").write_bytes(b"half of it")
        raise LaunchError("killed")

    workers = Workers.__new__(Workers)
    workers.folder = RunFolder(tmp_path)
    workers.session = SimpleNamespace(build_fresh=build_fresh)  # type: ignore[assignment]
    workers.pairs = SimpleNamespace(imported=lambda: None)  # type: ignore[assignment]
    with pytest.raises(LaunchError, match="killed"):
        workers.build_again(CASE, pairs_next=False)
    assert not list(tmp_path.rglob("again-*"))
    workers.folder.close()
