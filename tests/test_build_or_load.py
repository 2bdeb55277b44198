"""Cached or built: what comes is compared with eager, and whatever is wrong with the cache is got over with a note."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from trtgate import Case, Model, Settings, frontends
from trtgate.common import library_files
from trtgate.common.errors import TrtgateError
from trtgate.compiling import artifact_cache, building, program_part, reference
from trtgate.compiling.artifact_cache import ArtifactCache
from trtgate.compiling.build_or_load import CheckedModule, build_or_load
from trtgate.compiling.fingerprinting import Fingerprinter
from trtgate.compiling.inference import Inference
from trtgate.compiling.reference import Reference
from trtgate.frontends import CompiledModule
from trtgate.records.coverage_record import Coverage
from trtgate.suite.random_weights import threads

from .storing_frontend import Storing


class Scaled(torch.nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.register_buffer("factor", torch.full((4,), factor))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.factor


def case(factor: float = 2.0, value: float = 1.0) -> Case:
    return Case(
        Model("scaled", lambda: (Scaled(factor).eval(), torch.full((4,), value)), ()), Settings(frontend="dynamo")
    )


@pytest.fixture
def cache(tmp_path: Path) -> ArtifactCache:
    return ArtifactCache(tmp_path / "cache")


@pytest.fixture
def got(cache: ArtifactCache, tmp_path: Path, storing: Storing) -> Callable[..., CheckedModule]:
    places = iter(range(100))

    def get(wanted: Case | None = None, **options: Any) -> CheckedModule:
        folder = tmp_path / f"place-{next(places)}"
        folder.mkdir(mode=0o700)
        found = build_or_load(
            wanted or case(), "cpu", folder, options.pop("cache", cache), lambda _step: None, **options
        )
        assert {file.name for file in folder.iterdir()} == {"compiled.pt2", "inputs.pt", "reference.pt"}
        return found

    return get


def test_what_is_imported_is_no_part_of_building(
    storing: Storing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(1000))
    monkeypatch.setattr(building.time, "perf_counter", lambda: float(next(clock)))

    def slow() -> None:
        for _ in range(500):
            next(clock)
        storing.imports += 1

    monkeypatch.setattr(storing, "import_libraries", slow)
    tmp_path.chmod(0o700)
    assert build_or_load(case(), "cpu", tmp_path, None, lambda _step: None).build.build_s < 20


def test_the_second_time_it_is_loaded(got: Any, storing: Storing) -> None:
    first, second = got(builders=3), got()
    assert storing.builds == 1
    assert (first.build.cached, second.build.cached) == (False, True)
    assert (second.build.builders, second.build.engines, second.build.engine_bytes) == (3, 2, 120)
    assert second.build.build_s == first.build.build_s
    assert second.build.ready_s == first.build.ready_s > 0
    assert first.notes == second.notes == []


def test_other_weights_are_built_and_other_inputs_are_not(got: Any, storing: Storing) -> None:
    got()
    assert got(case(factor=3.0)).build.cached is False
    other = got(case(value=5.0))
    assert other.build.cached is True
    torch.testing.assert_close(other.inference(), torch.full((4,), 10.0))


def test_what_is_built_anew_says_in_what_it_differs_and_is_not_told_so_again(got: Any, cache: ArtifactCache) -> None:
    assert got().build.remarks == ()
    assert got(case(factor=3.0)).build.remarks == (
        "built anew: it differs in weights from the module in the artifact cache",
    )  # fmt: skip
    assert got(case(factor=3.0)).build.remarks == got().build.remarks == ()
    again = ArtifactCache(cache.folder, rebuild=True)
    assert got(case(factor=4.0), cache=again).build.remarks == ()


def test_who_waits_for_a_turn_lets_others_build_the_same_and_takes_it(
    got: Any, storing: Storing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Waiting for a turn has no time limit, and waiting for who builds the same has the case's."""
    monkeypatch.setattr(artifact_cache, "BUILD_TIMEOUT_S", 0.0)  # so whoever would wait builds
    monkeypatch.setattr(building.time, "perf_counter", lambda: 5.0)
    others: list[CheckedModule] = []

    @contextlib.contextmanager
    def turn() -> Iterator[float]:
        others.append(got())
        yield 300.0

    waiting = got(turn=turn)
    assert [others[0].build.cached, waiting.build.cached, storing.builds] == [False, True, 1]
    assert waiting.build.ready_s == others[0].build.ready_s == 0.0


def test_a_turn_ends_when_the_module_is_compiled_and_others_build_while_it_is_compared_and_stored(
    got: Any, storing: Storing, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    check, save = Reference.check, Reference.save

    @contextlib.contextmanager
    def turn() -> Iterator[float]:
        seen.append(f"begins, {storing.builds} built")
        try:
            yield 0.0
        finally:
            seen.append(f"ends, {storing.builds} built")

    def compared(*asked: Any) -> Any:
        seen.append("compared")
        return check(*asked)

    def saved(*asked: Any) -> Any:
        seen.append("saved")
        return save(*asked)

    monkeypatch.setattr(Reference, "save", saved)
    got(turn=turn, checks=compared)
    assert seen == ["begins, 0 built", "ends, 1 built", "compared", "saved"]
    monkeypatch.setattr(storing, "build", mock.Mock(side_effect=TrtgateError("no engine")))
    with pytest.raises(TrtgateError, match="no engine"):
        got(case(factor=9.0), turn=turn)
    assert seen[4:] == ["begins, 1 built", "ends, 1 built"]


def test_a_cache_that_can_not_be_listed_keeps_nobody_from_building(
    got: Any, cache: ArtifactCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied() -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(cache, "entries", denied)
    assert got().build.cached is False


def test_what_is_built_and_what_is_loaded_say_what_they_are_made_of(got: Any, cache: ArtifactCache) -> None:
    """As `trtgate affected` finds it, which neither runs nor builds; the inputs are the case's own."""

    def found(wanted: Case) -> Any:
        return Fingerprinter().of(wanted).program

    built, loaded = got(), got(case(value=2.0))
    assert (built.build.cached, loaded.build.cached) == (False, True)
    assert built.build.program == found(case())
    assert loaded.build.program == found(case(value=2.0)) != built.build.program
    assert got(cache=None).build.program == built.build.program
    (entry,) = cache.entries()
    assert entry.manifest is not None
    assert entry.manifest.build is not None
    assert entry.manifest.build.program is None


def test_a_release_that_keeps_its_converters_elsewhere_is_built_with_and_not_cached(
    got: Any, storing: Storing, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fingerprint(**_kwargs: Any) -> str:
        raise AttributeError("module has no attribute 'DYNAMO_CONVERTERS'")

    monkeypatch.setattr("trtgate.torch_trt.own_conversions.fingerprint", fingerprint)
    for _ in range(2):
        made = got()
        assert made.stored
        assert made.build.program is None
        assert made.notes == [
            "case scaled-dynamo-fp32-mbs5: not cached: nobody can tell what it is made of "
            "(AttributeError: module has no attribute 'DYNAMO_CONVERTERS')"
        ]
    assert storing.builds == 2


def test_what_is_made_of_code_that_nobody_finds_is_neither_cached_nor_shared(
    got: Any, storing: Storing, cache: ArtifactCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A library in a folder of sources, as an editable install is, or an operator of `torch.library.impl`.

    The shapes of one case share it: a run has one copy of the code.
    """

    def unlisted(_precision: str) -> Any:
        raise library_files.Unlisted("torch_tensorrt is imported from a folder, and no installed package lists that")

    def unknown(_program: object) -> Any:
        raise TrtgateError("the code of its operator my::twice is not to be found")

    for owner, name, raises in (
        (program_part, "_libraries", unlisted),
        (program_part.custom_operators, "fingerprint", unknown),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(owner, name, raises)
            before = storing.builds
            first, again = got(), got()
            assert (first.build.cached, again.build.cached, storing.builds) == (False, False, before + 2)
            assert again.build.program is None
            assert "case scaled-dynamo-fp32-mbs5: not cached: " in again.notes[0]
            of_run = ArtifactCache(cache.folder.parent / name)
            assert [got(shared=of_run).build.cached for _ in range(2)] == [False, True]
    assert cache.entries() == []


def test_without_a_cache_every_one_is_built(got: Any, storing: Storing, cache: ArtifactCache) -> None:
    got(cache=None)
    got(cache=None)
    assert storing.builds == 2
    assert cache.entries() == []


def test_what_is_broken_is_built_again_with_a_note(got: Any, storing: Storing, cache: ArtifactCache) -> None:
    got()
    (file,) = (cache.folder / "entries").glob("*/compiled.pt2")
    file.write_bytes(b"something else")
    again = got()
    assert (again.build.cached, storing.builds) == (False, 2)
    assert "is not what was stored" in again.notes[0]
    assert got().build.cached is True


def test_what_computes_something_else_is_removed_and_built_again(
    got: Any, storing: Storing, monkeypatch: pytest.MonkeyPatch
) -> None:
    got()
    monkeypatch.setattr(Storing, "load", lambda _self, _folder: CompiledModule(lambda x: x * 3, 0.5))
    again = got()
    assert (again.build.cached, storing.builds) == (False, 2)
    assert "the cached module is no good" in again.notes[0]
    assert "differs from eager" in again.notes[0]


def test_a_wrong_build_is_not_cached(got: Any, cache: ArtifactCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Storing, "build", lambda *_: CompiledModule(lambda x: x * 3, 1.0))
    with pytest.raises(TrtgateError, match="differs from eager"):
        got()
    assert cache.entries() == []


def obtained_in(folder: Path, cache: ArtifactCache) -> CheckedModule:
    folder.mkdir(mode=0o700)
    return build_or_load(case(), "cpu", folder, cache, lambda _step: None)


def test_what_can_not_be_stored_is_built_by_every_launch_and_a_note_says_so(
    storing: Storing, cache: ArtifactCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen on an H100: torch_tensorrt.save of 2.11 fails for many modules with parts in PyTorch."""

    def save(_self: Storing, _compiled: CompiledModule, _inputs: Any, folder: Path) -> None:
        (folder / "compiled.pt2").write_bytes(b"half of it")
        raise AssertionError("Failed to specify persistent flag on BUFFER.")

    monkeypatch.setattr(Storing, "save", save)
    found = obtained_in(tmp_path / "place", cache)
    assert (found.stored, cache.entries(), list((tmp_path / "place").iterdir())) == (False, [], [])
    (note,) = found.notes
    assert note.endswith("every launch builds it: AssertionError: Failed to specify persistent flag on BUFFER.")
    torch.testing.assert_close(found.inference(), torch.full((4,), 2.0))


def test_what_has_several_parts_is_loaded_and_compared_before_a_launch_is_handed_it(
    storing: Storing, cache: ArtifactCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = {"min_block_size": 1, "total": 2, "supported": 1, "in_tensorrt": 1, "in_pytorch": 1}
    in_pytorch = Coverage(**counts, left=[], engines=[], block_sizes=[])
    plain = Storing.build

    def build(
        self: Storing, prepared: Any, inputs: Any, settings: Any, step: Any, dynamic: Any = None
    ) -> CompiledModule:
        return dataclasses.replace(plain(self, prepared, inputs, settings, step), coverage=in_pytorch)

    monkeypatch.setattr(Storing, "build", build)
    assert obtained_in(tmp_path / "right", cache).stored
    cache.remove(cache.entries()[0].key)
    monkeypatch.setattr(Storing, "load", lambda _self, _folder: CompiledModule(lambda x: x * 3, 0.5))
    found = obtained_in(tmp_path / "wrong", cache)
    assert (found.stored, cache.entries()) == (False, [])
    assert "every launch builds it: output differs from eager: 4 of 4 values are off by more than" in found.notes[0]


def test_a_full_disk_is_no_reason_to_build_in_every_launch(
    storing: Storing, cache: ArtifactCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save(*_given: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Storing, "save", save)
    with pytest.raises(OSError, match="No space left"):
        obtained_in(tmp_path / "place", cache)
    monkeypatch.setattr(Storing, "save", lambda *_given: torch.save(torch.ones(100_000), "/dev/full"))
    with pytest.raises(TrtgateError, match=r"can't be written to .*: is there space left"):
        obtained_in(tmp_path / "another", cache)


def test_fp32_is_computed_as_fp32_and_tf32_as_tf32_in_this_process_too() -> None:
    """Seen on an H100: mobilenet_v3_large's fp32 differed from itself, since cuDNN's default is TF32."""
    for precision, allowed in (("fp32", False), ("tf32", True), ("fp32", False)):
        case = Case(
            Model("scaled", lambda: (Scaled(2.0), torch.ones(4)), ()), Settings(frontend="eager", precision=precision)
        )
        torch.backends.cudnn.allow_tf32 = not allowed
        reference.checked(case, "cpu", lambda _step: None)
        assert torch.backends.cudnn.allow_tf32 is torch.backends.cuda.matmul.allow_tf32 is allowed
        building.release()
        assert torch.backends.cudnn.allow_tf32 is not allowed  # as it was found


def test_what_is_no_exported_program_is_not_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TorchScript stores a module for the launches of a run, and a script has no fingerprint."""

    class Scripted(Storing):
        def prepare(self, module: Any, inputs: Any, settings: Any, step: Any, dynamic: Any = None) -> Any:
            return torch.jit.trace(module, inputs.args)

        def build(self, prepared: Any, inputs: Any, settings: Any, step: Any, dynamic: Any = None) -> CompiledModule:
            self.built.append(settings.suffix)
            return CompiledModule(prepared, 7.0)

        def save(self, compiled: CompiledModule, inputs: Any, folder: Path) -> None:
            torch.jit.save(compiled.run, str(folder / "compiled.ts"))

    storing = Scripted()
    monkeypatch.setattr(frontends, "get", lambda _name: storing)
    case = Case(Model("scaled", lambda: (Scaled(2.0), torch.ones(4)), ()), Settings(frontend="eager"))
    for number in range(2):
        folder = tmp_path / str(number)
        folder.mkdir(mode=0o700)
        found = build_or_load(case, "cpu", folder, ArtifactCache(tmp_path / "cache"), lambda _step: None)
        assert (found.build.cached, found.stored, found.notes) == (False, True, [])
    assert storing.builds == 2


def test_what_a_worker_loads_is_compared_with_eager_again(storing: Storing, tmp_path: Path) -> None:
    build_or_load(case(2.0), "cpu", tmp_path, None, lambda _step: None)
    torch.testing.assert_close(reference.load_checked(case(2.0), tmp_path, "cpu")(), torch.full((4,), 2.0))
    other = torch.export.export(Scaled(2.5), (torch.ones(4),))
    torch.export.save(other, tmp_path / "compiled.pt2")
    with pytest.raises(TrtgateError, match="loaded in a fresh process, output differs from eager"):
        reference.load_checked(case(2.0), tmp_path, "cpu")


def test_a_worker_runs_a_module_once_where_calls_change_nothing(
    storing: Storing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_or_load(case(2.0), "cpu", tmp_path, None, lambda _step: None)
    calls: list[int] = []
    call = Inference.__call__
    monkeypatch.setattr(Inference, "__call__", lambda self: calls.append(1) or call(self))
    reference.load_checked(case(2.0), tmp_path, "cpu")
    assert len(calls) == 1


def test_processes_that_make_a_case_at_once_share_the_cpu() -> None:
    counted: list[int] = []

    class Counting(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            counted.append(torch.get_num_threads())
            return x + 1

    def counting() -> tuple[torch.nn.Module, torch.Tensor]:
        return Counting(), torch.ones(4)

    one = Case(Model("counting", counting, [Settings(frontend="eager")]), Settings(frontend="eager"))
    with threads(6):
        inference, _ = reference.checked(one, "cpu", lambda _step: None, processes=3)
        assert set(counted) == {2}
        counted.clear()
        inference()
    assert counted == [6]  # whoever times it is alone


@pytest.mark.parametrize("processes", [1, 3])
def test_what_is_compared_with_eager_is_the_module_that_is_timed(processes: int) -> None:
    """Dynamo compiles again for another number of threads: processes that shared the CPU compared another module."""
    compiled = Case(case().model, Settings(frontend="aot_eager"))
    torch._dynamo.utils.counters.clear()
    with threads(6):
        inference, _ = reference.checked(compiled, "cpu", lambda _step: None, processes=processes)
        inference()
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
