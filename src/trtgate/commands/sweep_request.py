"""What `trtgate sweep` does: which models, which points, and what is shown of them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ..common import accelerator
from ..common.errors import TrtgateError
from ..common.files import write_json, write_whole
from ..common.steps import OnStep
from ..compiling.artifact_cache import CacheRequest
from ..launches import sweep_axes
from ..suite import compiled_elsewhere
from ..suite.cases import Case, Model
from ..suite.dimensions import BATCH
from ..suite.settings import OWN, Settings
from ..suite.suite_source import Added, SuiteSource
from ..torch_trt import compile_options, modelopt_package, releases

if TYPE_CHECKING:
    from ..launches.sweep import Sweep
    from ..report.sweep_table import SweepFindings


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be swept, as the command line says it."""

    models: tuple[str, ...]
    vary: tuple[str, ...]
    default: tuple[str, ...]
    """Settings of the default point, such as `precision=fp32`; see `base_of`."""
    weights: dict[str, str]
    launches: int
    builders: int
    inputs: int
    timeout_s: float
    cache: CacheRequest | None
    fresh: bool


class _Wanted(msgspec.Struct):
    """The points of every model, the default first, and what is said of those that are none."""

    settings: dict[str, list[Settings]] = {}
    left_out: list[str] = []
    problems: list[str] = []


def run(request: Request, folder: Path, step: OnStep) -> SweepFindings:
    """Build and measure all points, or what Ctrl-C leaves time for.

    Raises TrtgateError for names and values that make no sense, before anything.
    """
    bare = _source(request)
    wanted = _points(request, bare, step)
    added = tuple(Added(name, settings) for name, each in wanted.settings.items() for settings in each)
    source = msgspec.structs.replace(bare, added=added)
    cases = source.load().cases
    device = accelerator.detect()
    from ..launches.sweep import Sweep

    ordered = [cases[f"{name}-{settings.suffix}"] for name, each in wanted.settings.items() for settings in each]
    sweep = Sweep(
        source, device, folder, ordered, launches=request.launches, builders=request.builders, inputs=request.inputs,
        cache=request.cache, timeout_s=request.timeout_s, fresh=request.fresh,
    )  # fmt: skip
    interrupted = False
    try:
        if sweep.earlier:
            step(f"going on with {sweep.journal.path}")
        sweep.run(step)
    except KeyboardInterrupt:
        interrupted = True
    finally:
        sweep.close()
    return _findings(request, sweep, wanted, device, interrupted=interrupted)


def _axes(texts: Sequence[str], dimensions: Sequence[str]) -> list[sweep_axes.Axis]:
    axes = [sweep_axes.parse(text, dimensions) for text in texts]
    doubled = [axis.name for number, axis in enumerate(axes) if axis.name in [other.name for other in axes[:number]]]
    if doubled:
        raise TrtgateError(f"--vary {doubled[0]} is given twice: put all its values into one")
    return axes


def _points(request: Request, source: SuiteSource, step: OnStep) -> _Wanted:
    """Return the points to try. Raises TrtgateError for weights of another model, and options that are unknown."""
    from . import model_names

    named = {model_names.find(name).name for name in request.models}
    for name in request.weights:
        if name not in named:
            raise TrtgateError(f"--weights {name}=…: {name!r} is not swept")
    models = [one for one in source.load().models if one.name in named]
    known = sorted({name for model in models for name in model.dimensions.names} - {BATCH})
    base, axes = base_of(request.default, known), _axes(request.vary, known)
    wanted = _Wanted()
    modelopt_package.expect([base["precision"]])
    modelopt_package.expect(value for axis in axes if axis.name == "precision" for value in axis.values)
    for model in models:
        own = {"batch": 1 if model.takes_batch else None, **base, **first_sizes(model, base, axes)}
        own |= own_frontend(model, {text.partition("=")[0] for text in (*request.default, *request.vary)})
        found = sweep_axes.points(own, axes, partial(_recommended, step, model))
        _check_dimensions(model, found.settings)
        for settings in found.settings:
            compile_options.check_options(f"{model.name}-{settings.suffix}", settings)
        wanted.settings[model.name] = found.settings
        wanted.left_out += found.left_out
        wanted.problems += found.problems
    return wanted


def first_sizes(model: Model, base: dict[str, Any], axes: Sequence[sweep_axes.Axis]) -> dict[str, Any]:
    """Return the first size, or range, that is varied of each dimension that the default point needs and lacks."""
    missing = {one for one in model.dimensions.required - {BATCH} if not {one, sweep_axes.DYNAMIC + one} & base.keys()}
    return {
        axis.name: axis.values[0]
        for axis in axes
        if axis.name.removeprefix(sweep_axes.DYNAMIC) in missing and axis.values[0] is not None
    }


def own_frontend(model: Model, given: Collection[str]) -> dict[str, Any]:
    """Return the default point's frontend of a model that is what its factory compiled; nothing where one is given."""
    return {"frontend": OWN} if compiled_elsewhere.is_all_of(model) and "frontend" not in given else {}


def _check_dimensions(model: Model, settings: Sequence[Settings]) -> None:
    for one in settings:
        for name in sorted(model.dimensions.required - set(one.sizes)):
            raise TrtgateError(f"model {model.name!r} takes {name}: add --set {name}=128, or --vary {name}=16,128,512")
    model.having(settings)


def _findings(
    request: Request, sweep: Sweep, wanted: _Wanted, device: accelerator.Accelerator, *, interrupted: bool
) -> SweepFindings:
    from ..report import size_steps, sweep_table

    outcomes, points, steps = sweep.outcomes(), [], []
    for name in wanted.settings:
        of_model = [one for one in outcomes if one.case.model.name == name]
        points += sweep_table.points_of(of_model)
        steps += size_steps.of(of_model)
    return sweep_table.SweepFindings(
        accelerator=device, flavour=releases.flavour() or "", release=releases.version(),
        launches=request.launches, points=points, steps=steps, left_out=list(dict.fromkeys(wanted.left_out)),
        problems=wanted.problems, notes=sweep.notes, earlier=sweep.earlier, begun=sweep.journal.created,
        interrupted=interrupted,
    )  # fmt: skip


def base_of(texts: Sequence[str], dimensions: Sequence[str] = ()) -> dict[str, Any]:
    """Return the default point's settings of texts such as `precision=fp32` or `seq=128`. Raises TrtgateError.

    Without them: dynamo, fp16; the batch is 1 for a model that takes one.
    """
    base: dict[str, Any] = {"frontend": "dynamo", "precision": "fp16"}
    for text in texts:
        axis = sweep_axes.parse(text, dimensions)
        if len(axis.values) != 1 or axis.values[0] == sweep_axes.RECOMMENDED:
            raise TrtgateError(f"--set {text!r}: the default has one value of each; --vary takes several")
        if axis.option:
            base["options"] = {**base.get("options", {}), axis.name: axis.values[0]}
        else:
            base[axis.name] = axis.values[0]
    return base


def weights_of(texts: Sequence[str]) -> dict[str, str]:
    """Return model → file of texts such as `resnet18=weights.safetensors`. Raises TrtgateError."""
    found = {}
    for text in texts:
        name, equals, file = text.partition("=")
        if not equals or not file:
            raise TrtgateError(f"--weights {text!r}: write MODEL=FILE.safetensors")
        found[name] = str(Path(file).absolute())
    return found


def _source(request: Request) -> SuiteSource:
    """Return where the named models come from. Raises TrtgateError for an unknown one, naming the nearest."""
    from ..launches.suite_here import factories_here, suite_here
    from . import model_names

    here, mine = suite_here(), model_names.suite_models()
    from_zoo = [name for name in request.models if name not in mine and ":" not in name]
    factories = tuple(name for name in request.models if ":" in name)
    source = factories_here(*factories) if here is None else here
    return msgspec.structs.replace(
        source, suites=source.suites if any(name in mine for name in request.models) else (),
        factories=factories, zoo=tuple(from_zoo), weights=request.weights,
    )  # fmt: skip


def _recommended(step: OnStep, model: Model, settings: Settings) -> list[int]:
    """Return the block sizes that the dry run recommends for a model."""
    from ..coverage import dry_run

    case = Case(model, settings)
    return dry_run.ask(case, lambda text: step(f"{case.id}: asking for recommended block sizes: {text}")).recommended


def save(found: SweepFindings, json: Path | None, csv: Path | None, html: Path | None) -> None:
    """Write the files that were asked for. Raises TrtgateError."""
    from ..report import sweep_page, sweep_table

    if json is not None:
        write_json(json, msgspec.to_builtins(found))
    for path, render in ((csv, sweep_table.as_csv), (html, sweep_page.render)):
        if path is None:
            continue
        try:
            write_whole(path, render(found).encode())
        except OSError as error:
            raise TrtgateError(f"{path} could not be written ({error.strerror})") from error
