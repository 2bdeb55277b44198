"""A sweep for real, on a CPU: what it measures, what it shows, and that it goes on where it was interrupted."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from trtgate.commands import sweep_request
from trtgate.common.accelerator import Accelerator
from trtgate.common.errors import TrtgateError
from trtgate.launches.sweep import PointOutcome, Sweep
from trtgate.launches.sweep_journal import BuiltPoint, JournalHeader, SweepJournal, TimedPoint
from trtgate.records.agreement_record import Agreement
from trtgate.records.measurement import Build, Capture, Launch, Loaded, Turn
from trtgate.report import size_steps, sweep_table
from trtgate.suite.cases import Case, Model
from trtgate.suite.settings import Settings
from trtgate.suite.suite_source import SuiteSource

from .suites import SCRIPTED_TIME

GPU = Accelerator(kind="gpu", name="test", uuid="GPU-1", memory_bytes=80 << 30)
BUILD = Build(build_s=3.0, engines=1, engine_bytes=1_000_000, leaf_error=1e-3)


def launch(us: float) -> Launch:
    captures = [Capture(blocks_us=[us, us], replays=10) for _ in range(4)]
    turn = Turn(clock="cuda_graph", captures=captures, host_us=[2 * us], enqueue_us=[us / 2])
    return Launch(loaded=Loaded(seconds=1.0, gpu_memory_bytes=50_000_000), turns=[turn])


# The journal


@pytest.fixture
def header() -> JournalHeader:
    return JournalHeader(accelerator=GPU, sources={"suite.py": "0" * 64}, weights={})


def opened(folder: Path, header: JournalHeader, *, fresh: bool = False) -> SweepJournal:
    return SweepJournal(folder, header, fresh=fresh)


def test_what_was_written_down_is_there_again(tmp_path: Path, header: JournalHeader) -> None:
    first = opened(tmp_path, header)
    first.add(BuiltPoint(case_id="a", build=BUILD))
    first.add(TimedPoint(case_id="a", number=1, launch=launch(100.0)))
    first.add(TimedPoint(case_id="a", number=0, launch=launch(101.0)))
    first.close()
    again = opened(tmp_path, header)
    assert again.created
    assert again.built["a"].build == BUILD
    assert [one.turns[0].captures[0].blocks_us[0] for one in again.launches("a")] == [101.0, 100.0]
    again.close()
    assert not opened(tmp_path, header, fresh=True).built


def test_a_line_that_was_cut_off_is_as_if_it_were_not_there(tmp_path: Path, header: JournalHeader) -> None:
    first = opened(tmp_path, header)
    first.add(BuiltPoint(case_id="a", build=BUILD))
    first.add(TimedPoint(case_id="a", number=0, launch=launch(100.0)))
    first.close()
    content = first.path.read_bytes()
    first.path.write_bytes(content[:-20])
    again = opened(tmp_path, header)
    assert set(again.built) == {"a"}
    assert again.timed == {}
    again.add(TimedPoint(case_id="a", number=0, launch=launch(102.0)))
    again.close()
    assert set(opened(tmp_path, header).timed) == {("a", 0)}


@pytest.mark.parametrize("bad", [b"", b"{", b"\xff\x00garbled", b'{"type":"built"}', b"[1, 2]", b"\r"])
@pytest.mark.parametrize("at", [0, 1, 2, 3])
def test_a_bad_line_costs_no_good_one(tmp_path: Path, header: JournalHeader, bad: bytes, at: int) -> None:
    first = opened(tmp_path, header)
    first.add(BuiltPoint(case_id="a", build=BUILD))
    first.add(TimedPoint(case_id="a", number=0, launch=launch(100.0)))
    first.close()
    lines = first.path.read_bytes().splitlines(keepends=True)
    first.path.write_bytes(b"".join([*lines[:at], bad + b"\n", *lines[at:]]))
    for more in (1, 2):
        again = opened(tmp_path, header)
        assert set(again.built) == {"a"}
        assert set(again.timed) == {("a", number) for number in range(more)}
        assert again.unreadable == bool(bad.strip())
        again.add(TimedPoint(case_id="a", number=more, launch=launch(102.0)))
        again.close()


def test_a_header_that_is_no_good_costs_no_measurement(tmp_path: Path, header: JournalHeader) -> None:
    first = opened(tmp_path, header)
    first.add(BuiltPoint(case_id="a", build=BUILD))
    first.close()
    first.path.write_bytes(b"\x00" + first.path.read_bytes())
    again = opened(tmp_path, header)
    assert set(again.built) == {"a"}
    assert again.created


def test_another_suite_or_machine_has_a_file_of_its_own(tmp_path: Path, header: JournalHeader) -> None:
    opened(tmp_path, header).add(BuiltPoint(case_id="a", build=BUILD))
    for changed in ({"sources": {"suite.py": "1" * 64}}, {"accelerator": Accelerator(kind="gpu", name="other")}):
        assert not opened(tmp_path, msgspec.structs.replace(header, **changed)).built


def test_two_at_once_are_refused(tmp_path: Path, header: JournalHeader) -> None:
    kept = opened(tmp_path, header)
    with pytest.raises(TrtgateError, match="another sweep of these models is under way"):
        opened(tmp_path, header)
    kept.close()


# The table


def outcome(us: float, build_s: float = 3.0, error: float = 1e-3, **settings: Any) -> PointOutcome:
    case = Case(Model("net", lambda: None, ()), Settings(**{"frontend": "dynamo", "precision": "fp16", **settings}))
    agreement = Agreement(
        inputs=64, source="seeded normal noise", weights="random weights", relative_l2=error, cosine=1.0,
        max_error=0.1, top1=0.984375, top5=1.0,
    )  # fmt: skip
    build = msgspec.structs.replace(BUILD, build_s=build_s)
    launches = [launch(us * (1 + 1e-5 * number)) for number in range(3)]
    return PointOutcome(case=case, build=build, agreement=agreement, launches=launches)


def test_differences_are_told_from_noise_as_the_gate_does() -> None:
    outcomes = [
        outcome(100.0), outcome(100.1, min_block_size=1), outcome(103.0, precision="fp32"),
        outcome(97.0, options={"optimization_level": 5}),
    ]  # fmt: skip
    found = sweep_table.points_of(outcomes)
    assert [point.changes["device"].real for point in found[1:]] == ["same", "slower", "faster"]
    assert found[2].changes["device"].change == pytest.approx(0.03, abs=1e-4)
    assert [point.differs for point in found] == [
        "default",
        "min_block_size=1",
        "precision=fp32",
        "optimization_level=5",
    ]


def test_the_pareto_set_is_what_nothing_beats() -> None:
    outcomes = [
        outcome(100.0, 3.0, 1e-3), outcome(90.0, 9.0, 1e-3, options={"optimization_level": 5}),
        outcome(101.0, 4.0, 1e-3, min_block_size=1), outcome(150.0, 3.0, 0.0, precision="fp32"),
    ]  # fmt: skip
    assert [point.pareto for point in sweep_table.points_of(outcomes)] == [True, True, False, True]


def sized(us: float, seq: int, clock: str = "cuda_graph", **settings: Any) -> PointOutcome:
    found = outcome(us, shape={"seq": seq}, **settings)
    model = Model("net", lambda seq: None, ())
    launches = [
        msgspec.structs.replace(one, turns=[msgspec.structs.replace(turn, clock=clock) for turn in one.turns])
        for one in found.launches
    ]
    return msgspec.structs.replace(found, case=Case(model, found.case.settings), launches=launches)


@pytest.mark.parametrize("clocks", [("cuda_events", "cuda_graph"), ("cuda_graph", "cuda_events")])
def test_a_graph_beside_queued_events_is_told_from_their_noise(clocks: tuple[str, str]) -> None:
    """Sessions by queued events lie 1.8 % apart, those of graphs 0.1 %, whichever of the two is the default."""
    for us, real in ((103.0, "same"), (200.0, "slower")):
        outcomes = [sized(100.0, 16, clocks[0]), sized(us, 16, clocks[1], min_block_size=1)]
        assert sweep_table.points_of(outcomes)[1].changes["device"].real == real
    assert not size_steps.of([sized(100.0, 16, clocks[0]), sized(206.0, 32, clocks[1])])[0].jumps


def test_a_step_that_rises_by_more_than_the_size_does_jumps() -> None:
    outcomes = [sized(100.0, 16), sized(1300.0, 128), sized(150.0, 32), sized(5100.0, 512), sized(90.0, 16, batch=2)]
    found = size_steps.of(outcomes)
    assert [(one.smaller, one.larger, one.jumps) for one in found] == [
        (16, 32, False),
        (32, 128, True),
        (128, 512, False),
    ]
    assert found[1].times == pytest.approx(1300 / 150, rel=1e-3)
    assert found[1].low < found[1].times < found[1].high
    assert str(found[1]).startswith("seq 32 to 128: latency is 8.67 times as high (± ")
    assert "and seq 4 times: net-" in str(found[1])


def test_a_rise_in_proportion_or_within_noise_is_no_jump() -> None:
    outcomes = [sized(100.0, 16), sized(200.0, 32), sized(400.1, 64)]
    assert not any(step.jumps for step in size_steps.of(outcomes))
    on_a_cpu = [sized(us, seq, clock="host_mean") for us, seq in ((100.0, 16), (210.0, 32))]
    assert not any(step.jumps for step in size_steps.of(on_a_cpu))


def test_shapes_of_one_compiled_module_are_steps_too_and_other_settings_are_not() -> None:
    dynamic = {"dynamic": {"seq": (16, 64, 512)}}
    outcomes = [
        sized(10.0, 16, **dynamic), sized(11.0, 64, **dynamic), sized(900.0, 512, **dynamic), sized(99.0, 512),
        outcome(10.0, batch=1), outcome(90.0, batch=8),
    ]  # fmt: skip
    found = size_steps.of(outcomes)
    assert [(one.dimension, one.smaller, one.larger, one.jumps) for one in found] == [
        ("seq", 16, 64, False),
        ("seq", 64, 512, True),
        ("batch", 1, 8, True),
    ]


def test_the_table_names_the_steps_that_jump() -> None:
    outcomes = [sized(100.0, 16), sized(1300.0, 128)]
    findings = sweep_table.SweepFindings(
        accelerator=GPU, flavour="rtx", release="2.14.0", launches=3, points=sweep_table.points_of(outcomes),
        steps=size_steps.of(outcomes), left_out=[],
    )  # fmt: skip
    assert "\n  seq 16 to 128: latency is 13 times as high (± " in "\n".join(map(str, sweep_table.lines(findings)))


def test_the_table_says_what_it_rests_on_and_what_did_not_run() -> None:
    broken = PointOutcome(case=outcome(1.0, precision="bf16").case, problem="net-…: NaN")
    refused = PointOutcome(case=outcome(1.0, precision="fp8").case, unavailable="needs 8.9")
    points = sweep_table.points_of([outcome(100.0), outcome(103.0, min_block_size=1), broken, refused])
    found = sweep_table.SweepFindings(
        accelerator=GPU, flavour="rtx", release="2.11.0", launches=3, points=points, left_out=["eager takes no int8"],
        problems=["net: no block size"],
    )  # fmt: skip
    text = "\n".join(map(str, sweep_table.lines(found)))
    assert "min_block_size=1  103 µs" in text
    assert "slower" in text
    assert "98.4%" in text
    assert "precision=bf16: net-…: NaN" in text
    assert "precision=fp8: unavailable: needs 8.9" in text
    assert "left out: eager takes no int8" in text
    assert "over 64 inputs (seeded normal noise), random weights" in text
    assert "not run: net: no block size (docs: build-failed)" in text
    assert found.failed == ["net: no block size", broken.case.id]
    assert sweep_table.as_csv(found).splitlines()[0].startswith("case_id,model,differs,clock,pareto")
    assert len(sweep_table.as_csv(found).splitlines()) == 5
    assert msgspec.json.decode(msgspec.json.encode(found), type=sweep_table.SweepFindings) == found


def test_the_page_of_a_sweep_has_its_points_and_escapes_what_others_wrote(tmp_path: Path) -> None:
    pytest.importorskip("plotly", reason="Plotly is not installed")
    hostile = "</script><img src=x onerror=alert(1)>"
    broken = PointOutcome(case=outcome(1.0, precision="bf16").case, problem=hostile)
    queued = msgspec.structs.replace(outcome(90.0, min_block_size=3), build=msgspec.structs.replace(BUILD, builders=2))
    points = sweep_table.points_of([outcome(100.0), outcome(103.0, min_block_size=1), queued, broken])
    found = sweep_table.SweepFindings(
        accelerator=GPU, flavour="rtx", release="2.11.0", launches=3, points=points, left_out=[hostile]
    )
    sweep_request.save(found, None, None, tmp_path / "sweep.html")
    page = (tmp_path / "sweep.html").read_text()
    (body,) = re.findall(r"<tbody>(.*?)</tbody>", page, re.DOTALL)
    cells = [re.findall(r"<td[^>]*>(?:<a[^>]*>)?([^<]*)", row) for row in body.split("<tr")[1:]]
    assert [[row[1], round(float(row[2])), row[3]] for row in cells] == [
        ["default", 100, ""],
        ["min_block_size=1", 103, "+3.00"],
        ["min_block_size=3", 90, "-10.00"],
    ]
    assert [row[5] for row in cells] == ["", "slower", "faster"]
    assert [row[7] for row in cells] == ["3", "3", "3 ?"]
    assert "<img" not in page.split('id="plotly"')[0]
    with pytest.raises(TrtgateError, match="could not be written"):
        sweep_request.save(found, None, None, tmp_path / "sweep.html" / "sweep.html")


# For real

SUITE = """
import glob
import os
import signal
import sys
import time

import torch
import trtgate

{SCRIPTED_TIME}
IN_SWEEP = os.environ.get("SLOW") and IN_WORKER


def journals():
    return glob.glob(".trtgate/sweeps/*.jsonl")


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(8, 10)
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        if IN_SWEEP and self.calls > 20 and any('"timed"' in open(file).read() for file in journals()):
            open("hangs", "w").close()
            time.sleep(600)
        pause(0.002)
        return self.linear(x)


@trtgate.model(frontends=("eager",), precisions=("fp32",))
def net(batch):
    torch.manual_seed(0)
    return Net().eval(), torch.randn(batch, 8)


@trtgate.model(frontends=("eager",), precisions=("fp32",))
def meets(batch):
    # The first process builds; of those that measure, each waits here until another one is here too.
    mine = f"made-{os.getpid()}"
    builder = not glob.glob("made-*") or os.path.exists(mine)
    open(mine, "w").close()
    deadline = time.monotonic() + 60
    while not builder and len(glob.glob("made-*")) < 3:
        if time.monotonic() > deadline:
            raise ValueError("alone")
        time.sleep(0.05)
    return torch.nn.Linear(8, 10).eval(), torch.randn(batch, 8)


@trtgate.model(frontends=("eager",), precisions=("fp32",))
def stuck(batch):
    if batch == 2:  # not where it is built, which is the first process
        if os.path.exists("built") and open("built").read() != str(os.getpid()):
            signal.pause()
        open("built", "w").write(str(os.getpid()))
    return torch.nn.Linear(8, 10).eval(), torch.randn(batch, 8)


@trtgate.model(frontends=("eager",), precisions=("fp32",))
def broken(batch):
    raise ValueError("no such file")
""".replace("{SCRIPTED_TIME}", SCRIPTED_TIME)
SET = ("--set", "frontend=eager", "--set", "precision=fp32", "--launches", "2", "--inputs", "8")


@pytest.fixture
def here(tmp_path: Path, forked: None) -> Path:
    (tmp_path / "suite.py").write_text(SUITE)
    (tmp_path / "pytest.ini").write_text("[pytest]\ntrtgate_suite = suite.py\n")
    return tmp_path


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "from trtgate.cli import main; main()", "sweep", *arguments]


def environment(folder: Path, **more: str) -> dict[str, str]:
    private = {"CUDA_VISIBLE_DEVICES": "", "TRTGATE_LOCK_DIR": str(folder), "TRTGATE_CACHE_DIR": str(folder / "cache")}
    private["XDG_STATE_HOME"] = str(folder / "state")
    return {**os.environ, **private, **more}


def sweep(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), cwd=folder, env=environment(folder), capture_output=True, text=True, timeout=120
    )


def test_a_sweep_measures_every_point_and_goes_on_where_ctrl_c_ended_it(here: Path) -> None:
    points = ("net", "--vary", "batch=1,2,4", *SET)
    run = subprocess.Popen(
        command(*points), cwd=here, env=environment(here, SLOW="1"), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not (here / "hangs").exists():
        assert time.monotonic() < deadline
        assert run.poll() is None
        time.sleep(0.05)
    run.send_signal(signal.SIGINT)
    shown, errors = run.communicate(timeout=60)
    assert run.returncode == 2
    assert "the same command goes on from there" in errors
    assert "of 2 launches" in shown
    assert "SIGKILL" not in shown
    assert "Traceback" not in errors

    done = sweep(here, *points, "--json", "out.json", "--csv", "out.csv", "--html", "out.html")
    assert done.returncode == 0, done.stderr
    assert "going on with" in done.stderr
    found = json.loads((here / "out.json").read_text())
    assert [point["differs"] for point in found["points"]] == ["default", "batch=2", "batch=4"]
    assert all(point["medians_us"]["host"] > 0 for point in found["points"])
    assert found["points"][0]["agreement"]["relative_l2"] == 0.0
    assert len((here / "out.csv").read_text().splitlines()) == 4
    assert (here / "out.html").read_text().count('<td class="name">') == 3

    again = sweep(here, *points)
    assert again.returncode == 0
    assert "building" not in again.stderr
    assert "6 measurements are of an earlier run" in again.stdout
    assert table_of(again.stdout) == table_of(done.stdout)

    fewer = sweep(here, "net", "--vary", "batch=1,2", *SET)
    assert "4 measurements are of an earlier run" in fewer.stdout


def table_of(output: str) -> list[str]:
    return [line for line in output.splitlines() if line.startswith("  ")]


def test_a_sweep_that_goes_on_says_what_could_not_be_stored_and_counts_its_own_measurements(here: Path) -> None:
    source = SuiteSource(root=str(here), suites=("suite.py",))
    case = source.load().cases["net-eager-fp32-b1"]

    def begun() -> Sweep:
        return Sweep(
            source, Accelerator(kind="cpu", name="cpu"), here / ".trtgate", [case], launches=1, builders=1, inputs=0,
            cache=None, timeout_s=60,
        )  # fmt: skip

    first = begun()
    assert first.notes == []
    assert not first.earlier
    first.journal.add(BuiltPoint(case_id=case.id, build=BUILD, notes=["it can't be stored"]))
    first.journal.add(BuiltPoint(case_id="of another sweep", build=BUILD, notes=["nor can that"]))
    for number in range(2):  # one more than is asked for
        first.journal.add(TimedPoint(case_id=case.id, number=number, launch=launch(100.0)))
    first.journal.add(TimedPoint(case_id="of another sweep", number=0, launch=launch(100.0)))
    first.close()
    again = begun()
    assert again.notes == ["it can't be stored"]
    assert again.earlier == 1
    again.close()


def test_a_point_that_hangs_is_its_own_and_the_others_are_measured(here: Path) -> None:
    hanging = ("--set", "frontend=eager", "--set", "precision=fp32", "--launches", "1", "--inputs", "0")
    done = sweep(here, "stuck", "--vary", "batch=1,2", *hanging, "--timeout", "5")
    assert done.returncode == 1
    assert "batch=2: stuck-eager-fp32-b2: loading: no answer within 5 s" in done.stdout
    assert "  default" in done.stdout
    assert "other trtgate processes" not in done.stdout + done.stderr


def test_launches_load_at_the_same_time(here: Path) -> None:
    done = sweep(here, "meets", *SET)
    assert done.returncode == 0, done.stdout
    assert len(list(here.glob("made-*"))) == 3


def test_what_does_not_run_is_a_line_of_its_own_and_exit_1(here: Path) -> None:
    done = sweep(here, "net", "broken", "--vary", "frontend=eager,dynamo", "--builders", "2", *SET)
    assert done.returncode == 1
    (line,) = (line for line in done.stdout.splitlines() if "  default: model 'broken': its factory raised" in line)
    assert re.search(r" \(docs: (model-unusable|build-failed)\)$", line)
    assert "frontend=dynamo: unavailable: needs a GPU" in done.stdout
    assert "net, against net-eager-fp32-b1" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nett",), "unknown model 'nett'; did you mean"),
        (("net", "--vary", "batch=1", "--vary", "batch=2"), "--vary batch is given twice"),
        (("net", "--set", "batch=1,2"), "the default has one value of each"),
        (("net", "--weights", "net=suite.py", *SET), "is no safetensors file"),
        (("net", "--weights", "other=suite.py"), "'other' is not swept"),
        (("net", "--weights", "suite.py"), "write MODEL=FILE.safetensors"),
    ],
)
def test_bad_input_is_one_line(here: Path, arguments: tuple[str, ...], words: str) -> None:
    done = sweep(here, *arguments)
    assert done.returncode in (1, 4)
    assert words in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_a_folder_that_can_not_be_written_is_swept_and_the_next_sweep_goes_on(here: Path) -> None:
    (here / ".trtgate").write_text("in the way")
    asked = ("net", *SET)
    first = sweep(here, *asked)
    assert first.returncode == 0, first.stderr
    (line,) = [line for line in first.stderr.splitlines() if "the files of this run go to" in line]
    assert f"{here / '.trtgate'} can't be written" in line
    again = sweep(here, *asked)
    assert again.returncode == 0
    assert "measurements are of an earlier run" in again.stdout
    assert (here / ".trtgate").read_text() == "in the way"
