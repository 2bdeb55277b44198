"""What other tools open: TREx's four files and Trace Event JSON.

`data/h100_resnet18_engine_information.json` is what TensorRT-RTX's engine inspector said, at detailed verbosity, of the
engine of resnet18 (fp16, batch 1, torch 2.11, torch-tensorrt-rtx 2.11, one NVIDIA H100 80GB HBM3);
`data/h100_resnet18_layer_times_ms.json` holds what `IProfiler` reported for 20 calls of it, the first ones cold: for
each layer its times in ms, rounded to 1e-5.
"""

from __future__ import annotations

import importlib.util
import json
import statistics
import sys
import types
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trtgate.common.accelerator import Accelerator
from trtgate.common.errors import TrtgateError
from trtgate.profiles import trace_events, trex_files
from trtgate.profiles.engine_information import layers_of
from trtgate.records.profile_record import PYTORCH, TENSORRT, Layer, Operator, Part, Profile, Tensor

DATA = Path(__file__).parent / "data"
INSPECTOR = json.loads((DATA / "h100_resnet18_engine_information.json").read_text())
TIMES_MS = json.loads((DATA / "h100_resnet18_layer_times_ms.json").read_text())
CALLS = 20
KINDS = ("graph", "profile", "profile.metadata", "build.metadata")
HOSTILE = ['a "quoted" name', "two\nlines\t\\", "größer → 畳み込み 🙂", "", "\x00\x1e\x1f\x7f\u2028", "</script>{||}"]
NAMES = st.lists(st.text(), min_size=1, max_size=5)


def real_part() -> Part:
    layers = layers_of(INSPECTOR)
    for layer in layers:
        layer.median_us = round(1e3 * statistics.median(TIMES_MS[layer.name]), 3)
    return shared(Part(name="_run_on_acc_0", kind=TENSORRT, layers=layers, engine_bytes=1000, verbosity="detailed"))


def shared(part: Part) -> Part:
    for layer in part.layers:
        layer.share = layer.median_us / part.sum_us
    return part


def named_part(names: list[str]) -> Part:
    return shared(Part(name="p", kind=TENSORRT, layers=[Layer(name=n, type="kgen", median_us=2.345) for n in names]))


def profile(*parts: Part) -> Profile:
    card = Accelerator(
        kind="gpu",
        name="NVIDIA H100 80GB HBM3",
        memory_bytes=80 << 30,
        max_sm_clock_mhz=1980,
        driver="570.1",
        libraries={"torch": "2.11"},
    )
    return Profile(
        case_id="resnet18",
        accelerator=card,
        recorded="",
        runtime="own",
        calls=CALLS,
        parts=list(parts),
        device_us=182.3,
    )


def described(names: list[str]) -> dict[str, Any]:
    """Return what an inspector would say of layers with these names."""
    tensor = {"Name": "x", "Dimensions": [1], "Format/Datatype": "Half"}
    layers = [{"Name": n, "LayerType": "kgen", "Inputs": [tensor], "Outputs": [tensor]} for n in names]
    return {"Layers": layers, "Bindings": ["x"]}


def exported(folder: Path, part: Part, inspector: dict[str, Any]) -> dict[str, Any]:
    paths = trex_files.write(profile(part), part, inspector, folder, "engine")
    assert paths == [folder / f"engine.{kind}.json" for kind in KINDS]
    return {kind: json.loads(path.read_text("ascii")) for kind, path in zip(KINDS, paths, strict=True)}


@pytest.fixture
def engine_plan(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """TREx's `EnginePlan` as installed, under a bare `trex`: the package's `__init__` imports notebooks and plots."""
    found = importlib.util.find_spec("trex")
    package = types.ModuleType("trex")
    package.__path__ = list(found.submodule_search_locations or []) if found else []
    monkeypatch.setitem(sys.modules, "trex", package)
    module = pytest.importorskip("trex.engine_plan", reason="needs trt-engine-explorer (--no-deps) and pandas < 3")
    yield module.EnginePlan
    for name in [name for name in sys.modules if name.startswith("trex.")]:
        del sys.modules[name]


def loaded(engine_plan: Any, folder: Path, part: Part, inspector: dict[str, Any]) -> Any:
    return engine_plan(*map(str, trex_files.write(profile(part), part, inspector, folder, "engine")))


# TREx


def test_trex_shows_the_layers_times_and_bindings_of_the_engine(tmp_path: Path, engine_plan: Any) -> None:
    part = real_part()
    plan = loaded(engine_plan, tmp_path, part, INSPECTOR)
    working = [layer for layer in part.layers if layer.type not in ("signal", "wait")]
    print(plan.df[["Name", "type", "latency.median_time", "latency.pct_time"]].to_string(max_colwidth=40))
    plan.summary()
    assert len(working) == len(part.layers) - 12
    assert list(plan.df["Name"]) == [layer.name for layer in plan.layers] == [layer.name for layer in working]
    assert list(plan.df["type"]) == [layer.type for layer in working]
    for column in ("latency.median_time", "latency.avg_time"):
        assert list(plan.df[column] * 1e3) == pytest.approx([layer.median_us for layer in working], abs=1e-6)
    assert list(plan.df["latency.time"] * 1e3) == pytest.approx([CALLS * layer.median_us for layer in working])
    assert plan.df["latency.pct_time"].sum() == pytest.approx(100, abs=0.01)
    assert plan.total_runtime * 1e3 == pytest.approx(part.sum_us)
    assert [[tensor.name for tensor in tensors] for tensors in plan.get_bindings()] == [["x"], ["output0"]]
    assert [tensor.shape for tensor in plan.layers[0].inputs] == [[1, 3, 224, 224]]
    assert plan.device_properties["Selected Device"] == "NVIDIA H100 80GB HBM3"
    assert plan.performance_summary["Sum of layers (ms)"] == pytest.approx(part.sum_us / 1e3)
    assert plan.builder_cfg["Profiling verbosity"] == "detailed"


def test_trex_can_display_its_table(tmp_path: Path, engine_plan: Any) -> None:
    plan = loaded(engine_plan, tmp_path, real_part(), INSPECTOR)
    table = sys.modules["trex.df_preprocessing"].clean_for_display(plan.df)
    assert list(table["latency.avg_time"]) == list(plan.df["latency.avg_time"])


def test_trex_keeps_times_with_repeated_names_and_untimed_constants(tmp_path: Path, engine_plan: Any) -> None:
    inspector = described(["a", "a_2", "a", "weights"])
    inspector["Layers"][3]["LayerType"] = "Constant"
    part = named_part(["a", "a", "a_2"])
    part.layers[0].median_us, part.layers[1].median_us, part.layers[2].median_us = 1, 2, 3
    plan = loaded(engine_plan, tmp_path, part, inspector)
    assert dict(zip(plan.df["Name"], plan.df["latency.median_time"] * 1e3, strict=True)) == {"a": 1, "a_2": 3, "a_3": 2}
    assert [layer.name for layer in plan.constants] == ["weights"]


def test_the_inspectors_newer_spelling_becomes_the_one_that_trex_reads(tmp_path: Path, engine_plan: Any) -> None:
    tensor = {"Name": "x", "Dimensions": [1], "Format": "Row major linear FP16 format (kLINEAR)", "Datatype": "FP16"}
    inspector = {
        "Layers": [{"Name": "a", "LayerType": "kgen", "Inputs": [tensor], "Outputs": [{**tensor, "Name": "y"}]}],
        "I/O Tensors": [{"Name": "x", "IOMode": "Input"}, {"Name": "y", "IOMode": "Output"}],
    }
    plan = loaded(engine_plan, tmp_path, named_part(["a"]), inspector)
    assert plan.bindings == ["x", "y"]
    assert plan.layers[0].raw_dict["Inputs"][0]["Format/Datatype"] == "Half"
    assert "Format/Datatype" not in tensor


def test_the_files_have_the_form_that_trex_reads(tmp_path: Path) -> None:
    documents = exported(tmp_path, real_part(), INSPECTOR)
    assert set(documents["graph"]) == {"Layers", "Bindings"}
    assert {layer["LayerType"] for layer in documents["graph"]["Layers"]} & {"signal", "wait"} == set()
    assert all(layer["ParameterType"] == layer["LayerType"] for layer in documents["graph"]["Layers"])
    count, *times = documents["profile"]
    assert count == {"count": CALLS}
    assert {tuple(record) for record in times} == {("name", "timeMs", "averageMs", "medianMs", "percentage")}
    assert set(documents["profile.metadata"]) == {"performance_summary", "inference_options", "device_information"}
    assert set(documents["build.metadata"]) == {"model_options", "build_options", "device_information"}
    assert documents["build.metadata"]["device_information"] == {
        "Selected Device": "NVIDIA H100 80GB HBM3",
        "Device Global Memory": "81920 MiB",
        "Compute Clock Rate": 1.98,
        "Driver": "570.1",
    }


def test_a_type_that_the_inspector_gives_stays(tmp_path: Path) -> None:
    inspector = described(["a"])
    inspector["Layers"][0] |= {"ParameterType": "Convolution", "Alpha": float("nan")}
    layer = exported(tmp_path, named_part(["a"]), inspector)["graph"]["Layers"][0]
    assert (layer["ParameterType"], layer["Alpha"]) == ("Convolution", "NaN")


@pytest.mark.parametrize(
    ("inspector", "complaint"),
    [
        ({"Layers": [], "Bindings": ["x"]}, "ProfilingVerbosity detailed"),
        ({"Layers": ["a name"], "Bindings": ["x"]}, "ProfilingVerbosity detailed"),
        ({"Layers": [{"Name": "s", "LayerType": "signal"}], "Bindings": ["x"]}, "no layers beside signals"),
        ({**described(["a"]), "Bindings": []}, "no inputs and outputs"),
    ],
)
def test_an_inspector_that_says_too_little_is_refused(
    tmp_path: Path, inspector: dict[str, Any], complaint: str
) -> None:
    part = named_part(["a"])
    with pytest.raises(TrtgateError, match=complaint) as caught:
        trex_files.write(profile(part), part, inspector, tmp_path, "engine")
    assert len(str(caught.value).splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    part = real_part()
    (tmp_path / "file").touch()
    with pytest.raises(TrtgateError, match=r"graph\.json could not be written") as caught:
        trex_files.write(profile(part), part, INSPECTOR, tmp_path / "file", "engine")
    assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(TrtgateError, match=r"trace\.json could not be written"):
        trace_events.write(profile(part), tmp_path / "file" / "trace.json")


# Trace Event JSON


def complete(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [event for event in document["traceEvents"] if event["ph"] == "X"]


def as_perfetto_reads(time_us: float) -> int:
    """Return nanoseconds: Perfetto multiplies a number with a fraction by 1000 and cuts off the rest."""
    return int(time_us * 1000.0)


def check_trace(document: dict[str, Any]) -> None:
    """Assert what the Trace Event Format demands, and that no event overlaps another on its thread."""
    threads = defaultdict(list)
    named = set()
    for event in document["traceEvents"]:
        assert (type(event["name"]), type(event["pid"]), type(event["tid"])) == (str, int, int)
        assert event["pid"] > 0 < event["tid"]
        if event["ph"] == "M":
            assert type(event["args"]["name"]) is str
            named.add((event["name"], event["pid"], event["tid"]))
        else:
            assert event["ph"] == "X"
            assert {type(event["ts"]), type(event["dur"])} <= {int, float}
            assert event["ts"] >= 0 <= event["dur"]
            assert type(event["args"]) is dict
            threads[event["pid"], event["tid"]].append(event)
    assert {(pid, tid) for kind, pid, tid in named if kind == "thread_name"} == set(threads)
    assert {pid for pid, _ in threads} <= {pid for kind, pid, _ in named if kind == "process_name"}
    for ordered in threads.values():
        for before, after in pairwise(ordered):
            end = as_perfetto_reads(before["ts"]) + as_perfetto_reads(before["dur"])
            assert end <= as_perfetto_reads(after["ts"])


def test_the_trace_of_a_real_engine_holds_every_layer_end_to_end(tmp_path: Path) -> None:
    part = real_part()
    trace_events.write(profile(part), tmp_path / "trace.json")
    document = json.loads((tmp_path / "trace.json").read_text())
    check_trace(document)
    found = complete(document)
    assert [event["name"] for event in found] == [layer.name for layer in part.layers]
    assert [event["dur"] for event in found] == pytest.approx([layer.median_us for layer in part.layers])
    assert found[-1]["ts"] + found[-1]["dur"] == pytest.approx(part.sum_us)
    assert {event["tid"] for event in found} == {1, 2}
    assert [event["args"]["name"] for event in document["traceEvents"][:3]] == ["_run_on_acc_0", "stream 0", "stream 1"]
    assert "not a timeline of one call" in document["otherData"]["note"].lower()


def test_an_event_says_what_its_layer_is() -> None:
    engine = shared(
        Part(
            name="engine",
            kind=TENSORRT,
            operators=[
                Operator(node="conv", operator="aten.convolution.default", module="conv1"),
                Operator(node="relu", operator="aten.relu.default", module="relu"),
            ],
            layers=[
                Layer(
                    name="conv+relu",
                    type="kgen",
                    tactic="sm90",
                    inputs=[Tensor(name="x", shape=[1, 3, 8, 8], dtype="float16")],
                    outputs=[Tensor(name="y", shape=[-1, 4], dtype="float16"), Tensor(name="z", dtype="int64")],
                    sources=["conv", "relu"],
                    modules=["conv1", "relu"],
                    median_us=30,
                ),
                Layer(name="signal", type="signal", stream=1),
                Layer(name="copy", type="copy", stream=0, median_us=10),
            ],
        )
    )
    fallback = shared(Part(name="rest", kind=PYTORCH, layers=[Layer(name="nms", type="aten.nms", median_us=5.5)]))
    document = trace_events.events(profile(engine, fallback))
    check_trace(document)
    first, signal, copy, last = complete(document)
    assert first["args"] == {
        "type": "kgen",
        "tactic": "sm90",
        "modules": ["conv1", "relu"],
        "operators": ["aten.convolution.default", "aten.relu.default"],
        "shapes": {"inputs": ["1x3x8x8 float16"], "outputs": ["-1x4 float16", "int64"]},
        "share": 0.75,
    }
    assert [(event["pid"], event["tid"], event["ts"], event["dur"]) for event in (first, signal, copy, last)] == [
        (1, 1, 0, 30),
        (1, 3, 30, 0),
        (1, 2, 30, 10),
        (2, 1, 40, 5.5),
    ]


def test_a_part_without_layers_and_a_profile_without_parts_are_traces() -> None:
    document = trace_events.events(profile(Part(name="engine", kind=TENSORRT, layers=[], problem="no engine")))
    check_trace(document)
    assert complete(document) == complete(trace_events.events(profile())) == []


@given(st.lists(st.integers(0, 10**7), max_size=30), st.integers(0, 10**9))
def test_layers_neither_overlap_nor_leave_gaps_in_perfetto(lengths_ns: list[int], first_ns: int) -> None:
    layers = [Layer(name="a", type="kgen", median_us=length_ns / 1e3) for length_ns in [first_ns, *lengths_ns]]
    document = trace_events.events(profile(Part(name="p", kind=TENSORRT, layers=layers)))
    check_trace(document)
    assert [as_perfetto_reads(event["dur"]) for event in complete(document)] == [first_ns, *lengths_ns]
    assert as_perfetto_reads(complete(document)[-1]["ts"]) == sum([first_ns, *lengths_ns][:-1])


# Both


@given(NAMES)
def test_any_names_survive_in_the_trace(tmp_path_factory: pytest.TempPathFactory, names: list[str]) -> None:
    file = tmp_path_factory.mktemp("names") / "trace.json"
    trace_events.write(profile(named_part(names)), file)
    assert [event["name"] for event in complete(json.loads(file.read_text()))] == names


@given(st.lists(st.text(), min_size=1, max_size=5, unique=True))
def test_any_names_survive_in_trexs_files(tmp_path_factory: pytest.TempPathFactory, names: list[str]) -> None:
    documents = exported(tmp_path_factory.mktemp("names"), named_part(names), described(names))
    assert [layer["Name"] for layer in documents["graph"]["Layers"]] == names
    assert [record["name"] for record in documents["profile"][1:]] == names


def test_hostile_names_survive_and_load(tmp_path: Path, engine_plan: Any) -> None:
    names = [*HOSTILE, "\ud800 no character"]
    plan = loaded(engine_plan, tmp_path, named_part(names), described(names))
    assert list(plan.df["Name"]) == names
    assert [event["name"] for event in complete(trace_events.events(profile(named_part(names))))] == names
