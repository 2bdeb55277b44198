"""What pytest has in a base's copy of the code: its suites, Python's path and variables, asked in a process there."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from ..common.errors import TrtgateError
from ..common.time_limit import option_of
from ..suite.pytest_config import find_configuration
from ..suite.suite_source import SuiteSource
from .comparison_side import Side
from .suite_here import named_in, on_pytests_path

OF_PYTEST = "PYTEST_"
"""How variables begin that pytest itself sets: both sides are under the same one."""


class Elsewhere(msgspec.Struct, frozen=True, kw_only=True):
    """What pytest has in another folder: where the suites are, Python's path, and variables that it changed."""

    source: SuiteSource | None
    """The suites that are configured there, and how they are imported; None where nothing is asked of pytest."""
    path: tuple[str, ...] = ()
    variables: dict[str, str | None] = {}
    problem: str = ""


def in_its_pytest(
    side: Side, answer: Path, before: Mapping[str, str], timeout_s: float, given: Iterable[str] = ()
) -> tuple[Side, SuiteSource | None]:
    """Return a base's side with the path and the variables of its own pytest, and the source that it configures.

    `before` are the variables of this process before its own conftest files changed them, `given` what pytest is given
    on its command line: files whose conftest files count, instead of those of the configured suites, and options. None:
    no suite is configured there, and where nothing is given, nothing was asked. `answer` is a file to be written.
    Raises TrtgateError as `suite_elsewhere`.
    """
    assert side.moved is not None
    root, top = Path(side.source.root), Path(side.moved[1])
    found = suite_elsewhere(root, top, answer, side.environment(dict(before)), timeout_s, side.python, given)
    if found.source is None:
        return side, None
    own = dict(before) | {name: None for name in os.environ if name not in before and not name.startswith(OF_PYTEST)}
    differing = {name: value for name, value in own.items() if value != os.environ.get(name)}
    source = msgspec.structs.replace(side.source, rule=found.source.rule)
    side = msgspec.structs.replace(side, source=source, path=found.path, variables=differing | found.variables)
    return side, found.source if found.source.suites else None


def suite_elsewhere(
    folder: Path, top: Path, answer: Path, variables: Mapping[str, str], timeout_s: float,
    python: str = sys.executable, given: Iterable[str] = (),
) -> Elsewhere:  # fmt: skip
    """Return what pytest has in `folder`: asked in a process of its own, which writes to `answer`.

    `variables` is the environment that it starts with, `given` as `in_its_pytest` has it. No configuration above
    `top` counts: a copy may lie in what it is a copy of. Raises TrtgateError where pytest can't read its configuration
    there, where it does not answer within `timeout_s`, or a conftest file ends the process.
    """
    if not folder.is_dir():
        return Elsewhere(source=None)
    command = [python, "-P", "-m", __name__, str(top), str(answer), *given]
    with subprocess.Popen(
        command, cwd=folder, env=dict(variables), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            said = process.communicate(timeout=timeout_s)[1]
        except subprocess.TimeoutExpired:
            process.kill()
            advice = f": raise {option}" if (option := option_of(timeout_s)) else ""
            raise TrtgateError(f"its pytest did not answer within {timeout_s:.0f} s{advice}") from None
        except BaseException:
            process.kill()
            raise
    try:
        found = msgspec.json.decode(answer.read_bytes(), type=Elsewhere)
    except (OSError, msgspec.MsgspecError):
        last = (said.strip().splitlines() or ["it said nothing"])[-1]
        raise TrtgateError(f"its pytest can't be asked: {last[:300]}") from None
    if found.problem:
        raise TrtgateError(found.problem)
    return found


def _answer(top: Path, given: list[str]) -> Elsewhere:
    before = dict(os.environ)
    found = find_configuration(Path.cwd(), top)
    source = None if found is None else named_in(found)
    if source is None and not given:
        return Elsewhere(source=None)
    source = source or SuiteSource(root=str(Path.cwd()))
    try:
        source = on_pytests_path(source, found, given or source.places())
    except TrtgateError as error:
        return Elsewhere(source=None, problem=str(error))
    names = dict.fromkeys([*before, *os.environ])
    return Elsewhere(
        source=source, path=tuple(map(os.fspath, sys.path)),
        variables={name: os.environ.get(name) for name in names if before.get(name) != os.environ.get(name)},
    )  # fmt: skip


if __name__ == "__main__":
    top, answer, *given = sys.argv[1:]
    Path(answer).write_bytes(msgspec.json.encode(_answer(Path(top).resolve(), given)))
