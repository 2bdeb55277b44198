"""Which axes of which inputs belong to a dynamic dimension: found from shapes, as torch.export takes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils import _pytree as pytree

from trtgate.common.errors import TrtgateError
from trtgate.suite import model_inputs
from trtgate.suite.model_inputs import Inputs
from trtgate.torch_trt.dynamic_inputs import DynamicInputs, ProfileShapes, Term, find

SEQ = {"seq": ((16, 128, 512),)}


def of(*shapes: Callable[..., tuple[int, ...]]) -> Callable[[dict[str, int]], Inputs]:
    """Return what makes inputs of shapes that are functions of the sizes."""
    return lambda sizes: Inputs(tuple(torch.empty(shape(**sizes), device="meta") for shape in shapes))


def found(*shapes: Callable[..., tuple[int, ...]], dynamic: Any = SEQ, **static: int) -> DynamicInputs:
    optimum = {**static, **{name: ranges[0][1] for name, ranges in dynamic.items()}}
    return find(of(*shapes), optimum, dynamic)


def test_axes_that_change_with_a_dimension_belong_to_it() -> None:
    dynamic = found(lambda batch, seq: (batch, seq), lambda batch, seq: (batch, 1, seq, seq), batch=2)
    assert dynamic.terms == ({1: Term("seq")}, {2: Term("seq"), 3: Term("seq")})
    assert dynamic.bounds == {"seq": (16, 512)}
    assert dynamic.shapes[1] == (ProfileShapes((2, 1, 16, 16), (2, 1, 128, 128), (2, 1, 512, 512)),)
    assert [tuple(one.shape) for one in dynamic.example.tensors] == [(2, 128), (2, 1, 128, 128)]
    assert dynamic.bounds_of(1) == {2: (16, 512), 3: (16, 512)}


def test_two_dimensions_are_told_apart_also_where_they_have_the_same_size() -> None:
    dynamic = found(lambda batch, seq: (batch, seq), dynamic={"batch": ((1, 8, 16),), "seq": ((4, 8, 64),)})
    assert dynamic.terms == ({0: Term("batch"), 1: Term("seq")},)
    assert dynamic.shapes == ((ProfileShapes((1, 4), (8, 8), (16, 64)),),)


@pytest.mark.parametrize(
    ("shapes", "terms", "bounds"),
    [
        ([lambda seq: (seq,), lambda seq: (seq + 1,)], [Term("seq"), Term("seq", 1, 1)], (16, 512)),
        ([lambda seq: (2 * seq,), lambda seq: (seq,)], [Term("seq", 2), Term("seq")], (16, 512)),
        ([lambda seq: (3 * seq - 1,)], [Term("seq", 3, -1)], (16, 512)),  # a video's frames are 4 * n + 1
        ([lambda seq: (8 * seq, 8 * seq)], [Term("seq", 8)], (16, 512)),  # so that it is known to be even
        ([lambda seq: (seq // 2,)], [Term("seq")], (8, 256)),
        ([lambda seq: (seq // 2,), lambda seq: (seq,)], [Term("seq"), Term("seq", 2)], (8, 256)),
        ([lambda seq: (seq * seq,)], [Term("seq")], (256, 262144)),
        ([lambda seq: (2 * seq,), lambda seq: (3 * seq,)], [Term("seq", 2), Term("seq", 3)], (16, 512)),
    ],
)  # fmt: skip
def test_an_axis_may_be_a_multiple_plus_a_constant(shapes: list[Any], terms: list[Term], bounds: Any) -> None:
    dynamic = found(*shapes)
    assert [axes[0] for axes in dynamic.terms] == terms
    assert dynamic.bounds == {"seq": bounds}


def test_each_optimization_profile_has_its_shapes() -> None:
    dynamic = found(lambda seq: (1, seq), dynamic={"seq": ((1, 8, 16), (17, 128, 512))})
    assert dynamic.shapes == ((ProfileShapes((1, 1), (1, 8), (1, 16)), ProfileShapes((1, 17), (1, 128), (1, 512))),)
    assert dynamic.bounds_of(0) == {1: (1, 512)}


def test_an_optimum_of_one_is_traced_at_two_which_export_takes_for_no_constant() -> None:
    dynamic = found(lambda batch: (batch, 3), dynamic={"batch": ((1, 1, 8),)})
    assert dynamic.example.args[0].shape == (2, 3)
    assert dynamic.shapes == ((ProfileShapes((1, 3), (1, 3), (8, 3)),),)


@pytest.mark.parametrize(
    ("shapes", "dynamic", "said"),
    [
        ([lambda seq: (4, 8)], SEQ, "dimension 'seq' changes no input: their shapes are the same at seq 16 and"),
        (
            [lambda batch, seq: (batch * seq,)], {"batch": ((1, 2, 4),), **SEQ},
            r"axis 0 of input args\[0\] changes with batch and with seq",
        ),
        ([lambda seq: (seq,), lambda seq: (min(seq, 64),)], SEQ, r"of input args\[1\] is 16, 64, 64 at seq 16, 128, "),
        ([lambda seq: (seq,), lambda seq: (600 - seq,)], SEQ, r"input args\[1\] is 584, 472, 88 at seq"),
        ([lambda seq: (seq,) * (1 + seq // 128)], SEQ, "of 2 axes at seq=128, and torch.float32 of 1 at seq=16"),
        ([lambda seq: (seq - 1,)], {"seq": ((2, 2, 8),)}, "is 1 at seq=2, and torch.export takes a size of 1"),
    ],
)  # fmt: skip
def test_what_export_can_not_be_told_is_refused_by_name(shapes: list[Any], dynamic: Any, said: str) -> None:
    with pytest.raises(TrtgateError, match=said):
        found(*shapes, dynamic=dynamic)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda sizes: {"x": torch.empty(4), "length": sizes["seq"]}, "input length is 128 at seq=128 and 16"),
        (lambda sizes: [torch.empty(4)] * sizes["seq"], "at seq=16 are nested in another way than at seq=128"),
        (lambda sizes: (torch.empty(4), None if sizes["seq"] < 99 else torch.empty(4)), "only sizes of tensors"),
        (lambda sizes: torch.empty(sizes["seq"], dtype=torch.int64 if sizes["seq"] > 99 else None), "can't take both"),
    ],
)  # fmt: skip
def test_only_sizes_of_tensors_may_change(made: Callable[..., Any], said: str) -> None:
    with pytest.raises(TrtgateError, match=said):
        find(lambda sizes: model_inputs.of_value(made(sizes), "m"), {"seq": 128}, SEQ)


def test_a_constant_that_is_not_equal_to_itself_is_the_same_at_all_sizes() -> None:
    dynamic = find(lambda sizes: Inputs((torch.empty(sizes["seq"]), float("nan"))), {"seq": 128}, SEQ)
    assert dynamic.terms == ({0: Term("seq")},)


class Keyless:
    def __init__(self, x: torch.Tensor) -> None:
        self.x = x


pytree.register_pytree_node(Keyless, lambda one: ([one.x], None), lambda held, _context: Keyless(*held))


def test_inputs_may_be_of_a_class_that_is_registered_without_keys() -> None:
    dynamic = find(lambda sizes: Inputs((Keyless(torch.empty(sizes["seq"])),)), {"seq": 128}, SEQ)
    assert dynamic.terms == ({0: Term("seq")},)


def test_what_the_model_says_of_its_dynamic_shapes_is_taken_and_only_shapes_are_looked_at() -> None:
    given = ({0: "whatever torch.export takes"},)
    both = {"batch": ((1, 2, 4),), "seq": ((4, 8, 16),)}
    dynamic = find(of(lambda batch, seq: (batch * seq, 3)), {"batch": 2, "seq": 8}, both, given)
    assert dynamic.dynamic_shapes is given
    assert dynamic.shapes == ((ProfileShapes((4, 3), (16, 3), (64, 3)),),)
    assert dynamic.bounds_of(0) == {0: (4, 64)}


def test_a_dimension_of_no_input_is_refused_whatever_the_model_says() -> None:
    both = {"batch": ((1, 2, 4),), "seq": ((4, 8, 16),)}
    with pytest.raises(
        TrtgateError, match="dimension 'batch' changes no input: their shapes are the same at batch 1 and 4"
    ):
        find(of(lambda batch, seq: (seq, 3)), {"batch": 2, "seq": 8}, both, ({0: "anything"},))


def test_the_size_that_is_measured_must_fit_what_torch_export_is_told() -> None:
    made = of(lambda seq: (seq,), lambda seq: (seq // 2,))
    assert find(made, {"seq": 128}, SEQ, measured={"seq": 18}).terms == ({0: Term("seq", 2)}, {0: Term("seq")})
    with pytest.raises(TrtgateError, match=r"input args\[1\] is 8, 8, 64, 256 at seq 16, 17, 128, 512"):
        find(made, {"seq": 128}, SEQ, measured={"seq": 17})
