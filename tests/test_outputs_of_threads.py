"""Outputs of threads: a module that is right alone and mixes up what its callers give it is told."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch

from trtgate import Case, Model, Settings
from trtgate.compiling import outputs_of_threads, reference
from trtgate.compiling.inference import Inference
from trtgate.compiling.outputs_of_threads import WrongOfThreadsError
from trtgate.suite import samples
from trtgate.suite.model_inputs import Inputs
from trtgate.timing import load_drivers


class Made(torch.nn.Module):
    def __init__(self, forward: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        self._forward = [forward]

    def forward(self, x: torch.Tensor) -> Any:
        return self._forward[0](x)


def checked(forward: Callable[[torch.Tensor], Any], *, threads: int = 2, module: type[Made] = Made) -> None:
    """Let threads call an eager module; raises where one of them gets another output than a call alone."""
    model = Model("made", lambda: (module(forward), torch.arange(1.0, 5.0)), ())
    case = Case(model, Settings(frontend="eager"))
    first, _ = reference.checked(case, "cpu", lambda _step: None)
    others = [Inference(first.compiled, first.inputs.cloned()) for _ in range(threads - 1)]
    outputs_of_threads.check(case, [first, *others], lambda inference: inference)


def in_thread() -> bool:
    return threading.current_thread() is not threading.main_thread()


class Scratch:
    """What two callers share: in threads both write before either reads."""

    def __init__(self) -> None:
        self.value = torch.zeros(())
        self.both = threading.Barrier(2)

    def doubled(self, x: torch.Tensor) -> torch.Tensor:
        written = x * 2
        self.value = written
        if in_thread():
            self.both.wait(60)
        return self.value


def test_inputs_that_a_module_mixes_up_are_seen_since_neighbours_have_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_drivers, "GIVEN_UP_S", 0.1)
    scratch = Scratch()
    try:
        with pytest.raises(WrongOfThreadsError, match=r"output is .* off \(relative L2\)"):
            checked(scratch.doubled)
    finally:
        scratch.both.abort()


def test_state_that_no_output_depends_on_is_no_reason_not_to_compare() -> None:
    """What a call leaves in an attribute changes the module: two callers at once find each other's."""

    class Leaving(Made):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.scratch = x * 2
            return self.scratch + in_thread()

    with pytest.raises(WrongOfThreadsError):
        checked(lambda x: x, module=Leaving)


def test_what_is_right_in_each_thread_passes() -> None:
    checked(lambda x: {"a": x * 2, "b": [x.sum(), x.argmax()]}, threads=5)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda x: x.long() + 1, "has 4 of 4 other values"),
        (lambda x: (x, x), "other parts"),
        (lambda x: x * float("nan"), "has 4 of 4 other values"),
        (lambda x: x * 1.1, "0.1 off"),
    ],
)
def test_each_kind_of_difference_is_told(wrong: Callable[[torch.Tensor], Any], said: str) -> None:
    def right(x: torch.Tensor) -> torch.Tensor:
        return x.long() if getattr(wrong(x), "dtype", None) == torch.long else x

    def forward(x: torch.Tensor) -> Any:
        return wrong(x) if in_thread() else right(x)

    with pytest.raises(WrongOfThreadsError, match=said):
        checked(forward)


def test_a_model_that_takes_no_other_values_is_asked_with_its_own() -> None:
    def forward(x: torch.Tensor) -> torch.Tensor:
        assert torch.equal(x, torch.arange(1.0, 5.0)), "it takes these alone"
        return x + 2 * in_thread()

    with pytest.raises(WrongOfThreadsError):
        checked(forward)


def test_on_a_gpu_no_index_is_moved_that_the_user_did_not_give() -> None:
    """Offsets in another order read beyond a tensor: an error on a CPU, and the end of the process on a GPU."""
    example = Inputs(args=(torch.randn(4, 3), torch.tensor([0, 2, 4, 4])))
    case = Case(Model("made", lambda: None, ()), Settings(frontend="eager"))
    found = list(samples.others(case, example, seed=1))
    kept = outputs_of_threads.of_other_floats(found, example)
    assert 0 < len(kept) < len(found)
    assert all(torch.equal(one.tensors[1], example.tensors[1]) for one in kept)
    assert not any(torch.equal(one.tensors[0], example.tensors[0]) for one in kept)


def test_outputs_that_depend_on_random_numbers_or_on_calls_before_are_not_compared() -> None:
    checked(lambda x: x + torch.randint(2, ()) if in_thread() else x + 0 * torch.randint(2, ()))
    count = [0]

    def counting(x: torch.Tensor) -> torch.Tensor:
        count[0] += 1
        return x + count[0]

    checked(counting)


def test_what_a_thread_raises_is_raised() -> None:
    def forward(x: torch.Tensor) -> torch.Tensor:
        if in_thread():
            raise ValueError("not in a thread")
        return x

    with pytest.raises(ValueError, match="not in a thread"):
        checked(forward)


def test_all_stay_at_work_until_each_has_called_often_enough_and_slow_ones_make_one_call() -> None:
    called, slow = [0, 0], threading.Event()

    def quick() -> None:
        called[0] += 1
        if called[0] == 50:
            slow.set()

    def waits() -> None:
        assert slow.wait(60)
        called[1] += 1

    load_drivers.all_at_once([quick, waits], times=1, seconds=0.0)
    assert called[0] >= 50
    assert called[1] >= 1
    load_drivers.all_at_once([quick, waits], times=3, seconds=60.0)
    assert called[1] >= 4
