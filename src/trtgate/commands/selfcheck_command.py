"""`trtgate selfcheck`: its options."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ..common.errors import TrtgateError
from ..common.time_limit import TimeLimit
from .console import BROKEN, NoCacheOption, TimeoutOption, cache_request, print_lines, progress

if TYPE_CHECKING:
    from ..common.accelerator import Accelerator


def selfcheck(
    cases: Annotated[
        list[str] | None, typer.Argument(metavar="[CASE]...", help="Case ids; by default all that run here.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Pairs of processes that compare each case.")] = 6,
    delay: Annotated[str, typer.Option(metavar="PERCENT", help="Injected slowdown that the gate must find.")] = "",
    unchanged_only: Annotated[
        bool, typer.Option("--unchanged-only", help="Only false alarms, without a slowdown.")
    ] = False,
    limit: Annotated[
        list[str] | None,
        typer.Option(metavar="METRIC=PERCENT", help="Limit of a metric, such as device=0.25%; may be repeated."),
    ] = None,
    timeout: TimeoutOption = 900.0,
    no_cache: NoCacheOption = False,
    json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write all measurements as JSON.")] = None,
    add: Annotated[bool, typer.Option("--add", help="With --json: add rounds to those that FILE has.")] = False,
    streams: Annotated[
        Literal["one", "many"], typer.Option(help="State of the GPU: that of a process that uses one stream, or many.")
    ] = "one",
    panel: Annotated[
        bool, typer.Option("--panel", help="Instead: four fixed cases, appended to this card's kind's panel.jsonl.")
    ] = False,
    show: Annotated[bool, typer.Option("--show", help="With --panel: show the file; measure nothing.")] = False,
    to: Annotated[
        Path | None, typer.Option(metavar="FILE", help="With --panel: the file, in place of its own.")
    ] = None,
) -> None:
    """Measure the gate on this machine: its false alarms, its power, and the limits that its noise allows.

    Each case is compared with itself, and with itself slower by a known delay (twice its limit by default). Ctrl-C
    ends it early, with the complete rounds, and --add goes on later. With --panel four fixed cases show how
    far launches, sessions and cards lie apart.
    """
    if panel:
        given = {"CASE": cases, "--delay": delay, "--unchanged-only": unchanged_only, "--limit": limit, "--json": json}
        given["--add"] = add
        useless = [name for name, value in given.items() if value]
        _panel(useless, streams, show=show, to=to, timeout=timeout, no_cache=no_cache)
        return
    if show or to is not None:
        raise TrtgateError(f"{'--show' if show else '--to'} is of the panel: trtgate selfcheck --panel")
    if add and json is None:
        raise TrtgateError("--add adds rounds to those of a file: name it with --json")
    from ..common import accelerator
    from ..common.run_folder import usable
    from ..launches.suite_here import configured_suite
    from . import selfcheck_file, selfcheck_findings, selfcheck_rounds

    source, folder, ini_limits = configured_suite(Path.cwd(), as_in_pytest=True)
    device = accelerator.detect()
    limits = _limits(ini_limits, limit or [])
    share = 0.0 if unchanged_only else _share(delay, limits, on_gpu=device.kind == "gpu")

    file = selfcheck_file.SelfcheckFile(json, add=add)
    with progress() as step:
        found = selfcheck_rounds.run(
            source, selfcheck_rounds.cases_of(source, cases or [], device), device, limits.__getitem__,
            rounds=rounds, delay=share, folder=usable(folder, step), cache=cache_request(no_cache=no_cache),
            timeout_s=TimeLimit(timeout, "--timeout"), streams=streams, step=step, save=file.save,
            begin=file.begin,
        )  # fmt: skip
    from ..report.terminal_table import describe

    print_lines([describe(device), *selfcheck_findings.lines(found)])
    if file.save(found):
        print_lines([f"written: {json}"])
    if found.failed:
        raise typer.Exit(BROKEN)


def _panel(useless: list[str], streams: str, *, show: bool, to: Path | None, timeout: float, no_cache: bool) -> None:
    """Measure the panel and append it to its file, or only show what is there."""
    from ..common import accelerator
    from ..common.run_folder import usable
    from ..gate import panel_file
    from ..suite.pytest_config import baselines_folder
    from . import selfcheck_panel

    if useless:
        raise TrtgateError(f"{useless[0]} means nothing with --panel, whose cases are fixed: leave it out")
    device, folder, left_out = accelerator.detect(), baselines_folder(None), list[str]()
    if show:
        paths = [to] if to is not None else _panel_files(folder, device)
    elif device.kind != "gpu":
        raise TrtgateError(f"--panel {accelerator.NEEDS_GPU}; --panel --show prints what a file has")
    else:
        paths = [to or panel_file.path_of(folder, device.key)]
        panel_file.check(paths[0])
        source, ids = selfcheck_panel.source_here(), selfcheck_panel.case_ids()
        with progress() as step:
            found, left_out = selfcheck_panel.run(
                source, ids, device, usable(Path.cwd() / ".trtgate", step), streams=streams,
                cache=cache_request(no_cache=no_cache), timeout_s=TimeLimit(timeout, "--timeout"), step=step,
            )  # fmt: skip
        panel_file.append(paths[0], found)
    files = [panel_file.read(path) for path in paths]
    for number, file in enumerate(files):
        print_lines([""] * (number > 0) + selfcheck_panel.lines(file))
    print_lines([f"left out: {line}" for line in left_out])
    if left_out or any(file.problems for file in files):
        raise typer.Exit(BROKEN)


def _panel_files(folder: Path, device: Accelerator) -> list[Path]:
    """Return this card's kind's file; where it has none the files of all. Raises TrtgateError where there is none."""
    from ..common.files import is_there, listed
    from ..gate import panel_file

    own = panel_file.path_of(folder, device.key)
    paths = [own] if is_there(own) else [one for one in (place / own.name for place in listed(folder)) if one.is_file()]
    if not paths:
        raise TrtgateError(
            f"there is no {own.name} under {folder}: run trtgate selfcheck --panel on a GPU, or name --to"
        )
    return paths


def _limits(ini_limits: list[str], asked: list[str]) -> dict[str, float]:
    """Return every metric's limit: the command line's, else the ini file's, else the default."""
    from ..common.limits import parse
    from ..common.metrics import METRICS

    defaults = {name: metric.limit for name, metric in METRICS.items()}
    return defaults | parse(ini_limits, "ini key trtgate_limits") | parse(asked, "--limit")


def _share(delay: str, limits: dict[str, float], *, on_gpu: bool) -> float:
    """Return by which share a case is slowed down: twice the limit unless another one is asked for."""
    from ..common.limits import parse
    from ..common.metrics import DEVICE, HOST

    primary = DEVICE if on_gpu else HOST
    return parse([f"{primary}={delay}"], "--delay")[primary] if delay else 2 * limits[primary]
