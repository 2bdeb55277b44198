"""The command `trtgate`. Only wires: what a command needs is imported when it runs, so that `--help` is instant."""

from __future__ import annotations

import typer

from .commands.ab_command import ab
from .commands.affected_command import affected
from .commands.baseline_command import accept, diff, remove, show
from .commands.cache_command import clear, info
from .commands.console import Commands
from .commands.coverage_command import coverage, coverage_diff
from .commands.doctor_command import doctor
from .commands.explain_command import explain
from .commands.export_command import export
from .commands.history_command import compact, history
from .commands.init_command import init
from .commands.locate_command import locate
from .commands.merge_command import merge
from .commands.profile_command import profile, profile_diff, profile_show
from .commands.report_command import report
from .commands.selfcheck_command import selfcheck
from .commands.sweep_command import sweep
from .commands.verify_command import verify

app = typer.Typer(
    cls=Commands,
    help="A performance gate for PyTorch models compiled with Torch-TensorRT; the gate itself is a pytest plugin.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command()(doctor)
app.command()(explain)
app.command()(verify)
app.command()(init)
app.command()(coverage)
app.command("coverage diff")(coverage_diff)
app.command()(profile)
app.command("profile show")(profile_show)
app.command("profile diff")(profile_diff)
app.command()(locate)
app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(ab)
app.command()(affected)
app.command()(selfcheck)
app.command()(sweep)
app.command()(report)
app.command()(merge)
app.command()(history)
app.command()(export)

baseline = typer.Typer(help="Show, compare, accept and remove baselines.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(baseline, name="baseline")
for command in (show, diff, accept, remove):
    baseline.command()(command)

cache = typer.Typer(
    help="Show or clear the artifact cache: compiled modules that runs load instead of building them again.",
    no_args_is_help=True, rich_markup_mode=None,
)  # fmt: skip
app.add_typer(cache, name="cache")
cache.command()(info)
cache.command()(clear)

runs = typer.Typer(help="Keep the saved runs of many machines.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(runs, name="runs")
runs.command()(compact)


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
