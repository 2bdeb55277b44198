"""The zoo: its names without a library, its models as their libraries call them, and what is said of absent ones."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils import _pytree as pytree
from typer.testing import CliRunner

from trtgate import Case, Settings
from trtgate.compiling import building
from trtgate.coverage import coverage_baselines, dry_run
from trtgate.suite import zoo, zoo_models
from trtgate.suite.cases import Suite
from trtgate.suite.zoo_models import ZooModel
from trtgate.torch_trt import releases

from .pytest_folder import PytestFolder as Folder

BASELINES = Path(__file__).parents[1] / "baselines"
OF_THE_SUITE = ("resnet18", "resnet50", "mobilenet_v3_large", "vit_b_16")
needs_torch_tensorrt = pytest.mark.skipif(bool(releases.unavailable()), reason="needs torch_tensorrt")


def case_of(name: str, frontend: str, precision: str = "fp32", *, conditioned: bool = False) -> Case:
    model = next(one for one in zoo.models(conditioned=conditioned) if one.name == name)
    return Case(model, Settings(frontend=frontend, precision=precision, batch=1))


def test_names_are_listed_without_importing_a_library() -> None:
    code = (
        "import sys; from trtgate.suite import zoo; names = [model.name for model in zoo.models()]\n"
        "assert len(set(names)) == len(names), names\n"
        "print({'torch', 'torchvision', 'timm', 'transformers', 'diffusers'} & set(sys.modules))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"


def test_a_larger_model_of_a_family_is_asked_in_fp16_alone_and_what_is_stored_is_what_is_asked() -> None:
    of = {model.name: [settings.precision for settings in model.settings] for model in zoo.models()}
    assert (of["vit_h_14"], of["swin_v2_t"]) == (["fp16"], ["fp16", "fp32"])
    assert set(zoo.LARGER) < {*zoo.CLASSIFICATION, *zoo.SEGMENTATION}
    asked = {case_id for case_id in Suite(zoo.models()).cases if case_id.partition("-")[0] not in OF_THE_SUITE}
    stored = {
        case_id
        for case_id in coverage_baselines.case_ids(BASELINES)
        if case_id.partition("-")[0] not in (*OF_THE_SUITE, "digits")
    }
    assert stored == asked


@pytest.mark.parametrize("name", [name for name in zoo_models.ALL if name not in zoo_models.FULL_SIZE])
def test_a_small_model_is_called_as_its_library_does(name: str) -> None:
    if reason := zoo.unavailable(name):
        pytest.skip(reason)
    module, inputs = building.make(case_of(name, "eager"), "cpu", copied=False)
    with torch.no_grad():
        tensors = [leaf for leaf in pytree.tree_leaves(inputs.call(module)) if isinstance(leaf, torch.Tensor)]
    assert tensors
    assert all(torch.isfinite(leaf).all() for leaf in tensors if leaf.is_floating_point())


def test_torchvisions_are_among_them() -> None:
    assert {name for name in zoo_models.ALL if "." not in name} == {"r3d_18", "raft_small", "retinanet_head"}
    inputs = building.make(case_of("raft_small", "eager"), "cpu")[1]
    assert inputs.kwargs == {"num_flow_updates": 2}
    assert isinstance(building.make(case_of("retinanet_head", "eager"), "cpu")[1].args[0], list)


@needs_torch_tensorrt
def test_the_coverage_of_a_head_that_takes_a_list() -> None:
    found = dry_run.ask(case_of("retinanet_head", "dynamo", "fp16"))
    assert (found.in_pytorch, len(found.engines)) == (0, 1)
    assert found.engines[0].inputs == [f"float16[1,64,{size},{size}]" for size in (32, 16, 8)]


class Scaled(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.empty = torch.nn.BatchNorm2d(3), torch.nn.Linear(4, 4, bias=False)
        torch.nn.init.zeros_(self.empty.weight)

    def forward(self, x: Any, scale: float = 1.0, mask: Any = None) -> Any:
        return self.empty(self.norm(x)) * scale


IMAGES = torch.zeros(1, 3, 4, 4)
KINDS: dict[str, Any] = {
    "a tensor": lambda batch: (Scaled(), IMAGES.expand(batch, 3, 4, 4)),
    "positions and keywords": lambda batch: (Scaled(), (IMAGES.expand(batch, 3, 4, 4),), {"scale": 2.0}),
    "a mapping": lambda batch: (Scaled(), {"x": IMAGES.expand(batch, 3, 4, 4), "mask": None}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_models_that_are_to_be_run_may_have_any_inputs(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of one tensor of images are given weights that compute something, and noise."""
    monkeypatch.setattr(zoo_models, "ALL", {"scaled": ZooModel(KINDS[kind])})
    found = [building.make(case_of("scaled", "eager", conditioned=True), "cpu") for _ in range(2)]
    assert torch.equal(found[0][1].tensors[0], found[1][1].tensors[0])
    module, inputs = found[0]
    assert bool(inputs.call(module).any()) == (kind == "a tensor")
    assert not case_of("scaled", "eager").model.factory(batch=2)[0].training


def test_what_the_command_leaves_out_of_the_zoo_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    from trtgate import cli
    from trtgate.commands import coverage_answers

    factory = zoo_models.ALL["r3d_18"].factory
    monkeypatch.setattr(zoo, "CLASSIFICATION", ["resnet18"])
    monkeypatch.setattr(zoo, "SEGMENTATION", [])
    monkeypatch.setattr(
        zoo_models, "ALL", {"absent_library.a": ZooModel(factory), "flow": ZooModel(factory, ("fp32",), "it needs it")}
    )
    asked: list[str] = []
    monkeypatch.setattr(coverage_answers, "ask", lambda wanted, _step: asked.extend(case.id for case in wanted) or [])
    run = CliRunner().invoke(cli.app, ["coverage", "--zoo", "--precision", "fp16", "--precision", "fp32"])
    assert asked == ["resnet18-dynamo-fp16-b1-mbs5", "resnet18-dynamo-fp32-b1-mbs5", "flow-dynamo-fp32-b1-mbs5"]
    assert run.output.splitlines()[-2:] == [
        "2 of the zoo left out: absent_library is not installed: pip install absent_library",
        "1 of the zoo left out: flow is asked in fp32 only: it needs it",
    ]


def test_the_examples_are_a_suite_apart_and_say_which_library_they_lack(folder: Folder) -> None:
    benchmarks = BASELINES.parent / "benchmarks"
    examples = folder.pytest(str(benchmarks / "examples"), "--collect-only", "-q")
    if importlib.util.find_spec("transformers"):
        assert "test_coverage[llama.decode-dynamo-fp16-b1-mbs5]" in examples.stdout.str()
    else:
        assert examples.ret == pytest.ExitCode.NO_TESTS_COLLECTED
        said = [line for line in folder.output_of(examples).splitlines() if "transformers" in line]
        assert said == ["Exit: benchmarks/examples: skipped, transformers is not installed: pip install transformers"]
    usual = folder.pytest(str(benchmarks), "--collect-only", "-q")
    assert usual.ret == 0
    assert "llama" not in usual.stdout.str()
