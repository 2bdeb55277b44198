"""`trtgate selfcheck`: its options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..common.time_limit import TimeLimit
from .console import print_lines, progress


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

    from ..common import accelerator
    from ..common.files import write_json
    from ..common.run_folder import usable
    from . import selfcheck_rounds
    from .suite_here import configured_suite

    source, folder, ini_limits = configured_suite(Path.cwd(), as_in_pytest=True)
    device = accelerator.detect()
    limits = _limits(ini_limits, limit or [])
    share = 0.0 if unchanged_only else _share(delay, limits, on_gpu=device.kind == "gpu")

    def save(found: selfcheck_rounds.Selfcheck) -> None:
        if json is not None:
            write_json(json, msgspec.to_builtins(found))

    with progress() as step:
        found = selfcheck_rounds.run(
            source, selfcheck_rounds.cases_of(source, cases or [], device), device, limits.__getitem__,
            rounds=rounds, delay=share, folder=usable(folder, step), timeout_s=TimeLimit(timeout, "--timeout"),
            step=step, save=save,
        )  # fmt: skip
    from ..report.terminal_table import describe

    print_lines([describe(device), *selfcheck_rounds.lines(found)])
    save(found)
    if json is not None:
        print_lines([f"written: {json}"])


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
