"""Which layers of two profiles are the same, what changed, and how much of the time that explains."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from trtgate.common.accelerator import Accelerator
from trtgate.profiles import difference_text, welch_intervals
from trtgate.profiles.alignment import longest_common_subsequence
from trtgate.profiles.difference_text import sentence
from trtgate.profiles.differences import (
    ADDED,
    FELL_BACK,
    FUSIONS,
    LAYERS,
    MATCHED,
    PRECISION,
    REGROUPED,
    REMOVED,
    SLOWER,
    SYNCHRONIZING,
    TACTICS,
    TAKEN_UP,
    ProfileDifference,
    compare,
)
from trtgate.profiles.layer_names import normalised, shown
from trtgate.profiles.layer_structure import structural
from trtgate.records.profile_record import PYTORCH, TENSORRT, Layer, Operator, Part, Profile, Tensor

from .profile_data import recorded

DATA = Path(__file__).parent / "data"
SPREAD = np.array([-0.1, 0.0, 0.1, 0.05, -0.05, 0.02])


# Profiles


def h100_resnet18(*, warm: int = 3) -> Profile:
    """Return what an H100 ran for resnet18 in fp16 at batch 1; a block is one warm call."""
    described = json.loads((DATA / "h100_resnet18_engine_information.json").read_text())["Layers"]
    times_ms = json.loads((DATA / "h100_resnet18_layer_times_ms.json").read_text())
    layers = []
    for entry in described:
        blocks_us = [round(ms * 1e3, 3) for ms in times_ms[entry["Name"]][warm:]]
        layers.append(
            Layer(
                name=entry["Name"],
                type=entry["LayerType"],
                tactic=entry["TacticName"],
                inputs=tensors(entry["Inputs"]),
                outputs=tensors(entry["Outputs"]),
                blocks_us=blocks_us,
                median_us=float(np.median(blocks_us)),
            )
        )
    return of_parts(Part(name="_run_on_acc_0", kind=TENSORRT, layers=layers))


def tensors(described: Sequence[dict[str, Any]]) -> list[Tensor]:
    return [Tensor(name=t["Name"], shape=t["Dimensions"], format=t["Format/Datatype"]) for t in described]


def lines(found: ProfileDifference, top: int = 10) -> list[str]:
    """Return what a pipe gets."""
    return [row for line in difference_text.lines(found, top) for row in str(line).splitlines()]


def of_parts(*parts: Part) -> Profile:
    return Profile(
        case_id="resnet18-dynamo-fp16-b1-mbs5",
        accelerator=Accelerator(kind="gpu", name="H100"),
        recorded="2026-01-01T00:00:00Z",
        runtime="own",
        calls=60,
        parts=list(parts),
    )


def layer(name: str, us: float = 10.0, **fields: Any) -> Layer:
    """Return a layer of six blocks around `us`, of one input and one output."""
    usual: dict[str, Any] = {
        "type": "kgen",
        "tactic": name,
        "inputs": [Tensor(name="in", shape=[1, 64, 56, 56], dtype="float16", format="Half")],
        "outputs": [Tensor(name="out", shape=[1, 64, 56, 56], dtype="float16", format="Half")],
        "blocks_us": (us + SPREAD).round(3).tolist(),
        "median_us": us,
    }
    return Layer(name=name, **usual | fields)


def operator(node: str, module: str = "") -> Operator:
    return Operator(node=node, operator=f"aten.{re.sub(r'_[0-9]+$', '', node)}.default", module=module)


def engine(*layers: Layer, operators: Sequence[Operator] = (), name: str = "_run_on_acc_0") -> Part:
    return Part(name=name, kind=TENSORRT, layers=numbered(layers), operators=list(operators))


def segment(*layers: Layer, operators: Sequence[Operator] = ()) -> Part:
    return Part(name="_run_on_gpu_1", kind=PYTORCH, layers=list(layers), operators=list(operators))


def numbered(layers: Sequence[Layer], first_event: int = 35665) -> list[Layer]:
    """Return layers with the numbers that a build gives them: graph and index, and those of events."""
    events = count(first_event, 2)
    return [
        msgspec.structs.replace(
            layer,
            name=re.sub(r"__mye\d*", lambda _: f"__mye{next(events)}", re.sub(r"_myl0_\d+$", "", layer.name))
            + f"_myl0_{index}" * layer.name.startswith(("__my", "[")),
        )
        for index, layer in enumerate(layers)
    ]


def with_layers(profile: Profile, layers: Sequence[Layer]) -> Profile:
    """Return a profile of one engine with other layers, as another build would number them."""
    part = msgspec.structs.replace(profile.parts[0], layers=numbered(layers, first_event=70001))
    return msgspec.structs.replace(profile, parts=[part])


def slower(layer: Layer, us: float) -> Layer:
    blocks_us = [value + us for value in layer.blocks_us]
    return msgspec.structs.replace(layer, blocks_us=blocks_us, median_us=layer.median_us + us)


def conv_bn_relu(blocks: int) -> tuple[list[Operator], list[Layer]]:
    """Return a network of fused layers that all have the same name and shapes, and its operators."""
    operators, layers = [], []
    for block in range(blocks):
        module = f"layer{block}"
        nodes = [f"convolution_{block}", f"batch_norm_{block}", f"relu_{block}"]
        operators += [operator(node, f"{module}.{i}") for i, node in enumerate(nodes)]
        layers.append(layer("__myl_CorrMulAddRelu", sources=nodes, modules=[f"{module}.{i}" for i in range(3)]))
    return operators, layers


def causes(difference: ProfileDifference) -> list[str]:
    return [cause.cause for cause in difference.causes]


def kinds(difference: ProfileDifference) -> Counter[str]:
    return Counter(change.kind for change in difference.changes)


# The same layers


def test_a_profile_compared_with_itself_has_no_differences() -> None:
    profile = h100_resnet18()
    found = compare(profile, profile)
    assert kinds(found) == {MATCHED: 24}  # of 36: twelve signal or wait
    assert not found.causes
    assert all(change.explained.us == 0 for change in found.changes)
    assert not structural(profile, profile)
    assert lines(found) == [
        "resnet18-dynamo-fp16-b1-mbs5: +0.00 µs in layers, each timed by itself: same layers, none is slower beyond "
        "noise"
    ]


def test_one_slower_layer_explains_the_change() -> None:
    before = h100_resnet18()
    layers = list(before.parts[0].layers)
    layers[33] = slower(layers[33], 20.0)
    found = compare(before, with_layers(before, layers))
    assert causes(found) == [SLOWER]
    first = found.changes[0]
    assert "layer4.1.conv2" in first.before[0].name
    assert first.explained.us == pytest.approx(20.0)
    assert first.share == pytest.approx(1.0)
    assert first.is_beyond_noise
    assert [change.explained.us for change in found.changes[1:]] == pytest.approx([0.0] * 23)
    assert not structural(before, with_layers(before, layers))
    said = sentence(found)
    assert "same layers, these got slower (TensorRT names no tactic: it may be another one); [CONVOLUTION]" in said


def between_launches(*times_us: float) -> float:
    """The known variance from launch to launch of layers of these times."""
    return sum(welch_intervals.LAUNCH_SD_US**2 + (welch_intervals.LAUNCH_SD_SHARE * us) ** 2 for us in times_us)


def test_the_interval_of_a_layer_is_welchs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(welch_intervals, "LAUNCH_SD_US", 0.0)
    monkeypatch.setattr(welch_intervals, "LAUNCH_SD_SHARE", 0.0)
    before, after = layer("a", 10.0), layer("a", 12.0, blocks_us=[12.3, 11.8, 12.1])
    [change] = compare(of_parts(engine(before)), of_parts(engine(after))).changes
    wanted = stats.ttest_ind(after.blocks_us, before.blocks_us, equal_var=False).confidence_interval(0.95)
    assert (change.explained.low_us, change.explained.high_us) == pytest.approx((wanted.low, wanted.high))


def test_two_launches_of_the_same_engine_are_not_called_slower() -> None:
    first, second = (recorded(f"resnet18_profile_{launch}") for launch in range(2))
    for before, after in ((first, second), (second, first)):
        found = compare(before, after)
        assert kinds(found) == {MATCHED: 24}
        assert not found.causes, sentence(found)
        assert not structural(before, after)


def test_the_total_adds_means_and_variances() -> None:
    layers = [layer("a", 10.0), layer("b", 20.0)]
    found = compare(of_parts(engine(*layers)), of_parts(engine(slower(layers[0], 1.0), slower(layers[1], 2.0))))
    of_blocks = 4 * SPREAD.var(ddof=1) / 6
    variance = of_blocks + between_launches(10.0, 20.0, 11.0, 22.0)
    degrees = variance**2 / (
        of_blocks**2 / 20
    )  # four equal variances of six blocks: four times five degrees of freedom
    half = np.sqrt(variance) * stats.t.isf(0.025, degrees)
    assert found.total.us == pytest.approx(3.0)
    assert (found.total.low_us, found.total.high_us) == pytest.approx((3.0 - half, 3.0 + half), abs=1e-3)
    assert [change.share for change in found.changes] == pytest.approx([2 / 3, 1 / 3])


def test_many_layers_within_noise_are_not_called_slower() -> None:
    rng = np.random.default_rng(1)

    def launch(size: int) -> list[Layer]:
        means = rng.normal(10, welch_intervals.LAUNCH_SD_US, size)
        return [layer("__myl_Corr", blocks_us=rng.normal(mean, 0.1, 20).tolist()) for mean in means]

    sides = [launch(300), launch(300)]
    found = compare(of_parts(engine(*sides[0])), of_parts(engine(*sides[1])))
    assert any(change.explained.excludes_zero for change in found.changes)  # a twentieth of the intervals do
    assert not found.causes


def test_without_blocks_there_is_a_change_and_no_interval() -> None:
    sides = [of_parts(engine(layer("a", us, blocks_us=[]))) for us in (10.0, 12.0)]
    found = compare(*sides)
    assert found.total.us == 2.0
    assert found.total.low_us is None
    assert found.changes[0].share == 1.0
    assert not found.causes  # noise is unknown
    assert lines(found)[-1].split() == ["+2.0", "100", "%", "a"]


@pytest.mark.parametrize(("after_us", "cause"), [(10.6, ""), (11.0, SLOWER)])
def test_blocks_that_do_not_vary_have_the_noise_between_launches(after_us: float, cause: str) -> None:
    sides = [of_parts(engine(layer("a", blocks_us=[us] * 5))) for us in (10.0, after_us)]
    [change] = compare(*sides).changes
    half = 1.95996 * np.sqrt(between_launches(10.0, after_us))
    wanted = (after_us - 10 - half, after_us - 10 + half)
    assert (change.explained.low_us, change.explained.high_us) == pytest.approx(wanted, abs=1e-3)
    assert change.cause == cause


def test_what_takes_no_time_has_no_noise() -> None:
    sides = [of_parts(engine(layer("a"), layer("wait", blocks_us=[0.0] * 5))) for _ in range(2)]
    [wait] = [change for change in compare(*sides).changes if change.before[0].name.startswith("wait")]
    assert (wait.explained.low_us, wait.explained.high_us) == (0.0, 0.0)


# Layers that are not the same


def test_an_inserted_layer_shifts_indexes_and_nothing_else() -> None:
    before = h100_resnet18()
    layers = list(before.parts[0].layers)
    layers.insert(14, layer("__myl_Move", 3.0))
    after = with_layers(before, layers)
    found = compare(before, after)
    assert kinds(found) == {MATCHED: 24, ADDED: 1}
    assert causes(found) == [LAYERS]
    assert found.of_kind(ADDED)[0].after[0].name == "__myl_Move_myl0_14"
    assert structural(before, after).added == ["__myl_Move"]
    assert kinds(compare(after, before)) == {MATCHED: 24, REMOVED: 1}


@pytest.mark.parametrize("place", [0, 7, 199])
def test_a_layer_removed_among_equals_is_found_by_its_operators(place: int) -> None:
    operators, layers = conv_bn_relu(200)
    before = of_parts(engine(*layers, operators=operators))
    rest = [layers[i] for i in range(200) if i != place]
    left = [op for op in operators if not op.module.startswith(f"layer{place}.")]
    renumbered, nodes = [], {}
    for number, op in enumerate(left):
        nodes[op.node] = f"{op.node.rpartition('_')[0]}_{number // 3}"
        renumbered.append(msgspec.structs.replace(op, node=nodes[op.node]))
    rest = [msgspec.structs.replace(layer, sources=[nodes[node] for node in layer.sources]) for layer in rest]
    found = compare(before, of_parts(engine(*rest, operators=renumbered)))
    assert kinds(found) == {MATCHED: 199, REMOVED: 1}
    assert found.of_kind(REMOVED)[0].before[0].modules[0] == f"layer{place}.0"


def test_layers_of_two_streams_in_another_order_are_the_same() -> None:
    before = h100_resnet18()
    layers = list(before.parts[0].layers)
    layers[9], layers[11] = layers[11], layers[9]
    found = compare(before, with_layers(before, layers))
    assert kinds(found) == {MATCHED: 24}
    assert not found.causes


def test_another_tactic_is_named() -> None:
    before = h100_resnet18()
    layers = list(before.parts[0].layers)
    layers[0] = msgspec.structs.replace(slower(layers[0], 5.0), tactic="__myl_CopyPad_0x0123456789abcdef")
    after = with_layers(before, layers)
    found = compare(before, after)
    assert causes(found) == [TACTICS]
    [change] = [change for change in found.changes if change.other_tactic]
    assert not change.other_precision
    [told] = structural(before, after).tactics
    assert told.startswith("__myl_MoveConc: kgen __myl_MoveConc_0xc1455be378008feffc8e73982aa134dd → kgen")
    assert any("(other tactic)" in line for line in lines(found))


def test_another_hash_of_a_generated_kernel_is_not_said_to_be_another_tactic() -> None:
    before = h100_resnet18()
    layers = list(before.parts[0].layers)
    layers[0] = msgspec.structs.replace(slower(layers[0], 5.0), tactic="__myl_MoveConc_0x0123456789abcdef")
    after = with_layers(before, layers)
    assert structural(before, after).tactics == []
    (change, *_) = compare(before, after).changes
    assert (change.other_tactic, change.tactic_unseen) == (False, True)


def test_a_tactic_without_a_name_is_never_said_to_have_changed() -> None:
    before = of_parts(engine(layer("__myl_Corr", tactic=""), layer("__myl_Max", tactic="__myelin_CASK_STUB")))
    after = of_parts(engine(layer("__myl_Corr", 12.0, tactic="x"), layer("__myl_Max", tactic="y")))
    found = compare(before, after)
    assert causes(found) == [SLOWER]
    assert not structural(before, after)
    assert "  TensorRT names no tactic of 2 of 2 layers: another one can't be seen there" in lines(found)


def test_another_precision_is_named() -> None:
    half = layer("__myl_Corr")
    full = [Tensor(name="out", shape=[1, 64, 56, 56], dtype="float32", format="Float")]
    sides = [of_parts(engine(half)), of_parts(engine(msgspec.structs.replace(half, outputs=full)))]
    found = compare(*sides)
    assert causes(found) == [PRECISION]
    assert structural(*sides).precisions == ["__myl_Corr: Half to Half → Half to Float"]
    assert not compare(*sides).of_kind(MATCHED)[0].other_tactic


def test_unknown_formats_are_not_another_precision() -> None:
    bare = layer("__myl_Corr", inputs=[], outputs=[])
    assert not structural(of_parts(engine(layer("__myl_Corr"))), of_parts(engine(bare)))


# Fused anew


def test_two_layers_fused_into_one_are_one_change_by_position() -> None:
    before = h100_resnet18()
    layers = list(before.parts[0].layers)
    mean, fc = layers[34], layers[35]
    layers[34:] = [layer("__myl_MulAddAddReluMeanFcAdd", 7.5, inputs=mean.inputs, outputs=fc.outputs)]
    after = with_layers(before, layers)
    found = compare(before, after)
    assert kinds(found) == {MATCHED: 22, REGROUPED: 1}
    assert causes(found) == [FUSIONS]
    [group] = found.of_kind(REGROUPED)
    assert group.before == [mean, fc]
    assert group.explained.us == pytest.approx(7.52 - np.mean(mean.blocks_us) - np.mean(fc.blocks_us), abs=0.02)
    assert structural(before, after).fusions == ["__myl_MulAddAddReluMean + __myl_FcAdd → __myl_MulAddAddReluMeanFcAdd"]


def test_a_layer_that_is_named_by_its_module_is_called_by_its_type_and_the_module() -> None:
    name = "[CONVOLUTION]-[aten_ops.convolution.default]-[layer4.1.conv2/convolution_19]"
    named = [layer(name, modules=modules) for modules in (["layer4.1.conv2"], [])]
    empty = of_parts(engine())
    assert [structural(empty, of_parts(engine(one))).added for one in named] == [
        ["[CONVOLUTION] (layer4.1.conv2)"],
        [name.replace("_19", "")],
    ]


def test_baselines_without_names_of_tensors_are_enough() -> None:
    before = h100_resnet18()
    for old in before.parts[0].layers:
        old.inputs = [msgspec.structs.replace(tensor, name="") for tensor in old.inputs]
        old.outputs = [msgspec.structs.replace(tensor, name="") for tensor in old.outputs]
    after = h100_resnet18()
    layers = after.parts[0].layers
    layers[4:6] = [layer("__myl_CorrMulAddAddReluCorr", 14.0, inputs=layers[4].inputs, outputs=layers[5].outputs)]
    found = compare(before, after)
    assert kinds(found) == {MATCHED: 22, REGROUPED: 1}
    assert [x.name for x in found.of_kind(REGROUPED)[0].before] == [x.name for x in before.parts[0].layers[4:6]]


def test_one_layer_split_into_three_is_one_change_by_operators() -> None:
    operators, layers = conv_bn_relu(4)
    one = layers[2]
    three = [
        layer("__myl_Corr", 6.0, sources=one.sources[:1], modules=one.modules[:1], outputs=[]),
        layer("__myl_MulAdd", 4.0, sources=one.sources[1:2], modules=one.modules[1:2]),
        layer("__myl_Relu", 3.0, sources=one.sources[2:], modules=one.modules[2:]),
    ]
    before = of_parts(engine(*layers, operators=operators))
    found = compare(before, of_parts(engine(*layers[:2], *three, layers[3], operators=operators)))
    assert kinds(found) == {MATCHED: 3, REGROUPED: 1}
    [group] = found.of_kind(REGROUPED)
    assert len(group.after) == 3
    assert group.explained.us == pytest.approx(3.0, abs=0.01)
    assert sentence(found) == (
        "resnet18-dynamo-fp16-b1-mbs5: +3.0 µs in layers, each timed by itself: fusions changed; "
        "layer2.0, layer2.1, layer2.2 +3.0 µs (+2.0 to +4.0); 100 % explained by 3 layers"
    )


def test_other_operators_in_the_same_place_are_no_other_fusion() -> None:
    old, new = operator("relu_0", "act"), operator("gelu_0", "act")
    before = of_parts(engine(layer("__myl_Relu", sources=["relu_0"]), operators=[old]))
    after = of_parts(engine(layer("__myl_Gelu", sources=["gelu_0"]), operators=[new]))
    assert kinds(compare(before, after)) == {ADDED: 1, REMOVED: 1}


def test_renamed_modules_leave_the_layers_what_they_are() -> None:
    operators, layers = conv_bn_relu(5)
    wrapped = [msgspec.structs.replace(op, module=f"model.{op.module}") for op in operators]
    sides = of_parts(engine(*layers, operators=operators)), of_parts(engine(*layers, operators=wrapped))
    assert not structural(*sides)


# Parts


def fallen_back() -> tuple[Profile, Profile]:
    """Return a network in one engine, and with the relu of layer1 in PyTorch between two engines."""
    operators, layers = conv_bn_relu(3)
    before = of_parts(engine(*layers, operators=operators))
    rest = layer("__myl_CorrMulAdd", 9.0, sources=layers[1].sources[:2], modules=layers[1].modules[:2])
    relu = layer("relu_7", 40.0, type="aten.relu.default", tactic="", sources=["relu_7"], modules=["layer1.2"])
    after = of_parts(
        engine(layers[0], rest, operators=operators[:5]),
        segment(relu, operators=[operator("relu_7", "layer1.2")]),
        engine(layers[2], operators=operators[6:], name="_run_on_acc_2"),
    )
    return before, after


def test_operators_that_fell_back_to_pytorch_are_told_first() -> None:
    before, after = fallen_back()
    found = compare(before, after)
    assert causes(found) == [FELL_BACK]
    [fallen] = found.of_kind(FELL_BACK)
    assert [layer.name for layer in fallen.after] == ["__myl_CorrMulAdd_myl0_1", "relu_7"]
    assert fallen.explained.us == pytest.approx(39.0, abs=0.01)
    assert [(moved.operator, moved.module, moved.count) for moved in found.fell_back] == [
        ("aten.relu.default", "layer1.2", 1)
    ]
    assert found.engines_added == ["_run_on_acc_2"]
    assert sentence(found).startswith(
        "resnet18-dynamo-fp16-b1-mbs5: +39.0 µs in layers, each timed by itself: fell back to PyTorch "
        "(1 aten.relu.default); layer1.0"
    )
    assert "; engines 1 → 2;" in sentence(found)
    assert structural(before, after).fell_back == ["1 aten.relu.default (layer1.2)"]


def test_the_other_way_round_they_are_taken_up() -> None:
    before, after = fallen_back()
    found = compare(after, before)
    assert causes(found) == [TAKEN_UP]
    assert found.of_kind(TAKEN_UP)[0].explained.us == pytest.approx(-39.0, abs=0.01)
    assert found.engines_removed == ["_run_on_acc_2"]
    assert not found.fell_back


def test_a_segment_that_could_not_be_profiled_still_shows_what_fell_back() -> None:
    before, after = fallen_back()
    after.parts[1].layers, after.parts[1].problem = [], "torch.profiler saw\nno kernel of it"
    found = compare(before, after)
    assert FELL_BACK in causes(found)
    assert lines(found)[-1] == r"  after: _run_on_gpu_1: torch.profiler saw\nno kernel of it"


def test_renumbered_nodes_that_stay_in_pytorch_did_not_fall_back() -> None:
    layers = [layer(node, type="aten.relu.default", tactic="", sources=[node]) for node in ("relu_1", "relu_2")]
    sides = [of_parts(segment(x, operators=[operator(x.name, "act")])) for x in layers]
    assert kinds(compare(*sides)) == {MATCHED: 1}
    assert not structural(*sides)


def test_an_engine_split_in_two_keeps_its_layers() -> None:
    operators, layers = conv_bn_relu(6)
    before = of_parts(engine(*layers, operators=operators))
    after = of_parts(
        engine(*layers[:4], operators=operators[:12]),
        engine(*layers[4:], operators=operators[12:], name="_run_on_acc_1"),
    )
    found = compare(before, after)
    assert kinds(found) == {MATCHED: 6}
    assert structural(before, after).engines_added == ["_run_on_acc_1"]
    assert sentence(found).endswith("same layers, none is slower beyond noise; engines 1 → 2")


def test_empty_profiles_and_parts_are_no_error() -> None:
    empty, full = of_parts(), of_parts(engine(layer("a")))
    assert not compare(empty, empty).changes
    assert kinds(compare(empty, full)) == {ADDED: 1}
    assert kinds(compare(full, of_parts(engine()))) == {REMOVED: 1}
    assert compare(empty, full).engines_added == ["_run_on_acc_0"]
    assert not compare(full, of_parts(engine())).engines_removed
    assert lines(compare(empty, empty))


# Signals and waits


def test_signals_and_waits_are_ignored_unless_they_take_time() -> None:
    idle = layer("__mye1", 0.0, type="wait", tactic="", inputs=[], outputs=[], blocks_us=[0.0] * 6)
    bare = of_parts(engine(layer("a")))
    assert kinds(compare(bare, of_parts(engine(layer("a"), idle, idle)))) == {MATCHED: 1}
    busy = slower(idle, 4.0)
    found = compare(bare, of_parts(engine(layer("a"), busy)))
    assert found.of_kind(SYNCHRONIZING)[0].explained.us == pytest.approx(4.0)
    assert found.total.us == pytest.approx(4.0)
    assert not structural(bare, of_parts(engine(layer("a"), busy)))


# Text


def test_names_cannot_command_a_terminal() -> None:
    name = "[\x1b[2Jconv]\n\"quoted' \u202e\ud800"
    sides = [of_parts(engine(layer(name, us, modules=["a\rb"]))) for us in (1.0, 2.0)]
    text = "\n".join([*lines(compare(*sides)), *lines(compare(of_parts(), sides[0]))])
    assert all(c.isprintable() for c in text.replace("\n", ""))
    assert r"[\x1b[2Jconv]\n" in text
    assert r"a\rb" in text


def test_a_long_name_keeps_its_ends() -> None:
    assert len(shown("a" * 60 + "b" * 60)) == 79
    assert shown("short") == "short"


def test_the_table_is_cut_after_the_top_and_says_what_is_left() -> None:
    layers = [layer(f"layer {i}") for i in range(5)]
    found = compare(of_parts(engine(*layers)), of_parts(engine(*(slower(x, i + 1.0) for i, x in enumerate(layers)))))
    text = lines(found, top=2)
    assert [line.split()[0] for line in text[2:4]] == ["+5.0", "+4.0"]
    assert text[4] == "  and 3 more, +6.0 µs together"
    assert text[0].endswith(
        "layer 4 +5.0 µs (+4.3 to +5.7), layer 3 +4.0 µs (+3.3 to +4.7); 93 % explained by 4 layers"
    )


@pytest.mark.parametrize(
    ("name", "kind", "wanted"),
    [
        ("__myl_CorrMulAddRelu_myl0_13", TENSORRT, "__myl_CorrMulAddRelu"),
        ("__mye35665_myl0_7", TENSORRT, "__mye"),
        ("__myl_MoveConc_0xc1455be378008fef", TENSORRT, "__myl_MoveConc_"),
        ("[A]-[B]-[layer4.1.conv2/convolution_19]_myl0_33", TENSORRT, "[A]-[B]-[layer4.1.conv2/convolution]"),
        ("relu_12", PYTORCH, "relu"),
        ("layer_12", TENSORRT, "layer_12"),
    ],
)
def test_names_lose_what_differs_between_builds(name: str, kind: str, wanted: str) -> None:
    assert normalised(name, kind) == wanted


# Properties

NAMES = st.sampled_from(["__myl_Corr", "__myl_CorrAdd", "__myl_Relu"])
SHAPES = st.sampled_from([[1, 64], [1, 128]])


@st.composite
def profiles(draw: st.DrawFn) -> Profile:
    """Return a profile of up to eight layers of few names and shapes, some of known operators, in up to two parts."""
    layers, operators = [], []
    for number in range(draw(st.integers(0, 8))):
        tensor = Tensor(name="t", shape=draw(SHAPES), format="Half")
        sources = [f"relu_{number}"] if draw(st.booleans()) else []
        us = draw(st.floats(0, 1000))
        layers.append(layer(draw(NAMES), us, inputs=[tensor], outputs=[tensor], sources=sources))
        operators.append(operator(f"relu_{number}", draw(st.sampled_from(["", "a", "b"]))))
    cut, kind = draw(st.integers(0, len(layers))), draw(st.sampled_from([TENSORRT, PYTORCH]))
    return of_parts(
        engine(*layers[:cut], operators=operators[:cut]),
        msgspec.structs.replace(segment(*layers[cut:], operators=operators[cut:]), kind=kind),
    )


@given(profiles())
def test_nothing_changed_between_a_profile_and_itself(profile: Profile) -> None:
    found = compare(profile, profile)
    assert set(kinds(found)) <= {MATCHED}
    assert not found.causes
    assert sum(change.explained.us for change in found.changes) == 0
    assert not structural(profile, profile)


@given(profiles(), profiles())
def test_every_layer_is_in_one_change_and_they_add_up(before: Profile, after: Profile) -> None:
    found = compare(before, after)
    for profile, side in ((before, "before"), (after, "after")):
        names = Counter(layer.name for change in found.changes for layer in getattr(change, side))
        assert names == Counter(layer.name for _, layer in profile.layers())
    assert sum(change.explained.us for change in found.changes) == pytest.approx(found.total.us, abs=1e-3)
    assert found.total.us == pytest.approx(found.after_us - found.before_us, abs=1e-3)
    assert lines(found)


@given(st.lists(NAMES, max_size=12), st.lists(NAMES, max_size=12))
def test_what_is_new_one_way_is_gone_the_other_way(before: list[str], after: list[str]) -> None:
    old, new = (of_parts(engine(*map(layer, names))) for names in (before, after))
    there, back = compare(old, new), compare(new, old)
    assert unmatched(there, "after") == unmatched(back, "before") == Counter(after) - Counter(before)
    assert unmatched(there, "before") == unmatched(back, "after") == Counter(before) - Counter(after)


def unmatched(found: ProfileDifference, side: str) -> Counter[str]:
    changes = (change for change in found.changes if change.kind != MATCHED)
    return Counter(normalised(layer.name) for change in changes for layer in getattr(change, side))


@given(st.lists(st.integers(0, 3), max_size=12), st.lists(st.integers(0, 3), max_size=12))
def test_a_longest_common_subsequence_is_common_and_none_is_longer(before: list[int], after: list[int]) -> None:
    pairs = longest_common_subsequence(before, after)
    assert all(before[i] == after[j] for i, j in pairs)
    assert all(i < k and j < m for (i, j), (k, m) in pairwise(pairs))
    table = np.zeros((len(before) + 1, len(after) + 1), dtype=int)
    for i, old in enumerate(before):
        for j, new in enumerate(after):
            table[i + 1, j + 1] = table[i, j] + 1 if old == new else max(table[i, j + 1], table[i + 1, j])
    assert len(pairs) == table[-1, -1]


def test_profiles_of_thousands_of_layers_are_compared() -> None:
    operators, layers = conv_bn_relu(5000)
    before = of_parts(engine(*layers, operators=operators))
    kept = [layer for number, layer in enumerate(layers) if number % 100]
    found = compare(before, of_parts(engine(*kept, operators=operators)))
    assert kinds(found) == {MATCHED: 4950, REMOVED: 50}
    bare = [msgspec.structs.replace(layer, sources=[], modules=[]) for layer in layers]
    found = compare(of_parts(engine(*bare)), of_parts(engine(*bare[50:], layer("__myl_Move"))))
    assert kinds(found)[MATCHED] == 4950


def test_comparing_imports_neither_torch_nor_pytest() -> None:
    code = "import sys, trtgate.profiles.difference_text; sys.exit(bool({'torch', 'pytest'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
