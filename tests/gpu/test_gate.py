"""The gate as a user runs it, on a real GPU: record, compare, regress, accept."""

from __future__ import annotations

import json
import re
from pathlib import Path

from trtgate.timing.device_state import STREAMS

from .conftest import Run

SUITE = """
import trtgate

@trtgate.model(frontends=("dynamo",), precisions=("fp16",), batches=(1,))
def net(batch):
    import os
    import torch
    torch.manual_seed(0)
    depth = int(os.environ.get("DEPTH", "12"))
    layers = [torch.nn.Conv2d(3, 64, 3, padding=1)]
    for _ in range(depth):
        layers += [torch.nn.Conv2d(64, 64, 3, padding=1), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers).eval(), torch.randn(batch, 3, 64, 64)
"""
INI = "[pytest]\ntrtgate_suite = suite_of_mine.py\ntrtgate_require = gpu\n"
CASE = "net-dynamo-fp16-b1-mbs5"


def test_record_compare_regress_accept(gate_run: Run, tmp_path: Path) -> None:
    (tmp_path / "suite_of_mine.py").write_text(SUITE)
    (tmp_path / "pytest.ini").write_text(INI)

    recorded = gate_run("suite_of_mine.py", "-m", "trtgate_latency", "--trtgate-update-baselines")
    assert recorded.returncode == 0
    (baseline,) = (tmp_path / "baselines").glob("*/latency.json")

    (kept,) = (tmp_path / ".trtgate" / "baseline-artifacts").glob("*/*/entry.json")
    assert CASE in kept.read_text()

    same = gate_run(
        "suite_of_mine.py", "-m", "trtgate_latency", "--benchmark-compare", "--trtgate-require=gpu,baseline"
    )
    assert same.returncode == 0
    assert "unchanged" in same.stdout

    before = baseline.read_bytes()
    slower = gate_run(
        "suite_of_mine.py", "-m", "trtgate_latency", "--trtgate-update-baselines", "--junit-xml=junit.xml", DEPTH="18"
    )
    assert slower.returncode == 1
    assert re.search(rf"{CASE} is slower: device latency", slower.stdout)  # the engine is larger, too
    assert "not measured beside the baseline's compiled module" not in slower.stdout
    (run,) = sorted((tmp_path / ".trtgate" / "runs").glob("*.json"))[-1:]
    (regressed,) = json.loads(run.read_text())["benchmarks"]
    said = {judgement["metric"]: judgement for judgement in regressed["extra_info"]["trtgate"]["judgements"]}
    assert "fresh pairs" in said["device"]["evidence"]
    assert 'failures="1"' in (tmp_path / "junit.xml").read_text()
    assert baseline.read_bytes() == before

    accepted = gate_run(
        "suite_of_mine.py",
        "-m",
        "trtgate_latency",
        "--trtgate-update-baselines",
        f"--trtgate-accept={CASE}",
        DEPTH="18",
    )
    assert accepted.returncode == 0
    (stored,) = json.loads(baseline.read_text())["benchmarks"]
    assert len(stored["extra_info"]["trtgate"]["sessions"]) == 1
    assert stored["extra_info"]["trtgate"]["figures"]["engines"] == 1


TWO = """
import torch
import trtgate


def made(width):
    torch.manual_seed(0)
    return torch.nn.Conv2d(3, width, 3).eval(), torch.randn(1, 3, 32, 32)


@trtgate.model(frontends=("dynamo",), precisions=("fp16",), min_block_size=1)
def narrow():
    return made(8)


@trtgate.model(frontends=("dynamo",), precisions=("fp16",), min_block_size=1)
def wide():
    return made(16)
"""


def test_all_is_made_ready_ahead_and_built_one_by_one_so_that_build_times_are_judged(
    gate_run: Run, tmp_path: Path
) -> None:
    (tmp_path / "suite_of_mine.py").write_text(TWO)
    (tmp_path / "pytest.ini").write_text(INI)
    latency = ("suite_of_mine.py", "-m", "trtgate_latency", "--trtgate-launches=1")
    recorded = gate_run(*latency, "--trtgate-update-baselines")
    assert recorded.returncode == 0
    assert re.search(r"built ahead: 2 cases by 2 processes in [\d.]+ s, 0 of them from the cache", recorded.stdout)
    (baseline,) = (tmp_path / "baselines").glob("*/latency.json")
    figures = [entry["extra_info"]["trtgate"]["figures"] for entry in json.loads(baseline.read_text())["benchmarks"]]
    assert [one["build_s"] > 0 for one in figures] == [True, True]
    assert "2 of them from the cache" in gate_run(*latency, "--benchmark-compare").stdout


def test_sessions_of_either_state_of_the_gpu_judge_runs_in_that_state(gate_run: Run, tmp_path: Path) -> None:
    """Each is stored with its clock beside the other; a run in a state that nothing is stored of is `new`."""
    (tmp_path / "suite_of_mine.py").write_text(SUITE)
    (tmp_path / "pytest.ini").write_text(INI)
    latency = ("suite_of_mine.py", "-m", "trtgate_latency")
    assert gate_run(*latency, "--trtgate-update-baselines").returncode == 0
    other = gate_run(*latency, "--benchmark-compare", "--trtgate-streams=many", "--trtgate-require=gpu,baseline")
    assert other.returncode == 1
    assert "cuda_graph_one_stream" in other.stdout
    assert gate_run(*latency, "--trtgate-update-baselines", "--trtgate-streams=many").returncode == 0
    (baseline,) = (tmp_path / "baselines").glob("*/latency.json")
    (stored,) = json.loads(baseline.read_text())["benchmarks"]
    clocks = [session["clock"] for session in stored["extra_info"]["trtgate"]["sessions"]]
    assert clocks == ["cuda_graph_one_stream", "cuda_graph_many_streams"]
    for streams in STREAMS:
        same = gate_run(*latency, "--benchmark-compare", f"--trtgate-streams={streams}", "--trtgate-require=baseline")
        assert (same.returncode, "unchanged" in same.stdout) == (0, True)
        slower = gate_run(*latency, "--benchmark-compare", f"--trtgate-streams={streams}", DEPTH="18")
        assert slower.returncode == 1
        assert re.search(rf"{CASE} is slower: device latency", slower.stdout)


def test_a_model_that_compiles_wrong_is_neither_timed_nor_stored(gate_run: Run, tmp_path: Path) -> None:
    wrong = SUITE.replace(
        "    return torch.nn.Sequential(*layers).eval(),",
        "    class Wrong(torch.nn.Sequential):\n"
        "        def forward(self, x):\n"
        "            return super().forward(x) * (2 if torch.compiler.is_exporting() else 1)\n"
        "    return Wrong(*layers).eval(),",
    )
    (tmp_path / "suite_of_mine.py").write_text(wrong)
    (tmp_path / "pytest.ini").write_text(INI)
    done = gate_run("suite_of_mine.py", "-m", "trtgate_latency", "--trtgate-update-baselines")
    assert done.returncode == 1
    assert "output differs from eager: " in done.stdout
    assert not list(tmp_path.glob("baselines/*/latency.json"))


def test_a_gpu_that_torch_cannot_use_is_exit_4(gate_run: Run, tmp_path: Path) -> None:
    (tmp_path / "suite_of_mine.py").write_text(SUITE)
    (tmp_path / "pytest.ini").write_text(INI)
    (tmp_path / "conftest.py").write_text("import torch\ntorch.cuda.is_available = lambda: False\n")
    done = gate_run("suite_of_mine.py", "-m", "trtgate_latency", "--benchmark-compare")
    assert done.returncode == 4
    assert "can't use it" in done.stdout + done.stderr
