"""What a factory returns in a module's place: an exported program, or a callable that the user compiled."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from ..common.errors import TrtgateError, one_line
from ..frontends import CompiledModule
from ..records.coverage_record import Coverage
from ..records.profile_record import Part
from ..suite.cases import Case
from ..suite.compiled_elsewhere import Compiled
from ..suite.declared_values import answers, kind_of
from ..suite.model_inputs import Inputs
from ..suite.settings import OWN
from ..timing.run_state import RunState, described
from ..torch_trt import engine_sizes, partitioner, releases
from ..torch_trt.partitioner import Observed

Made = Any
"""What a factory returned: (module, inputs), (module, args, kwargs), a module or a program alone."""


class OwnModule(torch.nn.Module):
    """Stands for a callable where a module is asked for; called, it answers as the reference does.

    Both are kept as they are: neither cast nor moved, copied or put into eval mode. `build_s` are the seconds of the
    factory, `first_call_s` those of the callable's first call, None before it; `coverage` and `parts` are what
    Torch-TensorRT was seen to partition while the factory ran.
    """

    def __init__(
        self,
        run: Callable[..., Any],
        reference: Callable[..., Any] | None,
        build_s: float,
        coverage: Coverage | None = None,
        parts: tuple[tuple[Part, ...], ...] = (),
    ) -> None:
        super().__init__()
        self.run = run
        self.reference = reference
        self.build_s, self.coverage, self.parts = build_s, coverage, parts
        self.first_call_s: float | None = None

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the reference makes of the arguments; what the callable does, where there is no reference."""
        return (self.call if self.reference is None else self.reference)(*args, **kwargs)

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the callable makes of the arguments."""
        start = time.perf_counter()
        output = self.run(*args, **kwargs)
        if self.first_call_s is None:
            self.first_call_s = time.perf_counter() - start
        return output

    @property
    def holders(self) -> tuple[Any, ...]:
        """What may hold the state of calls."""
        return tuple(one for one in (self.run, self.reference) if one is not None)


class Watched:
    """How long a factory took, and what Torch-TensorRT partitioned meanwhile."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.seen: Observed | None = None


@contextlib.contextmanager
def watching(case: Case) -> Iterator[Watched]:
    """Within: the factory of a case of the frontend `own` is timed, and its builds are observed where there is a GPU.

    Importing torch_tensorrt is no part of the time.
    """
    found = Watched()
    observed = case.settings.frontend == OWN and torch.cuda.is_available() and not releases.unavailable()
    with partitioner.observing() if observed else contextlib.nullcontext() as found.seen:
        start = time.perf_counter()
        yield found
        found.seconds = time.perf_counter() - start


def as_modules(made: Made, case: Case, watched: Watched | None = None) -> Made:
    """Return what a factory made with a module where it had a program or a callable of its own.

    A program alone comes with the inputs that it was exported with. Raises TrtgateError, which names the model, for
    a program without inputs, and a callable where the frontend is not `own`.
    """
    name = f"model {case.model.name!r}"
    if isinstance(made, torch.export.ExportedProgram) and case.model.inputs is None:
        if made.example_inputs is None:
            raise TrtgateError(f"{name}: the exported program has no example inputs: return (program, inputs)")
        made = (made, *made.example_inputs)
    parts = list(made) if isinstance(made, tuple | list) else [made]
    if not parts:
        return made
    if case.settings.frontend == OWN and case.model.inputs is None and len(parts) not in (2, 3):
        what = f"{len(parts)} values" if isinstance(made, tuple | list) else f"a {type(made).__name__} alone"
        raise TrtgateError(
            f"{name}: with frontend 'own' its factory must return (callable, inputs) or (callable, args, kwargs), not "
            f"{what}; inputs= of the model may make them too"
        )
    parts[0] = _as_module(parts[0], case, watched or Watched(), name)
    return tuple(parts) if isinstance(made, tuple | list) else parts[0]


def _callable_of(value: Any) -> Any:
    """Return a program as a module; others as they are."""
    return value.module() if isinstance(value, torch.export.ExportedProgram) else value


def _as_module(value: Any, case: Case, watched: Watched, name: str) -> Any:
    value = _callable_of(value)
    own = value if isinstance(value, Compiled) else None
    if case.settings.frontend == OWN:
        if own is None and not answers(value):
            raise TrtgateError(
                f"{name}: with frontend 'own' its factory must return (callable, inputs), not {kind_of(value)}"
            )
        own = own or Compiled(value)
        seen = watched.seen
        coverage = seen.coverage(case.settings) if seen is not None and seen.graphs else None
        return OwnModule(
            _callable_of(own.run),
            _callable_of(own.reference),
            watched.seconds,
            coverage,
            () if seen is None else seen.known_parts(),
        )
    if own is not None:
        raise TrtgateError(f"{name}: its factory returns what it compiled itself: take the frontend 'own'")
    return value


def state_of_its_own(module: Any, inputs: Inputs) -> str:
    """Return, as the end of a sentence, in what a callable keeps state; empty where it keeps none, or has no reference.

    Calls it once; its state is put back.
    """
    if not isinstance(module, OwnModule) or module.reference is None:
        return ""
    state = RunState((module.run,), inputs)
    try:
        with torch.no_grad():
            inputs.call(module.run)
        names = [name for name in state.changed(inputs) if not name.startswith("input ")]
    except Exception:  # the sentence before says what is wrong
        return ""
    finally:
        state.restore(inputs)
    return f"; its callable keeps state in {described(names)}, and its reference keeps none" if names else ""


def save(case: Case, run: Callable[..., Any], folder: Path) -> None:
    """Let the model's `save` write what was compiled into a folder. Raises TrtgateError where it raises."""
    assert case.model.save is not None
    try:
        case.model.save(run, folder)
    except (OSError, torch.cuda.OutOfMemoryError):
        raise
    except Exception as error:
        raise TrtgateError(f"model {case.model.name!r}: its save= raised {one_line(error)}") from error


def load(case: Case, folder: Path) -> CompiledModule:
    """Let the model's `load` read the folder. Raises TrtgateError where it raises, or gives nothing to be called."""
    assert case.model.load is not None
    name = f"model {case.model.name!r}"
    start = time.perf_counter()
    try:
        run = case.model.load(folder)
    except (OSError, torch.cuda.OutOfMemoryError):
        raise
    except Exception as error:
        raise TrtgateError(f"{name}: its load= raised {one_line(error)}") from error
    run = _callable_of(run)
    if not callable(run):
        raise TrtgateError(f"{name}: its load= must return what save= was given, not {type(run).__name__}")
    return CompiledModule(run, time.perf_counter() - start, tuple(engine_sizes.of(run)))
