"""A case whose compiled module returns something else than eager fails, and the tensor that is wrong is named."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

import trtgate
from trtgate.common.errors import TrtgateError
from trtgate.compiling import reference
from trtgate.suite.cases import Case, Model
from trtgate.suite.settings import Settings


@dataclasses.dataclass
class Result:
    logits: Any
    hidden: Any = None


Forward = Callable[[bool, torch.Tensor], Any]
"""Whether it is compiled, and hidden values from 0 to 1 → the output."""


def checked(forward: Forward, **settings: Any) -> Any:
    """Return what building a case with torch.compile gave; of a module that can tell whether it is compiled."""

    class Net(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            return forward(torch.compiler.is_compiling(), torch.sigmoid(x))

    def factory() -> Any:
        return Net().eval(), torch.linspace(-3, 3, 1024).reshape(64, 16)

    torch._dynamo.reset()
    case = Case(Model("net", factory, ()), Settings(frontend="aot_eager", **settings))
    return reference.checked(case, "cpu", lambda _step: None)[1]


WRONG: dict[str, tuple[Forward, str]] = {
    "scores are zero beside boxes in pixels": (
        lambda wrong, y: (y * 1000 + 100, y[:, 0] * (0.0 if wrong else 1.0)),
        "output[1] differs from eager: 64 of 64 values are off by more than 0.1 %, relative L2 1.00e+00 (at most",
    ),
    "the imaginary part has another sign": (
        lambda wrong, y: torch.complex(y, -y if wrong else y),
        "output differs from eager: 1024 of 1024 values",
    ),
    "another dtype": (lambda wrong, y: y if wrong else y.double(), "output differs from eager: its dtype is float32"),
    "keys in another order": (
        lambda wrong, y: {"mask": y, "logits": y} if wrong else {"logits": y, "mask": y},
        'output["logits"] differs from eager: it is item 1 of its dict',
    ),
    "another key": (lambda wrong, y: {"b": y} if wrong else {"a": y}, 'output["a"] differs from eager: it is not in'),
    "another number": (lambda wrong, y: (y, 7 if wrong else 3), "output[1] differs from eager: it is 7, eager's 3"),
    "a field of a dataclass": (
        lambda wrong, y: Result(y * (0.0 if wrong else 1.0)),
        "output.logits differs from eager: 1024 of 1024 values",
    ),
    "one boolean": (lambda wrong, y: y > (0.501 if wrong else 0.5), "differs from eager: 1 of 1024 values differ"),
    "another mask": (
        lambda wrong, y: y.masked_fill(y < (0.301 if wrong else 0.299), -math.inf),
        "output differs from eager: 1 of 1024 values are NaN or infinite where",
    ),
    "one wrong row of 64": (
        lambda wrong, y: torch.cat([y[:31], y[:1] if wrong else y[31:32], y[32:]]),
        "slice [31]",
    ),
}  # fmt: skip

RIGHT: dict[str, tuple[Forward, dict[str, int]]] = {
    "nothing": (lambda _, y: None, {"other": 1}),
    "empty": (lambda _, y: (y[:0], y.new_zeros(0, 4)), {"floating-point": 2}),
    "zeros": (lambda _, y: (y - y,), {"floating-point": 1}),
    "infinite where a mask forbids": (lambda _, y: y.masked_fill(y < 0.3, -math.inf), {"floating-point": 1}),
    "of many kinds": (lambda _, y: Result([y, y > 0.5], {"size": y.shape[0]}), {"floating-point": 1, "integer": 2}),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_output_is_refused_and_the_leaf_named(name: str) -> None:
    forward, said = WRONG[name]
    with pytest.raises(TrtgateError) as found:
        checked(forward)
    assert str(found.value).startswith("case net-aot_eager-fp32: output")
    assert said in str(found.value)
    assert str(found.value).endswith("; nothing was timed or stored (docs: wrong-output)")


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_output_is_taken_and_what_was_compared_counted(name: str) -> None:
    forward, leaves = RIGHT[name]
    build = checked(forward)
    assert (build.leaf_error, build.leaves) == (0.0, leaves)


def test_an_output_that_can_not_be_taken_apart_is_refused_in_one_line() -> None:
    with pytest.raises(
        TrtgateError, match=r"^model 'net': eager's own output: output\[1\]: a set can't be taken apart"
    ):
        checked(lambda _, y: (y, {1}))
    with pytest.raises(TrtgateError, match=r"^model 'net': eager's own output has NaN values in output\[1\]; seed"):
        checked(lambda _, y: (y, y / 0 - y / 0))


# Tolerances of single tensors


def nearly_right(wrong: bool, y: torch.Tensor) -> Any:
    return {"boxes": y, "scores": y * (1.01 if wrong else 1.0), "classes": (y > (0.501 if wrong else 0.5)).long()}


def test_tolerances_of_a_suite_are_for_the_tensors_they_name() -> None:
    build = checked(nearly_right, tolerances={"scores": 0.02, "classes": 0.001})
    assert build.leaf_error == pytest.approx(0.01, rel=1e-3)
    with pytest.raises(TrtgateError, match=r'output\["classes"\] differs from eager: 1 of 1024 values differ'):
        checked(nearly_right, tolerances={"scores": 0.02})
    with pytest.raises(TrtgateError, match=r'output\["scores"\] differs .* relative L2 1.00e-02 \(at most 5e-03\)'):
        checked(nearly_right, tolerances={"scores": 0.005, "classes": 0.001})


def test_a_tolerance_of_no_tensor_is_an_error_with_those_there_are() -> None:
    said = r"^case net-aot_eager-fp32: tolerances: no leaf of the output is 'score'; there are: output\[\"boxes\"\], "
    with pytest.raises(TrtgateError, match=said):
        checked(nearly_right, tolerances={"score": 0.02})


def test_tolerances_are_given_to_a_model_or_a_row_of_its_grid() -> None:
    @trtgate.model(frontends=("eager",), precisions=("fp32",), tolerances={"scores": 1})
    def net() -> Any:
        raise NotImplementedError

    (settings,) = net.settings
    assert settings.tolerances == {"scores": 1.0}
    assert settings == trtgate.grid(["eager"], tolerances={"scores": 1})[0]
    assert settings.suffix == Settings(frontend="eager").suffix


@pytest.mark.parametrize(
    "bad",
    [
        *({"scores": value} for value in (-1, math.nan, math.inf, "1%", True, None)),
        {"": 1},
        {1: 1},
        [("a", 1)],
        "scores",
    ],
)
def test_what_is_no_tolerance_is_refused(bad: Any) -> None:
    for made in (lambda: Settings(frontend="eager", tolerances=bad), lambda: trtgate.grid(["eager"], tolerances=bad)):
        with pytest.raises(TrtgateError, match=r"^tolerances"):
            made()


def test_wrong_outputs_fail_a_run_and_right_ones_are_measured(folder: Any) -> None:
    folder.suite(more=SUITE)
    done = folder.gate("-m", "trtgate_latency")
    done.assert_outcomes(passed=3, failed=2)
    done.stdout.fnmatch_lines(
        [
            "*case dataclass_out-aot_eager-fp32: output.logits differs from eager: 8 of 8 values*nothing was timed*",
            "*case unknown-aot_eager-fp32: tolerances: no leaf of the output is 'scores'; there are: output[[]0[]]*",
        ]
    )
    assert folder.saved_cases() == {f"{name}-aot_eager-fp32" for name in ("masked", "nothing", "empty")}


SUITE = """
import dataclasses


@dataclasses.dataclass
class Result:
    logits: object
    loss: object = None


def of(name, forward, **more):
    def factory():
        import torch

        return made(lambda x: forward(torch.compiler.is_compiling(), x), torch.linspace(0.1, 1.0, 8))

    return trtgate.Model(name, factory, trtgate.grid(["aot_eager"], **more))


MODELS = [
    of("dataclass_out", lambda wrong, x: Result(x * (0.0 if wrong else 1.0))),
    of("unknown", lambda wrong, x: (x, x), tolerances={"scores": 0.1}),
    of("masked", lambda wrong, x: x.masked_fill(x < 0.3, -float("inf"))),
    of("nothing", lambda wrong, x: None),
    of("empty", lambda wrong, x: (x[:0], 3)),
]
"""
