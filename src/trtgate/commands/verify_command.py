"""`trtgate verify`: its options, and its table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..common.text_columns import TextTable
from ..common.time_limit import TimeLimit
from .console import BROKEN, INTERRUPTED, TimeoutOption, print_lines, progress

if TYPE_CHECKING:
    from ..common.run_folder import RunFolder
    from ..common.steps import OnStep
    from .verify_record import CheckResult, Verification


def verify(
    timeout: TimeoutOption = 180.0,
    json: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="File of the results; .trtgate/verify.json by default."),
    ] = None,
) -> None:
    """Check that this installation works: build, compare, store, load, profile, count and time small models.

    Without a GPU it checks what can be checked there. Exit code 0: no check failed. 1: one did. 4: nothing could be
    checked.
    """
    import msgspec

    from ..common.files import write_json
    from ..common.run_folder import RunFolder
    from ..suite.pytest_config import find_configuration

    configuration = find_configuration(Path.cwd())
    root = configuration.path.parent if configuration else Path.cwd()
    results: list[CheckResult] = []
    with progress() as step:
        folder = RunFolder(root / ".trtgate", step)
        try:
            found = _found(folder, TimeLimit(timeout, "--timeout"), results, step)
        except KeyboardInterrupt:
            print_lines([_table(results), "interrupted"])
            raise typer.Exit(INTERRUPTED) from None
        finally:
            folder.close()
    print_lines([_table(results), _counts(results)])
    json = json or folder.path / "verify.json"
    write_json(json, msgspec.to_builtins(found))
    print_lines([f"written: {json}"])
    if found.failed:
        print_lines([f"to report what failed, send {json} and {folder.own_logs}"])
        raise typer.Exit(BROKEN)


def _found(folder: RunFolder, timeout_s: float, results: list[CheckResult], step: OnStep) -> Verification:
    """Run all checks; `results` has what is known so far."""
    import datetime

    from . import doctor_probes, verify_checks
    from .verify_record import Verification

    facts = doctor_probes.probe(None, step)
    checks = verify_checks.Checks(verify_checks.SOURCE, facts, folder, timeout_s, step)
    try:
        for result in checks.results():
            results.append(result)  # noqa: PERF402 - Ctrl-C leaves those that are known
    finally:
        checks.close()
    recorded = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return Verification(recorded=recorded, facts=facts, checks=results)


def _table(results: list[CheckResult]) -> TextTable:
    rows = [(one.name, one.outcome, f"{one.seconds:.1f} s", one.said) for one in results]
    return TextTable([("check", "outcome", "took", ""), *rows], left=(0, 1, 3), whole=(0, 1))


def _counts(results: list[CheckResult]) -> str:
    from .verify_record import FAILED, NOT_HERE, OK

    outcomes = [one.outcome for one in results]
    return f"{len(results)} checks: {', '.join(f'{outcomes.count(one)} {one}' for one in (OK, FAILED, NOT_HERE))}"
