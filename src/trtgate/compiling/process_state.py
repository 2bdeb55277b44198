"""What a factory may leave changed in its process: some of it is for its own case, and none of it for the next."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch

Setting = tuple[Callable[[], Any], Callable[[Any], Any]]
"""What reads a setting of the process, and what sets it."""
PutBack = Callable[[], None]

FP32_BACKENDS = (
    torch.backends, torch.backends.cuda.matmul, torch.backends.cudnn, torch.backends.cudnn.conv,
    torch.backends.cudnn.rnn, torch.backends.mkldnn, torch.backends.mkldnn.matmul, torch.backends.mkldnn.conv,
    torch.backends.mkldnn.rnn,
)  # fmt: skip
"""From the whole to its parts."""
AUTOCAST_DEVICES = ("cpu", "cuda")

_left: list[PutBack] = []
"""What the factories of the case at hand changed for it, put back from the last to the first."""
_guards: list[Any] = []
"""Inference mode ends what a factory left open of it, and would come back with the end of these."""


@contextlib.contextmanager
def of_a_factory() -> Iterator[None]:
    """Within: a factory runs. Blocks that it leaves open end with it, and it can't move the working directory.

    How fp32 is computed is up to the case's precision, and put back too. Environment variables, generators and torch's
    other settings stay as it set them until `put_back`, unless it raises.
    """
    at_once = [_Remembered(*one, one[0]()) for one in AT_ONCE]
    later = [_Remembered(*one, one[0]()) for one in OF_THE_CASE]
    variables = dict(os.environ)
    try:
        yield
    except BaseException:
        _in_turn([*(one.back for one in (*at_once, *later)), _variables(variables)])
        raise
    _in_turn([one.back for one in at_once])
    _left.extend((*(one.back for one in later if one.changed), _variables(variables)))


def keep(back: PutBack) -> None:
    """Let something be put back with what factories changed for the case at hand."""
    _left.append(back)


def put_back() -> None:
    """Put back what factories changed for the case at hand, as another follows."""
    _in_turn(_left[::-1])
    _left.clear()


def _in_turn(changes: list[PutBack]) -> None:
    for change in changes:
        change()


class _Remembered(NamedTuple):
    """A setting as it was."""

    get: Callable[[], Any]
    put: Callable[[Any], Any]
    before: Any

    @property
    def changed(self) -> bool:
        return bool(self.get() != self.before)

    def back(self) -> None:
        if self.changed:
            self.put(self.before)


def _variables(before: dict[str, str]) -> PutBack:
    """Return what puts back the variables that differ by now; others may be set later, by a compiler for instance."""
    changed = {name for name in {*before, *os.environ} if before.get(name) != os.environ.get(name)}

    def back() -> None:
        for name in changed:
            if name in before:
                os.environ[name] = before[name]
            else:
                os.environ.pop(name, None)

    return back


def _folder() -> str | None:
    try:
        return os.getcwd()
    except OSError:  # it was removed
        return None


def _to_folder(folder: str | None) -> None:
    if folder is not None:
        os.chdir(folder)


def _fp32() -> list[Any]:
    """Return it as torch's older and newer functions tell it; None where an older one refuses, as both were used."""
    found: list[Any] = []
    for get, _ in OLDER_FP32:
        try:
            found.append(get())
        except RuntimeError:
            found.append(None)
    return found + [one.fp32_precision for one in FP32_BACKENDS]


def _set_fp32(before: list[Any]) -> None:
    for (_, put), value in zip(OLDER_FP32, before, strict=False):
        if value is not None:
            put(value)
    for one, value in zip(FP32_BACKENDS, before[len(OLDER_FP32) :], strict=True):
        one.fp32_precision = value


def _set_inference_mode(on: bool) -> None:
    guard = torch._C._InferenceMode(on)
    guard.__enter__()
    _guards.append(guard)


def _autocast() -> list[Any]:
    return [torch.is_autocast_cache_enabled(), _autocast_nesting()] + [
        (kind, torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)) for kind in AUTOCAST_DEVICES
    ]


def _set_autocast(before: list[Any]) -> None:
    cached, nesting, *of_kinds = before
    for kind, enabled, dtype in of_kinds:
        torch.set_autocast_enabled(kind, enabled)
        torch.set_autocast_dtype(kind, dtype)
    torch.set_autocast_cache_enabled(cached)
    while _autocast_nesting() > nesting:
        torch.autocast_decrement_nesting()
    torch.clear_autocast_cache()


def _autocast_nesting() -> int:
    torch.autocast_increment_nesting()
    return int(torch.autocast_decrement_nesting())


def _open_functions() -> int:
    """Return how many modes are open that replace functions; a default device is one, and has a setting of its own."""
    own = default_device() is not None
    return int(torch._C._len_torch_function_stack()) - own


def _close_functions(count: int) -> None:
    kept = []
    while _open_functions() > count and torch._C._len_torch_function_stack():
        kept.append(torch.overrides._pop_mode())
    del kept


def default_device() -> Any:
    """Return what `torch.set_default_device` set; None where nothing did."""
    context = getattr(torch._GLOBAL_DEVICE_CONTEXT, "device_context", None)
    return None if context is None else context.device


def _deterministic() -> tuple[bool, bool]:
    return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()


def _tunable() -> tuple[bool, bool] | None:
    """Return whether TunableOp is on, and tunes; None of a PyTorch that was built without CUDA, which lacks it."""
    if not hasattr(torch._C, "_cuda_tunableop_is_enabled"):
        return None
    return torch.cuda.tunable.is_enabled(), torch.cuda.tunable.tuning_is_enabled()


def _set_tunable(before: tuple[bool, bool]) -> None:
    torch.cuda.tunable.enable(before[0])
    torch.cuda.tunable.tuning_enable(before[1])


def _generators() -> tuple[Any, ...]:
    of_gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    states = [one.tolist() for one in (torch.get_rng_state(), *of_gpus)]
    return states, random.getstate(), _plain(np.random.get_state(legacy=False))


def _plain(state: Any) -> Any:
    """Return a state of NumPy with lists for its arrays, so that two can be compared."""
    if isinstance(state, dict):
        return {name: _plain(value) for name, value in state.items()}
    return state.tolist() if isinstance(state, np.ndarray) else state


def _set_generators(before: tuple[Any, ...]) -> None:
    states, python, numpy = before
    of_cpu, *of_gpus = (torch.tensor(one, dtype=torch.uint8, device="cpu") for one in states)
    torch.set_rng_state(of_cpu)
    if of_gpus:
        torch.cuda.set_rng_state_all(of_gpus)
    random.setstate(python)
    np.random.set_state(numpy)


def _attribute(owner: Any, name: str) -> Setting:
    return lambda: getattr(owner, name), lambda value: setattr(owner, name, value)


OLDER_FP32: tuple[Setting, ...] = (
    _attribute(torch.backends.cudnn, "allow_tf32"),
    _attribute(torch.backends.cuda.matmul, "allow_tf32"),
    (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
)
AT_ONCE: tuple[Setting, ...] = (
    (_folder, _to_folder),
    (_fp32, _set_fp32),
    (torch.is_inference_mode_enabled, _set_inference_mode),
    (torch.is_grad_enabled, torch.set_grad_enabled),
    (_autocast, _set_autocast),
    (_open_functions, _close_functions),
)
OF_THE_CASE: tuple[Setting, ...] = (
    (default_device, torch.set_default_device),
    (torch.get_default_dtype, torch.set_default_dtype),
    (torch.get_num_threads, torch.set_num_threads),
    (_deterministic, lambda before: torch.use_deterministic_algorithms(before[0], warn_only=before[1])),
    (torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
    *(_attribute(torch.backends.cudnn, name) for name in ("benchmark", "benchmark_limit", "deterministic", "enabled")),
    *(
        _attribute(torch.backends.cuda.matmul, f"allow_{name}")
        for name in ("fp16_accumulation", "fp16_reduced_precision_reduction", "bf16_reduced_precision_reduction")
    ),
    (torch.backends.cuda.flash_sdp_enabled, torch.backends.cuda.enable_flash_sdp),
    (torch.backends.cuda.mem_efficient_sdp_enabled, torch.backends.cuda.enable_mem_efficient_sdp),
    (torch.backends.cuda.math_sdp_enabled, torch.backends.cuda.enable_math_sdp),
    (torch.backends.cuda.cudnn_sdp_enabled, torch.backends.cuda.enable_cudnn_sdp),
    (
        torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed,
        torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp,
    ),
    (torch._C._get_linalg_preferred_backend, torch._C._set_linalg_preferred_backend),
    (torch._C._get_blas_preferred_backend, torch._C._set_blas_preferred_backend),
    (_tunable, _set_tunable),
    _attribute(torch.utils.deterministic, "fill_uninitialized_memory"),
    (_generators, _set_generators),
)
