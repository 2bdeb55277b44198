"""Accuracy over many inputs, and weights from files: what is compared with what, and what is refused."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from trtgate.common.errors import TrtgateError
from trtgate.compiling import agreement_over_inputs, building
from trtgate.compiling.inference import Inference
from trtgate.frontends import CompiledModule
from trtgate.suite.cases import Case, Model
from trtgate.suite.settings import Settings

CLASSES = 10


def classifier(batch: int) -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, CLASSES)).eval(), torch.randn(batch, 4)


def asked(change: Any, *, batch: int = 3, factory: Any = classifier, **model: Any) -> agreement_over_inputs.Agreement:
    """Return the agreement of a module whose outputs are changed."""
    case = Case(Model("net", factory, (), **model), Settings(frontend="eager", batch=batch))
    module, inputs = building.make(case, "cpu")
    inference = Inference(CompiledModule(lambda *given: change(module(*given)), 0.0), inputs)
    found = agreement_over_inputs.ask(case, inference, "cpu", 64)
    assert inference.inputs is inputs
    return found


def test_the_same_module_agrees_wholly_over_at_least_as_many_inputs_as_asked() -> None:
    found = asked(lambda output: output)
    assert (found.inputs, found.relative_l2, found.max_error, found.top1, found.top5) == (66, 0.0, 0.0, 1.0, 1.0)
    assert found.cosine == pytest.approx(1.0)
    assert (found.source, found.weights) == ("seeded normal noise", "random weights")


def test_errors_are_of_all_inputs_together() -> None:
    found = asked(lambda output: output * 1.25)
    assert found.relative_l2 == pytest.approx(0.25)
    assert found.cosine == pytest.approx(1.0)
    assert found.top1 == 1.0


def test_ranks_are_those_of_eagers_best_class() -> None:
    wanted = torch.arange(10.0).flip(0).repeat(4, 1)  # class 0 is best of all four inputs
    got = torch.zeros(4, 10)
    for row, better in enumerate((0, 1, 4, 5)):  # so many classes are put before it
        got[row, 1 : 1 + better] = 2.0
        got[row, 0] = 1.0
    assert agreement_over_inputs._agreeing([[wanted]], [[got]]) == (0.25, 0.75)


def test_what_is_no_table_of_classes_has_no_ranks() -> None:
    found = asked(lambda output: output, factory=lambda batch: (nn.Conv2d(3, 4, 1).eval(), torch.randn(batch, 3, 8, 8)))
    assert (found.top1, found.top5) == (None, None)


class TwoHeads(nn.Module):
    """Boxes in pixels, scores, and complex numbers."""

    def forward(self, x: torch.Tensor) -> Any:
        return {"boxes": x * 1000, "scores": x, "waves": torch.complex(x, x), "first": x.argmax(1)}


def two_heads(batch: int) -> tuple[nn.Module, torch.Tensor]:
    return TwoHeads().eval(), torch.randn(batch, 4)


def test_of_several_tensors_the_worst_counts() -> None:
    found = asked(lambda output: {**output, "scores": output["scores"] * 1.25}, factory=two_heads)
    assert found.relative_l2 == pytest.approx(0.25)
    assert found.max_error < 10


def test_an_imaginary_part_is_compared_too() -> None:
    found = asked(lambda output: {**output, "waves": output["waves"].conj()}, factory=two_heads)
    assert found.relative_l2 == pytest.approx(2**0.5)
    assert found.cosine == pytest.approx(0.0, abs=1e-12)


def test_integers_count_where_there_is_nothing_else() -> None:
    found = asked(lambda output: output * 2, factory=lambda batch: (OnlyIntegers().eval(), torch.ones(batch, 4)))
    assert found.relative_l2 == 1.0


def test_values_infinite_in_both_are_no_error() -> None:
    found = asked(lambda output: output, factory=lambda batch: (Masked().eval(), torch.randn(batch, 4)))
    assert (found.relative_l2, found.max_error) == (0.0, 0.0)


class OnlyIntegers(nn.Module):
    def forward(self, x: torch.Tensor) -> Any:
        return x.argmax(1) + 1


class Masked(nn.Module):
    def forward(self, x: torch.Tensor) -> Any:
        return x.masked_fill(x < 0, float("-inf"))


def test_nan_for_some_input_is_an_error() -> None:
    with pytest.raises(TrtgateError, match="of 66 inputs some give NaN"):
        asked(lambda output: output / (output > -1.0).float())


def test_other_shapes_are_an_error() -> None:
    with pytest.raises(TrtgateError, match="other shapes than eager's"):
        asked(lambda output: output[:1])


# Weights


def stored(path: Path, **changed: torch.Tensor) -> str:
    from safetensors.torch import save_file

    module, _ = classifier(1)
    state = {name: torch.full_like(value, 0.5) for name, value in module.state_dict().items()}
    save_file({**state, **changed}, path)
    return str(path)


def test_weights_of_a_file_are_used_and_named(tmp_path: Path) -> None:
    file = stored(tmp_path / "weights.safetensors")
    case = Case(Model("net", classifier, (), weights=file), Settings(frontend="eager", batch=1))
    module, _ = building.make(case, "cpu")
    assert all(bool((value == 0.5).all()) for value in module.state_dict().values())
    assert asked(lambda output: output, weights=file).weights == file


def test_a_header_that_begins_as_a_pickle_does_is_no_pickle(tmp_path: Path) -> None:
    """A safetensors file begins with the length of its header, a multiple of 8: 0x80 among them."""
    for length in range(1, 60):
        file = stored(tmp_path / "weights.safetensors", **{"0.weight": torch.full((16, 4), 0.5)})
        content = Path(file).read_bytes()
        size = int.from_bytes(content[:8], "little")
        padded = content[8 : 8 + size] + b" " * (8 * length)
        Path(file).write_bytes(len(padded).to_bytes(8, "little") + padded + content[8 + size :])
        if Path(file).read_bytes()[0] == 0x80:
            building.make(Case(Model("net", classifier, (), weights=file), Settings(frontend="eager", batch=1)), "cpu")
            return
    raise AssertionError("no header was of such a length")


class Trap:
    """Says so if it is unpickled."""

    def __reduce__(self) -> Any:
        return print, ("unpickled",)


@pytest.mark.parametrize("kind", ["pickle", "torch"])
def test_a_pickle_is_refused_and_not_read(tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "weights.pt"
    if kind == "pickle":
        file.write_bytes(pickle.dumps(Trap()))
    else:
        torch.save(Trap(), file)
    with pytest.raises(TrtgateError, match=r"model 'net': weights .* is a pickle, which can run anything"):
        building.make(Case(Model("net", classifier, (), weights=str(file)), Settings(frontend="eager", batch=1)), "cpu")
    assert capsys.readouterr().out == ""


def test_what_misfits_or_is_missing_is_said(tmp_path: Path) -> None:
    wrong = stored(tmp_path / "wrong.safetensors", **{"0.weight": torch.zeros(2, 2)})
    for file, problem in ((wrong, "do not fit the module"), (str(tmp_path / "none"), "can't be read")):
        with pytest.raises(TrtgateError, match=problem):
            building.make(Case(Model("net", classifier, (), weights=file), Settings(frontend="eager", batch=1)), "cpu")
