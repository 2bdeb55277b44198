"""The panel: what is stored of a run, what its table says of cards, days and clocks, and files that are not whole."""

from __future__ import annotations

import math
import multiprocessing
import re
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from trtgate.commands import selfcheck_panel
from trtgate.common.accelerator import Accelerator
from trtgate.common.errors import TrtgateError
from trtgate.gate import panel_file
from trtgate.gate.panel_file import PanelCase, PanelRun
from trtgate.records.measurement import Capture, CaseMeasurement, Launch, Loaded, Turn
from trtgate.suite.suite_source import SuiteSource

from .in_process import InProcess, command
from .suites import suite_text

ONE, MANY = "cuda_graph_one_stream", "cuda_graph_many_streams"
CARD = Accelerator(
    kind="gpu", name="NVIDIA Test", memory_bytes=80 << 30, uuid="GPU-1", driver="580",
    libraries={"torch": "2.14.0", "pytest-benchmark": "5.3.1"},
)  # fmt: skip
replace = msgspec.structs.replace


def case(*launches_us: float, clock: str = ONE) -> PanelCase:
    return PanelCase(clock=clock, launches_us=list(launches_us), spread=0.0)


def panel_run(us: float, uuid: str = "GPU-1", torch: str = "2.14.0", clock: str = ONE, day: int = 1) -> PanelRun:
    return PanelRun(
        recorded=f"2026-12-{day:02}T00:00:00+00:00", key=CARD.key, uuid=uuid, versions={"torch": torch},
        cases={"a": case(us * 0.999, us, us * 1.001, clock=clock)},
    )  # fmt: skip


# The cases


def test_the_panel_is_four_cases_of_the_zoo_that_its_source_has() -> None:
    ids = selfcheck_panel.case_ids()
    assert ids == [
        "resnet18-dynamo-fp16-b1-mbs5",
        "regnet_y_400mf-dynamo-fp16-b1-mbs5",
        "mobilenet_v3_large-dynamo-fp16-b8-mbs5",
        "vit_b_16-dynamo-fp32-b1-mbs5",
    ]
    assert set(ids) <= set(selfcheck_panel.source_here().load().cases)


# What is stored


def measured(*launches_us: float) -> CaseMeasurement:
    def turn(us: float) -> Turn:
        return Turn(clock=ONE, captures=[Capture(blocks_us=[us, us], replays=9)] * 3, host_us=[us])

    launches = [Launch(loaded=Loaded(seconds=1.0), turns=[turn(us)]) for us in launches_us]
    return CaseMeasurement(case_id="a", launches=launches, uuid=CARD.uuid)


def test_a_run_holds_card_versions_clock_launches_and_their_spread() -> None:
    found = selfcheck_panel.run_of({"a": measured(100.123456789, 101.0, 99.0)}, CARD)
    assert (found.key, found.uuid) == (CARD.key, CARD.uuid)
    assert found.versions == {"torch": "2.14.0", "driver": "580"}
    assert found.cases["a"].clock == ONE
    assert found.cases["a"].launches_us == [100.123, 101.0, 99.0]
    assert found.cases["a"].spread == pytest.approx(np.std(np.log([100.123457, 101.0, 99.0]), ddof=1), rel=1e-2)


def test_what_is_appended_is_what_is_read(tmp_path: Path) -> None:
    path = panel_file.path_of(tmp_path / "baselines", CARD.key)
    runs = [panel_run(100.0 + day, day=day) for day in range(1, 4)]
    for one in runs:
        panel_file.append(path, one)
    assert panel_file.read(path).runs == runs
    assert path.read_bytes().count(b"\n") == 3


WRONG_LINES = [
    b'{"recorded": "2026-12-01", "key": "k"',
    b"[1, 2]",
    b"null",
    b"\xff\xfe",
    msgspec.json.encode(replace(panel_run(1.0), cases={"a": case(100.0, -1.0)})),
    msgspec.json.encode(replace(panel_run(1.0), cases={"a": case()})),
    msgspec.json.encode(replace(panel_run(1.0), cases={"a": case(5e-324)})),
    msgspec.json.encode(replace(panel_run(1.0), cases={"a": case(1e308)})),
    msgspec.json.encode(panel_run(100.0)).replace(b"100.0", b"NaN"),
    msgspec.json.encode(panel_run(100.0)).replace(b"100.0", b"1e999"),
    b"[" * 5000,
]  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG_LINES, ids=range(len(WRONG_LINES)))
@pytest.mark.parametrize("cut", [b"\n", b""], ids=["ended", "cut short"])
def test_a_broken_line_is_named_with_its_number_and_nothing_is_lost(tmp_path: Path, wrong: bytes, cut: bytes) -> None:
    path = tmp_path / "panel.jsonl"
    panel_file.append(path, panel_run(100.0))
    broken = path.read_bytes() + wrong + cut
    path.write_bytes(broken)
    panel_file.append(path, panel_run(101.0))
    assert path.read_bytes().startswith(broken)
    found = panel_file.read(path)
    assert found.runs == [panel_run(100.0), panel_run(101.0)]
    (problem,) = found.problems
    assert problem.startswith(f"{path}, line 2 is no run of the panel (")
    assert "\n" not in problem


@pytest.mark.parametrize("content", [b'{\n "benchmarks": []\n}\n', b"notes\n"])
def test_a_file_of_something_else_is_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "latency.json"
    path.write_bytes(content)
    for refused in (lambda: panel_file.check(path), lambda: panel_file.append(path, panel_run(1.0))):
        with pytest.raises(TrtgateError, match="holds no run of the panel, so none is added to it"):
            refused()
    assert path.read_bytes() == content


def test_a_write_that_fails_leaves_what_was_there_and_tells_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "panel.jsonl"
    panel_file.append(path, panel_run(100.0))
    before = path.read_bytes()

    def no_space(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("trtgate.common.files.os.fsync", no_space)
    with pytest.raises(TrtgateError, match="No space left on device") as failed:
        panel_file.append(path, panel_run(101.0))
    assert path.read_bytes() == before
    monkeypatch.undo()
    path.write_bytes(before + str(failed.value).split("to be added by hand: ")[1].encode())
    assert panel_file.read(path).runs == [panel_run(100.0), panel_run(101.0)]


def test_processes_that_append_at_once_lose_nothing(tmp_path: Path) -> None:
    context, path = multiprocessing.get_context("fork"), tmp_path / "panel.jsonl"
    runs = [panel_run(100.0 + number) for number in range(8)]
    processes = [context.Process(target=panel_file.append, args=(path, one)) for one in runs]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert sorted(one.cases["a"].launches_us for one in panel_file.read(path).runs) == [
        one.cases["a"].launches_us for one in runs
    ]


# What the table says


@pytest.mark.parametrize("dof", [1, 4, 30])
def test_the_interval_of_a_spread_holds_the_true_one_as_often_as_it_says(dof: int) -> None:
    sds = np.sqrt(stats.chi2.rvs(dof, size=4000, random_state=1) / dof)
    inside = [low <= 1 <= high for low, high in (selfcheck_panel.sd_interval(sd, dof) for sd in sds)]
    assert np.mean(inside) == pytest.approx(0.95, abs=0.012)


def test_today_is_held_against_this_cards_runs_and_each_other_card_once() -> None:
    runs = [
        panel_run(100.0), panel_run(102.01), *[panel_run(90.0, uuid="GPU-2")] * 5, panel_run(110.0, uuid="GPU-3"),
        panel_run(102.01),
    ]  # fmt: skip
    (row,) = selfcheck_panel.rows(runs)
    assert (row.runs, row.cards, row.other, row.launches) == (2, 2, 0, 3)
    assert row.of_card == pytest.approx(102.01 / math.sqrt(100 * 102.01) - 1)
    assert row.of_cards == pytest.approx(102.01 / math.sqrt(90 * 110) - 1)
    assert row.spread == pytest.approx(0.001, rel=1e-3)
    assert row.interval == pytest.approx(selfcheck_panel.sd_interval(row.spread, 2))


RUNS = st.lists(
    st.builds(panel_run, us=st.floats(50, 200), uuid=st.sampled_from(["GPU-1", "GPU-2"]),
              torch=st.sampled_from(["2.11.0", "2.14.0"]), clock=st.sampled_from([ONE, MANY])), max_size=8,
)  # fmt: skip


@given(RUNS, st.floats(50, 200))
def test_other_clocks_versions_and_keys_change_no_figure(earlier: list[PanelRun], us: float) -> None:
    today = panel_run(us)

    def alike(one: PanelRun) -> bool:
        return (one.versions, one.cases["a"].clock) == (today.versions, ONE)

    elsewhere = [replace(one, key="another") for one in earlier]
    (mixed,) = selfcheck_panel.rows([*earlier, *elsewhere, today])
    (alone,) = selfcheck_panel.rows([*filter(alike, earlier), today])
    assert replace(mixed, other=0) == alone
    assert mixed.other == sum(not alike(one) for one in earlier)


def test_the_first_run_has_nothing_beside_it_and_one_launch_no_interval() -> None:
    first = replace(panel_run(100.0), cases={"a": case(100.0)})
    (row,) = selfcheck_panel.rows([first])
    assert (row.of_card, row.of_cards, row.interval, row.spread) == (None, None, None, 0.0)
    assert selfcheck_panel.rows([]) == []


# The command


@pytest.fixture
def anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


def test_a_file_is_shown_without_a_gpu(anywhere: Path) -> None:
    path = panel_file.path_of(anywhere / "baselines", CARD.key)
    for one in (panel_run(100.0), panel_run(90.0, uuid="GPU-2"), panel_run(99.0, torch="2.11.0"), panel_run(101.0)):
        panel_file.append(path, one)
    status, said = command("selfcheck", "--panel", "--show")
    assert status == 0
    assert f"baselines/{CARD.key}/panel.jsonl: the run of 2026-12-01T00:00:00+00:00 on GPU-1: torch 2.14.0" in said
    (row,) = [line for line in said.splitlines() if line.startswith("a ")]
    assert row.split()[1:] == [
        "101", "µs", "0.100%", "of", "3", "0.052%", "to", "0.628%", "+1.00%", "of", "1", "run", "+12.22%", "of", "1",
        "card", ONE,
    ]  # fmt: skip
    assert "not compared with 1 earlier run of another clock or other versions" in said


def test_a_shown_file_with_a_broken_line_is_exit_1(anywhere: Path) -> None:
    path = anywhere / "some.jsonl"
    panel_file.append(path, panel_run(100.0))
    path.write_bytes(path.read_bytes() + b"{\n")
    status, said = command("selfcheck", "--panel", "--show", "--to", str(path))
    assert (status, "line 2 is no run of the panel" in said) == (1, True)


def test_of_a_file_of_something_else_a_few_lines_are_named(anywhere: Path) -> None:
    path = anywhere / "some.jsonl"
    path.write_text("notes\n" * 4000)
    status, said = command("selfcheck", "--panel", "--show", "--to", str(path))
    assert (status, said.count("is no run of the panel (")) == (1, 3)
    assert "some.jsonl: no run of the panel in 3,997 more lines" in said


def test_one_launch_says_nothing_of_how_far_launches_lie_apart(anywhere: Path) -> None:
    path = anywhere / "some.jsonl"
    run = panel_run(100.0)
    alone = {name: replace(one, launches_us=[100.0], spread=0.0) for name, one in run.cases.items()}
    panel_file.append(path, replace(run, cases=alone))
    _, said = command("selfcheck", "--panel", "--show", "--to", str(path))
    assert "one launch" in said
    assert "0.000%" not in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--panel",), "--panel needs a GPU, and there is none (NVML); --panel --show prints what a file has"),
        (("--panel", "--show"), "there is no panel.jsonl under baselines: run trtgate selfcheck --panel on a GPU"),
        (("--panel", "--show", "--to", "gone.jsonl"), "gone.jsonl can't be read: No such file or directory"),
        (("--panel", "alpha"), "CASE means nothing with --panel"),
        (("--panel", "--limit=device=1%"), "--limit means nothing with --panel"),
        (("--show",), "--show is of the panel: trtgate selfcheck --panel"),
        (("--to", "x.jsonl"), "--to is of the panel: trtgate selfcheck --panel"),
        (("--panel", "--streams=three"), "three"),
    ],
)
def test_bad_input_is_one_line(anywhere: Path, arguments: tuple[str, ...], words: str) -> None:
    status, said = command("selfcheck", *arguments)
    assert (status, words in said, "Traceback" in said) == (4, True, False), said


def test_a_run_that_would_go_to_a_file_of_something_else_ends_before_it_measures(
    anywhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (anywhere / "latency.json").write_text("{}\n")
    monkeypatch.setattr("trtgate.common.accelerator.detect", lambda: CARD)
    status, said = command("selfcheck", "--panel", "--to", "latency.json")
    assert (status, "holds no run of the panel" in said) == (4, True)


# Workers, for real


@pytest.mark.usefixtures("forked")
def test_cases_are_built_once_and_measured_in_launches_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a CPU, with a suite of two models and one that can't be built."""
    broken = (
        "\n\n@trtgate.model(frontends=('eager',), precisions=('fp32',))\ndef broken(batch):\n    raise OSError('no')\n"
    )
    (tmp_path / "suite.py").write_text(suite_text(("alpha", "beta"), {}) + broken)
    monkeypatch.setenv("TRTGATE_LOCK_DIR", str(tmp_path))
    cpu = Accelerator(kind="cpu", name="test", cpus=1)
    ids = [f"{name}-eager-fp32-b1" for name in ("alpha", "broken", "beta")]
    steps: list[str] = []
    found, left_out = selfcheck_panel.run(
        SuiteSource(root=str(tmp_path), suites=("suite.py",)), ids, cpu, tmp_path / "files", streams="one",
        cache=None, timeout_s=60, step=steps.append, launches=2,
    )  # fmt: skip
    assert list(found.cases) == [ids[0], ids[2]]
    for one in found.cases.values():
        assert one.clock == "host_mean"
        assert one.launches_us == pytest.approx([2102.0] * 2, rel=0.01)
    (line,) = left_out
    assert line.startswith(ids[1])
    assert re.search(r"\bno\b.* \(docs: (model-unusable|build-failed)\)$", line)
    assert sorted(step.partition(": ")[2] for step in steps if re.match(r"\d of 3 cases: ", step)) == [
        f"{ids[0]}, built", f"{ids[2]}, built", f"{ids[1]}, failed",
    ]  # fmt: skip
    assert not list((tmp_path / "files").glob("artifacts-*"))


def test_a_panel_of_nothing_is_an_error(here: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of its cases need what this machine lacks."""
    source = SuiteSource(root=str(here.path), suites=("suite.py",))
    monkeypatch.setattr("trtgate.compiling.availability.unavailable", lambda *_given: "it needs a GPU")
    with pytest.raises(
        TrtgateError, match=r"nothing of the panel could be measured: alpha-eager-fp32-b1: it needs a GPU$"
    ):
        selfcheck_panel.run(
            source, ["alpha-eager-fp32-b1"], CARD, here.path / "files", streams="one", cache=None, timeout_s=1,
            step=lambda _text: None,
        )  # fmt: skip
