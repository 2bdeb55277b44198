"""The command `trtgate`. Only wires: what a command needs is imported when it runs, so that `--help` is instant."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .common.errors import TrtgateError

if TYPE_CHECKING:
    from .commands.doctor import DoctorReport, Facts

BROKEN, INTERRUPTED, USAGE_ERROR = 1, 2, 4
"""Exit codes: as pytest's for failed tests, Ctrl-C and usage errors."""

GIB = 1 << 30


class Group(typer.core.TyperGroup):
    """Commands whose TrtgateError is one line."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except TrtgateError as error:
            typer.echo(f"trtgate: error: {error}", err=True)
            raise typer.Exit(USAGE_ERROR) from error


app = typer.Typer(
    cls=Group,
    help="A performance gate for PyTorch models compiled with Torch-TensorRT; the gate itself is a pytest plugin.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
baseline = typer.Typer(help="Show, compare, accept and remove baselines.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(baseline, name="baseline")

BaselinesOption = Annotated[
    Path | None,
    typer.Option("--baselines", metavar="DIR", help="Folder of the baselines (the ini key trtgate_baselines)."),
]


def main() -> None:
    """Run the command line."""
    app()


@app.command()
def doctor(
    json: Annotated[bool, typer.Option("--json", help="Print what was found as JSON.")] = False,
    baselines: BaselinesOption = None,
) -> None:
    """Say what this machine can measure, and what is broken on it (exit code 1)."""
    import msgspec

    from .commands.baseline_files import folder_of
    from .commands.doctor import examine

    with _progress() as step:
        report = examine(folder_of(baselines), step)
    if json:
        typer.echo(msgspec.json.format(msgspec.json.encode(report), indent=2).decode())
    else:
        _print(_report_lines(report))
    if report.problems:
        raise typer.Exit(BROKEN)


@app.command()
def init(
    path: Annotated[Path, typer.Option(help="The suite's file.")] = Path("benchmarks/trtgate_suite.py"),
    force: Annotated[bool, typer.Option("--force", help="Overwrite the suite and the workflow.")] = False,
) -> None:
    """Write a suite, its pytest configuration and a CI workflow into the current folder."""
    from .commands import pytest_config

    root = Path.cwd()
    suite = pytest_config.inside(root, path)
    steps = pytest_config.plan(root, suite, force)
    pytest_config.carry_out(steps)
    _print([f"{os.path.relpath(step.path)}: {step.said}" for step in steps])
    _print(["", f"Next: put your models into {suite}, then", *pytest_config.next_commands(suite)])


@app.command()
def coverage(
    models: Annotated[
        list[str] | None,
        typer.Argument(metavar="MODEL...", help="Of the suite or the zoo, or package.module:factory; or: diff A B."),
    ] = None,
    whole_zoo: Annotated[bool, typer.Option("--zoo", help="Some 90 well-known models.")] = False,
    min_block_size: Annotated[int, typer.Option(min=1, help="Least operators of an engine.")] = 5,
    precision: Annotated[list[str] | None, typer.Option(help="fp16 (default), or any other; may be repeated.")] = None,
    torch_executed_op: Annotated[
        list[str] | None, typer.Option(help="An operator that stays in PyTorch, such as aten.relu; may be repeated.")
    ] = None,
    frontend: Annotated[str, typer.Option(help="dynamo or torch_compile.")] = "dynamo",
    json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write all that was found.")] = None,
    baselines: BaselinesOption = None,
) -> None:
    """Say which operators Torch-TensorRT takes, in which engines, and why not the rest; needs no GPU.

    `trtgate coverage diff A B` compares two stored releases, such as 2.11.0 and 2.14.0, or two folders.
    """
    from .commands import coverage_answers as commands

    names = models or []
    if names[:1] == ["diff"]:
        if len(names) != 3:
            raise TrtgateError("trtgate coverage diff takes two releases or folders")
        _print(commands.differences(names[1], names[2], baselines))
        return
    wanted = commands.cases(
        names,
        whole_zoo=whole_zoo,
        frontend=frontend,
        precisions=precision or ["fp16"],
        min_block_size=min_block_size,
        torch_executed_ops=torch_executed_op or [],
    )
    with _progress() as step:
        answers = commands.ask(wanted, step)
    from . import torch_trt

    _print(commands.shown(answers, torch_trt.release()))
    if json is not None:
        commands.save(answers, torch_trt.release(), json)
        _print([f"written: {json}"])
    if any(answer.problem for answer in answers):
        raise typer.Exit(BROKEN)


@app.command()
def profile(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL...",
            help="Of the suite or the zoo, or package.module:factory; or: diff A B; or: show FILE...",
        ),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Where the files go, a folder a case.")
    ] = Path("profiles"),
    precision: Annotated[list[str] | None, typer.Option(help="fp16 (default), or any other; may be repeated.")] = None,
    batch: Annotated[list[int] | None, typer.Option(min=1, help="1 by default; may be repeated.")] = None,
    min_block_size: Annotated[
        list[int] | None, typer.Option(min=1, help="Least operators of an engine, 5 by default; may be repeated.")
    ] = None,
    verbosity: Annotated[
        str, typer.Option(help="What engines remember: none, layer_names_only, detailed.")
    ] = "detailed",
    frontend: Annotated[str, typer.Option(help="dynamo or torch_compile.")] = "dynamo",
) -> None:
    """Say where the time of a model goes, layer by layer and module by module; writes profile, trace and TREx's files.

    `trtgate profile show FILE...` and `trtgate profile diff A B` take profiles that were recorded, and need no GPU.
    """
    from .commands import profile_answers as commands

    names = models or []
    if names[:1] == ["show"]:
        _print(commands.show(names[1:]))
        return
    if names[:1] == ["diff"]:
        if len(names) != 3:
            raise TrtgateError("trtgate profile diff takes two profiles: files, or folders with a profile.json")
        _print(commands.difference(names[1], names[2]))
        return
    wanted = commands.cases(
        names,
        frontend=frontend,
        precisions=precision or ["fp16"],
        batches=batch or [1],
        min_block_sizes=min_block_size or [5],
        verbosity=verbosity,
    )
    with _progress() as step:
        answers = commands.record(wanted, output, step)
    _print(commands.lines(answers))
    if any(answer.problem for answer in answers):
        raise typer.Exit(BROKEN)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def ab(
    context: typer.Context,
    base: Annotated[str, typer.Option(metavar="REVISION", help="A git revision, checked out beside this one.")] = "",
    base_python: Annotated[
        str, typer.Option(metavar="PATH", help="Another Python, with its own torch or Torch-TensorRT.")
    ] = "",
    base_setup: Annotated[str, typer.Option(metavar="COMMAND", help="Run in the base's worktree first.")] = "",
) -> None:
    """Measure a base and this code side by side, and fail (exit code 1) what got slower; no baseline is needed.

    What follows goes to pytest: a folder (the suite's by default), -k, --trtgate-models, --trtgate-limit, and so on.
    """
    import pytest

    if not base and not base_python:
        raise TrtgateError("trtgate ab needs --base REVISION or --base-python PATH")
    from .commands.ab_command import arguments

    options = {"--trtgate-base": base, "--trtgate-base-python": base_python, "--trtgate-base-setup": base_setup}
    asked = [f"{name}={value}" for name, value in options.items() if value]
    raise typer.Exit(int(pytest.main(arguments(Path.cwd(), context.args, asked))))


@app.command()
def selfcheck(
    cases: Annotated[
        list[str] | None, typer.Argument(metavar="[CASE]...", help="All that run here by default.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Pairs of processes that compare each case.")] = 6,
    delay: Annotated[str, typer.Option(metavar="PERCENT", help="The slowdown that must be found.")] = "",
    unchanged_only: Annotated[bool, typer.Option("--unchanged-only", help="No slowdown: false alarms alone.")] = False,
    limit: Annotated[
        list[str] | None, typer.Option(metavar="METRIC=PERCENT", help="Such as device=0.25%; may be repeated.")
    ] = None,
    timeout: Annotated[float, typer.Option(metavar="SECONDS", help="Longest step of a worker.")] = 900.0,
    json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write all that was measured.")] = None,
) -> None:
    """Measure what the gate is worth on this machine: false alarms, what it finds, and limits that its noise allows.

    Each case is compared with itself, and with itself slower by a known delay (twice its limit by default). Ctrl-C
    ends it early, with the rounds that are complete.
    """
    import msgspec

    from .commands import selfcheck as check
    from .commands.pytest_config import configured_suite
    from .common import accelerator
    from .common.files import write_json
    from .common.limits import parse
    from .common.metrics import DEVICE, HOST, METRICS

    source, folder, ini_limits = configured_suite(Path.cwd())
    device = accelerator.detect()
    limits = {name: metric.limit for name, metric in METRICS.items()}
    limits |= parse(ini_limits, "ini key trtgate_limits") | parse(limit or [], "--limit")
    primary = DEVICE if device.kind == "gpu" else HOST
    share = parse([f"{primary}={delay}"], "--delay")[primary] if delay else 2 * limits[primary]
    share = 0.0 if unchanged_only else share

    def save(found: check.Selfcheck) -> None:
        if json is not None:
            write_json(json, msgspec.to_builtins(found))

    with _progress() as step:
        found = check.run(
            source, check.cases_of(source, cases or [], device), device, limits.__getitem__,
            rounds=rounds, delay=share, folder=folder, timeout_s=timeout, step=step, save=save,
        )  # fmt: skip
    from .report.terminal_table import describe

    _print([describe(device), *check.lines(found)])
    save(found)
    if json is not None:
        _print([f"written: {json}"])


@app.command()
def sweep(
    models: Annotated[
        list[str], typer.Argument(metavar="MODEL...", help="Of the suite or the zoo, or package.module:factory.")
    ],
    vary: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=A,B", help="min_block_size=1,5,recommended, optimization_level=0..5, frontend=…"),
    ] = None,
    default: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Of the default: frontend=dynamo precision=fp16 batch=1."),
    ] = None,
    weights: Annotated[
        list[str] | None, typer.Option(metavar="MODEL=FILE", help="A state dict, as safetensors; else the factory's.")
    ] = None,
    launches: Annotated[int, typer.Option(min=1, help="Processes that measure every point.")] = 3,
    builders: Annotated[int, typer.Option(min=1, help="Builds at once; above 1, build seconds say little.")] = 1,
    inputs: Annotated[int, typer.Option(min=0, help="Over how many accuracy is asked; 0: not at all.")] = 64,
    timeout: Annotated[float, typer.Option(metavar="SECONDS", help="Longest step of a worker.")] = 900.0,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Neither take from the artifact cache nor add.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget what an earlier sweep here measured.")] = False,
    json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write all that was measured.")] = None,
    csv: Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="Write one line a point.")] = None,
) -> None:
    """Build, check and measure a model under many settings, interleaved, and say which differences are real.

    The first point is the default (--set), the others are all combinations of --vary. An interrupted sweep goes on
    where it was when the same is asked again.
    """
    from .commands import sweep_request as commands
    from .compiling.artifact_cache import CacheRequest, default_folder
    from .report.sweep_table import lines
    from .report.terminal_table import describe

    request = commands.Request(
        models=tuple(models), vary=tuple(vary or ()), base=commands.base_of(default or []),
        weights=commands.weights_of(weights or []), launches=launches, builders=builders, inputs=inputs,
        timeout_s=timeout, cache=None if no_cache else CacheRequest(folder=str(default_folder())), fresh=fresh,
    )  # fmt: skip
    try:
        with _progress() as step:
            found = commands.run(request, Path.cwd() / ".trtgate", step)
    except KeyboardInterrupt:
        typer.echo("trtgate: interrupted", err=True)
        raise typer.Exit(INTERRUPTED) from None
    _print([describe(found.accelerator), "", *lines(found)])
    commands.save(found, json, csv)
    if found.interrupted:
        typer.echo("trtgate: interrupted; what was measured is kept, and the same command goes on from there", err=True)
        raise typer.Exit(INTERRUPTED)
    if found.failed:
        raise typer.Exit(BROKEN)


@app.command()
def report(
    run: Annotated[Path, typer.Argument(metavar="RUN.json", help="Written by pytest's --trtgate-report.")],
    markdown: Annotated[Path | None, typer.Option(metavar="FILE", help="Write Markdown there, not here.")] = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write one HTML file with charts.")] = None,
) -> None:
    """Make a report of a run, on any machine: Markdown for a pull request or a job summary, HTML to look into it."""
    from .commands import report_files

    _print(report_files.make(run, to_markdown=markdown, to_html=html))


@app.command()
def cache(
    action: Annotated[str, typer.Argument(metavar="info|clear", help="Show what is in it, or remove it.")] = "info",
    cases: Annotated[
        list[str] | None, typer.Argument(metavar="[CASE]...", help="Only these; or patterns such as '*resnet18*'.")
    ] = None,
) -> None:
    """Show or clear the artifact cache: compiled modules that runs of the gate load instead of building them again."""
    from .commands import cache_contents as commands

    _print(commands.run(action, cases or []))


@app.command()
def history(
    cases: Annotated[list[str], typer.Argument(metavar="CASE...", help="Or patterns such as '*resnet18*'.")],
    runs: Annotated[Path | None, typer.Option(metavar="DIR", help="Saved runs (.trtgate/runs).")] = None,
    accelerator: Annotated[str, typer.Option(metavar="KEY", help="Of another machine than this.")] = "",
    json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write all that was found.")] = None,
) -> None:
    """Show cases over the saved runs: where their latency changed, and slow drift that no single run shows."""
    from .commands import history_text as commands

    found = commands.find(cases, commands.folder_of(runs), accelerator)
    _print(commands.lines(found, sys.stdout.encoding))
    if json is not None:
        commands.save(found, json)
        _print([f"written: {json}"])


@baseline.command()
def show(
    name: Annotated[str | None, typer.Argument(metavar="[KEY|FILE]", help="All keys when left out.")] = None,
    baselines: BaselinesOption = None,
) -> None:
    """List the cases of baselines or of a saved run."""
    from .commands import baseline_files as commands

    folder = commands.folder_of(baselines)
    runs = commands.everything(folder) if name is None else [commands.find(name, folder)]
    for number, run in enumerate(runs):
        _print([""] * (number > 0) + commands.shown(run))


@baseline.command()
def diff(
    old: Annotated[str, typer.Argument(metavar="OLD", help="A file or a key.")],
    new: Annotated[str, typer.Argument(metavar="NEW", help="A file or a key, such as a saved run.")],
    baselines: BaselinesOption = None,
) -> None:
    """Show what differs between two baselines or saved runs."""
    from .commands import baseline_files as commands

    folder = commands.folder_of(baselines)
    _print(commands.compared(commands.find(old, folder), commands.find(new, folder)))


@baseline.command()
def accept(
    run: Annotated[Path, typer.Argument(metavar="RUN.json", help="A saved run, such as a CI artifact.")],
    cases: Annotated[
        list[str] | None,
        typer.Argument(metavar="[CASE]...", help="Store these, regressed or not; all that did not regress by default."),
    ] = None,
    baselines: BaselinesOption = None,
) -> None:
    """Store a saved run as its accelerator's baseline; other cases stay as they are."""
    from .commands import baseline_files as commands
    from .gate.baselines import describe, read

    done = commands.accept(read(run), commands.folder_of(baselines), cases or [])
    _print([f"stored: {describe(change)}" for change in done.updates])
    _print([f"is stored already: {case_id}" for case_id in done.known])
    _print([f"left out: {case_id} is {verdict}; name it to store it" for case_id, verdict in done.left_out.items()])
    if done.updates:
        _print([f"written: {done.path}"])


@baseline.command()
def remove(
    cases: Annotated[list[str], typer.Argument(metavar="CASE...", help="Cases that are gone for good; or patterns.")],
    baselines: BaselinesOption = None,
) -> None:
    """Remove cases from the baselines of all accelerators."""
    from .commands import baseline_files as commands

    _print(commands.remove(commands.folder_of(baselines), cases))


# Printing


def _print(lines: list[str]) -> None:
    for line in lines:
        typer.echo(line)


@contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """Show what takes long on stderr: live on a terminal, else a line for each step that begins."""
    if not sys.stderr.isatty():
        yield lambda text: typer.echo(f"trtgate: {text}", err=True)
        return
    from .report.progress_line import ProgressLine

    shown = ProgressLine(lambda _: None, lambda text: typer.echo(f"\r\x1b[K{text}", nl=False, err=True))
    try:
        yield shown.step
    finally:
        shown.done()


def _report_lines(report: DoctorReport) -> list[str]:
    facts = report.facts
    rows = {
        "Python": facts.python,
        "system": facts.system,
        "packages": ", ".join(f"{name} {version}" for name, version in facts.packages.items()) or "none",
        "GPU": _gpu(facts),
        "torch": _torch(facts),
        "features": _features(facts),
        "C++ compiler": facts.compiler or "none (inductor needs one)",
        "bytecode": _bytecode(facts),
        "free disk": f"{facts.free_disk_bytes / GIB:.1f} GiB",
        "GPU needs": report.needs or "unknown",
        "key": report.key or "unknown",
        "baselines": _baselines(report),
        **{state.name: f"{'runs' if state.runs else 'does not run'}: {state.said}" for state in report.frontends},
    }
    lines = [f"{name:<13} {text}" for name, text in rows.items()]
    if not report.problems:
        return [*lines, "", "Nothing is broken."]
    return [*lines, "", *(f"BROKEN: {problem}" for problem in report.problems)]


def _gpu(facts: Facts) -> str:
    nvml = facts.nvml
    if nvml.error or nvml.absent:
        return f"none ({nvml.error or nvml.absent})"
    cards = [
        f"{card.name} {card.memory_bytes / GIB:.0f} GiB{', divided (MIG)' if card.mig else ''} {card.uuid}"
        for card in nvml.cards
    ]
    chosen = "" if facts.visible_devices is None else f", CUDA_VISIBLE_DEVICES={facts.visible_devices}"
    return f"{'; '.join(cards)}; driver {nvml.driver} (up to CUDA {nvml.cuda}){chosen}"


def _torch(facts: Facts) -> str:
    torch = facts.torch
    if torch.error:
        return f"can't be imported: {torch.error}"
    built = f"{torch.version}, built for CUDA {torch.cuda}" if torch.cuda else f"{torch.version}, built without CUDA"
    if torch.device and not torch.device_error:
        return f"{built}, uses {torch.device}, compute capability {torch.capability}"
    return f"{built}, uses no GPU ({torch.device_error})"


def _bytecode(facts: Facts) -> str:
    if not facts.uncompiled:
        return "kept"
    once = shlex.join([sys.executable, "-m", "compileall", "-q", *facts.uncompiled])
    return f"none kept: every process compiles what it imports, for seconds; once is enough: {once}"


def _features(facts: Facts) -> str:
    features = facts.features
    if features.error:
        return f"torch_tensorrt can't be imported: {features.error}"
    if not features.enabled:
        return "torch_tensorrt is not installed"
    said = ", ".join(name if on else f"no {name}" for name, on in features.enabled.items())
    return f"{said}; others can't be told without a GPU" if features.guessed else said


def _baselines(report: DoctorReport) -> str:
    stored = [f"{found.key}{' (this machine)' * (found.key == report.key)}" for found in report.facts.baselines]
    return ", ".join(stored) or f"none under {report.facts.baselines_folder}"
