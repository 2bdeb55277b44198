"""Which operators and modules a layer of an engine computes."""

from __future__ import annotations

from collections import Counter

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from trtgate.profiles import profile_checks
from trtgate.profiles.attribution import DATA_FLOW, MODULE, NAME, attribute
from trtgate.records.profile_record import Layer, Operator, Part, Tensor

from .profile_data import operators, recorded, resnet18_part, vit_part

RESNET18 = """
__myl_MoveConc_myl0_0: ?
__myl_CorrMulAddRelu_myl0_1: conv1 bn1 relu
[MAX]-[aten_ops.max_pool2d.default]-[maxpool/max_pool2d_default]_myl0_2: maxpool
__myl_CorrMulAddRelu_myl0_3: layer1.0.conv1 layer1.0.bn1 layer1.0.relu
__myl_CorrMulAddAddRelu_myl0_4: layer1.0.conv2 layer1.0.bn2 layer1.0 layer1.0.relu
__myl_CorrMulAddRelu_myl0_5: layer1.1.conv1 layer1.1.bn1 layer1.1.relu
__myl_CorrMulAddAddRelu_myl0_6: layer1.1.conv2 layer1.1.bn2 layer1.1 layer1.1.relu
__mye35665_myl0_7: ?
__mye35667_myl0_8: ?
__myl_CorrMulAdd_myl0_9: layer2.0.downsample.0 layer2.0.downsample.1
__mye35669_myl0_10: ?
__myl_CorrMulAddRelu_myl0_11: layer2.0.conv1 layer2.0.bn1 layer2.0.relu
__mye35671_myl0_12: ?
__myl_CorrMulAddAddRelu_myl0_13: layer2.0.conv2 layer2.0.bn2 layer2.0 layer2.0.relu
__myl_CorrMulAddRelu_myl0_14: layer2.1.conv1 layer2.1.bn1 layer2.1.relu
__myl_CorrMulAddAddRelu_myl0_15: layer2.1.conv2 layer2.1.bn2 layer2.1 layer2.1.relu
__mye35673_myl0_16: ?
__mye35675_myl0_17: ?
__myl_CorrMulAdd_myl0_18: layer3.0.downsample.0 layer3.0.downsample.1
__mye35677_myl0_19: ?
__myl_CorrMulAddRelu_myl0_20: layer3.0.conv1 layer3.0.bn1 layer3.0.relu
__mye35679_myl0_21: ?
__myl_CorrMulAddAddRelu_myl0_22: layer3.0.conv2 layer3.0.bn2 layer3.0 layer3.0.relu
__myl_CorrMulAddRelu_myl0_23: layer3.1.conv1 layer3.1.bn1 layer3.1.relu
__myl_CorrMulAddAddRelu_myl0_24: layer3.1.conv2 layer3.1.bn2 layer3.1 layer3.1.relu
__mye35681_myl0_25: ?
__mye35683_myl0_26: ?
__myl_CorrMulAdd_myl0_27: layer4.0.downsample.0 layer4.0.downsample.1
__mye35685_myl0_28: ?
__myl_CorrMulAddRelu_myl0_29: layer4.0.conv1 layer4.0.bn1 layer4.0.relu
__mye35687_myl0_30: ?
__myl_CorrMulAddAddRelu_myl0_31: layer4.0.conv2 layer4.0.bn2 layer4.0 layer4.0.relu
__myl_CorrMulAddRelu_myl0_32: layer4.1.conv1 layer4.1.bn1 layer4.1.relu
[CONVOLUTION]-[aten_ops.convolution.default]-[layer4.1.conv2/convolution_19]_myl0_33: layer4.1.conv2
__myl_MulAddAddReluMean_myl0_34: layer4.1.bn2 layer4.1 layer4.1.relu avgpool
__myl_FcAdd_myl0_35: fc
"""
"""Checked by hand: by the layers' tensors and shapes against resnet18's source. A block's own name is its addition."""


def test_every_layer_of_resnet18() -> None:
    part = resnet18_part()
    said = [f"{layer.name}: {' '.join(layer.modules) or '?'}" for layer in part.layers]
    assert said == RESNET18.split("\n")[1:-1]


def test_all_operators_of_resnet18_are_computed_once() -> None:
    part = resnet18_part()
    computed = [node for layer in part.layers for node in layer.sources]
    assert len(computed) == len(set(computed))
    rest = {op.operator for op in part.operators if op.node not in computed}
    assert rest == {"_operator.getitem", "aten._reshape_copy.default"}


def test_most_of_resnet18s_time_is_attributed() -> None:
    part = resnet18_part()
    known = sum(layer.share for layer in part.layers if layer.evidence)
    assert known > 0.97
    assert not part.layers[0].evidence  # pads the channels of the image: no operator of the model


def test_names_of_tensors_are_not_believed() -> None:
    """Two of resnet18's tensors bear the name of the layer that reads them; without any names all is as before."""
    truth, part = resnet18_part(), resnet18_part()
    for layer in part.layers:
        layer.inputs = [_renamed(tensor) for tensor in layer.inputs]
        layer.outputs = [_renamed(tensor) for tensor in layer.outputs]
        layer.sources, layer.modules, layer.evidence = [], [], ""
    attribute(part)
    assert [layer.sources for layer in part.layers] == [layer.sources for layer in truth.layers]


def _renamed(tensor: Tensor) -> Tensor:
    name = tensor.name if tensor.name in ("x", "output0") else f"t{hash(tensor.name)}"
    return msgspec.structs.replace(tensor, name=name)


@settings(max_examples=60, deadline=None)
@given(st.sets(st.integers(0, 35)), st.booleans())
def test_less_is_known_of_kernels_without_a_name_and_nothing_wrong(hidden: set[int], tokens_only: bool) -> None:
    truth, part = resnet18_part(), resnet18_part()
    for number in hidden:
        part.layers[number].name = f"kernel_{number}"
    if tokens_only:
        for layer in part.layers:
            layer.name = layer.name.replace("[", "(")
    for layer in part.layers:
        layer.sources, layer.modules, layer.evidence = [], [], ""
    attribute(part)
    for found, true in zip(part.layers, truth.layers, strict=True):
        assert set(found.sources) <= set(true.sources), found.name
        assert set(found.modules) <= set(true.modules), found.name


def test_a_transformer_with_fused_attention() -> None:
    part = vit_part()
    attribute(part)
    modules = {layer.name: [name.removeprefix("encoder.layers.") for name in layer.modules] for layer in part.layers}
    assert modules["__myl_CorrAdd_myl0_1"] == ["conv_proj"]
    assert modules["__myl_ReshTranConcAddCastMeanSubMulMeanAddSqrtDivMulCastMulAdd_myl0_2"] == [
        "", "encoder", "encoder_layer_0.ln_1",
    ]  # fmt: skip
    attention = [layer for layer in part.layers if "mha" in layer.name]
    assert [layer.sources for layer in attention] == [
        ["scaled_dot_product_attention"],
        ["scaled_dot_product_attention_1"],
    ]
    assert modules["__myl_FcAddMulCasErfCasAddMulMul_myl0_11"] == ["encoder_layer_0.mlp.0", "encoder_layer_0.mlp.1"]
    assert modules["__myl_FcAdd_myl0_26"] == ["heads.head"]
    assert [layer.name for layer in part.layers if not layer.evidence] == ["__myl_MoveConc_myl0_0"]


IN_A_BLOCK = {
    "Slic": ([], ["{b}.self_attention"]),
    "_gemm_mha": (["_scaled_dot_product_cudnn_attention{n}"], ["{b}.self_attention"]),
    "__myl_MoveReshTran": ([], ["{b}.self_attention"]),
    "__myl_FcAdd_": (["linear_{out}"], ["{b}.self_attention"]),
    "__myl_ReshAddReshCastMean": (["add_{mid}", "native_layer_norm_{second}"], ["{b}", "{b}.ln_2"]),
    "__myl_FcAddDivCastErf": (["linear_{up}", "gelu{n}"], ["{b}.mlp.0", "{b}.mlp.1"]),
    "__myl_FcAddAdd": (["linear_{down}", "add_{end}"], ["{b}.mlp.3", "{b}"]),
}
"""What each kind of kernel of an encoder block computes, by hand, from the graph: nodes and modules."""


def test_every_layer_of_a_recorded_vision_transformer() -> None:
    profile = recorded("vit_b_16_profile_0")
    assert profile.attributed > 0.98
    (part,) = profile.parts
    seen: Counter[str] = Counter()
    block = 0
    for layer in part.layers[4:-3]:
        for kind, (sources, modules) in IN_A_BLOCK.items():
            if not layer.name.removeprefix("__myl_").startswith(kind.removeprefix("__myl_")):
                continue
            seen[kind] += 1
            names = {
                "b": f"encoder.layers.encoder_layer_{block}", "n": f"_{block}" if block else "",
                "out": 4 * block + 1, "up": 4 * block + 2, "down": 4 * block + 3,
                "mid": 2 * block + 1, "end": 2 * block + 2, "second": 2 * block + 1,
            }  # fmt: skip
            assert layer.sources == [text.format(**names) for text in sources], layer.name
            assert layer.modules == [text.format(**names) for text in modules], layer.name
            block += kind == "__myl_FcAddAdd"
    assert seen == {kind: 36 if kind == "Slic" else 11 if kind == "__myl_FcAddAdd" else 12 for kind in IN_A_BLOCK}
    unknown = [layer.name for layer in part.layers if not layer.evidence]
    assert unknown == [
        "__myl_MoveConc_myl0_0",
        "__myl_AddAddCastMeanSubMulMean_myl0_146",  # half a layer norm each: what lies between is no value of the graph
        "__myl_AddSqrtDivMulCastMulAddSlic_myl0_147",
    ]


def test_a_product_and_its_bias_in_another_kernel() -> None:
    (part,) = recorded("vit_b_16_profile_0").parts
    product, bias = part.layers[15:17]
    assert "linear_4" in product.name
    assert product.sources == ["linear_4"]
    assert bias.name == "__myl_AddReshTranResh_myl0_16"
    assert (bias.sources, bias.modules) == ([], ["encoder.layers.encoder_layer_1.self_attention"])


def test_a_product_without_a_bias_leaves_none_to_another_kernel() -> None:
    operators = [_op("linear", "linear", "a", ["x", "weight"], 4, 8), _op("relu", "relu", "b", ["linear"], 4, 8)]
    layers = [
        ("__myl_Fc_myl0_0", [_tensor("x", 4, 8)], [_tensor("t", 4, 8)]),
        ("__myl_Add_myl0_1", [_tensor("t", 4, 8)], [_tensor("u", 4, 8)]),
        ("__myl_Relu_myl0_2", [_tensor("u", 4, 8)], [_tensor("output0", 4, 8)]),
    ]
    assert _attributed(operators, *layers)[1:] == [[], []]
    operators[0] = msgspec.structs.replace(operators[0], inputs=["x", "weight", "bias"])
    assert _attributed(operators, *layers) == [["linear"], [], ["relu"]]


def test_two_recorded_engines_and_what_stays_in_pytorch_between_them() -> None:
    profile = recorded("two_engines_profile")
    assert profile_checks.problems(profile) == []
    assert [(part.kind, [layer.modules for layer in part.layers]) for part in profile.parts] == [
        ("tensorrt", [[], ["0"], []]),
        ("pytorch", [["2"]]),
        ("tensorrt", [[], ["3"], []]),
    ]


def test_three_alike_are_attributed_to_their_module_and_to_no_operator() -> None:
    part = vit_part()
    attribute(part)
    moved = part.layers[4]
    assert (moved.sources, moved.evidence) == ([], MODULE)
    assert moved.modules == ["encoder.layers.encoder_layer_0.self_attention"]


def _chain() -> Part:
    """x → convolution → relu → linear."""
    return Part(
        name="a",
        kind="tensorrt",
        layers=[],
        inputs=["x"],
        outputs=["linear"],
        operators=[
            _op("convolution", "convolution", "conv", ["x"], 1, 8, 4, 4),
            _op("relu", "relu", "act", ["convolution"], 1, 8, 4, 4),
            _op("linear", "linear", "fc", ["relu"], 1, 10),
        ],
    )


def _layer(name: str, taken: str, made: str, shape: list[int]) -> Layer:
    return Layer(name=name, type="", inputs=[Tensor(name=taken)], outputs=[Tensor(name=made, shape=shape)])


def test_names_of_a_standard_engine_say_all() -> None:
    part = _chain()
    part.layers = [
        _layer(
            "[CONVOLUTION]-[aten_ops.convolution.default]-[conv/convolution] + "
            "[ACTIVATION]-[aten_ops.relu.default]-[act/relu]",
            "x", "t", [1, 8, 4, 4],
        ),
        _layer("Reformatting CopyNode for Input Tensor 0 to fc", "t", "u", [1, 8, 4, 4]),
        _layer("[MATRIX_MULTIPLY]-[aten_ops.linear.default]-[fc/linear]", "u", "output0", [1, 10]),
    ]  # fmt: skip
    attribute(part)
    assert [layer.modules for layer in part.layers] == [["conv", "act"], [], ["fc"]]
    assert part.layers[0].evidence == part.layers[2].evidence == NAME


def test_metadata_is_as_good_as_a_name() -> None:
    part = _chain()
    whole = _layer("__myl_CorrReluFcAdd_myl0_0", "x", "output0", [1, 10])
    whole.metadata = (
        "[CONVOLUTION]-[a.convolution]-[conv/convolution][RELU]-[a.relu]-[act/relu][FC]-[a.linear]-[fc/linear]"
    )
    part.layers = [whole]
    attribute(part)
    assert (whole.modules, whole.evidence) == (["conv", "act", "fc"], NAME)


def test_a_kernel_whose_operations_do_not_fit_is_left_alone() -> None:
    part = _chain()
    part.layers = [
        _layer("__myl_CorrErf_myl0_0", "x", "t", [1, 8, 4, 4]),
        _layer("__myl_FcAdd_myl0_1", "t", "output0", [1, 10]),
    ]
    attribute(part)
    assert [layer.modules for layer in part.layers] == [[], ["fc"]]  # the one product that makes the output


def test_a_shape_that_does_not_fit_is_believed_more_than_the_operations() -> None:
    part = _chain()
    part.layers = [_layer("__myl_CorrRelu_myl0_0", "x", "t", [1, 8, 2, 2])]
    attribute(part)
    assert part.layers[0].evidence == ""


def test_a_kernel_without_any_name_between_known_ones_is_known_by_the_data_flow() -> None:
    part = _chain()
    part.layers = [
        _layer("__myl_CorrRelu_myl0_0", "x", "t", [1, 8, 4, 4]),
        _layer("sm90_gemm", "t", "output0", [1, 10]),
    ]
    attribute(part)
    assert (part.layers[1].modules, part.layers[1].evidence) == (["fc"], DATA_FLOW)


def test_without_the_operators_a_name_is_all_there_is() -> None:
    part = resnet18_part()
    part.operators = []
    for layer in part.layers:
        layer.sources, layer.modules, layer.evidence = [], [], ""
    attribute(part)
    known = [layer.modules for layer in part.layers if layer.evidence]
    assert known == [["maxpool"], ["layer4.1.conv2"]]


def test_names_without_tensors_leave_all_else_alone() -> None:
    """At verbosity layer_names_only nothing is known of tensors."""
    part = operators("resnet18")
    part.layers = [Layer(name=layer.name, type="") for layer in resnet18_part().layers]
    attribute(part)
    assert [layer.modules for layer in part.layers if layer.evidence] == [["maxpool"], ["layer4.1.conv2"]]


def test_operators_without_a_module_are_known_and_their_modules_are_not() -> None:
    part = _chain()
    part.operators = [msgspec.structs.replace(operator, module="?") for operator in part.operators]
    part.layers = [
        _layer("__myl_CorrRelu_myl0_0", "x", "t", [1, 8, 4, 4]),
        _layer("__myl_FcAdd_myl0_1", "t", "output0", [1, 10]),
    ]
    attribute(part)
    assert [(layer.sources, layer.modules) for layer in part.layers] == [
        (["convolution", "relu"], []),
        (["linear"], []),
    ]


# What a reviewer found to be wrong, one by one


def _tensor(name: str, *shape: int) -> Tensor:
    return Tensor(name=name, shape=list(shape))


def _op(target: str, node: str, module: str, inputs: list[str], *shape: int) -> Operator:
    return Operator(node=node, operator=f"aten.{target}.default", module=module, inputs=inputs, shapes=[list(shape)])


def _attributed(operators: list[Operator], *layers: tuple[str, list[Tensor], list[Tensor]]) -> list[list[str]]:
    """Return the sources of layers; the part takes x, its last operator is its output."""
    made = [Layer(name=name, type="", inputs=inputs, outputs=outputs) for name, inputs, outputs in layers]
    part = Part(name="p", kind="tensorrt", layers=made, operators=operators, inputs=["x"], outputs=[operators[-1].node])
    attribute(part)
    return [layer.sources for layer in part.layers]


X = _tensor("x", 1, 3, 4, 4)
MAP = (1, 8, 4, 4)


def test_a_layer_named_by_a_move_is_that_move() -> None:
    operators = [
        _op("convolution", "convolution", "patch", ["x"], *MAP),
        _op("permute", "permute", "attention", ["convolution"], 1, 4, 4, 8),
        _op("linear", "linear", "fc", ["permute"], 1, 4, 4, 16),
    ]
    name = "[SHUFFLE]-[aten_ops.permute.default]-[attention/permute]_myl0_1"
    taken, moved = _tensor("t", *MAP), _tensor("u", 1, 4, 4, 8)
    assert _attributed(
        operators,
        ("__myl_CorrAdd_myl0_0", [X], [taken]),
        (name, [taken], [moved]),
        ("__myl_FcAdd_myl0_2", [moved], [_tensor("output0", 1, 4, 4, 16)]),
    ) == [["convolution"], ["permute"], ["linear"]]
    assert _attributed(operators, (name, [], [])) == [["permute"]]


def test_a_run_of_layers_is_more_than_its_ends() -> None:
    operators = [
        _op("linear", "linear", "q", ["x"], 4, 8),
        _op("relu", "relu", "act", ["linear"], 4, 8),
        _op("linear", "linear_1", "out", ["relu"], 4, 8),
    ]
    name = (
        "{ForeignNode[[MATRIX_MULTIPLY]-[aten_ops.linear.default]-[q/linear]..."
        "[ELEMENTWISE]-[aten_ops.linear.default]-[out/linear_1]]}"
    )
    whole = ["linear", "relu", "linear_1"]
    assert _attributed(operators, (name, [_tensor("x", 4, 8)], [_tensor("output0", 4, 8)])) == [whole]
    assert _attributed(operators, (name, [], [])) == [[]]


def test_suffixes_of_converters_are_no_nodes() -> None:
    operators = [_op("linear", "linear", "fc", ["x"], 4, 8), _op("relu", "relu", "act", ["linear"], 4, 8)]
    name = (
        "[MATRIX_MULTIPLY]-[aten_ops.linear.default]-[fc/linear_matrix_multiply] + "
        "[ELEMENTWISE]-[aten_ops.linear.default]-[fc/linear_add_bias] + [ACTIVATION]-[aten_ops.relu.default]-[act/relu]"
    )
    assert _attributed(operators, (name, [_tensor("x", 4, 8)], [_tensor("output0", 4, 8)])) == [["linear", "relu"]]


def test_a_piece_of_a_split_is_not_another_split() -> None:
    operators = [_op("split", "split", "one", ["x"], 4, 8), _op("split", "split_1", "two", ["split"], 4, 8)]
    name = "[SLICE]-[aten_ops.split.Tensor]-[one/split_1]"
    assert _attributed(operators, (name, [_tensor("x", 4, 24)], [_tensor("t", 4, 8)])) == [["split"]]


def test_a_name_that_is_nowhere_in_the_graph_proves_nothing() -> None:
    name = "[ACTIVATION]-[aten_ops.relu.default]-[other/relu]"
    assert _attributed([_op("relu", "relu", "act", ["x"], 4)], (name, [], [])) == [[]]


def test_a_trifle_that_is_certain_does_not_take_the_time_of_a_convolution_that_is_not() -> None:
    operators = [
        _op("convolution", "a", "a", ["x"], *MAP),
        _op("convolution", "b", "b", ["x"], *MAP),
        _op("add", "add", "block", ["a", "b"], *MAP),
    ]
    first = _tensor("t", *MAP)
    assert _attributed(
        operators,
        ("__myl_Corr_myl0_0", [X], [first]),
        ("__myl_CorrAdd_myl0_1", [X, first], [_tensor("output0", *MAP)]),
    ) == [[], []]


def test_operators_that_were_merged_are_certain_of_none() -> None:
    operators = [
        _op("sigmoid", "sigmoid", "g1", ["x"], 4, 4),
        _op("sigmoid", "sigmoid_1", "g2", ["x"], 4, 4),
        _op("mul", "mul", "m1", ["sigmoid", "sigmoid_1"], 4, 4),
        _op("mul", "mul_1", "m2", ["sigmoid"], 4, 4),
        _op("cat", "cat", "c", ["mul", "mul_1"], 8, 4),
    ]
    merged, one, other = (_tensor(name, 4, 4) for name in "smn")
    found = _attributed(
        operators,
        ("__myl_Sig_myl0_0", [_tensor("x", 4, 4)], [merged]),
        ("__myl_Mul_myl0_1", [merged], [one]),
        ("__myl_Mul_myl0_2", [merged], [other]),
        ("__myl_Conc_myl0_3", [one, other], [_tensor("output0", 8, 4)]),
    )
    assert found[1:3] == [[], []]


def test_two_kernels_that_seem_to_do_the_same_are_certain_of_nothing() -> None:
    operators = [
        _op("sub", "sub", "m1", ["x"], 4, 4),
        _op("add", "add", "m2", ["x"], 4, 4),
        _op("exp", "exp", "m3", ["sub"], 4, 4),
        _op("sin", "sin", "m4", ["add"], 4, 4),
        _op("cat", "cat", "", ["exp", "sin"], 8, 4),
    ]
    x, one, other = (_tensor(name, 4, 4) for name in "xtu")
    assert _attributed(
        operators,
        ("__myl_Add_myl0_0", [x], [one]),  # a subtraction, as TensorRT may have it
        ("__myl_Add_myl0_1", [x], [other]),
        ("__myl_ExpSinConc_myl0_2", [one, other], [_tensor("output0", 8, 4)]),
    ) == [[], [], []]


def test_a_kernel_that_says_nothing_holds_no_input_of_another_size() -> None:
    operators = [
        _op("convolution", "a", "a", ["x"], *MAP),
        _op("convolution", "b", "b", ["x"], *MAP),
        _op("relu", "relu", "ra", ["a"], *MAP),
        _op("sigmoid", "sigmoid", "sb", ["b"], *MAP),
        _op("mul", "mul", "m", ["relu", "sigmoid"], *MAP),
    ]
    both = _tensor("t", 1, 16, 4, 4)
    assert _attributed(operators, ("merged", [X], [both]), ("pointwise", [both], [_tensor("output0", *MAP)])) == [
        [],
        [],
    ]


def test_a_tensor_that_two_layers_write_is_not_known() -> None:
    operators = [
        _op("convolution", "a", "a", ["x"], *MAP),
        _op("convolution", "b", "b", ["x"], *MAP),
        _op("cat", "cat", "", ["a", "b"], 1, 16, 4, 4),
        _op("relu", "relu", "r", ["cat"], 1, 16, 4, 4),
    ]
    found = _attributed(
        operators,
        ("__myl_Corr_myl0_0", [X], [_tensor("t", *MAP)]),
        ("__myl_Corr_myl0_1", [X], [_tensor("t", *MAP)]),
        ("kernel", [_tensor("t", 1, 16, 4, 4)], [_tensor("output0", 1, 16, 4, 4)]),
    )
    assert found[2] == []
    assert found[0] == found[1] == []


def test_a_named_layer_is_what_it_names_and_no_more() -> None:
    operators = [
        _op("convolution", "conv", "c", ["x"], 1, 8, 8, 8),
        _op("max_pool2d", "max_pool2d", "p", ["conv"], *MAP),
        _op("relu", "relu", "r", ["max_pool2d"], *MAP),
    ]
    between = _tensor("t", 1, 8, 8, 8)  # TensorRT has put the activation first
    found = _attributed(
        operators,
        ("sm90_fprop_relu", [_tensor("x", 1, 3, 8, 8)], [between]),
        ("[POOLING]-[aten_ops.max_pool2d.default]-[p/max_pool2d]_myl0_1", [between], [_tensor("output0", *MAP)]),
    )
    assert found[1] == ["max_pool2d"]
