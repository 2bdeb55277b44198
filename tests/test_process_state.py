"""What a factory leaves changed in its process: what its own case keeps, and that the next case feels none of it."""

from __future__ import annotations

import functools
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from trtgate import Case, Model, Settings
from trtgate.common.errors import TrtgateError
from trtgate.compiling import building, lifecycle, process_flags, process_state, reference
from trtgate.compiling.reference import Reference
from trtgate.suite import samples

from .in_process import InProcess

ROW = torch.ones(2, 4)
KEPT: list[Any] = []


def quiet(_step: str) -> None: ...


def case(
    change: Callable[[], Any], forward: Callable[[torch.Tensor], Any] = torch.clone, frontend: str = "eager"
) -> Case:
    class Net(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            return forward(x)

    def factory() -> Any:
        KEPT.append(change())
        return Net(), ROW

    return Case(Model("m", factory, ()), Settings(frontend=frontend))


def left_open(context: Any) -> Any:
    context.__enter__()
    return context


def fp32_precisions() -> list[Any]:
    backends = (torch.backends.cuda.matmul, torch.backends.cudnn.conv, torch.backends.mkldnn.matmul)
    return [torch.get_float32_matmul_precision(), *(one.fp32_precision for one in backends)]


def modes() -> list[Any]:
    open_ones = [torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch._C._len_torch_function_stack()]
    return open_ones + [(torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)) for kind in ("cpu", "cuda")]


def variables() -> dict[str, str]:
    return dict(os.environ)


def generators() -> list[Any]:
    return [torch.get_rng_state().tolist(), random.getstate(), repr(np.random.get_state())]


def deterministic() -> tuple[bool, bool]:
    return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()


ENDS_AT_ONCE = [
    pytest.param(lambda: os.chdir(".."), Path.cwd, id="working directory"),
    pytest.param(lambda: torch.set_float32_matmul_precision("medium"), fp32_precisions, id="matmul precision"),
    pytest.param(
        lambda: setattr(torch.backends.cuda.matmul, "fp32_precision", "tf32"), fp32_precisions, id="fp32 precision"
    ),
    pytest.param(lambda: torch.set_grad_enabled(False), modes, id="grad mode"),
    pytest.param(lambda: left_open(torch.no_grad()), modes, id="no_grad left open"),
    pytest.param(lambda: left_open(torch.inference_mode()), modes, id="inference mode left open"),
    pytest.param(lambda: left_open(torch.autocast("cpu", torch.float16)), modes, id="autocast left open"),
    pytest.param(lambda: torch.set_autocast_enabled("cuda", True), modes, id="autocast switched on"),
    pytest.param(lambda: left_open(torch.device("meta")), modes, id="device left open"),
]
HOLDS_FOR_ITS_CASE = [
    pytest.param(lambda: os.environ.update(TRTGATE_OF_A_FACTORY="1"), variables, id="variable set"),
    pytest.param(lambda: os.environ.pop("HOME"), variables, id="variable deleted"),
    pytest.param(lambda: os.environ.update(HOME="/elsewhere"), variables, id="variable changed"),
    pytest.param(lambda: torch.set_default_dtype(torch.float64), torch.get_default_dtype, id="default dtype"),
    pytest.param(lambda: torch.set_default_device("meta"), torch.get_default_device, id="default device"),
    pytest.param(lambda: torch.set_num_threads(torch.get_num_threads() + 1), torch.get_num_threads, id="threads"),
    pytest.param(lambda: torch.use_deterministic_algorithms(True, warn_only=True), deterministic, id="deterministic"),
    pytest.param(
        lambda: setattr(torch.backends.cudnn, "benchmark", True), lambda: torch.backends.cudnn.benchmark, id="benchmark"
    ),
    pytest.param(lambda: torch.autograd.set_detect_anomaly(True), torch.is_anomaly_enabled, id="anomalies"),
    pytest.param(lambda: (torch.manual_seed(5), random.seed(5), np.random.seed(5)), generators, id="seeds"),
]


@pytest.fixture(autouse=True)
def _as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    building.end_case()
    yield
    building.end_case()
    KEPT.clear()


FLAGS: dict[str, Callable[[], Any]] = {
    "cuda.flash_sdp": lambda: torch.backends.cuda.enable_flash_sdp(False),
    "cuda.mem_efficient_sdp": lambda: torch.backends.cuda.enable_mem_efficient_sdp(False),
    "cuda.math_sdp": lambda: torch.backends.cuda.enable_math_sdp(False),
    "cuda.cudnn_sdp": lambda: torch.backends.cuda.enable_cudnn_sdp(False),
    "cuda.fp16_bf16_reduction_math_sdp": lambda: torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(True),
    "cuda.preferred_linalg_library": lambda: torch.backends.cuda.preferred_linalg_library("cusolver"),
    "cuda.preferred_blas_library": lambda: torch.backends.cuda.preferred_blas_library("cublaslt"),
    "cuda.tunable": lambda: torch.cuda.tunable.enable(True),
    "cudnn.benchmark_limit": lambda: setattr(torch.backends.cudnn, "benchmark_limit", 3),
    "deterministic.fill_uninitialized_memory": (
        lambda: setattr(torch.utils.deterministic, "fill_uninitialized_memory", False)
    ),
    **{
        f"cuda.matmul.{name}": functools.partial(setattr, torch.backends.cuda.matmul, name, value)
        for name, value in (
            ("allow_fp16_accumulation", True),
            ("allow_fp16_reduced_precision_reduction", False),
            ("allow_bf16_reduced_precision_reduction", False),
        )
    },
}


@pytest.mark.parametrize("name", FLAGS)
def test_a_flag_that_a_factory_sets_is_its_cases_alone(name: str) -> None:
    """Else what a case is, and how fast, would follow from the cases before it in the process."""
    before = process_flags.flags()
    building.make(case(FLAGS[name]), "cpu")
    now = process_flags.flags()
    assert {flag for flag in now if now[flag] != before[flag]} == {name}
    building.end_case()
    assert process_flags.flags() == before


@pytest.mark.parametrize(("change", "state"), ENDS_AT_ONCE)
def test_what_ends_with_the_factory(change: Any, state: Any) -> None:
    before = state()
    building.make(case(change), "cpu")
    assert state() == before


@pytest.mark.parametrize(("change", "state"), HOLDS_FOR_ITS_CASE)
def test_what_holds_for_the_factorys_own_case_and_ends_with_it(change: Any, state: Any) -> None:
    before = state()
    building.make(case(change), "cpu")
    assert state() != before
    building.end_case()
    assert state() == before


@pytest.mark.parametrize(("change", "state"), [*ENDS_AT_ONCE, *HOLDS_FOR_ITS_CASE])
def test_all_ends_where_the_factory_raises(change: Any, state: Any) -> None:
    def raises() -> None:
        change()
        raise RuntimeError("no luck")

    before = state()
    with pytest.raises(TrtgateError, match="its factory raised RuntimeError: no luck"):
        building.make(case(raises), "cpu")
    assert state() == before


@pytest.mark.parametrize(("change", "state"), [*ENDS_AT_ONCE, *HOLDS_FOR_ITS_CASE])
@pytest.mark.parametrize("frontend", ["eager", "inductor"])
def test_a_case_can_be_built_and_checked_though_its_factory_changes_it(change: Any, state: Any, frontend: str) -> None:
    before = state()
    reference.checked(case(change, lambda x: x @ x.T, frontend), "cpu", quiet)
    building.end_case()
    if state is not variables:  # compilers set some of their own
        assert state() == before


def test_a_default_device_decides_nothing_of_what_is_compared() -> None:
    wanted = case(lambda: torch.set_default_device("meta"), lambda x: (x * 2, float(x.sum())))
    made = Reference(wanted, "cpu", quiet)
    inference = made.build(*made.prepare(quiet), quiet)
    assert lifecycle.check(made, inference).ways["called with inputs of other values"] == ""
    (given,) = samples.of(made.case, made.inputs, 1, seed=1)
    assert given.tensors[0].device.type == "cpu"


def test_a_model_computes_as_its_factory_set_it() -> None:
    wanted = case(lambda: torch.set_default_dtype(torch.float64), lambda x: x + torch.ones(4, dtype=None))
    inference, _ = reference.checked(wanted, "cpu", quiet)
    assert inference().dtype == torch.float64
    assert Reference(case(lambda: None, lambda x: torch.ones(4)), "cpu", quiet).expected.first[0].value.dtype == (  # type: ignore[union-attr]
        torch.float32
    )


def test_a_factory_that_runs_twice_in_a_case_leaves_nothing_either() -> None:
    def counts() -> None:
        os.environ["TRTGATE_COUNT"] = str(int(os.environ.get("TRTGATE_COUNT", "0")) + 1)

    wanted = case(counts)
    for _ in range(2):
        building.make(wanted, "cpu")
    assert os.environ["TRTGATE_COUNT"] == "2"
    building.end_case()
    assert "TRTGATE_COUNT" not in os.environ


def test_what_is_set_after_the_factory_stays() -> None:
    building.make(case(lambda: os.environ.update(TRTGATE_OF_A_FACTORY="1")), "cpu")
    os.environ["TRTGATE_OF_A_COMPILER"] = "1"
    building.end_case()
    assert os.environ.pop("TRTGATE_OF_A_COMPILER") == "1"


def test_a_pytorch_that_was_built_without_cuda_has_no_tunable_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [one for one in dir(torch._C) if one.startswith("_cuda_tunableop")]:
        monkeypatch.delattr(torch._C, name)
    building.make(case(lambda: None), "cpu")
    building.end_case()


def test_a_working_directory_that_is_gone_is_no_obstacle(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    os.chdir(gone)
    gone.rmdir()
    building.make(case(lambda: os.chdir(tmp_path)), "cpu")
    assert Path.cwd() == tmp_path


SUITE = """
import os

import torch
import trtgate


@trtgate.model(frontends=("eager",), precisions=("fp32",))
def first():
    os.makedirs("elsewhere", exist_ok=True)
    os.chdir("elsewhere")
    os.environ["LEFT_ON"] = "1"
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("cpu")
    torch.set_num_threads(torch.get_num_threads() + 1)
    torch.set_float32_matmul_precision("medium")
    torch.use_deterministic_algorithms(True)
    torch.inference_mode().__enter__()
    torch.autocast("cpu", torch.float16).__enter__()
    return torch.nn.Linear(4, 4), torch.ones(2, 4)


@trtgate.model(frontends=("eager", "inductor"), precisions=("fp32",))
def second():
    assert not os.path.exists("../elsewhere") and "LEFT_ON" not in os.environ
    assert torch.get_default_dtype() == torch.float32
    assert torch.get_float32_matmul_precision() == "highest"
    assert not torch.are_deterministic_algorithms_enabled()
    assert not torch.is_inference_mode_enabled() and torch.is_grad_enabled()
    assert not torch.is_autocast_enabled("cpu")
    return torch.nn.Linear(4, 4), torch.ones(2, 4)
"""


def test_the_next_case_of_a_run_feels_nothing(here: InProcess) -> None:
    (here.path / "suite.py").write_text(SUITE)
    status, said = here.run("suite.py", "-m", "trtgate_accuracy", "-p", "no:randomly")
    assert status == pytest.ExitCode.OK, said
    assert "3 passed" in said
    assert (here.path / "elsewhere").is_dir()


def test_a_factory_that_draws_on_a_gpu_leaves_the_next_case_the_numbers_it_would_have_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A factory that sets no seed makes the same weights whichever cases its process had before."""
    states = [torch.tensor([1, 2], dtype=torch.uint8)]
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_rng_state_all", lambda: list(states))
    monkeypatch.setattr(torch.cuda, "set_rng_state_all", lambda back: states.__setitem__(slice(None), back))
    with process_state.of_a_factory():
        states[0] = torch.tensor([3, 4], dtype=torch.uint8)
    assert states[0].tolist() == [3, 4]
    process_state.put_back()
    assert states[0].tolist() == [1, 2]
