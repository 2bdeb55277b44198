"""Reading what TensorRT says of an engine, times and intervals, what must hold, files, baselines, and the summary."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from trtgate.commands import profile_answers
from trtgate.common.errors import TrtgateError
from trtgate.profiles import profile_checks, profile_files, profile_gate, profile_summary
from trtgate.profiles.engine_information import bindings_of, dtype_of, in_order, layers_of
from trtgate.profiles.layer_times import timed
from trtgate.profiles.profile_gate import LayersVerdict
from trtgate.records.profile_record import Layer, Part, Profile, Tensor
from trtgate.torch_trt import engines as trt_engines
from trtgate.torch_trt import layer_profiler

from .profile_data import H100, resnet18_information, resnet18_profile

DOCS = Path(__file__).parents[1] / "docs"
CPP_PROFILE = """[
  {
    "name": "conv "quoted"
 and broken",
    "timeMs": 0.057024,
    "averageMs": 0.019008,
    "percentage": 0.285668
  },
  {
    "name": "relu",
    "timeMs": 1.32272e-01,
    "averageMs": 4.40907e-02,
    "percentage": 6.62632
  }
]"""


# What TensorRT says


def test_layers_and_bindings_of_a_detailed_engine() -> None:
    layers = layers_of(resnet18_information())
    assert len(layers) == 36
    first = layers[0]
    assert (first.name, first.type, first.stream) == ("__myl_MoveConc_myl0_0", "kgen", 0)
    assert first.tactic.startswith("__myl_MoveConc_0x")
    assert (first.inputs[0].name, first.inputs[0].shape, first.inputs[0].dtype) == ("x", [1, 3, 224, 224], "float16")
    assert bindings_of(resnet18_information()) == ["x", "output0"]


def test_an_engine_that_keeps_names_only() -> None:
    assert [(layer.name, layer.inputs) for layer in layers_of({"Layers": ["a", "b"]})] == [("a", []), ("b", [])]


@pytest.mark.parametrize("document", [None, [], {}, {"Layers": None}])
def test_an_engine_that_says_nothing_is_one_line(document: Any) -> None:
    with pytest.raises(TrtgateError, match="gave no layers"):
        layers_of(document)


def test_the_other_spelling_of_bindings_and_formats() -> None:
    assert bindings_of({"I/O Tensors": [{"Name": "x"}, {"Name": "y"}]}) == ["x", "y"]
    assert dtype_of("Row major linear FP16 format") == "float16"
    assert dtype_of("Channel major INT8 format where channel % 4 == 0") == "int8"
    assert dtype_of("N/A due to dynamic shapes") == ""


def test_layers_stand_in_the_order_in_which_they_ran() -> None:
    described = [Layer(name="a", type="1"), Layer(name="b", type="2"), Layer(name="a", type="3")]
    found = in_order(described, ["b", "a", "new", "a"])
    assert [(layer.name, layer.type) for layer in found] == [("b", "2"), ("a", "1"), ("new", ""), ("a", "3")]


@pytest.mark.parametrize(
    ("information", "verbosity"),
    [
        ({"Layers": [{"Name": "a"}]}, "detailed"),
        ({"Layers": ["a"]}, "layer_names_only"),
        ({"Layers": ["0", "1"]}, "none"),
        ({"Layers": []}, "none"),
        ({}, "none"),
    ],
)
def test_the_verbosity_an_engine_was_built_with(information: Any, verbosity: str) -> None:
    assert trt_engines.verbosity_of(information) == verbosity


# What its profilers say


def test_the_cpp_profile_is_read_whatever_is_in_its_names() -> None:
    first, second = layer_profiler.parse_cpp_profile(CPP_PROFILE)
    assert first == ('conv "quoted"\n and broken', pytest.approx(57.024))
    assert second == ("relu", pytest.approx(132.272))


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=6), st.integers(1, 4))
def test_what_a_profiler_was_told_is_split_into_calls(names: list[str], calls: int) -> None:
    reported = [(name, float(number)) for number, name in enumerate(names * calls)]
    found = layer_profiler.split_calls(reported, calls)
    assert [entry for call in found for entry in call] == reported
    assert [[name for name, _ in call] for call in found] == [names] * calls


@pytest.mark.parametrize("names", ["abac", "aba", ""])
def test_other_layers_at_another_call_are_refused(names: str) -> None:
    with pytest.raises(TrtgateError, match="not the same ones each time"):
        layer_profiler.split_calls([(name, 1.0) for name in names], 2)


def test_a_call_that_could_not_be_read_is_a_problem_of_its_engine_alone() -> None:
    times = layer_profiler.LayerTimes()
    times.calls, times.problem = [[("a", 1.0)]], "the C++ runtime wrote no profile"
    with pytest.raises(TrtgateError, match="wrote no profile"):
        times.blocks_us(1)


def test_an_engine_that_remembers_nothing_says_nothing() -> None:
    silent: Any = SimpleNamespace(serialized_engine=b"", get_layer_info=lambda: " ")
    assert trt_engines.BuiltEngine(silent).information() == {}


def test_blocks_are_medians_of_consecutive_calls() -> None:
    times = layer_profiler.LayerTimes()
    times.calls = [[("a", float(value)), ("b", 1.0)] for value in (1, 2, 99, 4, 5, 6)]
    assert times.blocks_us(2) == (["a", "b"], [[2.0, 5.0], [1.0, 1.0]])


def test_a_profiler_that_reports_nothing_is_one_line() -> None:
    with pytest.raises(TrtgateError, match="reported no layer"):
        layer_profiler.LayerTimes().blocks_us(2)


class FakeEngine(torch.nn.Module):
    """Of Torch-TensorRT's C++ runtime: adds up since it was enabled, and writes its profile at every call."""

    def __init__(self) -> None:
        super().__init__()
        self.folder: Path | None = None
        self.calls = self.total_ms = self.enabled = 0

    def enable_profiling(self, folder: str, style: str) -> None:
        assert style == "trex"
        self.folder, self.calls, self.total_ms = Path(folder), 0, 0
        self.enabled += 1

    def forward(self) -> None:
        if self.folder is None or not self.folder.exists():
            return
        self.calls += 1
        self.total_ms += self.calls
        record = {"name": "a", "timeMs": self.total_ms, "averageMs": self.total_ms / self.calls, "percentage": 100}
        (self.folder / "engine_execution_profile.trace").write_text(json.dumps([record], indent=2))


def test_a_block_of_the_cpp_runtime_is_what_its_sums_grew_by_since_it_was_enabled_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("torch.cuda.synchronize", lambda: None)
    module = FakeEngine()
    engine: Any = SimpleNamespace(runtime=trt_engines.CPP, _module=module)
    with layer_profiler.profiling({"part": engine}, layer_profiler.HeadStart(FakeSpin())) as profiled:  # type: ignore[arg-type]
        for _ in range(2):
            profiled.call(module, 3)
            module()
    assert profiled.times["part"].calls == [[("a", 2000.0)], [("a", 6000.0)]]
    assert module.enabled == 1


class FakeSpin:
    def __init__(self) -> None:
        self.queued: list[float] = []

    def queue(self, us: float) -> None:
        self.queued.append(us)


def test_the_gpu_waits_before_every_engine_until_the_host_has_queued_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.synchronize", lambda: None)
    clock = iter([time for us in (900, 1000, 950, 900, 900) for time in (0.0, us * 1e-6)])
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    spin, modules = FakeSpin(), [FakeEngine(), FakeEngine()]
    engines: Any = {str(n): SimpleNamespace(runtime=trt_engines.CPP, _module=one) for n, one in enumerate(modules)}
    head_start = layer_profiler.HeadStart(spin)  # type: ignore[arg-type]

    def call() -> None:
        for module in modules:
            module()

    with layer_profiler.profiling(engines, head_start) as profiled:
        profiled.call(call, 2)
        assert spin.queued == []
        head_start.cover(call)
        profiled.call(call, 3)
    assert spin.queued == [pytest.approx(4000.0)] * 6
    call()
    assert len(spin.queued) == 6


# Times


def test_the_interval_covers_the_median_as_often_as_it_says() -> None:
    part = Part(name="p", kind="tensorrt", layers=[Layer(name=str(n), type="") for n in range(2000)])
    timed(part, stats.expon.rvs(size=(2000, 20), random_state=1) + 1)
    median = 1 + float(stats.expon.median())
    covered = sum(layer.low_us <= median <= layer.high_us for layer in part.layers) / 2000
    assert covered == pytest.approx(0.959, abs=0.015)  # of 20 values: between the 6th and the 15th
    assert sum(layer.share for layer in part.layers) == pytest.approx(1, abs=profile_checks.SHARES)


# What must hold


def test_a_recorded_profile_is_believable() -> None:
    assert profile_checks.problems(resnet18_profile()) == []


def spoiled(**changes: Any) -> Profile:
    profile = resnet18_profile()
    layer = profile.parts[0].layers[3]
    for name, value in changes.items():
        setattr(layer, name, value)
    return profile


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"median_us": float("nan")}, "not a finite number"),
        ({"low_us": -1.0}, "not a finite number"),
        ({"share": 0.9}, "add up to 1."),
        ({"name": ""}, "has no name"),
    ],
)
def test_what_is_wrong_with_a_layer_is_said(changes: dict[str, Any], said: str) -> None:
    (problem,) = profile_checks.problems(spoiled(**changes))
    assert said in problem


def test_layers_out_of_order_are_noticed() -> None:
    profile = resnet18_profile()
    layers = profile.parts[0].layers
    layers[3], layers[4] = layers[4], layers[3]
    (problem,) = profile_checks.problems(profile)
    assert "stands before the one that makes its input" in problem


def test_layers_that_do_not_add_up_to_the_latency_are_noticed() -> None:
    profile = resnet18_profile()
    profile.device_us = 20.0
    (problem,) = profile_checks.problems(profile)
    assert "at a device latency of 20.0 µs" in problem
    profile.device_us = 2000.0
    (problem,) = profile_checks.problems(profile)
    assert "1000 to 4240 µs are believable" in problem


def test_a_tensor_that_is_written_twice_is_in_order() -> None:
    def layer(name: str, taken: str, made: str) -> Layer:
        return Layer(name=name, type="", inputs=[Tensor(name=taken)], outputs=[Tensor(name=made)])

    part = Part(name="p", kind="tensorrt", layers=[layer("a", "x", "t"), layer("b", "t", "u"), layer("c", "u", "t")])
    timed(part, [[1.0]] * 3)
    assert profile_checks._of_part(part) == []


def test_a_segment_that_only_moves_values_takes_no_time_and_is_fine() -> None:
    profile = resnet18_profile()
    profile.parts.append(Part(name="_run_on_gpu_1", kind="pytorch", layers=[]))
    assert profile_checks.problems(profile) == []


def test_a_part_that_could_not_be_profiled_is_named_with_its_reason() -> None:
    profile = resnet18_profile()
    profile.parts.append(Part(name="_run_on_acc_2", kind="tensorrt", layers=[], problem="can't be deserialized"))
    assert profile_checks.problems(profile) == ["_run_on_acc_2: can't be deserialized"]


# Files


def test_the_published_schema_is_the_one_that_is_read() -> None:
    """Written by `python -m trtgate.profiles.profile_files > docs/profile.schema.json`."""
    assert json.loads((DOCS / "profile.schema.json").read_text()) == profile_files.schema()


def test_a_folder_holds_everything(tmp_path: Path) -> None:
    profile = resnet18_profile()
    part = profile.parts[0].name
    written = profile_files.write_folder(tmp_path / "case", profile, {part: resnet18_information()})
    assert {path.name for path in written} == {
        "profile.json", "trace.json", f"{part}.graph.json", f"{part}.profile.json", f"{part}.profile.metadata.json",
        f"{part}.build.metadata.json",
    }  # fmt: skip
    assert profile_files.read(tmp_path / "case" / "profile.json") == profile


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"{", "is broken"), (b'{"schema": 1}', "is broken"), (b"\xff", "is broken")],
)
def test_a_broken_profile_is_one_line_that_names_it(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "profile.json"
    path.write_bytes(content)
    with pytest.raises(TrtgateError, match=said) as caught:
        profile_files.read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_profile_of_another_schema_is_refused(tmp_path: Path) -> None:
    profile = resnet18_profile()
    profile.schema = 99
    profile_files.write(tmp_path / "profile.json", profile)
    with pytest.raises(TrtgateError, match="has schema 99"):
        profile_files.read(tmp_path / "profile.json")


def test_an_engine_without_details_has_no_files_for_trex(tmp_path: Path) -> None:
    profile = resnet18_profile()
    profile.parts[0].verbosity = "layer_names_only"
    written = profile_files.write_folder(tmp_path, profile, {profile.parts[0].name: {"Layers": ["a"]}})
    assert [path.name for path in written] == ["profile.json", "trace.json"]


def test_a_baseline_keeps_what_a_comparison_needs_and_is_small(tmp_path: Path) -> None:
    profile = resnet18_profile()
    path = profile_files.store_baseline(tmp_path, "h100", profile)
    stored = profile_files.read_baseline(tmp_path, "h100", profile.case_id)
    assert stored is not None
    assert path.stat().st_size < 30_000
    for kept, whole in zip(stored.parts[0].layers, profile.parts[0].layers, strict=True):
        assert (kept.name, kept.tactic, kept.sources, kept.modules) == (
            whole.name, whole.tactic, whole.sources, whole.modules,
        )  # fmt: skip
        assert min(whole.blocks_us) <= kept.median_us <= max(whole.blocks_us)
    assert profile_checks.problems(stored) == []


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TrtgateError, match="could not be written"):
        profile_files.write(tmp_path / "file" / "profile.json", resnet18_profile())


# Against what is stored


def test_a_profile_without_a_stored_one_is_new_then_unchanged(tmp_path: Path) -> None:
    profile = resnet18_profile()
    assert profile_gate.judge(profile, tmp_path, H100.key).verdict is LayersVerdict.NEW
    profile_files.store_baseline(tmp_path, H100.key, profile)
    result = profile_gate.judge(profile, tmp_path, H100.key)
    assert (result.verdict, result.engines, result.layers) == (LayersVerdict.UNCHANGED, 1, 36)
    assert profile_gate.rows([result])[1][0] == profile.case_id


def test_another_tactic_is_a_change_that_is_named(tmp_path: Path) -> None:
    profile_files.store_baseline(tmp_path, H100.key, resnet18_profile())
    profile = resnet18_profile()
    profile.parts[0].layers[0].tactic = "another_kernel"
    result = profile_gate.judge(profile, tmp_path, H100.key)
    assert result.verdict is LayersVerdict.CHANGED
    assert "other tactic: " in result.sentence
    assert "another_kernel" in result.sentence


def test_where_a_regressed_case_lost_its_time(tmp_path: Path) -> None:
    profile_files.store_baseline(tmp_path, H100.key, resnet18_profile())
    stored = profile_files.read_baseline(tmp_path, H100.key, resnet18_profile().case_id)
    assert stored is not None
    slower = resnet18_profile()
    columns = [layer.blocks_us for layer in slower.parts[0].layers]
    columns[22] = [value + 9.0 for value in columns[22]]
    timed(slower.parts[0], columns)
    said = profile_gate.where(stored, slower).sentence
    assert "same layers" in said
    assert "layer3.0.conv2" in said


# In a terminal


def test_the_summary_adds_up() -> None:
    profile = resnet18_profile()
    said = [str(line) for line in profile_summary.lines(profile, top=3)]
    assert said[0].startswith("resnet18-dynamo-fp16-b1-mbs5: engines: 1, segments in PyTorch: 0, layers: 36; 97.")
    assert "conv1, bn1, relu" in "\n".join(said)
    assert sum(profile_summary.module_times(profile).values()) == pytest.approx(profile.sum_us)


def test_names_with_control_characters_are_escaped() -> None:
    profile = resnet18_profile()
    profile.parts[0].layers[1].name = "evil\n\x1b[31m"
    said = "\n".join(map(str, profile_summary.lines(profile)))
    assert "\x1b" not in said
    assert "evil\\n\\x1b[31m" in said


def test_a_case_needs_a_model_that_is_known() -> None:
    ask: dict[str, Any] = {
        "frontend": "dynamo", "precisions": ["fp16"], "batches": [1], "min_block_sizes": [5], "verbosity": "detailed",
    }  # fmt: skip
    with pytest.raises(TrtgateError, match="did you mean 'resnet18'"):
        profile_answers.cases(["resnet_18"], **ask)
    with pytest.raises(TrtgateError, match="name models"):
        profile_answers.cases([], **ask)
    with pytest.raises(TrtgateError, match="unknown profiling_verbosity"):
        profile_answers.cases(["resnet18"], **{**ask, "verbosity": "loud"})
    (case,) = profile_answers.cases(["resnet18"], **{**ask, "verbosity": "none"})
    assert case.id == "resnet18-dynamo-fp16-b1-mbs5-verbosity=none"


def test_stored_profiles_are_shown_and_compared_without_a_gpu(tmp_path: Path) -> None:
    profile = resnet18_profile()
    profile_files.write_folder(tmp_path / "a", profile, {})
    profile_files.write(tmp_path / "b.json", msgspec.structs.replace(profile, case_id="b"))
    assert profile_answers.show([str(tmp_path / "a")])[0].startswith(profile.case_id)
    said = profile_answers.difference(str(tmp_path / "a"), str(tmp_path / "b.json"))
    assert "same layers" in said[0]
    with pytest.raises(TrtgateError, match=r"no profile .*missing"):
        profile_answers.show([str(tmp_path / "missing")])
