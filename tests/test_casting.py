"""What a precision casts and what it leaves; how coarsely a module rounds that is not cast."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import nn

from trtgate import Case, Model, Settings
from trtgate.common.errors import TrtgateError
from trtgate.compiling import building
from trtgate.compiling.fp32_arithmetic import arithmetic
from trtgate.compiling.reference import Reference
from trtgate.torch_trt import compile_options, releases

ROW = torch.linspace(-1.0, 1.0, 32).view(2, 16)


def quiet(_text: str) -> None:
    """Say nothing."""


class Mixed(nn.Module):
    """bfloat16 in the middle, float32 around it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.n = nn.Linear(16, 16).bfloat16(), nn.LayerNorm(16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.n(self.a(x.bfloat16()).float())


class Autocast(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a = nn.Linear(16, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast(x.device.type, dtype=torch.bfloat16):
            y = self.a(x)
        return y.float()


class Tables(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("turn", torch.polar(torch.ones(16), torch.arange(16.0)))
        self.register_buffer("origin", torch.full((16,), 500000.123456, dtype=torch.float64))

    def forward(self, x: torch.Tensor) -> Any:
        return torch.view_as_real(self.turn * x.float()), (x - self.origin).float()


def case(factory: Any, precision: str, frontend: str = "eager", **settings: Any) -> Case:
    return Case(Model("m", factory, ()), Settings(frontend=frontend, precision=precision, **settings))


@pytest.mark.parametrize("frontend", ["eager", "aot_eager"])
@pytest.mark.parametrize(
    ("module", "rounds"), [(Mixed, "bf16"), (Autocast, "bf16"), (lambda: nn.Linear(16, 4), "fp32"), (Tables, "fp32")]
)
def test_as_is_leaves_all_dtypes_and_tolerates_what_the_coarsest_rounds(
    module: Any, rounds: str, frontend: str
) -> None:
    made = Reference(case(lambda: (module(), ROW), "as_is", frontend), "cpu", quiet)
    before = {name: value.dtype for name, value in module().state_dict().items()}
    assert {name: value.dtype for name, value in made.module.state_dict().items()} == before
    assert (made.arithmetic, made.expected.coarsest, made.remarks) == (rounds, rounds, [])
    made.check(made.build(*made.prepare(quiet), quiet))


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_complex_values_are_never_cast_and_float64_with_a_line(precision: str) -> None:
    remarks: list[str] = []
    module, inputs = building.make(case(lambda: (Tables(), ROW.double()), precision), "cpu", remarks=remarks)
    dtype = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}[precision]
    assert module.turn.dtype == torch.complex64
    assert [module.origin.dtype, inputs.tensors[0].dtype] == [getattr(torch, dtype)] * 2
    assert remarks == [f'2 float64 tensors cast to {dtype} (origin, input args[0]): precision "as_is" casts nothing']


def test_as_is_runs_where_eager_does_and_is_part_of_the_id() -> None:
    assert not Settings(frontend="inductor", precision="as_is").gpu_only
    assert Settings(frontend="dynamo", precision="as_is").gpu_only
    assert Settings(frontend="eager", precision="as_is").suffix == "eager-as_is"


def autocast(**options: Any) -> Settings:
    return Settings(frontend="dynamo", precision="fp32", options=options)


@pytest.mark.skipif(bool(releases.unavailable()), reason="needs torch_tensorrt")
def test_a_dtype_among_the_options_is_named() -> None:
    wanted = autocast(enable_autocast=True, autocast_low_precision_type="float16")
    compile_options.check_options("c", wanted)
    assert compile_options.options_of(wanted)["autocast_low_precision_type"] is torch.float16
    assert "autocast_low_precision_type=float16" in wanted.suffix
    assert arithmetic(case(None, "fp32", "dynamo", options=wanted.options)) == "fp16"
    for value, said in (("flaot16", "did you mean 'float16'"), (16, "there are: float16, bfloat16")):
        with pytest.raises(TrtgateError, match=said):
            compile_options.check_options("c", autocast(enable_autocast=True, autocast_low_precision_type=value))
    with pytest.raises(TrtgateError, match="no effect without enable_autocast=True"):
        compile_options.check_options("c", autocast(autocast_low_precision_type="float16"))


def test_a_module_that_casting_broke_is_told_from_one_that_never_ran() -> None:
    with pytest.raises(TrtgateError, match=r'as its factory made it, it runs: precision "as_is" casts nothing'):
        Reference(case(lambda: (Mixed(), ROW), "fp32"), "cpu", quiet)
    with pytest.raises(TrtgateError, match="eager can't run its own example inputs") as caught:
        Reference(case(lambda: (nn.Linear(3, 3), ROW), "fp32"), "cpu", quiet)
    assert "as_is" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "made"),
    [
        ("weight", lambda: (nn.Linear(16, 2, device="meta"), ROW)),
        ("0.weight", lambda: (nn.Sequential(nn.Linear(16, 2, device="meta")), ROW)),
        ("input args[0]", lambda: (nn.Linear(16, 2), ROW.to("meta"))),
    ],
)
@pytest.mark.parametrize("precision", ["fp16", "as_is"])
def test_a_tensor_without_values_is_named(path: str, made: Any, precision: str) -> None:
    with pytest.raises(
        TrtgateError, match=re.escape(f"model 'm': {path} is on the meta device, which holds no values")
    ):
        building.make(case(made, precision), "cpu")


class Layer:
    """As libraries keep a cache: an object that is no module, with tensors that a module has as buffers."""

    def __init__(self) -> None:
        self.keys = torch.zeros(2, 16)


class Cached(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.a = Layer(), nn.Linear(16, 16)
        self.register_buffer("keys", self.layer.keys, persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.layer.keys.copy_(self.a(x))
        return self.layer.keys @ x.T


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_a_buffer_that_an_object_holds_too_stays_one_tensor(precision: str) -> None:
    def factory() -> Any:
        return Cached(), ROW

    module, inputs = building.make(
        Case(Model("m", factory, ()), Settings(frontend="dynamo", precision=precision)), "cpu"
    )
    assert module.layer.keys is module.keys
    assert inputs.call(module).dtype == module.a.weight.dtype == module.keys.dtype


def test_a_module_that_was_made_once_is_cast_for_each_case_anew() -> None:
    made = Cached(), ROW
    for precision, dtype in (("fp16", torch.float16), ("fp32", torch.float32)):
        case = Case(Model("m", lambda: made, ()), Settings(frontend="dynamo", precision=precision))
        assert building.make(case, "cpu")[0].keys.dtype == dtype
        assert made[0].keys.dtype == made[0].layer.keys.dtype == torch.float32
