"""Quantized cases on a machine without a GPU: calibrated, exported with Q and DQ, taken by TensorRT's converters."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from torch import nn

from trtgate.common.accelerator import Accelerator
from trtgate.common.errors import TrtgateError
from trtgate.compiling import availability, building
from trtgate.records.coverage_record import Coverage
from trtgate.suite import samples
from trtgate.suite.cases import Case, Model
from trtgate.suite.model_inputs import Inputs
from trtgate.suite.settings import Settings
from trtgate.torch_trt import exporting, quantization, releases
from trtgate.torch_trt.modelopt_package import unavailable

needs_modelopt = pytest.mark.skipif(bool(unavailable()), reason=unavailable() or "installed")
H100 = Accelerator(kind="gpu", name="H100", memory_bytes=80 << 30, capability=(9, 0))
A100 = Accelerator(kind="gpu", name="A100", memory_bytes=80 << 30, capability=(8, 0))


def small(batch: int) -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 144, 10)]
    return nn.Sequential(*layers).eval(), torch.randn(batch, 3, 16, 16)


def case_of(precision: str, factory: Any = small, **more: Any) -> Case:
    return Case(Model("small", factory, (), **more), Settings(frontend="dynamo", precision=precision, batch=2))


@needs_modelopt
@pytest.mark.parametrize(("precision", "quantizers"), [("int8", 6), ("int8_weights", 3), ("fp8", 6)])
def test_a_quantized_module_computes_nearly_the_same_and_says_where_it_rounds(precision: str, quantizers: int) -> None:
    case = case_of(precision)
    module, inputs = small(2)
    wanted = module(inputs)
    quantized = building.quantized(case, module, Inputs((inputs,)), batches=2)
    got = quantized(inputs)
    error = float((got - wanted).norm() / wanted.norm())
    assert 1e-4 < error < 0.1  # it rounds, and no more than that
    with quantization.exporting():
        program = exporting.export(quantized, Inputs((inputs,)), case.settings)
    assert sum("quantize_op" in str(node.target) for node in program.graph.nodes) == quantizers


@needs_modelopt
@pytest.mark.skipif(bool(releases.unavailable()), reason="needs torch_tensorrt")
def test_coverage_of_a_quantized_case_needs_no_gpu(forked: None) -> None:
    found = in_a_fresh_process("int8")  # where nothing imported torch_tensorrt before nvidia-modelopt
    assert (found.in_pytorch, len(found.engines)) == (0, 1)
    assert found.engines[0].operators["tensorrt.quantize_op.default"] == 6


@needs_modelopt
@pytest.mark.skipif(bool(releases.unavailable()), reason="needs torch_tensorrt")
@pytest.mark.parametrize("frontend", ["dynamo", "torch_compile"])
def test_modelopt_is_not_imported_where_nothing_is_quantized(frontend: str, forked_with_tensorrt: None) -> None:
    """Neither with torch_tensorrt, which the process finds imported as trtgate does it, nor by asking."""
    code = (
        "import sys, torch; from trtgate import Case, Model, Settings; from trtgate.coverage import dry_run\n"
        "assert 'torch_tensorrt' in sys.modules\n"
        "model = Model('small', lambda: (torch.nn.Linear(4, 4), torch.zeros(2, 4)), ())\n"
        f"settings = Settings(frontend={frontend!r}, precision='fp16', min_block_size=1)\n"
        "assert dry_run.ask(Case(model, settings)).engines\n"
        "print('modelopt' in sys.modules)"
    )
    assert printed(code) == "False"


def in_a_fresh_process(precision: str) -> Coverage:
    code = (
        "import msgspec, test_quantization as t; from trtgate.coverage import dry_run; from trtgate.suite import zoo\n"
        "from trtgate.torch_trt import modelopt_package\n"
        f"modelopt_package.expect([{precision!r}])\n"
        f"case = t.case_of({precision!r}); dry_run.ask(t.case_of('fp16'))\n"
        "print(msgspec.json.encode(dry_run.ask(case)).decode())"
    )
    return msgspec.json.decode(printed(code), type=Coverage)


def printed(code: str) -> str:
    """Return the last line that a process of its own prints."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parent, capture_output=True, text=True, timeout=300, check=True,
    )  # fmt: skip
    return done.stdout.splitlines()[-1]


@needs_modelopt
def test_too_late_for_torch_tensorrt_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    module, inputs = small(2)
    monkeypatch.setitem(sys.modules, "torch_tensorrt", object())  # type: ignore[arg-type]
    for name in [name for name in sys.modules if name.partition(".")[0] == "modelopt"]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(TrtgateError, match="was imported before nvidia-modelopt in this process"):
        building.quantized(case_of("int8"), module, Inputs((inputs,)), batches=1)


@needs_modelopt
@pytest.mark.parametrize("value", [0.0, float("nan")])
def test_ranges_that_are_none_are_refused(value: float) -> None:
    def empty(count: int, seed: int) -> Iterator[torch.Tensor]:
        for _ in range(count):
            yield torch.full((1, 3, 16, 16), value)

    module, inputs = small(2)
    with pytest.raises(
        TrtgateError, match=r"no usable range for .*quantizer.*calibrate on other inputs|could not quantize"
    ):
        building.quantized(case_of("int8", samples=empty), module, Inputs((inputs,)), batches=1)


@pytest.mark.parametrize(
    ("settings", "card", "reason"),
    [
        (Settings(frontend="dynamo", precision="fp8"), A100, "fp8 needs compute capability 8.9, A100 has 8.0"),
        (Settings(frontend="dynamo", precision="int8"), H100, "rtx 2.11.0 takes no int8 activations"),
        (Settings(frontend="dynamo", precision="fp16"), H100, ""),
    ],
)
def test_what_a_card_or_a_version_refuses_is_known(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, card: Accelerator, reason: str
) -> None:
    monkeypatch.setattr(releases, "flavour", lambda: "rtx")
    monkeypatch.setattr(releases, "version", lambda: "2.11.0")
    said = availability.refused(settings, card)
    assert said == reason or reason.split()[-1] in said
    monkeypatch.setattr(releases, "version", lambda: "2.13.0")
    assert availability.refused(Settings(frontend="dynamo", precision="int8"), H100) == ""


# Samples


def test_drawn_inputs_are_seeded_and_like_the_example() -> None:
    example = Inputs((torch.zeros(2, 3, dtype=torch.float16), torch.arange(4)))
    once, again, others = (
        [given.args for given in samples.of(case_of("fp16"), example, 3, seed=seed)] for seed in (1, 1, 2)
    )
    assert [value.dtype for value in once[0]] == [torch.float16, torch.int64]
    assert torch.equal(once[2][0], again[2][0])
    assert not torch.equal(once[0][0], once[1][0])
    assert not torch.equal(once[0][0], others[0][0])
    assert torch.equal(once[0][1], example.args[1])


def test_a_models_own_samples_are_put_together_to_batches() -> None:
    def counting(count: int, seed: int) -> Iterator[torch.Tensor]:
        for number in range(count):
            yield torch.full((1, 2), number + 100.0 * seed)

    found = samples.of(case_of("fp16", samples=counting), Inputs((torch.zeros(2, 2),)), 2, seed=1)
    assert [value.args[0][:, 0].tolist() for value in found] == [[100.0, 101.0], [102.0, 103.0]]


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (lambda count, seed: iter([torch.zeros(1, 2)]), "4 samples were asked for, and 1 came"),
        (lambda count, seed: iter([torch.zeros(1, 3)] * count), "shapes"),
        (lambda count: iter([]), "its samples raised TypeError"),
    ],
)
def test_samples_that_are_none_are_named(given: Any, problem: str) -> None:
    with pytest.raises(TrtgateError, match=problem):
        list(samples.of(case_of("fp16", samples=given), Inputs((torch.zeros(2, 2),)), 2, seed=1))


def test_the_stored_weights_of_the_digits_classify_images_that_they_were_not_trained_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("sklearn")
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    digits = importlib.import_module("digits")
    module, images = digits.digits(8)
    assert (digits.accuracy(module) > 0.98, images.shape) == (True, (8, 1, 8, 8))
    with torch.no_grad():
        for value in module.parameters():
            value.zero_()
    assert digits.accuracy(digits.digits(8)[0]) > 0.98  # each call has weights of its own
