"""What counts as a right output."""

from __future__ import annotations

import math

import pytest
import torch

from trtgate.compiling import output_check


def test_equal_outputs_have_no_error() -> None:
    out = {"a": torch.randn(4, 5), "b": [torch.arange(3)]}
    found = output_check.compare(out, {"a": out["a"].clone(), "b": [torch.arange(3)]})
    assert (found.relative_l2, found.cosine) == (0.0, pytest.approx(1.0))
    assert found.problem("fp32") == ""


def test_rounding_passes_and_a_wrong_scale_does_not() -> None:
    eager = torch.randn(1000, dtype=torch.float64)
    assert output_check.compare(eager, eager * (1 + 2e-4)).problem("fp32") == ""
    assert "relative L2" in output_check.compare(eager, eager * 1.01).problem("fp32")
    assert output_check.compare(eager, eager.half()).problem("fp16") == ""


def test_a_permuted_output_fails_although_its_norm_is_right() -> None:
    eager = torch.randn(1000)
    assert "cosine" in output_check.compare(eager, eager.flip(0)).problem("fp16")


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_one_value_that_is_not_finite_fails(bad: float) -> None:
    out = torch.zeros(10)
    out[3] = bad
    assert not output_check.all_finite((out, [torch.ones(2)]))
    assert "NaN or infinite" in output_check.compare(torch.zeros(10), out).problem("fp16")


def test_another_shape_or_number_of_outputs_fails() -> None:
    one = torch.ones(4)
    assert output_check.compare(one, torch.ones(5)).problem("fp16")
    assert output_check.compare(one, (one, one)).problem("fp16")


def test_a_zero_reference_accepts_only_zero() -> None:
    assert output_check.compare(torch.zeros(3), torch.zeros(3)).problem("fp32") == ""
    assert output_check.compare(torch.zeros(3), torch.ones(3)).problem("fp32")
