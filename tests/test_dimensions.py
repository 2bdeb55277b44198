"""Dimensions of a model, shapes of its cases, their ids, and what of them is refused before anything is built."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

import trtgate
from trtgate.commands import shape_options
from trtgate.common.errors import TrtgateError
from trtgate.suite.cases import Model, Suite
from trtgate.suite.declaring import grid
from trtgate.suite.selection import Selection
from trtgate.suite.settings import Settings
from trtgate.suite.suite_source import SuiteSource

SEQ = {"seq": (16, 128, 512)}


def bert(batch: int, seq: int) -> None: ...


def net(batch: int, height: int = 224, width: int = 224) -> None: ...


def tokens(batch: int, seq: int) -> None: ...


def module() -> None: ...


def ids(model: Model) -> list[str]:
    return list(Suite([model]).cases)


def test_each_shape_is_a_case() -> None:
    made = trtgate.model(bert, frontends=("dynamo", "eager"), precisions=("fp16",), shapes=[{"seq": 128}, {"seq": 512}])
    assert ids(made) == [
        "bert-dynamo-fp16-b1-seq128-mbs5",
        "bert-dynamo-fp16-b1-seq512-mbs5",
        "bert-eager-fp16-b1-seq128",
        "bert-eager-fp16-b1-seq512",
    ]


def test_one_compiled_module_is_a_case_at_each_shape_where_it_is_measured() -> None:
    made = trtgate.model(
        bert,
        frontends=("dynamo", "inductor", "eager"),
        precisions=("fp16",),
        dynamic=SEQ,
        at=[{"seq": 16}, {"seq": 512}],
    )
    assert ids(made) == [
        "bert-dynamo-fp16-b1-seq16..128..512@16-mbs5",
        "bert-dynamo-fp16-b1-seq16..128..512@512-mbs5",
        "bert-inductor-fp16-b1-seq16..128..512@16",
        "bert-inductor-fp16-b1-seq16..128..512@512",
        "bert-eager-fp16-b1-seq16",  # compiles nothing
        "bert-eager-fp16-b1-seq512",
    ]
    default = trtgate.model(bert, frontends=("dynamo",), precisions=("fp16",), dynamic=SEQ)
    assert ids(default) == ["bert-dynamo-fp16-b1-seq16..128..512@128-mbs5"]
    assert {one.optimum["seq"] for one in made.settings if one.dynamic} == {128}


@pytest.mark.parametrize(
    ("keywords", "suffixes"),
    [
        ({"batches": (1, 8), "shapes": [{"seq": 4}]}, ["b1-seq4", "b8-seq4"]),
        ({"shapes": [{"seq": 4, "batch": 2}, {"seq": 8}]}, ["b2-seq4", "b1-seq8"]),
        ({"dynamic": {"batch": (1, 4, 8), "seq": (2, 4, 8)}}, ["b4-dyn1..4..8-seq2..4..8@4"]),
        (
            {"dynamic": {"batch": (1, 4, 8), "seq": (2, 4, 8)}, "at": [{"batch": 8}, {"seq": 2}]},
            ["b8-dyn1..4..8-seq2..4..8@4", "b4-dyn1..4..8-seq2..4..8@2"],
        ),
        ({"dynamic_batch": (1, 4, 8), "shapes": [{"seq": 4}]}, ["b1-dyn1..4..8-seq4"]),
        (
            {"dynamic_batch": (1, 4, 8), "dynamic": {"seq": (2, 4, 8)}, "at": [{"batch": 8}]},
            ["b8-dyn1..4..8-seq2..4..8@4"],
        ),
        ({"dynamic": None, "shapes": [{"seq": 4}]}, ["b1-seq4"]),
        (
            {"dynamic": {"batch": (1, 4, 8)}, "batches": (2, 8), "shapes": [{"seq": 4}]},
            ["b2-dyn1..4..8-seq4", "b8-dyn1..4..8-seq4"],
        ),
        (
            {"dynamic": {"seq": [(1, 8, 16), (17, 128, 512)]}},
            ["b1-seq1..8..16+17..128..512@8", "b1-seq1..8..16+17..128..512@128"],
        ),
        ({"dynamic": SEQ, "specialization": "lazy"}, ["b1-seq16..128..512@128-specialization=lazy"]),
    ],
)  # fmt: skip
def test_ids_name_every_dimension(keywords: dict[str, Any], suffixes: list[str]) -> None:
    made = trtgate.model(bert, frontends=("dynamo",), precisions=("fp16",), **keywords)
    assert ids(made) == [f"bert-dynamo-fp16-{suffix}-mbs5" for suffix in suffixes]


def test_the_order_in_which_dimensions_are_written_changes_no_id() -> None:
    one, other = ({"width": 4, "height": 8}, {"height": 8, "width": 4})
    assert Settings(frontend="eager", shape=one).suffix == Settings(frontend="eager", shape=other).suffix
    assert Settings(frontend="eager", shape=one).suffix == "eager-fp32-height8-width4"


def test_a_dynamic_batch_is_the_same_by_either_spelling() -> None:
    old = Settings(frontend="dynamo", batch=2, dynamic_batch=(1, 4, 8))
    assert old == Settings(frontend="dynamo", batch=2, dynamic={"batch": (1, 4, 8)})
    assert old.dynamic == {"batch": ((1, 4, 8),)}
    assert old.dynamic_batch is None
    assert msgspec.json.decode(msgspec.json.encode(old), type=Settings) == old
    assert msgspec.convert({"frontend": "dynamo", "batch": 2, "dynamic_batch": [1, 4, 8]}, Settings) == old


def test_two_spellings_that_contradict_are_refused() -> None:
    both = {"dynamic_batch": (1, 4, 8), "dynamic": {"batch": (1, 4, 16)}}
    said = r"dynamic_batch is 1\.\.4\.\.8, and dynamic has 1\.\.4\.\.16 for the batch: give one of them"
    with pytest.raises(TrtgateError, match=said):
        trtgate.model(bert, shapes=[{"seq": 4}], **both)
    with pytest.raises(TrtgateError, match=said):
        Settings(frontend="dynamo", batch=2, **both)


def test_dynamic_shapes_of_a_model_that_has_nothing_dynamic_are_refused() -> None:
    with pytest.raises(TrtgateError, match="dynamic_shapes= says which axes vary, and nothing does: add dynamic="):
        trtgate.model(bert, shapes=[{"seq": 4}], dynamic_shapes={"input_ids": {1: "seq"}})


def test_a_dtype_is_no_precision() -> None:
    with pytest.raises(TrtgateError, match="unknown precision <class 'float'>; there are: fp32, "):
        trtgate.model(bert, shapes=[{"seq": 4}], precisions=(float,))


def test_parameters_with_a_default_may_be_left_out() -> None:
    assert ids(trtgate.model(net, frontends=("eager",), precisions=("fp32",))) == ["net-eager-fp32-b1"]
    made = trtgate.model(net, frontends=("eager",), precisions=("fp32",), shapes=[{"height": 64}])
    assert ids(made) == ["net-eager-fp32-b1-height64"]


def test_inputs_may_be_a_function_of_the_dimensions_beside_a_factory_of_the_module() -> None:
    made = trtgate.model(inputs=tokens, frontends=("eager",), precisions=("fp32",), shapes=[{"seq": 4}])(module)
    assert made.dimensions.names == ("batch", "seq")
    assert ids(made) == ["module-eager-fp32-b1-seq4"]
    assert made.having([]).inputs is tokens
    with pytest.raises(TrtgateError, match=r"its factory takes batch, seq, and with inputs= it is called with nothing"):
        Model("bert", bert, [], inputs=tokens)
    with pytest.raises(TrtgateError, match="inputs=3 must be a function of the dimensions"):
        Model("bert", module, [], inputs=3)  # type: ignore[arg-type]


def test_a_shape_may_have_limits_of_its_own() -> None:
    shapes = [{"seq": 4}, {"seq": 8, "limits": {"device": "3%"}}]
    first, second = grid(["eager"], limits={"device": 0.01, "host": 0.2}, shapes=shapes)
    assert first.limits == {"device": 0.01, "host": 0.2}
    assert second.limits == {"device": 0.03, "host": 0.2}
    assert second.suffix == "eager-fp32-seq8"
    at = [{"seq": 16}, {"seq": 512, "limits": {"device": 0.05}}]
    assert [one.limits for one in grid(["dynamo"], dynamic=SEQ, at=at)] == [{}, {"device": 0.05}]


@pytest.mark.parametrize(
    ("keywords", "said"),
    [
        ({}, r"the factory takes `seq`, and the settings name none: add shapes=\[{\"seq\": 128}\]"),
        ({"shapes": [{"sek": 4}]}, "a size of 'sek' is given, and nothing takes it: did you mean 'seq'"),
        ({"dynamic": {"height": (1, 2, 4)}, "shapes": [{"seq": 4}]}, "of 'height' is given.*dimension batch, seq"),
        ({"dynamic": {"seq": (128, 16, 512)}}, r"dynamic seq \(128, 16, 512\): write \(minimum, optimum, maximum\)"),
        ({"dynamic": {"seq": (16, 1024, 512)}}, "from small to large"),
        ({"dynamic": {"seq": (16, 16, 16)}}, "more than one size"),
        ({"dynamic": {"seq": (0, 16, 32)}}, "a minimum is at least 1: TensorRT takes no empty tensor"),
        ({"dynamic": {"seq": (16, 32)}}, r"dynamic seq \(16, 32\): write"),
        ({"dynamic": {"seq": 16}}, r"dynamic seq 16: write \(minimum, optimum, maximum\)"),
        ({"dynamic": {"seq": (1.0, 2.0, 3.0)}}, "write"),
        ({"dynamic": "seq"}, 'dynamic=\'seq\': write {"seq": \\(16, 128, 512\\)}'),
        ({"dynamic": SEQ, "at": [{"seq": 1024}]}, "dynamic seq 16..128..512 does not hold the seq 1024 that is fed"),
        ({"dynamic": SEQ, "at": [{"batch": 2}]}, "at: 'batch' is not dynamic; there is dynamic dimension seq"),
        ({"shapes": [{"seq": 4}], "at": [{"seq": 4}]}, "at: 'seq' is not dynamic; give dynamic="),
        ({"dynamic": SEQ, "at": []}, r"at=\[\]: write a list of shapes"),
        ({"dynamic": SEQ, "at": {"seq": 16}}, "write a list of shapes"),
        ({"shapes": {"seq": 16}}, "write a list of shapes"),
        ({"shapes": [16]}, "shapes: 16 is no shape: write"),
        ({"shapes": [{"seq": 0}]}, "shapes: seq must be a positive integer, not 0"),
        ({"shapes": [{"seq": True}]}, "must be a positive integer, not True"),
        ({"shapes": [{"seq-1": 4}]}, "'seq-1' is no name of a dimension"),
        ({"shapes": [{"seq": 4, "limits": 3}]}, "limits=3: write"),
        ({"shapes": [{"seq": 4, "limits": {"devise": 0.1}}]}, "device"),
        ({"dynamic": {"seq": [(1, 8, 16), (17, 128, 512)], "batch": [(1, 2, 3)] * 3}}, "batch has 3, seq has 2"),
        ({"dynamic": {"seq": [(1, 8, 16), (32, 128, 512)]}, "at": [{"seq": 20}]}, "does not hold the seq 20"),
        ({"shapes": [{"seq": 4}], "specialization": "lazy"}, "specialization='lazy' is of dynamic shapes"),
        ({"dynamic": SEQ, "specialization": "egaer"}, "did you mean 'eager'"),
        ({"shapes": [{"seq": 4}, {"seq": 4, "limits": {"device": 0.1}}]}, "batch=1 seq=4 is given twice, with"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_before_anything_is_built(keywords: dict[str, Any], said: str) -> None:
    with pytest.raises(TrtgateError, match=said):
        trtgate.model(bert, frontends=("dynamo",), precisions=("fp16",), **keywords)


def test_shapes_that_are_in_no_one_profile_are_refused() -> None:
    dynamic = {"batch": ((1, 2, 4), (5, 6, 8)), "seq": ((1, 2, 4), (5, 6, 8))}
    with pytest.raises(TrtgateError, match="no optimization profile holds all of batch=2 seq=6"):
        Settings(frontend="dynamo", batch=2, shape={"seq": 6}, dynamic=dynamic)


@pytest.mark.parametrize("frontend", ["torch_compile", "ts_trace", "inductor"])
def test_several_optimization_profiles_are_for_dynamo(frontend: str) -> None:
    with pytest.raises(
        TrtgateError, match=f"frontend '{frontend}' takes one optimization profile; several are for dynamo"
    ):
        Settings(frontend=frontend, shape={"seq": 8}, dynamic={"seq": ((1, 8, 16), (17, 128, 512))})


def test_a_selection_names_sizes() -> None:
    made = trtgate.model(
        bert, frontends=("dynamo", "eager"), precisions=("fp16",), dynamic=SEQ, at=[{"seq": 16}, {"seq": 512}]
    )
    suite = Suite([made])
    chosen = Selection(shapes=("seq=512",), batches=(1,)).select(suite)
    assert [case.id for case in chosen] == ["bert-dynamo-fp16-b1-seq16..128..512@512-mbs5", "bert-eager-fp16-b1-seq512"]
    assert len(Selection(shapes=("seq=512", "seq=16")).select(suite)) == 4
    assert Selection(shapes=("seq=512",)).describe() == "--trtgate-shapes seq=512"
    with pytest.raises(TrtgateError, match="no case fits the selection --trtgate-shapes seq=128"):
        Selection(shapes=("seq=128",)).select(suite)
    with pytest.raises(TrtgateError, match="unknown dimension 'sek'; did you mean 'seq'"):
        Selection(shapes=("sek=128",)).select(suite)
    with pytest.raises(TrtgateError, match="write DIMENSION=SIZE"):
        Selection(shapes=("seq128",)).select(suite)


def test_a_selection_knows_ids_that_the_suite_has_no_more() -> None:
    taken = Selection(shapes=("seq=512",), batches=(1,))
    assert taken.takes_id("bert-dynamo-fp16-b1-seq16..128..512@512-mbs5")
    assert taken.takes_id("bert-eager-fp16-b1-seq512")
    assert not taken.takes_id("bert-eager-fp16-b1-seq51")
    assert not taken.takes_id("bert-eager-fp16-b2-seq512")
    assert not taken.takes_id("bert-dynamo-fp16-b1-seq16..128..512@16-mbs5")


def test_a_factory_on_the_command_line_has_no_cases_until_its_sizes_are_said() -> None:
    suite = SuiteSource(root="/", factories=("tests.test_dimensions:bert",)).load()
    with pytest.raises(TrtgateError, match="model 'bert': the factory takes `seq`"):
        Selection().select(suite)


# On the command line


def test_a_shape_on_the_command_line_is_a_static_one_or_a_range() -> None:
    model = Model("bert", bert, [])
    static = shape_options.case_of(model, ["seq=64"], frontend="dynamo", precision="fp16")
    assert static.id == "bert-dynamo-fp16-b1-seq64-mbs5"
    dynamic = shape_options.case_of(model, ["seq=16:128:512", "batch=2"], frontend="dynamo", precision="fp16")
    assert dynamic.id == "bert-dynamo-fp16-b2-seq16..128..512@128-mbs5"
    assert shape_options.case_of(Model("net", net, []), [], 8, frontend="eager").id == "net-eager-fp32-b8"


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        ([], "model 'bert' takes seq: add --shape seq=128"),
        (["seq"], "--shape 'seq': write seq=128, or seq=16:128:512"),
        (["seq=1:2"], "--shape 'seq=1:2': write"),
        (["seq=0"], "must be a positive integer"),
        (["seq=8:4:2"], "from small to large"),
        (["seq=8", "sek=4"], "--shape 'sek=4': model 'bert' takes no 'sek': did you mean 'seq'"),
        (["width=4"], "--shape 'width=4': model 'bert' takes no 'width': there is dimension batch, seq"),
    ],
)
def test_a_shape_on_the_command_line_that_makes_no_sense_is_refused(texts: list[str], said: str) -> None:
    with pytest.raises(TrtgateError, match=said):
        shape_options.case_of(Model("bert", bert, []), texts, frontend="dynamo")


def test_a_model_that_its_factory_compiled_is_none_for_the_command_line() -> None:
    own = Model("mine", bert, [Settings(frontend="own", precision="as_is", batch=1, shape={"seq": 8})])
    with pytest.raises(TrtgateError, match=r"model 'mine' is what its factory compiled \(frontend 'own'\)"):
        shape_options.case_of(own, ["seq=8"], frontend="dynamo")


def test_two_batches_of_one_case_are_refused() -> None:
    assert Settings(frontend="eager", shape={"batch": 4}) == Settings(frontend="eager", batch=4)
    with pytest.raises(TrtgateError, match="batch is 2, and 4 in shape="):
        Settings(frontend="eager", batch=2, shape={"batch": 4})
