"""The runtime cache of a stored module: kernels are compiled once, and whatever is wrong with them costs time alone."""

from __future__ import annotations

import copy
import errno
import sys
import types
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from trtgate import Case, Model, Settings
from trtgate.common import sealed_folder
from trtgate.common.errors import TrtgateError
from trtgate.compiling import cold_start, reference
from trtgate.compiling.artifact_cache import ArtifactCache
from trtgate.compiling.build_or_load import CheckedModule, build_or_load
from trtgate.compiling.inference import Inference
from trtgate.frontends import CompiledModule
from trtgate.torch_trt import (
    dynamic_engines,
    gpu_stand_in,
    own_conversions,
    releases,
    runtime_cache,
    shared_cache_file,
    stored_modules,
)  # fmt: skip
from trtgate.torch_trt.runtime_cache import ARTIFACT, FILE, NONE, OWN, Kernels, RuntimeCache

from . import faults, played_runtime
from .played_runtime import HERE, Engine, Handle, Runtime

WEIGHT = torch.full((4,), 2.0)


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("factor", WEIGHT.clone())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.factor


def case(**settings: Any) -> Case:
    return Case(Model("net", lambda: (Net().eval(), torch.ones(4)), ()), Settings(frontend="dynamo", **settings))


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Runtime:
    monkeypatch.setattr(own_conversions, "fingerprint", lambda **_: "")  # what is played is no change of a user's
    return played_runtime.play(monkeypatch)


@pytest.fixture
def cache(tmp_path: Path) -> ArtifactCache:
    return ArtifactCache(tmp_path / "cache")


Get = Callable[..., CheckedModule]


@pytest.fixture
def got(cache: ArtifactCache, tmp_path: Path, runtime: Runtime) -> Get:
    """Build or load the case, each time into a folder of its own."""
    places = iter(range(100))

    def get(wanted: Case | None = None) -> CheckedModule:
        folder = tmp_path / f"place-{next(places)}"
        folder.mkdir(mode=0o700)
        found = build_or_load(wanted or case(), "cpu", folder, cache, lambda _step: None)
        output = found.inference()
        torch.testing.assert_close(output, WEIGHT.expand_as(output))
        return found

    return get


def entry(cache: ArtifactCache) -> Path:
    (found,) = (cache.folder / "entries").iterdir()
    return found


def stored(folder: Path) -> Kernels:
    return msgspec.msgpack.decode((folder / FILE).read_bytes(), type=Kernels)


def in_use(inference: Inference) -> tuple[str, str]:
    return runtime_cache.in_use(inference.compiled, engines=True)


# In the artifact cache


def test_kernels_are_compiled_once_and_lie_under_the_seal_of_their_module(
    got: Get, cache: ArtifactCache, runtime: Runtime
) -> None:
    built = got()
    assert runtime.taken() == ["conv", "relu"]
    assert in_use(built.inference) == (NONE, "")
    (found,) = cache.entries()
    assert found.manifest is not None
    assert found.manifest.sha256[FILE] == built.sha256[FILE] == sealed_folder.digest(entry(cache) / FILE)
    assert stored(entry(cache)) == Kernels(made_for=HERE, content=b"conv relu")
    for _ in range(2):
        loaded = got()
        assert (loaded.build.cached, runtime.taken(), in_use(loaded.inference)) == (True, [], (ARTIFACT, ""))
        assert (loaded.notes, loaded.build.artifact) == ([], built.build.artifact)


def test_what_a_launch_loads_compiles_nothing_and_writes_nothing(
    got: Get, runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    got()
    runtime.taken()
    folder = tmp_path / "place-0"
    before = sealed_folder.digests(folder)
    with monkeypatch.context() as context:
        faults.read_only(context, tmp_path)
        loaded = reference.load_checked(case(), folder, "cpu")
    assert (runtime.taken(), in_use(loaded)) == ([], (ARTIFACT, ""))
    assert sealed_folder.digests(folder) == before


def test_tampered_kernels_are_never_handed_to_tensorrt(got: Get, cache: ArtifactCache, runtime: Runtime) -> None:
    got()
    file = entry(cache) / FILE
    file.write_bytes(file.read_bytes().replace(b"conv", b"evil"))
    again = got()
    assert (again.build.cached, in_use(again.inference)) == (False, (NONE, ""))
    assert "is not what was stored: it was removed, and is built again" in again.notes[0]
    assert in_use(got().inference) == (ARTIFACT, "")


@pytest.mark.parametrize("name", HERE)
def test_kernels_for_another_card_driver_or_tensorrt_are_compiled_anew_and_stored_in_their_place(
    got: Get, cache: ArtifactCache, runtime: Runtime, tmp_path: Path, name: str
) -> None:
    got()
    first = (tmp_path / "place-0" / FILE).read_bytes()
    runtime.taken()
    runtime.here[name] = "another"
    said = f"is for {name} {HERE[name] or 'unknown'}, not another: kernels are compiled anew"
    in_a_launch = reference.load_checked(case(), tmp_path / "place-0", "cpu")
    assert (runtime.taken(), in_use(in_a_launch)) == (["conv", "relu"], (NONE, f"its stored runtime cache {said}"))
    assert (tmp_path / "place-0" / FILE).read_bytes() == first

    loaded = got()
    assert (loaded.build.cached, loaded.notes, runtime.taken()) == (True, [], ["conv", "relu"])
    assert stored(entry(cache)).made_for[name] == "another"
    assert loaded.sha256[FILE] == sealed_folder.digest(entry(cache) / FILE)
    assert (tmp_path / "place-0" / FILE).read_bytes() == first  # what an earlier run took is as it was
    assert in_use(got().inference) == (ARTIFACT, "")
    assert runtime.taken() == []


def test_a_module_that_was_stored_without_kernels_gets_them(
    got: Get, cache: ArtifactCache, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as context:
        context.setattr(runtime_cache, "store", lambda *_given: False)  # as an older trtgate
        got()
    assert not (entry(cache) / FILE).exists()
    runtime.taken()
    loaded = got()
    assert (loaded.build.cached, loaded.notes, runtime.taken()) == (True, [], ["conv", "relu"])
    assert in_use(got().inference) == (ARTIFACT, "")
    assert runtime.taken() == []


def test_a_release_without_runtime_caches_loads_what_it_stored_as_ever(
    got: Get, cache: ArtifactCache, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime_cache, "_is_usable", lambda: False)
    monkeypatch.setattr(Runtime, "build", Runtime.__bases__[0].build)
    got()
    loaded = got()
    assert (loaded.build.cached, loaded.notes, in_use(loaded.inference)) == (True, [], (NONE, ""))
    assert not (entry(cache) / FILE).exists()


def test_kernels_of_further_shapes_are_added_where_shapes_are_dynamic(
    got: Get, cache: ArtifactCache, runtime: Runtime
) -> None:
    """Cases of other shapes load the same module, and its kernels are compiled for a shape when it first runs."""

    def of(seq: int) -> Case:
        runtime.kernels = [f"conv_{seq}"]
        model = Model("net", lambda seq: (Net().eval(), torch.ones(seq, 4)), ())
        return Case(model, Settings(frontend="dynamo", shape={"seq": seq}, dynamic={"seq": (1, 2, 4)}))

    assert got(of(2)).build.cached is False
    assert got(of(4)).build.cached is True
    assert runtime.taken() == ["conv_2", "conv_4"]
    assert stored(entry(cache)).content == b"conv_2 conv_4"
    assert [got(of(seq)).build.cached for seq in (2, 4)] == [True, True]
    assert runtime.taken() == []


def test_a_full_disk_costs_the_kernels_and_nothing_else(
    got: Get, cache: ArtifactCache, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as context:
        full(context)
        built = got()
    assert built.stored
    assert built.notes == [
        f"case {case().id}: its runtime cache could not be stored, so every launch compiles kernels: "
        "No space left on device"
    ]
    assert not list(entry(cache).glob(f"*{FILE}*"))
    with monkeypatch.context() as context:
        full(context)
        assert got().build.cached is True
    assert got().notes == []
    assert in_use(got().inference) == (ARTIFACT, "")


def full(monkeypatch: pytest.MonkeyPatch) -> None:
    def hook(name: str, path: Path) -> None:
        if name == "replace" and FILE in path.name:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))

    faults.watch(monkeypatch, hook)


def test_what_tensorrt_can_not_serialize_costs_the_kernels_and_nothing_else(
    got: Get, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_given: Any) -> int:
        raise RuntimeError("serialize failed")

    monkeypatch.setattr(Handle, "save_to_stream", broken)
    built = got()
    assert built.stored
    assert built.notes[0].endswith("every launch compiles kernels: RuntimeError: serialize failed")


def test_a_cache_that_can_only_be_read_is_used_and_gets_nothing(
    got: Get, cache: ArtifactCache, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    got()
    before = sealed_folder.digests(entry(cache))
    with monkeypatch.context() as context:
        faults.read_only(context, cache.folder)
        assert (got().notes, runtime.taken()) == ([], ["conv", "relu"])
        runtime.here["driver"] = "another"
        loaded = got()
    assert loaded.build.cached is True
    assert "could not be cached: Read-only file system" in loaded.notes[0]
    assert in_use(reference.load_checked(case(), Path(cache.folder.parent / "place-2"), "cpu")) == (ARTIFACT, "")
    assert sealed_folder.digests(entry(cache)) == before


@pytest.mark.parametrize("content", [b"", b"no msgpack", msgspec.msgpack.encode({"made_for": HERE}), b"\xc1" * 100])
def test_a_file_that_is_none_is_a_note(runtime: Runtime, tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)
    found = runtime_cache.load(tmp_path)
    assert (found.kept, found.handle.kernels) == (False, set())
    assert found.note.startswith("its stored runtime cache can't be used (")


def test_kernels_that_tensorrt_refuses_are_a_note_and_are_compiled(
    got: Get, cache: ArtifactCache, runtime: Runtime, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The file is whole and for this machine, and what TensorRT-RTX serialized can't be read by it."""

    def refuse(*_given: Any) -> int:
        raise RuntimeError("deserialize failed")

    got()
    runtime.taken()
    with monkeypatch.context() as context:
        context.setattr(Handle, "load_from_stream", refuse)
        in_a_launch = reference.load_checked(case(), tmp_path / "place-0", "cpu")
        said = "its stored runtime cache can't be used (RuntimeError: deserialize failed): kernels are compiled anew"
        assert (runtime.taken(), in_use(in_a_launch)) == (["conv", "relu"], (NONE, said))
        with pytest.raises(TrtgateError, match="with its runtime cache: its stored runtime cache can't be used"):
            cold_start.measured(case(), str(tmp_path / "place-0"), "cpu", kernels=True)
        again = got()
    assert again.build.cached is True
    assert in_use(got().inference) == (ARTIFACT, "")


def test_a_cold_start_with_a_runtime_cache_that_is_gone_is_none_with_it(
    got: Get, runtime: Runtime, tmp_path: Path
) -> None:
    """Else seconds of compiling would be taken for those of a start that compiles nothing."""
    got()
    (tmp_path / "place-0" / FILE).unlink()
    with pytest.raises(TrtgateError, match="could not start with its runtime cache: it has none"):
        cold_start.measured(case(), str(tmp_path / "place-0"), "cpu", kernels=True)


def test_a_machine_that_does_not_say_what_it_is_uses_none(
    runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown() -> dict[str, str]:
        raise TrtgateError("NVML does not work")

    (tmp_path / FILE).write_bytes(msgspec.msgpack.encode(Kernels(made_for=HERE, content=b"conv")))
    monkeypatch.setattr(runtime_cache, "made_for", unknown)
    runtime_cache.prepare()
    found = runtime_cache.load(tmp_path)
    assert (found.kept, found.note) == (
        False, "its stored runtime cache can't be used (NVML does not work): kernels are compiled anew"
    )  # fmt: skip


def test_processes_that_store_at_once_leave_one_whole_entry(
    cache: ArtifactCache, runtime: Runtime, tmp_path: Path
) -> None:
    """Each stores its module with other kernels, and takes what is there: module and kernels are of one writer."""
    (tmp_path / "built").mkdir(mode=0o700)
    build_or_load(case(), "cpu", tmp_path / "built", cache, lambda _step: None)
    (found,) = cache.entries()
    manifest = found.manifest
    assert manifest is not None

    def store_and_take(number: int) -> bool:
        made, place = tmp_path / f"made-{number}", tmp_path / f"taken-{number}"
        for folder in (made, place):
            folder.mkdir(mode=0o700)
        (made / "compiled.pt2").write_bytes(b"module of %d" % number)
        handle = Handle()
        handle.kernels, handle.live = {f"kernel_{number}"}, True
        assert runtime_cache.store(RuntimeCache(handle), made)
        own = msgspec.structs.replace(manifest, sha256=sealed_folder.digests(made))
        assert cache.put(found.key, made, own) == ""
        taken, problem = cache.take(found.key, place)
        assert taken is not None, problem
        writer = (place / "compiled.pt2").read_bytes().rpartition(b" ")[2]
        return stored(place).content == b"kernel_" + writer

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(store_and_take, range(24)))


# Cold starts


def test_a_cold_start_compiles_kernels_unless_it_is_the_one_with_the_cache(
    got: Get, runtime: Runtime, tmp_path: Path
) -> None:
    got()
    runtime.taken()
    cold_start.measured(case(), str(tmp_path / "place-0"), "cpu")
    assert runtime.taken() == ["conv", "relu"]
    cold_start.measured(case(), str(tmp_path / "place-0"), "cpu", kernels=True)
    assert runtime.taken() == []


# A cache of a user's own


def test_a_cache_of_a_users_own_is_told_and_stays(runtime: Runtime) -> None:
    engine = Engine(runtime, torch.nn.Identity())
    engine.runtime_settings = engine.runtime_settings.merge(runtime_cache="theirs")
    compiled = CompiledModule(torch.nn.Sequential(engine), 0.1)
    assert runtime_cache.in_use(compiled, engines=False) == (
        OWN, "its engines have a runtime cache of their own, which is used as its user set it up"
    )  # fmt: skip
    assert runtime_cache.in_use(CompiledModule(lambda x: engine(x), 0.1), engines=False)[0] == OWN
    assert engine.runtime_settings.runtime_cache == "theirs"
    assert runtime_cache.in_use(CompiledModule(torch.nn.Identity(), 0.1), engines=False) == ("", "")


class Python212(torch.nn.Module):
    """As the Python runtime of 2.12: it is compiled with a path, reads it and, at its end, writes it."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.runtime_cache, self.runtime_cache_path = object(), path
        self.done: list[str] = []

    def _load_runtime_cache(self) -> None:
        self.done.append("read")

    def _save_runtime_cache(self) -> None:
        self.done.append("written")


def test_the_python_runtime_of_2_12_uses_a_users_path_and_not_the_shared_one(monkeypatch: pytest.MonkeyPatch) -> None:
    shared = "/tmp/torch_tensorrt_engine_cache/runtime_cache.bin"
    monkeypatch.setitem(sys.modules, shared_cache_file.DEFAULTS, module_with(RUNTIME_CACHE_PATH=shared))
    played = module_with(PythonTorchTensorRTModule=Python212)
    monkeypatch.setitem(sys.modules, shared_cache_file.PYTHON_RUNTIME, played)
    for name in ("_load_runtime_cache", "_save_runtime_cache"):
        monkeypatch.setattr(Python212, name, getattr(Python212, name))  # put back at the end
    for _ in range(2):
        shared_cache_file.forget()
    of_default, of_user = Python212(shared), Python212("/theirs/cache.bin")
    for module in (of_default, of_user):
        module._load_runtime_cache()
        module._save_runtime_cache()
    assert (of_default.done, of_user.done) == ([], ["read", "written"])
    assert runtime_cache.in_use(CompiledModule(of_user, 0.1), engines=True)[0] == OWN
    assert runtime_cache.in_use(CompiledModule(of_default, 0.1), engines=True)[0] == NONE


def module_with(**values: Any) -> types.ModuleType:
    made = types.ModuleType("played")
    vars(made).update(values)
    return made


# torch_tensorrt's own classes, as far as they go without a GPU


class PlayedEngine:
    """As `torch.classes.tensorrt.Engine`: is told settings as numbers and a handle of the C++ runtime."""

    requires_native_multidevice = False

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def update_runtime_settings(self, *told: Any) -> None:
        self.told.append(told)


@pytest.fixture(scope="module")
def torch_tensorrt() -> Any:
    if releases.unavailable():
        pytest.skip(releases.unavailable())
    with gpu_stand_in.stand_in():
        found = releases.imported()
    if not runtime_cache.is_supported():
        pytest.skip("the installed torch_tensorrt gives engines no runtime cache")
    return found


@pytest.fixture
def usable(monkeypatch: pytest.MonkeyPatch, torch_tensorrt: Any) -> Any:
    monkeypatch.setattr(runtime_cache, "_is_usable", lambda: True)
    monkeypatch.setattr(runtime_cache, "made_for", lambda: HERE)
    return torch_tensorrt


def new_module(torch_tensorrt: Any) -> Any:
    """Return torch_tensorrt's module of an engine, as its compiler makes it, with an engine that is played."""
    from torch_tensorrt.dynamo.runtime import TorchTensorRTModule

    with gpu_stand_in.answering():
        device = torch_tensorrt.Device(gpu_id=0)
        settings = torch_tensorrt.dynamo.CompilationSettings(lazy_engine_init=True, device=device)
        made = TorchTensorRTModule(b"engine", ["x"], ["y"], name="engine", settings=settings)
    made.engine = PlayedEngine()
    made.runtime_settings = made.runtime_settings  # as `setup_engine` does
    return made


def test_engines_that_are_built_share_one_handle_and_no_file(usable: Any) -> None:
    with runtime_cache.collecting() as kernels:
        modules = [new_module(usable) for _ in range(2)]
    assert not kernels.kept
    for module in modules:
        assert module.runtime_settings.runtime_cache is kernels.handle
        assert module.engine.told[-1][2] is kernels.handle._handle
    assert (kernels.handle.path, kernels.handle.autosave_on_del) == ("", False)
    compiled = CompiledModule(torch.nn.Sequential(*modules), 0.1, runtime_cache=kernels)
    assert runtime_cache.in_use(compiled, engines=True) == (NONE, "")
    assert new_module(usable).runtime_settings.runtime_cache is None


def test_the_file_that_processes_share_is_neither_read_nor_written(
    usable: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch_tensorrt.runtime import RuntimeSettings

    folder, seen = Path(shared_cache_file.path()).parent, list[Path]()
    faults.watch(monkeypatch, lambda _name, path: seen.append(path) if path.is_relative_to(folder) else None)
    with runtime_cache.collecting():
        built = new_module(usable)
    loaded = new_module(usable)
    dynamic_engines.prepare([loaded], case().settings, RuntimeCache(runtime_cache._new_handle()))
    for module in (built, loaded):
        module.runtime_settings = module.runtime_settings.merge(runtime_cache=None)
    assert seen == []
    built.runtime_settings = RuntimeSettings(runtime_cache=shared_cache_file.path())  # as it is without trtgate
    assert seen
    built._implicit_cache_handle.autosave_on_del = False


def test_a_loaded_engine_gets_the_stored_kernels_and_keeps_what_else_it_was_told(usable: Any, tmp_path: Path) -> None:
    content = Kernels(made_for=HERE, content=b"kernels")
    (tmp_path / FILE).write_bytes(msgspec.msgpack.encode(content))
    kernels = runtime_cache.load(tmp_path)
    assert (kernels.kept, kernels.kept_bytes) == (True, 7)
    assert not kernels.handle.has_cache()  # they wait for the execution context; 2.13 does not show them before
    assert bytes(kernels.handle._handle.serialize().numpy()) in (b"kernels", b"")
    module = new_module(usable)
    settings = Settings(frontend="dynamo", shape={"seq": 8}, dynamic={"seq": (1, 8, 16)}, specialization="none")
    dynamic_engines.prepare([module], settings, kernels)
    assert module.engine.told[-1] == (2, 0, kernels.handle._handle)
    dynamic_engines.prepare([module], settings)
    assert module.runtime_settings.runtime_cache is kernels.handle
    assert not runtime_cache.store(kernels, tmp_path)  # no engine ran: there are no kernels of this process


def test_an_engine_of_the_cpp_runtime_is_told_all_at_once(usable: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loaded program holds engines themselves."""
    engine = PlayedEngine()
    monkeypatch.setattr(dynamic_engines, "_is_engine", lambda value: value is engine)
    holder = torch.nn.Module()
    vars(holder)["engine"] = engine
    kernels = RuntimeCache(runtime_cache._new_handle())
    dynamic_engines.prepare([holder], case().settings, kernels)
    assert engine.told == [(0, 0, kernels.handle._handle)]
    dynamic_engines.prepare([holder], case().settings)
    assert len(engine.told) == 1


def test_another_default_that_a_user_set_stays(usable: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from torch_tensorrt.runtime import _runtime_config

    own = str(tmp_path / "theirs.bin")
    monkeypatch.setattr(_runtime_config, shared_cache_file.DEFAULT, own)
    releases.imported()
    with runtime_cache.collecting() as kernels:
        module = new_module(usable)
    assert kernels.handle is None
    assert module.runtime_settings.runtime_cache.path == own
    compiled = CompiledModule(module, 0.1, runtime_cache=kernels)
    assert runtime_cache.in_use(compiled, engines=True)[0] == OWN
    module._implicit_cache_handle.autosave_on_del = False


def test_a_module_with_a_handle_can_be_copied_to_be_stored(usable: Any) -> None:
    with runtime_cache.collecting() as kernels:
        module = new_module(usable)
    with stored_modules.sharing_engines():
        copied = copy.deepcopy(module)
    assert copied.runtime_settings.runtime_cache is not None
    assert module.runtime_settings.runtime_cache is kernels.handle


def test_who_imports_it_in_a_worker_forgets_the_shared_file(usable: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch_tensorrt.runtime import _runtime_config

    from trtgate.torch_trt import import_hook

    class Loader:
        def exec_module(self, _module: Any) -> None:
            setattr(_runtime_config, shared_cache_file.DEFAULT, shared_cache_file.path())

    for shared, wanted in ((True, shared_cache_file.path()), (False, None)):
        monkeypatch.setattr(import_hook._finder, "shared_cache", shared)
        import_hook._StandingIn(Loader()).exec_module(types.ModuleType("torch_tensorrt"))  # type: ignore[arg-type]
        assert getattr(_runtime_config, shared_cache_file.DEFAULT) == wanted
