"""A model of several parts: each is a model with cases of its own, made by one factory."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

import trtgate
from trtgate import Case, Settings, TrtgateError
from trtgate.commands import model_names
from trtgate.suite.cases import Suite
from trtgate.suite.selection import Selection
from trtgate.suite.suite_source import Added, SuiteSource
from trtgate.torch_trt import releases


def pipeline(batch: int) -> dict[str, Any]:
    import torch

    torch.manual_seed(0)
    encoder, head = torch.nn.Linear(8, 8).eval(), torch.nn.Linear(8, 2).eval()
    return {"encoder": (encoder, torch.randn(batch, 8)), "head": (head, (), {"input": torch.randn(batch, 8)})}


def suite(factory: Any = pipeline, parts: Any = ("encoder", "head"), **more: Any) -> Suite:
    return Suite([trtgate.model(name="lm", frontends=("eager",), precisions=("fp32",), parts=parts, **more)(factory)])


def test_each_part_is_a_case_under_the_name_of_the_model() -> None:
    assert list(suite(batches=(1, 4)).cases) == [
        "lm.encoder-eager-fp32-b1", "lm.encoder-eager-fp32-b4", "lm.head-eager-fp32-b1", "lm.head-eager-fp32-b4",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("models", "taken"),
    [
        (("lm",), ["lm.encoder-eager-fp32-b1", "lm.head-eager-fp32-b1"]),
        (("lm.head",), ["lm.head-eager-fp32-b1"]),
        ((), ["lm.encoder-eager-fp32-b1", "lm.head-eager-fp32-b1"]),
    ],
)
def test_the_name_of_the_model_selects_all_parts(models: tuple[str, ...], taken: list[str]) -> None:
    selection, whole = Selection(models=models), suite()
    assert [case.id for case in selection.select(whole)] == taken
    assert [one for one in whole.cases if selection.takes_id(one)] == taken


def test_a_part_is_made_by_the_factory_of_the_whole() -> None:
    from trtgate.compiling.reference import Reference

    cases = suite(batches=(3,)).cases
    encoder = Reference(cases["lm.encoder-eager-fp32-b3"], "cpu", lambda _step: None)
    assert encoder.inputs.args[0].shape == (3, 8)
    head = Reference(cases["lm.head-eager-fp32-b3"], "cpu", lambda _step: None)
    assert head.inputs.kwargs["input"].shape == (3, 8)


def test_inputs_are_a_mapping_of_parts_too() -> None:
    from trtgate.compiling.building import make

    def modules() -> dict[str, Any]:
        return {name: made[0] for name, made in pipeline(1).items()}

    def inputs(batch: int) -> dict[str, Any]:
        return {"encoder": pipeline(batch)["encoder"][1], "head": pipeline(batch)["head"][2]}

    cases = suite(modules, inputs=inputs, batches=(2,)).cases
    assert make(cases["lm.head-eager-fp32-b2"], "cpu")[1].kwargs["input"].shape == (2, 8)


@pytest.mark.parametrize(
    ("factory", "said"),
    [
        (lambda: dict.fromkeys(["encoder"]), "model 'lm', its factory: it returns no part 'head'; there are: encoder"),
        (dict, "it returns no part 'head'; there are: none"),
        (lambda: (1, 2), "with parts= it must return a mapping of part to what a factory returns, not tuple"),
    ],
)
def test_a_missing_part_is_said_in_one_line(factory: Any, said: str) -> None:
    from trtgate.compiling.building import make

    (model,) = suite(factory, ("head",)).models
    with pytest.raises(TrtgateError) as failed:
        make(Case(model, Settings(frontend="eager")), "cpu")
    assert said in str(failed.value)


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ("head", r"write a tuple, \('head',\)"),
        (("a-b",), "'a-b' can't name a part"),
        (("a", "a"), "'a' is named twice"),
    ],
)
def test_names_of_parts_are_checked(parts: Any, said: str) -> None:
    with pytest.raises(TrtgateError, match=said):
        suite(parts=parts)


def test_the_name_of_the_whole_is_answered_with_its_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    models = {model.name: model for model in suite().models}
    monkeypatch.setattr(model_names, "suite_models", lambda: models)
    with pytest.raises(TrtgateError, match=r"unknown model 'lm'; it has parts, which are .*: lm.encoder, lm.head"):
        model_names.find("lm")


@pytest.mark.skipif(bool(releases.unavailable()), reason="needs torch_tensorrt")
def test_the_assertion_asks_each_part() -> None:
    def factory() -> dict[str, Any]:
        import torch

        x = torch.ones(2, 8)
        return {"encoder": (torch.nn.Linear(8, 8), x), "head": (torch.nn.Linear(8, 2), x)}

    lm = trtgate.model(name="lm", parts=("encoder", "head"))(factory)
    assert trtgate.assert_supported(lm, min_block_size=1).engines[0].outputs == ["float32[2,2]"]
    with pytest.raises(AssertionError, match=r"^lm\.encoder: nothing reaches TensorRT"):
        trtgate.assert_supported(lm, min_block_size=9)


TWO_PARTS = """
import trtgate

@trtgate.model(frontends=("eager",), precisions=("fp32",), parts=("encoder", "head"))
def lm(batch): ...
"""


@pytest.fixture
def suites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two files beside each other, `first_parts` and `second_parts`, that have the same model of two parts."""
    (tmp_path / "first_parts.py").write_text(TWO_PARTS)
    (tmp_path / "second_parts.py").write_text("from first_parts import lm\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_part_may_have_settings_that_a_sweep_adds(suites: Path) -> None:
    """As `trtgate sweep lm.head --vary batch=1,2` does."""
    added = Added("lm.head", Settings(frontend="eager", batch=2))
    cases = SuiteSource(root=str(suites), suites=("first_parts",), added=(added,)).load().cases
    assert list(cases) == ["lm.encoder-eager-fp32-b1", "lm.head-eager-fp32-b1", "lm.head-eager-fp32-b2"]


def test_a_model_of_parts_may_be_in_two_suites(suites: Path) -> None:
    cases = SuiteSource(root=str(suites), suites=("first_parts", "second_parts")).load().cases
    assert list(cases) == ["lm.encoder-eager-fp32-b1", "lm.head-eager-fp32-b1"]


def test_a_part_is_named_behind_its_factory(suites: Path) -> None:
    assert model_names.find("first_parts:lm.head").name == "lm.head"
    with pytest.raises(TrtgateError, match=r"'first_parts:lm' has parts, .*: first_parts:lm.encoder, first_parts:lm.h"):
        model_names.find("first_parts:lm")
    with pytest.raises(TrtgateError, match=r"'first_parts:lm.tail': it has no part 'tail'; there are: encoder, head"):
        model_names.find("first_parts:lm.tail")
