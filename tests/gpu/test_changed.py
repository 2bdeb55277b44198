"""What did not change, on a real GPU: the program part is the CPU's, and what the host sees is measured alone."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from trtgate import verdict
from trtgate.common.accelerator import detect
from trtgate.compiling import build_or_load
from trtgate.compiling.fingerprinting import Fingerprinter
from trtgate.gate import program_changes
from trtgate.launches.session import Session
from trtgate.records.measurement import HOST_ALONE
from trtgate.records.program_part import Fingerprint
from trtgate.suite.suite_source import SuiteSource

SOURCE = SuiteSource(root=str(Path(__file__).resolve().parents[2]), suites=("benchmarks/suite.py",))


def quiet(_step: str) -> None: ...


@pytest.mark.parametrize("name", ["resnet18-dynamo-fp16-b1-mbs5", "vit_b_16-dynamo-fp32-b1-mbs5"])
def test_a_program_part_is_the_same_with_and_without_a_gpu(name: str, tmp_path: Path) -> None:
    case = SOURCE.load().cases[name]
    made = build_or_load.build_or_load(case, "cuda", tmp_path, None, quiet)
    without = Fingerprinter().of(case)
    assert without.problem == ""
    assert made.build.program is not None
    assert program_changes.changes(without, Fingerprint(program=made.build.program)) == []


def test_what_the_host_sees_is_measured_alone(tmp_path: Path) -> None:
    case = SOURCE.load().cases["resnet18-dynamo-fp16-b1-mbs5"]
    folder = tmp_path / "artifact"
    folder.mkdir(mode=0o700)
    assert build_or_load.build_or_load(case, "cuda", folder, None, quiet).stored
    with Session(SOURCE, detect(), tmp_path / "logs", launches=2, timeout_s=300) as session:
        alone, whole = session.measure_host(case.id, folder, quiet), session.measure(case.id, folder, quiet)
    assert (alone.clock, alone.blocks_us()) == (HOST_ALONE, [])
    for metric in ("host", "enqueue"):
        one, other = (verdict.log_launch_means(found.samples(metric)).mean() for found in (alone, whole))
        assert abs(one - other) < math.log(2), metric
