"""Workers on a real GPU: clocks, states, artifacts, memory."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from trtgate import verdict
from trtgate.common.accelerator import detect
from trtgate.compiling import build_or_load
from trtgate.gate import measurement_summary
from trtgate.launches.session import Session
from trtgate.launches.worker_handle import LaunchError
from trtgate.records.measurement import CaseMeasurement
from trtgate.suite.suite_source import SuiteSource

ODD_SUITE = """
import torch
import trtgate

class Synchronising(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(512, 512)

    def forward(self, x):
        return self.layer(x) * float(x.abs().mean().item() > 0)

class Greedy(torch.nn.Module):
    def forward(self, x):
        return torch.empty(1 << 50, device=x.device).sum() + x

@trtgate.model(frontends=("eager",), precisions=("fp32",), batches=(1,))
def synchronising(batch):
    torch.manual_seed(0)
    return Synchronising().eval(), torch.randn(batch, 512)

@trtgate.model(frontends=("eager",), precisions=("fp32",), batches=(1,))
def greedy(batch):
    return Greedy().eval(), torch.randn(batch, 8)

@trtgate.model(frontends=("eager",), precisions=("fp32",), batches=(1,))
def plain(batch):
    torch.manual_seed(0)
    return torch.nn.Sequential(*[torch.nn.Linear(512, 512) for _ in range(4)]).eval(), torch.randn(batch, 512)
"""
ROOT = Path(__file__).resolve().parent.parent.parent


def quiet(_step: str) -> None: ...


@pytest.fixture(scope="module")
def resnet18(tmp_path_factory: pytest.TempPathFactory) -> CaseMeasurement:
    """One case of the suite, built, stored, loaded and measured by two launches."""
    source = SuiteSource(root=str(ROOT), suites=("benchmarks/suite.py",))
    case = source.load().cases["resnet18-dynamo-fp16-b1-mbs5"]
    folder = tmp_path_factory.mktemp("artifact")
    made = build_or_load.build_or_load(case, "cuda", folder, None, quiet)
    assert made.stored
    assert made.build.engines == 1
    assert made.build.engine_bytes > 1 << 20
    with Session(source, detect(), tmp_path_factory.mktemp("logs"), launches=2, timeout_s=300) as session:
        return session.measure(case.id, folder, quiet)


def test_device_latency_is_measured_by_graph_replay_and_hides_no_host_time(resnet18: CaseMeasurement) -> None:
    assert resnet18.clock == "cuda_graph_one_stream"
    device, host, enqueue = (
        math.exp(float(verdict.log_launch_means(resnet18.samples(metric)).mean())) for metric in resnet18.metrics
    )
    assert 20 < device < host
    assert 0 < enqueue < host


def test_captures_are_many_and_blocks_of_one_capture_agree(resnet18: CaseMeasurement) -> None:
    for turn in resnet18.turns:
        assert len(turn.captures) >= 6
        for capture in turn.captures:
            assert max(capture.blocks_us) / min(capture.blocks_us) < 1.05


def test_the_state_of_the_gpu_comes_with_every_block(resnet18: CaseMeasurement) -> None:
    assert len(resnet18.states()) == len(resnet18.blocks_us())
    state = measurement_summary.state_of(resnet18)
    assert state.sm_clock_mhz > 300
    assert state.power_w > 0
    assert state.canary_us["sm_clock"] > 100
    assert state.canary_us["memory_copy"] > 1


def test_one_launch_says_how_much_memory_it_takes(resnet18: CaseMeasurement) -> None:
    figures = measurement_summary.figures(resnet18)
    assert figures["gpu_memory_bytes"] > 20e6
    assert figures["device_p99_us"] >= figures["device_p90_us"] >= figures["device_p50_us"]


@pytest.fixture
def odd(tmp_path: Path) -> SuiteSource:
    (tmp_path / "odd_suite.py").write_text(ODD_SUITE)
    return SuiteSource(root=str(tmp_path), suites=("odd_suite.py",))


def test_a_module_that_synchronises_is_timed_with_queued_events(odd: SuiteSource, tmp_path: Path) -> None:
    with Session(odd, detect(), tmp_path, launches=1, timeout_s=200) as session:
        found = session.measure("synchronising-eager-fp32-b1", None, quiet)
        assert found.clock == "cuda_events"
        assert "no CUDA graph" in found.turns[0].note
        assert session.measure("plain-eager-fp32-b1", None, quiet).clock == "cuda_graph_one_stream"


def test_out_of_memory_fails_its_case_alone(odd: SuiteSource, tmp_path: Path) -> None:
    with Session(odd, detect(), tmp_path, launches=2, timeout_s=200) as session:
        with pytest.raises(LaunchError, match="out of GPU memory"):
            session.measure("greedy-eager-fp32-b1", None, quiet)
        assert session.measure("plain-eager-fp32-b1", None, quiet).blocks_us()
