"""What is known of the installed torch_tensorrt without importing it."""

from __future__ import annotations

import importlib.metadata
import sys

import pytest

from trtgate import torch_trt
from trtgate.errors import TrtgateError

needs_torch_tensorrt = pytest.mark.skipif(bool(torch_trt.unavailable()), reason=torch_trt.unavailable() or "installed")


@needs_torch_tensorrt
def test_options_are_read_from_the_installed_source_without_importing_it() -> None:
    before = "torch_tensorrt" in sys.modules
    assert {"min_block_size", "optimization_level", "workspace_size", "disable_tf32"} <= torch_trt.option_names()
    assert ("torch_tensorrt" in sys.modules) == before


@needs_torch_tensorrt
def test_an_unknown_option_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(
        TrtgateError, match=r"case c: unknown compile option 'min_blok_size'; did you mean 'min_block_size'"
    ):
        torch_trt.check_options("c", {"min_blok_size": 3})
    torch_trt.check_options("c", {"optimization_level": 5})


@pytest.mark.parametrize(
    ("installed", "wanted", "tf32"),
    [(("torch-tensorrt-rtx",), "rtx", True), (("torch-tensorrt",), "standard", False), ((), None, False)],
)
def test_flavours(monkeypatch: pytest.MonkeyPatch, installed: tuple[str, ...], wanted: str | None, tf32: bool) -> None:
    def version(name: str) -> str:
        if name not in installed:
            raise importlib.metadata.PackageNotFoundError(name)
        return "2.14.0"

    monkeypatch.setattr("trtgate.accelerator.metadata.version", version)
    assert torch_trt.flavour() == wanted
    assert torch_trt.fp32_is_tf32() is tf32


def test_engines_are_found_at_any_depth() -> None:
    import torch

    outer = torch.nn.Sequential(torch.nn.Sequential(torch.nn.Identity()), torch.nn.ReLU())
    outer[0][0].serialized_engine = b"12345"
    outer[1].serialized_engine = None  # a segment left to PyTorch
    assert torch_trt.engine_bytes(outer) == [5]


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
    assert torch_trt.module_path({"whole": ("", object), "inner": (said, object)}) == path


def test_what_came_without_a_module_is_not_the_model() -> None:
    assert torch_trt.module_path(None) == "?"
