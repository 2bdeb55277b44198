"""Coverage from real compiles, against what was said without building anything."""

from __future__ import annotations

import pytest

from trtgate.compiling import building
from trtgate.coverage import dry_run
from trtgate.records import coverage_record
from trtgate.suite.cases import Case
from trtgate.suite.settings import Settings
from trtgate.suite.suite_source import SuiteSource

from .conftest import ROOT

CASES = [
    *(("dynamo", "fp16", name) for name in ("resnet18", "resnet50", "mobilenet_v3_large", "vit_b_16")),
    ("dynamo", "fp32", "vit_b_16"),
    ("torch_compile", "fp16", "resnet18"),
    ("torch_compile", "fp16", "vit_b_16"),
    ("torch_compile", "fp32", "vit_b_16"),
]


@pytest.mark.parametrize(("frontend", "precision", "name"), CASES)
def test_a_real_compile_takes_what_the_dry_run_said(frontend: str, precision: str, name: str) -> None:
    models = {model.name: model for model in SuiteSource(root=str(ROOT), suites=("benchmarks/suite.py",)).load().models}
    case = Case(models[name], Settings(frontend=frontend, precision=precision, batch=1))
    module, inputs = building.make(case, "cuda")
    compiled = building.build(case, module, inputs, lambda _step: None).compiled
    assert compiled.coverage is not None
    assert compiled.coverage == dry_run.ask(case)
    assert len(compiled.engine_bytes) == len(compiled.coverage.engines) > 0


def test_operators_kept_in_pytorch_on_purpose() -> None:
    models = {model.name: model for model in SuiteSource(root=str(ROOT), suites=("benchmarks/suite.py",)).load().models}
    settings = Settings(frontend="dynamo", precision="fp16", batch=1, torch_executed_ops=("aten.max_pool2d",))
    case = Case(models["resnet18"], settings)
    module, inputs = building.make(case, "cuda")
    inference = building.build(case, module, inputs, lambda _step: None)
    assert inference.compiled.coverage == dry_run.ask(case)
    excluded = [
        entry.operator for entry in inference.compiled.coverage.left if entry.reason == coverage_record.EXCLUDED
    ]
    assert excluded == ["aten.max_pool2d.default"]
