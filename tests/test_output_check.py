"""What counts as a right output: every leaf of it is compared with eager's."""

from __future__ import annotations

import collections
import copy
import dataclasses
import enum
import math
from typing import Any, NamedTuple

import msgspec
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing._internal.two_tensor import TwoTensor
from torch.utils import _pytree as pytree

from trtgate.common.errors import TrtgateError
from trtgate.compiling import output_check
from trtgate.compiling.output_check import TOLERANCES, compare
from trtgate.suite import pytree_classes

SCORES = torch.linspace(0.1, 1.0, 64)
ROWS = torch.randn(64, 16, generator=torch.Generator().manual_seed(0))


def problem(eager: Any, compiled: Any, arithmetic: str = "fp32", /, **tolerances: float) -> str:
    return compare(eager, compiled).problem(arithmetic, tolerances)


class Pair(NamedTuple):
    left: Any
    right: Any


@dataclasses.dataclass
class Result:
    logits: Any
    hidden: Any = None


@dataclasses.dataclass
class ModelOutput(collections.OrderedDict):
    """As Hugging Face's: a dataclass and a mapping, without the fields that are None."""

    logits: Any = None
    loss: Any = None

    def __post_init__(self) -> None:
        for name in ("logits", "loss"):
            if getattr(self, name) is not None:
                self[name] = getattr(self, name)


class Slotted:
    __slots__ = ("boxes", "never_set")

    def __init__(self, boxes: Any) -> None:
        self.boxes = boxes


class Plain:
    def __init__(self, **fields: Any) -> None:
        vars(self).update(fields)


class Record(msgspec.Struct):
    mask: Any


class Registered:
    """A pytree class: its flatten says what belongs to it."""

    def __init__(self, kept: Any, size: int) -> None:
        self.kept, self.size, self.lock = kept, size, print


pytree.register_pytree_node(
    Registered, lambda one: ([one.kept], one.size), lambda children, size: Registered(*children, size),
    serialized_type_name="test_output_check.Registered",
)  # fmt: skip


class Color(enum.Enum):
    RED = 1
    GREEN = 2


# What an output consists of


@pytest.mark.parametrize(
    ("output", "paths"),
    [
        (SCORES, ["output"]),
        (None, ["output"]),
        ((), []),
        ((1, [True, "a"]), ["output[0]", "output[1][0]", "output[1][1]"]),
        ({"scores": 1.0, "x y": {2: 1j}}, ['output["scores"]', 'output["x y"][2]']),
        ({(3, "a"): 1, None: 2}, ["output[(3, 'a')]", "output[None]"]),
        ({Color.RED: 1, Plain(): 2}, ["output[<Color.RED: 1>]", "output[<Plain 1>]"]),
        (Pair(1, (2,)), ["output.left", "output.right[0]"]),
        (torch.ones(2, 2).max(1), ["output.values", "output.indices"]),
        (Result(1), ["output.logits", "output.hidden"]),
        ((Result(1), ModelOutput(logits=2)), ["output[0].logits", "output[0].hidden", "output[1].logits"]),
        (Slotted(1), ["output.boxes"]),
        (Plain(b=1, a=2), ["output.a", "output.b"]),
        (Record(1), ["output.mask"]),
        (Registered(1, 7), ["output[0]"]),
        (collections.deque([1, 2]), ["output[0]", "output[1]"]),
        (torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged), ["output[0]", "output[1]"]),
        (torch.Size([3]), ["output[0]"]),
        ((torch.float16, torch.device("cpu"), Color.RED, b"x", Plain), [f"output[{number}]" for number in range(5)]),
    ],
)  # fmt: skip
def test_leaves_have_paths(output: Any, paths: list[str]) -> None:
    assert [path for path, _ in output_check.leaves(output)] == paths
    assert problem(output, output) == ""


def test_an_output_inside_itself_is_no_endless_one() -> None:
    def endless(second: Any) -> Any:
        output: dict[str, Any] = {"x": SCORES}
        output["self"] = [output, second]
        return output

    assert problem(endless(1), endless(1)) == ""
    assert 'output["self"][1]' in problem(endless(1), endless(2))
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(TrtgateError, match="nested more than 200 deep"):
        output_check.leaves(deep)


@pytest.mark.parametrize(
    "whole",
    [print, iter([1]), {1, 2}, Plain(), torch.nn.ReLU(), object(), torch.Generator(), torch.ones(2).numpy(), lambda: 1],
)
def test_what_can_not_be_taken_apart_is_refused_with_path_and_class(whole: Any) -> None:
    with pytest.raises(TrtgateError, match=rf'^output\["a"\]\.b: a {type(whole).__qualname__} can\'t be taken apart'):
        output_check.leaves({"a": Plain(b=whole)})


# Containers


@pytest.mark.parametrize(
    ("eager", "output", "said"),
    [
        ([SCORES], (SCORES,), "output differs from eager: it is a tuple, eager's a list"),
        (SCORES, [SCORES], "output differs from eager: it is a list, eager's a tensor"),
        ((SCORES, 1), (SCORES, [1]), "output[1] differs from eager: it is a list, eager's an int"),
        ((SCORES, None), (SCORES,), "output[1] differs from eager: it is not in the output"),
        ((SCORES,), (SCORES, SCORES), "output[1] differs from eager: eager's output has none"),
        (Pair(1, 2), (1, 2), "output differs from eager: it is a tuple, eager's a Pair"),
        ({"a": SCORES}, {"b": SCORES}, 'output["a"] differs from eager: it is not in the output; output["b"] is'),
        ({1: SCORES}, {"1": SCORES}, "output[1] differs from eager: it is not in the output"),
        (
            {"logits": SCORES, "mask": SCORES}, {"mask": SCORES, "logits": SCORES},
            'output["logits"] differs from eager: it is item 1 of its dict, eager\'s is item 0',
        ),
        (ModelOutput(logits=SCORES), ModelOutput(logits=SCORES, loss=SCORES), "output.loss differs from eager"),
        (Registered(SCORES, 7), Registered(SCORES, 8), "output differs from eager: it is a Registered(8)"),
        (Slotted(SCORES), Record(SCORES), "output differs from eager: it is a Record, eager's a Slotted"),
    ],
)  # fmt: skip
def test_other_containers_are_wrong_although_their_values_are_right(eager: Any, output: Any, said: str) -> None:
    found = compare(eager, output)
    assert found.problem("fp8").startswith(said)
    assert found.leaf_error == math.inf


@pytest.mark.parametrize("register", [pytree_classes.register, torch.export.register_dataclass])
def test_a_field_of_a_registered_dataclass_that_is_none_in_one_alone_is_named(register: Any) -> None:
    """Registering leaves out fields that are None."""

    @dataclasses.dataclass
    class Jagged:
        values: Any
        weights: Any = None
        length: Any = dataclasses.field(init=False, default=0)

    register(Jagged)
    assert problem(Jagged(SCORES), Jagged(SCORES)) == ""
    assert problem(Jagged(SCORES), Jagged(SCORES, SCORES)).startswith("output.weights differs from eager")
    assert problem(Jagged(SCORES, SCORES), Jagged(SCORES)).startswith("output.weights differs from eager")
    longer = Jagged(SCORES)
    longer.length = 1
    said = problem(Jagged(SCORES), longer)  # whoever registers it may leave out fields on purpose
    assert said.startswith("output.length differs from eager: it is 1, eager's 0") == pytree_classes.is_ours(Jagged)


def test_what_fx_puts_for_lists_and_dicts_is_none_else() -> None:
    from torch.fx.immutable_collections import immutable_dict, immutable_list

    assert problem([{"a": 1}], immutable_list([immutable_dict({"a": 1})])) == ""


# Attributes beside items


class NamedPair(Pair):
    """A namedtuple with a `__dict__`."""


class Items(dict):
    pass


class Rows(list):
    pass


class Row(tuple):
    pass


class Last(collections.deque):
    pass


class Slots(list):
    __slots__ = ("aux",)


class AttributeDict(dict):
    """Its items are its attributes."""

    def __init__(self, **items: Any) -> None:
        super().__init__(**items)
        self.__dict__ = self


class Told(dict):
    """A dict that pytree knows: its flatten says that a lock is no part of it."""


pytree.register_pytree_node(
    Told, lambda one: (list(one.values()), list(one)),
    lambda children, keys: Told(zip(keys, children, strict=True)),
    serialized_type_name="test_output_check.Told",
)  # fmt: skip


@dataclasses.dataclass
class Boxes(list):
    scores: Any = None


def beside(container: Any, **attributes: Any) -> Any:
    for name, value in attributes.items():
        setattr(container, name, value)
    return container


CONTAINERS = [
    pytest.param(lambda: Items(logits=SCORES), id="dict"),
    pytest.param(lambda: Rows([SCORES]), id="list"),
    pytest.param(lambda: Row([SCORES]), id="tuple"),
    pytest.param(lambda: NamedPair(SCORES, 1), id="namedtuple"),
    pytest.param(lambda: Last([SCORES]), id="deque"),
    pytest.param(lambda: Slots([SCORES]), id="list with slots"),
    pytest.param(lambda: collections.UserDict(logits=SCORES), id="UserDict"),
    pytest.param(lambda: AttributeDict(logits=SCORES), id="dict whose items are attributes"),
    pytest.param(lambda: Told(logits=SCORES), id="registered dict"),
    pytest.param(lambda: ModelOutput(logits=SCORES), id="dataclass that is a dict"),
    pytest.param(lambda: Result(SCORES), id="dataclass"),
]


@pytest.mark.parametrize("made", CONTAINERS)
def test_attributes_beside_the_items_or_fields_of_a_container_are_compared(made: Any) -> None:
    def with_(aux: Any) -> Any:
        return (beside(made(), aux=aux),)

    for aux in (SCORES, 3, [1, {"deep": SCORES}]):
        assert problem(with_(aux), with_(copy.deepcopy(aux))) == ""
    assert "aux" in problem(with_(SCORES), with_(SCORES * 2))
    assert "aux" in problem(with_(3), with_(4))
    assert "aux" in problem(with_(3), (made(),))
    assert "aux" in problem((made(),), with_(3))


@pytest.mark.parametrize("made", CONTAINERS)
def test_the_items_are_compared_once_though_attributes_hold_them_too(made: Any) -> None:
    held = [value for _, value in output_check.leaves(made()) if isinstance(value, torch.Tensor)]
    assert len(held) == 1
    assert problem((made(),), (copy.deepcopy(made()),)) == ""


def test_a_dataclass_that_is_a_list_has_fields_and_items() -> None:
    output = Boxes(SCORES)
    output.append(1)
    assert [path for path, _ in output_check.leaves(output)] == ["output[0]", "output.scores"]


def test_an_attribute_that_can_not_be_taken_apart_is_refused_unless_the_class_is_registered_without_it() -> None:
    with pytest.raises(TrtgateError, match=r"^output\.lock: a \w+ can't be taken apart"):
        output_check.leaves(beside(Items(logits=SCORES), lock=print))
    assert problem(beside(Told(logits=SCORES), lock=print), beside(Told(logits=SCORES), lock=iter([]))) == ""


@pytest.mark.parametrize("declared", [False, True])
@pytest.mark.parametrize("base", [set, frozenset, bytearray])
def test_a_subclass_of_what_can_not_be_taken_apart_can_not_be_either(base: Any, declared: bool) -> None:
    """Else its attributes would be compared, and what it holds would not."""
    own = dataclasses.dataclass(type("Own", (base,), {})) if declared else type("Own", (base,), {})
    with pytest.raises(TrtgateError, match=r"output: a Own can't be taken apart"):
        output_check.leaves(beside(own(), aux=3))


# Keys


LONG = [tuple(range(count)) for count in (400, 401)]
NANS = [float("nan"), float("nan")]


@pytest.mark.parametrize(
    "keys",
    [
        LONG,
        [(*LONG[0][:200], 7, *LONG[0][201:]), LONG[0]],
        [b"x" * 400, b"x" * 200 + b"y" + b"x" * 199],
        [frozenset(LONG[0]), frozenset(LONG[1])],
        ["x" * 400, "x" * 401],
        NANS,
        [Plain(), Plain()],
        [(Plain(), 1), (Plain(), 1)],
    ],
    ids=lambda keys: type(keys[0]).__name__,
)
def test_keys_are_told_apart_however_long_they_are(keys: list[Any]) -> None:
    eager, output = dict.fromkeys(keys, 1), dict.fromkeys(keys, 1)
    paths = [path for path, _ in output_check.leaves(eager)]
    assert len(set(paths)) == len(paths) == 2
    assert problem(eager, output) == ""
    for key in keys:
        said = problem(eager, {**output, key: 2})
        assert "it is 2, eager's 1" in said
        assert len(said) < 300


def test_another_long_key_is_another() -> None:
    said = problem({LONG[0]: 1}, {LONG[1]: 1})
    assert "is not in the output" in said
    assert len(said) < 600
    first, second = (Registered(SCORES, "x" * 100 + middle + "x" * 100) for middle in "ab")  # type: ignore[arg-type]
    said = problem(first, second)
    assert said
    assert len(said) < 400


def test_a_key_is_shown_alike_in_every_process() -> None:
    """Which order a frozenset has, and where an object lies, a fresh process decides anew."""
    paths = [path for path, _ in output_check.leaves({frozenset({"b", "a"}): 1, (Plain(), frozenset({2, 1})): 2})]
    assert paths == ["output[frozenset({'a', 'b'})]", "output[<tuple 1>]"]


# Kinds of leaves


@pytest.mark.parametrize(
    ("eager", "output", "said"),
    [
        (SCORES.double(), SCORES, "output differs from eager: its dtype is float32, eager's float64"),
        (SCORES, SCORES[:63], "its shape is (63,), eager's (64,)"),
        (SCORES, SCORES.to("meta"), "its device is meta, eager's cpu"),
        (SCORES.to("meta"), SCORES.to("meta"), "it has no values"),
        (ROWS, ROWS.to_sparse(), "its layout is sparse_coo, eager's strided"),
        (3, 7, "output differs from eager: it is 7, eager's 3"),
        (3, 3.0, "it is of class float, eager's of class int"),
        (True, 1, "it is of class int, eager's of class bool"),
        (0.5, torch.tensor(0.5), "it is a tensor, eager's of class float"),
        (None, 0, "it is of class int, eager's None"),
        ("cat", "dog", "it is 'dog', eager's 'cat'"),
        (Color.RED, Color.GREEN, "it is <Color.GREEN: 2>, eager's <Color.RED: 1>"),
        (2**60, 2**60 + 1, f"it is {2**60 + 1}, eager's {2**60}"),
        (0.5, 0.6, "output differs from eager: 1 of 1 values are off by more than 0.1 %, relative L2 2.00e-01"),
        (0.5, math.nan, "1 of 1 values are NaN or infinite"),
        (torch.tensor(2), torch.tensor(3), "1 of 1 values differ"),
        (SCORES > 0.5, SCORES > 0.52, "output differs from eager: 1 of 64 values differ"),
    ],
)
def test_every_kind_of_value_is_compared(eager: Any, output: Any, said: str) -> None:
    assert said in problem(eager, output)


FLOATS = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2,
    torch.float8_e4m3fnuz, torch.float8_e5m2fnuz,
]  # fmt: skip
INTEGERS = [
    torch.bool,
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.uint16,
    torch.int32,
    torch.uint32,
    torch.int64,
    torch.uint64,
]


@pytest.mark.parametrize("dtype", [*FLOATS, *INTEGERS, torch.complex64, torch.complex128], ids=str)
def test_every_dtype_is_compared(dtype: torch.dtype) -> None:
    eager, output = (torch.tensor([0, 1, 1, first]).to(dtype) for first in (0, 1))
    assert problem(eager, eager.clone(), "fp8") == ""
    assert problem(eager, output, "fp8") != ""


def test_the_largest_integers_differ_by_one() -> None:
    assert problem(torch.tensor([2**62]), torch.tensor([2**62 + 1]))
    assert problem(torch.tensor([2**64 - 1], dtype=torch.uint64), torch.tensor([2**64 - 2], dtype=torch.uint64))


def test_bits_that_torch_can_not_convert_are_compared() -> None:
    one, other = (torch.tensor([1, byte], dtype=torch.uint8) for byte in (2, 3))
    for dtype in (torch.float4_e2m1fn_x2, torch.bits8):
        assert problem(one.view(dtype), one.clone().view(dtype)) == ""
        assert "1 of 2 values differ" in problem(one.view(dtype), other.view(dtype))


def quantized(scale: float) -> torch.Tensor:
    return torch.quantize_per_tensor(torch.ones(8), scale, 0, torch.quint8)


class Tagged(torch.Tensor):
    """A subclass that wraps what is computed with it."""


class Closed(torch.Tensor):
    """A subclass that nothing can be computed with."""

    @classmethod
    def __torch_function__(cls, function: Any, *_given: Any, **_more: Any) -> Any:
        raise NotImplementedError(function)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    "made",
    [
        lambda factor: (ROWS * factor).to_sparse(),
        lambda factor: (ROWS * factor).to_sparse_csr(),
        lambda factor: quantized(factor / 10),
        lambda factor: (SCORES * factor).requires_grad_(),
        lambda factor: torch.nn.Parameter(SCORES * factor),
        lambda factor: (SCORES * factor).as_subclass(Tagged),
        lambda factor: (SCORES * factor).as_subclass(Closed),
        lambda factor: TwoTensor(SCORES * factor, SCORES),
        lambda factor: TwoTensor(SCORES, SCORES * factor),
        lambda factor: torch.tensor([factor]).expand(5, 64),
        lambda factor: (ROWS * factor).t()[::2],
        lambda factor: torch.complex(SCORES, SCORES * factor).conj(),
        lambda factor: torch.complex(SCORES, SCORES * factor).conj().imag,
        lambda factor: torch.nested.nested_tensor([SCORES, SCORES[:3] * factor], layout=torch.jagged),
    ],
)
def test_every_form_of_tensor_is_compared(made: Any) -> None:
    assert problem(made(1.0), made(1.0)) == ""
    assert problem(made(1.0), made(1.5), "fp16") != ""


def test_what_a_wrapper_holds_is_compared_by_name() -> None:
    eager = TwoTensor(SCORES, SCORES)
    assert problem([eager], [TwoTensor(SCORES, SCORES * 2)]).startswith(
        "output[0].b differs from eager: 64 of 64 values"
    )
    assert problem(eager, SCORES).startswith("output differs from eager: it is a tensor, eager's a TwoTensor")
    assert "TwoTensor of shape (64,), float64" in problem(TwoTensor(SCORES.double(), SCORES.double()), eager)


# Values that are not finite


def test_values_that_are_not_finite_must_be_alike() -> None:
    eager = SCORES.masked_fill(SCORES < 0.3, -math.inf)
    eager[60:] = torch.tensor([math.inf, math.nan, 1.0, 2.0])
    assert compare(eager, eager.clone()).leaf_error == 0.0
    assert problem(eager, eager.clone()) == ""
    for place, other in ((0, 0.0), (0, math.inf), (0, math.nan), (20, -math.inf), (20, math.nan), (60, -math.inf)):
        output = eager.clone()
        output[place] = other
        assert "output differs from eager: 1 of 64 values are NaN or infinite" in problem(eager, output, "fp8")
    assert problem((math.nan, -math.inf), (math.nan, -math.inf)) == ""


def test_the_finite_values_beside_infinite_ones_are_compared() -> None:
    eager, output = (torch.tensor([-math.inf, 1.0, last]) for last in (2.0, 3.0))
    assert "1 of 3 values are off" in problem(eager, output, "fp16")


@pytest.mark.parametrize(
    "output", [SCORES.masked_fill(SCORES < 0.3, -math.inf), None, (SCORES[:0], 3), (True, math.nan)]
)
def test_masked_empty_and_absent_outputs_of_eager_can_be_compared_with(output: Any) -> None:
    output_check.check_reference(output, "eager's output")


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ((SCORES, torch.tensor([0.0, math.nan])), "eager's output has NaN values in output[1]; seed its weights"),
        ({"a": torch.complex(torch.zeros(1), torch.tensor([math.nan]))}, "has NaN values in output"),
        (torch.full((3,), -math.inf), "eager's output has infinite values only in output; seed"),
        ((SCORES, {1}), "eager's output: output[1]: a set can't be taken apart"),
    ],
)
def test_an_output_of_eager_that_proves_nothing_is_refused(output: Any, said: str) -> None:
    with pytest.raises(TrtgateError) as found:
        output_check.check_reference(output, "eager's output")
    assert said in str(found.value)


# Floating-point values


def test_each_leaf_is_held_to_its_own_size() -> None:
    boxes = SCORES * 1000
    found = compare({"boxes": boxes, "scores": SCORES}, {"boxes": boxes, "scores": SCORES * 0})
    assert found.leaf_error == 1.0
    assert found.problem("fp32").startswith(
        'output["scores"] differs from eager: 64 of 64 values are off by more than 0.1 %, '
        "relative L2 1.00e+00 (at most 1e-03)"
    )


def test_the_worst_leaf_is_named_and_others_are_counted() -> None:
    eager = (SCORES, SCORES, SCORES, SCORES)
    assert problem(eager, (SCORES, SCORES * 1.1, SCORES * 2, SCORES)).startswith("output[2] differs")
    assert problem(eager, (SCORES, SCORES * 1.1, SCORES * 2, SCORES)).endswith("; another leaf differs too")
    assert problem(eager, (SCORES * 1.1, SCORES * 1.1, SCORES, SCORES.half())).startswith("output[3] differs")
    assert problem(eager, (SCORES * 1.1, SCORES * 1.1, SCORES, SCORES.half())).endswith("; 2 other leaves differ too")


def test_rounding_passes_and_a_wrong_scale_does_not() -> None:
    eager = torch.randn(1000, dtype=torch.float64)
    assert problem(eager, eager * (1 + 2e-4)) == ""
    assert "relative L2" in problem(eager, eager * 1.01)
    assert problem(eager, eager.half().double(), "fp16") == ""


def test_a_permuted_output_fails_although_its_norm_is_right() -> None:
    eager = torch.randn(1000)
    assert "cosine" in problem(eager, eager.flip(0), "fp16")


def test_an_imaginary_part_with_another_sign_fails() -> None:
    eager = torch.complex(SCORES, SCORES * 1e-2)
    assert "64 of 64 values" in problem(eager, eager.conj())


@pytest.mark.parametrize("arithmetic", TOLERANCES)
def test_one_wrong_row_of_many_fails(arithmetic: str) -> None:
    """Of 64 rows it is 0.18 of the whole: less than what bfloat16 may be off."""
    output = ROWS.clone()
    output[5] = ROWS[6]
    found = problem(ROWS, output, arithmetic)
    assert "slice [5]" in found
    assert "slice [:, 5]" in problem(ROWS[None], output[None], arithmetic)


DETECTIONS = torch.cat(
    [
        600 * torch.rand(64, 4, generator=torch.Generator().manual_seed(0)),
        SCORES[:, None],
        torch.arange(64)[:, None] % 3,
    ],
    dim=1,
)
"""Boxes in pixels, scores and classes in one tensor."""


@pytest.mark.parametrize("column", [4, 5])
@pytest.mark.parametrize(
    "change", [lambda x: x * 0, lambda x: -x, lambda x: x.flip(0), lambda x: x * 1.5, lambda x: x + 1]
)
def test_scores_beside_boxes_in_one_tensor_are_held_to_their_own_size(change: Any, column: int) -> None:
    """All scores at zero are 7e-4 of such a tensor."""
    output = DETECTIONS.clone()
    output[:, column] = change(DETECTIONS[:, column])
    assert f"slice [:, {column}]" in problem(DETECTIONS, output)
    assert f"slice [:, :, {column}]" in problem(DETECTIONS[None].repeat(2, 1, 1), output[None].repeat(2, 1, 1))
    assert f"slice [{column}]" in problem(DETECTIONS.T, output.T)
    assert problem(DETECTIONS, output, "fp32", output=0.1) == ""


def test_scores_beside_boxes_may_be_rounded() -> None:
    assert problem(DETECTIONS, DETECTIONS + 1e-3 * torch.randn(64, 6)) == ""
    assert problem(DETECTIONS, DETECTIONS * (1 + 5e-4)) == ""


FILLS = [-1e4, -1e9, torch.finfo(torch.float32).min, torch.finfo(torch.float16).min]


@pytest.mark.parametrize("arithmetic", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("fill", FILLS)
def test_the_constant_of_a_mask_hides_no_value_beside_it(fill: float, arithmetic: str) -> None:
    """As with -inf: what is not masked is held to its own size, though the constant is a thousand times as large."""
    masked = torch.arange(16) % 2 == 0

    def filled(values: torch.Tensor) -> torch.Tensor:
        return values.masked_fill(masked, fill)

    assert not problem(filled(ROWS), filled(ROWS * (1 + 1e-4)), arithmetic)
    assert not problem(filled(ROWS), filled(ROWS) * (1 - 1e-4), arithmetic)
    for wrong in (ROWS * 2, -ROWS, ROWS.roll(1, 0), ROWS * 0):
        assert "output differs from eager" in problem(filled(ROWS), filled(wrong), arithmetic)
    assert problem(filled(ROWS), ROWS.masked_fill(~masked, fill), arithmetic)


@pytest.mark.parametrize(("dtype", "arithmetic"), [("float32", "fp32"), ("float16", "fp16"), ("bfloat16", "bf16")])
@pytest.mark.parametrize("constants", [(-1e4, 0.0), (-1e4, -2e4), (-3e4, -3e3), (-1e4, 1e4)])
def test_constants_that_masks_add_hide_no_value_beside_them(
    constants: tuple[float, float], dtype: str, arithmetic: str
) -> None:
    """As BERT's `(1 - mask) * -10000.0`; where two masks overlap, in one place at least, both are added."""
    mask = torch.zeros(64, 16)
    mask[:, 10:13], mask[:, 13:], mask[0, 15] = *constants, sum(constants)

    def added(values: torch.Tensor) -> torch.Tensor:
        return (values + mask).to(getattr(torch, dtype))

    assert not problem(added(ROWS), added(ROWS * (1 + 1e-4)), arithmetic)
    for wrong in (ROWS * 2, -ROWS, ROWS * 0):
        assert "output differs from eager" in problem(added(ROWS), added(wrong), arithmetic)


@pytest.mark.parametrize(
    "values",
    [[5000.0, 5000.0, 0.0], [1.0, 1.0, 1e-5], [5000.0, 4000.0, 1.0], [5000.0, 5000.0, 60.0]],
    ids=["zeros-beside", "sure-softmax", "once", "near"],
)
def test_a_large_value_that_no_mask_puts_is_one_like_any_other(values: list[float]) -> None:
    eager = torch.tensor(values)
    assert not problem(eager, eager + torch.tensor([0.0, 0.0, 1e-6 * values[0]]))


def test_a_row_that_is_nearly_zero_is_rounded_as_coarsely_as_the_others() -> None:
    eager, noise = ROWS.clone(), torch.randn(64, 16, generator=torch.Generator().manual_seed(1))
    eager[5] *= 1e-6
    output = eager + noise * 4e-4
    assert problem(eager, output) == ""


@pytest.mark.parametrize("arithmetic", TOLERANCES)
def test_one_wrong_value_of_very_many_fails(arithmetic: str) -> None:
    eager = torch.randn(100_000, generator=torch.Generator().manual_seed(0))
    output = eager.clone()
    output[777] = -6.0 * eager[777].sign()
    assert "one value" in problem(eager, output, arithmetic)


def test_a_zero_reference_accepts_only_zero() -> None:
    zeros = torch.zeros(3)
    assert problem(zeros, -zeros) == ""
    assert "relative L2 inf" in problem(zeros, torch.full((3,), 1e-30))
    assert problem(zeros, torch.ones(3), "fp8")


@given(
    values=st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=8, unique_by=abs),  # a mask's constant repeats
    errors=st.lists(st.floats(-1, 1, width=32), min_size=8, max_size=8),
    exponent=st.integers(-900, 1020),
)
@settings(deadline=None, max_examples=60)
def test_what_is_found_does_not_depend_on_the_unit(values: list[float], errors: list[float], exponent: int) -> None:
    """Values whose squares overflow float64, or vanish in it, are compared as any others."""
    eager = torch.tensor(values, dtype=torch.float64)
    output = eager + torch.tensor(errors[: len(values)], dtype=torch.float64)
    unit = 2.0**exponent
    found, scaled = compare(eager, output), compare(eager * unit, output * unit)
    exact = bool(torch.isfinite(output * unit).all()) and bool(((output * unit) / unit == output).all())
    if exact and bool(((eager * unit) / unit == eager).all()):
        assert scaled.leaf_error == pytest.approx(found.leaf_error, rel=1e-9)
        assert bool(scaled.problem("fp16")) == bool(found.problem("fp16"))


leaf_values = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.complex_numbers(), st.text(max_size=3),
    st.lists(st.floats(width=32), max_size=4).map(torch.tensor),
    st.lists(st.integers(0, 255), max_size=4).map(torch.tensor),
)  # fmt: skip
nested_outputs = st.recursive(
    leaf_values,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.lists(inner, max_size=3).map(tuple), st.builds(Result, inner, inner),
        st.dictionaries(st.one_of(st.text(max_size=3), st.integers()), inner, max_size=3),
    ),
    max_leaves=8,
)  # fmt: skip


@given(nested_outputs)
@settings(deadline=None, max_examples=50)
def test_any_output_is_right_beside_its_copy(output: Any) -> None:
    found = compare(output, copy.deepcopy(output))
    assert (found.problem("fp32"), found.leaf_error) == ("", 0.0)
    paths = [path for path, _ in output_check.leaves(output)]
    assert len(paths) == len(set(paths)) == sum(found.counted.values())


@given(nested_outputs, nested_outputs)
@settings(deadline=None, max_examples=50)
def test_two_outputs_are_equal_or_a_leaf_is_named(eager: Any, output: Any) -> None:
    found = compare(eager, output).problem("fp32", {})
    assert found == "" or found.startswith("output")
    assert bool(found) == bool(compare(output, eager).problem("fp32", {})) or not compare(eager, output).structure


@given(st.integers(0, 63), st.sampled_from([math.nan, math.inf, -math.inf]), st.sampled_from(list(TOLERANCES)))
@settings(deadline=None, max_examples=30)
def test_one_value_that_is_not_finite_fails_wherever_it_is(place: int, value: float, arithmetic: str) -> None:
    output = SCORES.clone()
    output[place] = value
    assert "NaN or infinite" in compare((1, SCORES), (1, output)).problem(arithmetic, {"output[1]": 1e9})


# Tolerances of single leaves


def test_a_tolerance_is_for_a_leaf_by_path_or_name() -> None:
    eager = {"boxes": SCORES, "more": [{"scores": SCORES}, {"scores": SCORES}]}
    output = {"boxes": SCORES, "more": [{"scores": SCORES * 1.01}, {"scores": SCORES * 1.02}]}
    found = compare(eager, output)
    assert found.problem("fp32", {"scores": 0.03}) == ""
    assert 'output["more"][1]["scores"] differs' in found.problem("fp32", {"scores": 0.015})
    assert 'output["more"][0]["scores"] differs' in found.problem("fp32", {'output["more"][1]["scores"]': 0.03})
    for tolerances in (
        {"scores": 0.015, 'output["more"][1]["scores"]': 0.03},
        {'output["more"][1]["scores"]': 0.03, "scores": 0.015},
    ):
        assert found.problem("fp32", tolerances) == ""


def test_a_name_holds_for_the_unnamed_leaves_below_it() -> None:
    assert problem({"maps": [SCORES, SCORES]}, {"maps": [SCORES, SCORES * 1.01]}, maps=0.02) == ""


def test_a_tighter_tolerance_is_one_too() -> None:
    assert problem(SCORES, SCORES * (1 + 5e-4)) == ""
    assert "(at most 1e-05)" in problem(SCORES, SCORES * (1 + 5e-4), output=1e-5)
    assert "(at most 0e+00)" in problem(SCORES, SCORES.nextafter(torch.tensor(2.0)), output=0)
    assert problem(SCORES, SCORES.clone(), output=0) == ""


def test_a_tolerance_of_integers_is_the_share_that_may_differ() -> None:
    eager = {"classes": torch.arange(100), "flag": True}
    output = {"classes": torch.arange(100).clamp(max=97), "flag": False}
    assert 'output["classes"] differs from eager: 2 of 100 values differ' in problem(eager, output, "fp16", flag=1)
    assert "2 of 100 values differ (at most 1.00%)" in problem(eager, output, "fp16", flag=1, classes=0.01)
    assert problem(eager, output, "fp16", flag=1, classes=0.02) == ""
    with pytest.raises(TrtgateError, match=r'classes=1.5: output\["classes"\] has integers; write the share'):
        problem(eager, output, classes=1.5)


def test_a_tolerance_that_no_leaf_has_is_refused_with_those_there_are() -> None:
    with pytest.raises(TrtgateError, match=r"no leaf of the output is 'score'; there are: output\.logits$"):
        problem(Result(SCORES), Result(SCORES), score=0.1)
    with pytest.raises(TrtgateError, match="there are: none"):
        problem("text", "text", output=0.1)


def test_what_was_compared_is_counted_by_kind() -> None:
    output = {"a": SCORES, "b": [SCORES > 0, 3, None, 0.5], "c": torch.complex(SCORES, SCORES)}
    assert compare(output, output).counted == {"floating-point": 2, "integer": 2, "other": 1, "complex": 1}
