"""What is known of the installed torch_tensorrt without importing it."""

from __future__ import annotations

import contextlib
import gc
import importlib
import importlib.metadata
import sys
from typing import Any

import pytest

from trtgate.common import garbage
from trtgate.common.errors import TrtgateError
from trtgate.suite.settings import Settings
from trtgate.torch_trt import compile_options as trt_options
from trtgate.torch_trt import engine_sizes, partitioner, patching, releases, shared_cache_file

needs_torch_tensorrt = pytest.mark.skipif(bool(releases.unavailable()), reason=releases.unavailable() or "installed")


@needs_torch_tensorrt
def test_options_are_read_from_the_installed_source_without_importing_it() -> None:
    before = "torch_tensorrt" in sys.modules
    wanted = {"min_block_size", "optimization_level", "workspace_size", "disable_tf32"}
    assert wanted <= trt_options.option_types().keys()
    assert ("torch_tensorrt" in sys.modules) == before


@needs_torch_tensorrt
@pytest.mark.parametrize(
    ("frontend", "option", "value", "problem"),
    [
        ("dynamo", "workspace_sise", 1, "unknown compile option 'workspace_sise'; did you mean 'workspace_size'"),
        ("dynamo", "workspace_size", "1", "workspace_size='1' must be a int"),
        ("dynamo", "disable_tf32", 1, "disable_tf32=1 must be a bool"),
        ("dynamo", "max_aux_streams", True, "max_aux_streams=True must be a int"),
        ("dynamo", "device", "cuda", "'device' is a Device, and a suite holds numbers and texts"),
        ("ts_trace", "optimization_level", 3, "unknown compile option 'optimization_level'"),
        ("ts_script", "workspace_size", 0.5, "workspace_size=0.5 must be a int"),
    ],
)
def test_an_option_that_is_none_or_of_another_type_is_refused(
    frontend: str, option: str, value: Any, problem: str
) -> None:
    with pytest.raises(TrtgateError, match=problem):
        trt_options.check_options("c", Settings(frontend=frontend, options={option: value}))


@needs_torch_tensorrt
def test_options_of_the_right_type_are_taken() -> None:
    options = {"optimization_level": 5, "workspace_size": 1 << 30, "tiling_optimization_level": "none"}
    trt_options.check_options("c", Settings(frontend="dynamo", options=options))
    trt_options.check_options("c", Settings(frontend="ts_trace", options={"truncate_long_and_double": True}))


@pytest.mark.parametrize(
    ("installed", "wanted", "tf32"),
    [(("torch-tensorrt-rtx",), "rtx", True), (("torch-tensorrt",), "standard", False), ((), None, False)],
)
def test_flavours(monkeypatch: pytest.MonkeyPatch, installed: tuple[str, ...], wanted: str | None, tf32: bool) -> None:
    def version(name: str) -> str:
        if name not in installed:
            raise importlib.metadata.PackageNotFoundError(name)
        return "2.14.0"

    monkeypatch.setattr("trtgate.common.accelerator.metadata.version", version)
    assert releases.flavour() == wanted
    assert releases.fp32_is_tf32() is tf32


def test_engines_are_found_at_any_depth() -> None:
    import torch

    outer = torch.nn.Sequential(torch.nn.Sequential(torch.nn.Identity()), torch.nn.ReLU())
    outer[0][0].serialized_engine = b"12345"
    outer[1].serialized_engine = None  # a segment left to PyTorch
    assert engine_sizes.of(outer) == [5]


@pytest.mark.parametrize(
    ("said", "path"),
    [
        ("layer4.1.conv2", "layer4.1.conv2"),
        ("L['self'].layer4[1].conv2", "layer4.1.conv2"),
        ("L['self']._modules['layer4']._modules['1'].conv2", "layer4.1.conv2"),
        ("L['fn'].layer4", "layer4"),
        ("", ""),
    ],
)
def test_a_modules_path_is_spelt_in_one_way(said: str, path: str) -> None:
    assert partitioner.module_path({"whole": ("", object), "inner": (said, object)}) == path


def test_what_came_without_a_module_is_not_the_model() -> None:
    assert partitioner.module_path(None) == "?"


def test_what_is_replaced_must_be_there_and_is_as_before_afterwards() -> None:
    class Upstream:
        pass

    with pytest.raises(AttributeError), patching.replaced(Upstream, "renamed", 1):
        pass
    for name in ("__repr__", "__module__"):  # inherited, and its own
        before = vars(Upstream).get(name)
        with patching.replaced(Upstream, name, "another"):
            assert vars(Upstream)[name] == "another"
        assert vars(Upstream).get(name) is before


def test_what_a_backend_of_torch_compile_raises_is_told_by_its_own_words() -> None:
    import torch

    from trtgate.common.errors import one_line

    def backend(_graph: Any, _inputs: Any) -> Any:
        raise AttributeError("'GetItemSource' object has no attribute 'local_name'")

    with pytest.raises(torch._dynamo.exc.BackendCompilerFailed) as failed:
        torch.compile(torch.nn.ReLU(), backend=backend)(torch.ones(2))
    assert one_line(failed.value) == "AttributeError: 'GetItemSource' object has no attribute 'local_name'"


@pytest.mark.parametrize("collects", [True, False], ids=["collecting", "not collecting"])
def test_no_garbage_is_collected_while_torch_tensorrt_is_imported(
    monkeypatch: pytest.MonkeyPatch, collects: bool
) -> None:
    """What was set before is set again, and later collections pass over what was imported."""
    within: list[bool] = []
    monkeypatch.delitem(sys.modules, "torch_tensorrt", raising=False)
    monkeypatch.setattr(importlib, "import_module", lambda _name: within.append(gc.isenabled()))
    monkeypatch.setattr(shared_cache_file, "forget", lambda: None)
    with contextlib.nullcontext() if collects else garbage.later():
        releases.imported()
        assert (within, gc.isenabled()) == ([False], collects)
        assert not any(one is within for one in gc.get_objects())
