"""What torch.export and TensorRT don't take is said in a line: what it is, where, and what to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import trtgate
from trtgate.common.errors import TrtgateError
from trtgate.suite.model_inputs import Inputs
from trtgate.suite.settings import Settings
from trtgate.torch_trt import export_refusals, exporting, releases

needs_torch_tensorrt = pytest.mark.skipif(bool(releases.unavailable()), reason=releases.unavailable() or "installed")
ROW = torch.ones(4)


class Calls(nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.register_buffer("calls", torch.zeros(1))
        self.function = function

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        self.calls.add_(1)
        return self.function(self.linear, *args, **kwargs)


def exported(function: Callable[..., Any], *args: Any, **kwargs: Any) -> torch.export.ExportedProgram:
    with torch.no_grad():
        module = Calls(function).eval()
        return exporting.export(module, Inputs(args, kwargs), Settings(frontend="dynamo"))


def writes(_linear: nn.Module, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    a.add_(1)
    return a + b


def adds(_linear: nn.Module, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return a + b


def test_a_tensor_that_is_two_inputs_may_not_be_written() -> None:
    with pytest.raises(
        TrtgateError, match=r"its inputs args\[0\] and args\[1\] are one tensor, .*: give each a tensor"
    ):
        exported(writes, ROW, ROW)
    with pytest.raises(TrtgateError, match=r"its inputs args\[0\] and b are one tensor, and its forward writes"):
        exported(writes, ROW, b=ROW)
    assert torch.equal(ROW, torch.ones(4))
    exported(adds, ROW, ROW)
    exported(writes, ROW, ROW.clone())


def grad(linear: nn.Module, x: torch.Tensor) -> torch.Tensor:
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        return torch.autograd.grad(linear(x).sum(), x)[0]


def backward(linear: nn.Module, x: torch.Tensor) -> torch.Tensor:
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        linear(x).sum().backward()
    assert x.grad is not None
    return x.grad * 2


def of_a_function(_linear: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return torch.func.jacrev(lambda y: (y**2).sum())(x)


@pytest.mark.parametrize("function", [grad, backward, of_a_function])
def test_derivatives_in_forward_are_named(function: Any) -> None:
    with pytest.raises(TrtgateError, match=r"can't export it: its forward computes derivatives .*write the derivative"):
        exported(function, ROW)


def branches(linear: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return linear(x) if x.sum() > 0 else x


def counts(linear: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return linear(x) * int(x.sum())


def to_numpy(_linear: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(x.numpy() * 2)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (branches, "its forward decides by the values of a tensor at {} ("),
        (counts, "its forward decides by the values of a tensor at {} ("),
        (to_numpy, "RuntimeError: .numpy() is not supported for tensor subclasses. at {}"),
    ],
)
def test_the_line_that_can_not_be_exported_is_named(function: Any, said: str) -> None:
    with pytest.raises(TrtgateError) as failed:
        exported(function, ROW)
    line = function.__code__.co_firstlineno + 1
    assert f"torch.export can't export it: {said.format(f'test_export_refusals.py:{line}')}" in str(failed.value)
    assert "\n" not in str(failed.value)


def test_a_program_of_another_size_is_told_so() -> None:
    program = torch.export.export(nn.Linear(8, 8), (torch.ones(2, 8),))
    with pytest.raises(TrtgateError, match=r"size\(\)\[0\] == 2: the program was exported for that alone; export"):
        exporting.export(program.module(), Inputs((torch.ones(3, 8),)), Settings(frontend="dynamo"))


OTHERS = [
    (torch.eye(4).to_sparse(), "sparse (sparse_coo)"),
    (torch.eye(4).to_sparse_csr(), "sparse (sparse_csr)"),
    (torch.nested.nested_tensor([ROW, ROW[:2]], layout=torch.jagged), "nested"),
    (torch.quantize_per_tensor(ROW, 0.1, 0, torch.quint8), "quantized"),
    (ROW.to(torch.int16), "int16"),
    (ROW.to(torch.uint32), "uint32"),
]


@needs_torch_tensorrt
@pytest.mark.parametrize(("value", "kind"), OTHERS)
@pytest.mark.parametrize("frontend", ["dynamo", "torch_compile"])
def test_an_input_that_is_not_dense_is_named_with_its_model(value: torch.Tensor, kind: str, frontend: str) -> None:
    with pytest.raises(TrtgateError) as failed:
        trtgate.assert_supported(nn.Identity(), {"input": value}, min_block_size=1, frontend=frontend)
    said = f"coverage of Identity-{frontend}-fp32-mbs1: input input is a {kind} tensor, which TensorRT does not take: "
    assert str(failed.value).startswith(said)


def table_of_float32(linear: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return linear(x + torch.linspace(0, 1, 4, dtype=torch.float32))


def multiplied(linear: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return linear(x).float() @ x[:, None]


def convolved(linear: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return nn.functional.conv1d(linear(x)[None, None].float(), x[None, None, :2])


def autocast(linear: nn.Module, x: torch.Tensor) -> torch.Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return linear(x.float())


def half(function: Callable[..., Any]) -> torch.export.ExportedProgram:
    module = Calls(function).eval().half()
    return exporting.export(module, Inputs((ROW.half(),)), Settings(frontend="dynamo", precision="fp16"))


@pytest.mark.parametrize(
    ("function", "operator"), [(table_of_float32, "linear"), (multiplied, "matmul"), (convolved, "conv1d")]
)
def test_dtypes_that_pytorch_refuses_to_mix_are_named_though_export_takes_them(function: Any, operator: str) -> None:
    with torch.no_grad():
        program = half(function)
        said = rf'float16 and float32 to aten\.{operator}, .*; precision "as_is" casts nothing; at .*export_refusals'
        with pytest.raises(TrtgateError, match=said):
            export_refusals.check_dtypes(program, "fp16")


def test_where_nothing_is_cast_nobody_is_sent_there() -> None:
    with torch.no_grad(), pytest.raises(TrtgateError, match="refuses: cast one of them; at "):
        export_refusals.check_dtypes(half(multiplied), "as_is")


def test_autocast_may_mix_dtypes() -> None:
    with torch.no_grad():
        export_refusals.check_dtypes(half(autocast), "fp16")


@needs_torch_tensorrt
def test_a_model_that_can_not_run_in_its_precision_has_no_coverage() -> None:
    with pytest.raises(TrtgateError, match=r'the same dtype.*; precision "as_is" casts nothing'):
        trtgate.assert_supported(Calls(table_of_float32).eval(), ROW[None], precision="fp16", frontend="torch_compile")
    with pytest.raises(TrtgateError, match=r"its forward gives float16 and float32 to aten\.linear"):
        trtgate.assert_supported(Calls(table_of_float32).eval(), ROW, precision="fp16", min_block_size=1)
