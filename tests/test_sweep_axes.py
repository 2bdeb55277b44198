"""Which points a sweep has: of the command line's texts, around a default, each once, and none that makes no sense."""

from __future__ import annotations

from typing import Any

import pytest

from trtgate import Model
from trtgate.commands.sweep_request import first_sizes, own_frontend
from trtgate.common.errors import TrtgateError
from trtgate.launches.sweep_axes import Axis, difference, parse, points
from trtgate.suite.settings import Settings, fitting
from trtgate.torch_trt import releases

needs_torch_tensorrt = pytest.mark.skipif(bool(releases.unavailable()), reason=releases.unavailable() or "installed")
BASE: dict[str, Any] = {"frontend": "dynamo", "precision": "fp16", "batch": 1}


@pytest.mark.parametrize(
    ("text", "axis"),
    [
        ("min_block_size=1,5,recommended", Axis("min_block_size", (1, 5, "recommended"))),
        ("batch=1..3,8", Axis("batch", (1, 2, 3, 8))),
        ("frontend=eager, dynamo", Axis("frontend", ("eager", "dynamo"))),
        ("cudagraphs=on,off", Axis("cudagraphs", (True, False))),
        ("runtime=default,python", Axis("runtime", ("", "python"))),
        ("dynamic_batch=none,1:4:8", Axis("dynamic_batch", (None, (1, 4, 8)))),
        ("torch_executed_ops=none,aten.relu+aten.add", Axis("torch_executed_ops", ((), ("aten.relu", "aten.add")))),
    ],
)
def test_values_have_the_type_of_their_setting(text: str, axis: Axis) -> None:
    assert parse(text) == axis


@needs_torch_tensorrt
@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("optimization_level=default,0..2", (None, 0, 1, 2)),
        ("sparse_weights=on", (True,)),
        ("tiling_optimization_level=none,fast", ("none", "fast")),
    ],
)
def test_values_have_the_type_of_their_option(text: str, values: Any) -> None:
    assert parse(text) == Axis(text.partition("=")[0], values, option=True)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("batch", "write NAME=VALUE"),
        ("batch=", "write NAME=VALUE"),
        ("batch=5..1", "write NAME=VALUE"),
        ("precision=fp17", "unknown precision 'fp17'; did you mean 'fp16'"),
        ("frontend=dynmo", "did you mean 'dynamo'"),
        ("runtime=pyhton", "did you mean 'python'"),
        ("batch=two", "'two' is no batch; write batch=1,8"),
        ("cudagraphs=maybe", "'maybe' is no cudagraphs; write cudagraphs=on,off"),
        ("dynamic_batch=1:4", "'1:4' is no dynamic_batch"),
        ("min_blok_size=1", "did you mean 'min_block_size'"),
        ("optimization_level=high", "'high' is no int"),
        ("device=cuda", "'cuda' is no value of a suite"),
    ],
)
@needs_torch_tensorrt
def test_what_is_no_axis_is_said(text: str, problem: str) -> None:
    with pytest.raises(TrtgateError, match=problem):
        parse(text)


def found(*axes: Axis, base: dict[str, Any] = BASE) -> tuple[list[str], list[str]]:
    all_points = points(base, axes, lambda _settings: [48, 7])
    return [settings.suffix for settings in all_points.settings], all_points.left_out


def test_the_default_comes_first_and_every_point_once() -> None:
    suffixes, left_out = found(Axis("min_block_size", (1, 5, "recommended")), Axis("batch", (1, 8)))
    assert suffixes == [
        "dynamo-fp16-b1-mbs5", "dynamo-fp16-b1-mbs1", "dynamo-fp16-b8-mbs1", "dynamo-fp16-b8-mbs5",
        "dynamo-fp16-b1-mbs48", "dynamo-fp16-b1-mbs7", "dynamo-fp16-b8-mbs48", "dynamo-fp16-b8-mbs7",
    ]  # fmt: skip
    assert left_out == []


def test_what_a_frontend_does_not_take_makes_no_points_of_its_own() -> None:
    suffixes, _ = found(Axis("frontend", ("eager", "dynamo")), Axis("min_block_size", (1, "recommended")))
    assert suffixes == [
        "dynamo-fp16-b1-mbs5", "eager-fp16-b1", "dynamo-fp16-b1-mbs1", "dynamo-fp16-b1-mbs48", "dynamo-fp16-b1-mbs7",
    ]  # fmt: skip


def test_an_own_callable_is_as_its_factory_made_it_whatever_precision_is_varied() -> None:
    found = points({**BASE, "frontend": "own"}, [parse("precision=fp32,fp16")], lambda _: [])
    assert [one.suffix for one in found.settings] == ["own-as_is-b1"]
    assert not found.settings[0].gpu_only
    both = points(BASE, [parse("frontend=own,eager")], lambda _: []).settings
    assert [one.suffix for one in both[1:]] == ["own-as_is-b1", "eager-fp16-b1"]


def test_what_does_not_go_together_is_left_out_with_the_reason() -> None:
    suffixes, left_out = found(Axis("frontend", ("eager", "dynamo")), Axis("precision", ("int8",)))
    assert suffixes == ["dynamo-fp16-b1-mbs5", "dynamo-int8-b1-mbs5"]
    assert left_out == ["frontend 'eager' takes no precision int8; that is for dynamo"]


def test_options_join_those_of_the_default_and_default_means_its() -> None:
    suffixes, _ = found(
        Axis("optimization_level", (None, 3), option=True),
        base={**BASE, "options": {"optimization_level": 1, "max_aux_streams": 2}},
    )
    assert suffixes == [
        "dynamo-fp16-b1-mbs5-max_aux_streams=2-optimization_level=1",
        "dynamo-fp16-b1-mbs5-max_aux_streams=2-optimization_level=3",
    ]


def test_a_default_that_makes_no_sense_is_an_error() -> None:
    with pytest.raises(TrtgateError, match="unknown frontend"):
        found(Axis("batch", (1,)), base={**BASE, "frontend": "dynmo"})


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "default"),
        ({"frontend": "eager"}, "frontend=eager"),
        ({"batch": 8, "min_block_size": 1}, "batch=8 min_block_size=1"),
        ({"cudagraphs": True, "runtime": "python"}, "runtime=python cudagraphs=on"),
        ({"dynamic_batch": (1, 4, 8)}, "dynamic_batch=1:4:8"),
        ({"options": {"optimization_level": 0}}, "optimization_level=0"),
    ],
)
def test_a_point_is_named_by_what_differs(fields: dict[str, Any], said: str) -> None:
    assert difference(fitting(**{**BASE, **fields}), fitting(**BASE)) == said


def test_a_recommendation_that_fails_is_a_problem_and_the_other_points_stay() -> None:
    def fails(_settings: Any) -> list[int]:
        raise TrtgateError("torch.export can't export it")

    found = points(BASE, [Axis("min_block_size", (1, "recommended"))], fails)
    assert [settings.suffix for settings in found.settings] == ["dynamo-fp16-b1-mbs5", "dynamo-fp16-b1-mbs1"]
    assert found.problems == ["min_block_size=recommended: torch.export can't export it"]


# Dimensions of the models that are swept


@pytest.mark.parametrize(
    ("text", "axis"),
    [
        ("seq=16,128", Axis("seq", (16, 128))),
        ("dynamic_seq=none,16:128:512", Axis("dynamic_seq", (None, (16, 128, 512)))),
        ("dynamic_seq=1:8:16+17:128:512", Axis("dynamic_seq", (((1, 8, 16), (17, 128, 512)),))),
        ("specialization=eager,lazy", Axis("specialization", ("eager", "lazy"))),
    ],
)
def test_a_dimension_is_an_axis(text: str, axis: Axis) -> None:
    assert parse(text, ["seq"]) == axis


@needs_torch_tensorrt
@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("sek=16", "did you mean 'seq'"),
        ("seq=many", "'many' is no seq; write seq=16,128,512"),
        ("dynamic_seq=16", "'16' is no dynamic_seq; write dynamic_seq=none,16:128:512"),
    ],
)
def test_a_dimension_that_makes_no_sense_is_refused(text: str, problem: str) -> None:
    with pytest.raises(TrtgateError, match=problem):
        parse(text, ["seq"])


def test_points_over_a_dimension_are_static_or_share_what_is_compiled() -> None:
    def suffixes(base: dict[str, Any], *texts: str) -> list[str]:
        axes = [parse(text, ["seq"]) for text in texts]
        return [one.suffix for one in points({**BASE, **base}, axes, lambda _settings: []).settings]

    assert suffixes({"seq": 16}, "seq=16,128") == ["dynamo-fp16-b1-seq16-mbs5", "dynamo-fp16-b1-seq128-mbs5"]
    assert suffixes({"dynamic_seq": (16, 128, 512)}, "seq=16,512") == [
        "dynamo-fp16-b1-seq16..128..512@128-mbs5",
        "dynamo-fp16-b1-seq16..128..512@16-mbs5",
        "dynamo-fp16-b1-seq16..128..512@512-mbs5",
    ]
    assert suffixes({"seq": 16}, "dynamic_seq=none,16:128:512", "frontend=dynamo,eager") == [
        "dynamo-fp16-b1-seq16-mbs5",
        "eager-fp16-b1-seq16",
        "dynamo-fp16-b1-seq16..128..512@16-mbs5",
    ]
    found = points({**BASE, "dynamic_seq": (16, 128, 512)}, [parse("seq=1,16", ["seq"])], lambda _settings: [])
    assert found.left_out == ["dynamic seq 16..128..512 does not hold the seq 1 that is fed"]


@pytest.mark.parametrize(
    ("base", "text", "first"),
    [
        ({}, "seq=8,16", {"seq": 8}),
        ({}, "dynamic_seq=4:8:16,16:32:64", {"dynamic_seq": (4, 8, 16)}),
        ({"seq": 32}, "seq=8,16", {}),
        ({"dynamic_seq": (4, 8, 16)}, "seq=4,8", {}),
        ({}, "dynamic_seq=none,4:8:16", {}),
        ({}, "width=8", {}),
        ({}, "batch=2,4", {}),
    ],
)
def test_the_default_has_the_first_size_of_a_dimension_that_is_varied_alone(base: Any, text: str, first: Any) -> None:
    model = Model("m", lambda batch, seq, width=4: None, ())
    assert first_sizes(model, base, [parse(text, ["seq", "width"])]) == first


def test_what_its_factory_compiled_is_swept_as_that_unless_another_frontend_is_asked_for() -> None:
    own, other = (
        Model("m", lambda: None, [Settings(frontend=one, precision="as_is") for one in each])
        for each in (["own"], ["own", "eager"])
    )
    assert own_frontend(own, {"batch"}) == {"frontend": "own"}
    assert own_frontend(own, {"frontend"}) == own_frontend(other, set()) == {}


def test_a_point_over_a_dimension_is_named_by_it() -> None:
    default = points({**BASE, "seq": 16}, [], lambda _settings: []).settings[0]
    (_, other) = points({**BASE, "seq": 16}, [parse("seq=64", ["seq"])], lambda _settings: []).settings
    assert difference(other, default) == "seq=64"
    axes = [parse("dynamic_seq=16:128:512", ["seq"]), parse("specialization=lazy")]
    (_, dynamic) = points({**BASE, "seq": 16}, axes, lambda _settings: []).settings
    assert difference(dynamic, default) == "specialization=lazy dynamic_seq=16:128:512"
