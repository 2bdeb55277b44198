"""Base and candidate side by side on a real GPU: the same is the same, a known delay is found, `ab` end to end."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from trtgate.common import git
from trtgate.common.accelerator import detect
from trtgate.common.metrics import METRICS
from trtgate.compiling import build_or_load
from trtgate.gate import judging, measurement_summary
from trtgate.gate.paired_gate import PairedGate, Suspicion
from trtgate.launches.comparison_side import Side
from trtgate.launches.pair import Artifacts
from trtgate.launches.pair_session import PairSession
from trtgate.suite.suite_source import SuiteSource
from trtgate.verdict import Verdict

from .conftest import ROOT, Run

CASE = "resnet50-dynamo-fp16-b8-mbs5"
TESTS = 100


def quiet(step: str) -> None:
    print(f"{time.monotonic():.1f} {step}", flush=True)


def default_limit(metric: str) -> float:
    return METRICS[metric].limit


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    case = SuiteSource(root=str(ROOT), suites=("benchmarks/suite.py",)).load().cases[CASE]
    folder = tmp_path_factory.mktemp("artifact")
    made = build_or_load.build_or_load(case, "cuda", folder, None, quiet)
    assert made.stored
    assert made.build.engines == 1
    assert made.build.pytorch_operators == 0
    assert 0 < made.build.leaf_error < 3e-2
    return folder


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PairedGate]:
    source = SuiteSource(root=str(ROOT), suites=("benchmarks/suite.py",))
    sides = (Side(name=name, source=source) for name in ("base", "candidate"))
    session = PairSession(*sides, detect(), tmp_path_factory.mktemp("logs"), timeout_s=300)
    yield PairedGate(session)
    session.close()


def test_a_module_beside_itself_is_unchanged_in_latency_and_memory(gate: PairedGate, artifact: Path) -> None:
    pair = gate.pairs.load_resident(CASE, Artifacts(base=artifact, candidate=artifact))
    screened = gate.screen(pair, CASE, default_limit, TESTS, quiet)
    gate.pairs.unload(pair)
    found = {judgement.metric: judgement for judgement in screened.judgements}
    print(found)
    assert screened.candidate.clock == "cuda_graph_one_stream"
    assert found["device"].verdict is Verdict.UNCHANGED
    assert abs(found["device"].change) < 0.01
    assert found["host"].verdict is not Verdict.REGRESSED
    assert not any(turn.starts_threads for turn in pair.warm.values())
    assert all(turn.host_us and turn.captures for one in screened.quadruples for turn in (*one.base, *one.candidate))
    sides = [pair.measurement(CASE, name) for name in ("base", "candidate")]
    memory = [measurement_summary.figures(side)["gpu_memory_bytes"] for side in sides]
    print(memory)
    assert memory[0] == pytest.approx(memory[1], abs=8 << 20)  # 20 MiB apart on an H200 while captures were part of it
    assert memory[0] > 40e6


def test_a_known_delay_is_suspected_and_confirmed_by_fresh_pairs(gate: PairedGate, artifact: Path) -> None:
    both = Artifacts(base=artifact, candidate=artifact)
    pair = gate.pairs.load_resident(CASE, both)
    screened = gate.screen(pair, CASE, default_limit, TESTS, quiet, delay=0.03)
    print(screened.delay, screened.judgements)
    assert screened.delay == pytest.approx(0.03, abs=0.01)
    assert screened.judgements[0].verdict is Verdict.REGRESSED
    suspicion = Suspicion(case_id=CASE, artifacts=both, metrics=("device",), delay=0.03)
    ((device,),) = gate.confirm([suspicion], default_limit, TESTS, quiet)
    print(device)
    assert device.verdict is Verdict.REGRESSED
    assert device.change == pytest.approx(0.03, abs=0.01)
    assert "fresh pairs" in device.evidence


def test_what_the_host_takes_is_measured_alone_where_it_alone_is_suspected(gate: PairedGate, artifact: Path) -> None:
    suspicion = Suspicion(case_id=CASE, artifacts=Artifacts(base=artifact, candidate=artifact), metrics=("host",))
    (pairs,) = gate.measure([suspicion], 2, default_limit, quiet)
    assert len(pairs) == 2
    for quadruples in pairs:
        print(judging.pair_differences(quadruples, "host", "device"))
        turns = [turn for one in quadruples for turn in (*one.base, *one.candidate)]
        assert all(turn.host_us and turn.enqueue_us and not turn.captures for turn in turns)


SUITE = """
import trtgate
from depth import DEPTH

@trtgate.model(frontends=("dynamo",), precisions=("fp16",), batches=(1,))
def net(batch):
    import torch
    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(3, 64, 3, padding=1)]
    for _ in range(DEPTH):
        layers += [torch.nn.Conv2d(64, 64, 3, padding=1), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers).eval(), torch.randn(batch, 3, 64, 64)
"""


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_ab_against_a_revision_passes_unchanged_and_fails_what_got_slower(gate_run: Run, tmp_path: Path) -> None:
    (tmp_path / "suite_of_mine.py").write_text(SUITE)
    (tmp_path / "depth.py").write_text("DEPTH = 12\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\ntrtgate_suite = suite_of_mine.py\n")
    for words in (["init", "-q"], ["add", "."], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "base"]):
        git.run(tmp_path, *words).check_returncode()
    ab = ("-m", "trtgate_latency", "suite_of_mine.py", "--trtgate-base=HEAD", "--trtgate-require=gpu,baseline")
    same = gate_run(*ab)
    assert same.returncode == 0
    (tmp_path / "depth.py").write_text("DEPTH = 16\n")
    slower = gate_run(*ab)
    assert slower.returncode == 1
    assert re.search(r"net-dynamo-fp16-b1-mbs5 is slower: device latency", slower.stdout)
    assert "where: net-dynamo-fp16-b1-mbs5: " in slower.stdout
    assert not list((tmp_path / ".trtgate").glob("base-*"))


TWO = """
import trtgate
from depth import DEPTH

def net(depth, batch):
    import torch
    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(3, 64, 3, padding=1)]
    for _ in range(depth):
        layers += [torch.nn.Conv2d(64, 64, 3, padding=1), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers).eval(), torch.randn(batch, 3, 64, 64)

GRID = trtgate.grid(frontends=("dynamo",), precisions=("fp16",), batches=(1,))
MODELS = [
    trtgate.Model("same", lambda batch: net(12, batch), GRID),
    trtgate.Model("slower", lambda batch: net(DEPTH, batch), GRID),
]
"""


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_cases_that_are_built_and_loaded_ahead_get_the_verdicts_of_those_that_are_not(
    gate_run: Run, tmp_path: Path
) -> None:
    """One case of two got slower; each run measures both beside the same base, and saves what it found."""
    (tmp_path / "suite_of_mine.py").write_text(TWO)
    (tmp_path / "depth.py").write_text("DEPTH = 12\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\ntrtgate_suite = suite_of_mine.py\n")
    for words in (["init", "-q"], ["add", "."], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "base"]):
        git.run(tmp_path, *words).check_returncode()
    (tmp_path / "depth.py").write_text("DEPTH = 16\n")
    ab = ("-m", "trtgate_latency", "suite_of_mine.py", "--trtgate-base=HEAD", "--trtgate-require=gpu,baseline")
    found = {}
    for name, options in (("ahead", ()), ("one by one", ("--trtgate-prebuild=0",))):
        start = time.monotonic()
        done = gate_run(*ab, *options)
        said = re.findall(r"^(same|slower)-dynamo-fp16-b1-mbs5 .* (\w+)$", done.stdout, re.MULTILINE)
        found[name] = dict(said)
        print(f"{name}: {time.monotonic() - start:.1f} s, {found[name]}")
        assert done.returncode == 1
        assert ("built ahead: 2 cases, and 2 of the base, by" in done.stdout) == (name == "ahead")
        assert "build times are not judged" not in done.stdout  # one case of each side is built at a time
        if name == "ahead":  # `same` is one module for both sides, and `slower` of the base is that too
            assert re.search(r"[12] of them from the cache", done.stdout)
    assert found["ahead"]["slower"] == found["one by one"]["slower"] == "regressed"
    for one in found.values():  # a build of a second may take half as long again: suspected then, and not confirmed
        assert one["same"] in ("unchanged", "unconfirmed")
    assert not list((tmp_path / ".trtgate").glob("base-*"))
    assert not list((tmp_path / ".trtgate").glob("artifacts-*"))
