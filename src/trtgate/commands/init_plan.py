"""What `trtgate init` writes into a repository. Everything is planned, and refused, before anything is written."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from string import Template

import msgspec

from ..common.errors import TrtgateError
from ..common.files import write_whole
from ..common.text_columns import TextTable
from ..suite.pytest_config import (
    BASELINES,
    BASELINES_KEY,
    SUITE_KEY,
    Configuration,
    appended,
    find_configuration,
    text_of,
    with_keys,
)

WORKFLOW = Path(".github/workflows/trtgate.yml")
IGNORED = ".trtgate/"


class PlannedFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file and what it is to hold; None when it stays as it is."""

    path: Path
    content: bytes | None
    said: str


def inside(root: Path, suite: Path) -> Path:
    """Return a suite's path relative to `root`. Raises TrtgateError when it lies elsewhere, or is no Python file."""
    file = Path(os.path.normpath(root / suite))
    if file.suffix != ".py" or not file.is_relative_to(root) or file.is_dir():
        raise TrtgateError(f"--path {suite}: name a .py file inside {root}")
    return file.relative_to(root)


def plan(root: Path, suite: Path, force: bool) -> list[PlannedFile]:
    """Return what writing a suite at `suite`, relative to `root`, takes.

    Raises TrtgateError when pytest's configuration lies elsewhere, or names another suite.
    """
    git = git_top(root)
    top = git or root
    steps = [
        _template(root / suite, "trtgate_suite.py", {}, force),
        _configured(root, root / suite, {SUITE_KEY: suite.as_posix(), BASELINES_KEY: BASELINES}, top),
        _template(top / WORKFLOW, "github_workflow.yml", _places(suite, root, top), force),
    ]
    return steps if git is None else [*steps, _ignored(root / ".gitignore")]


def what_to_run(suite: Path) -> str:
    """Return what pytest is given to run the suite: its folder, so that tests beside it are run too."""
    folder = suite.parent.as_posix()
    return shlex.quote(suite.as_posix() if folder == "." else folder)


def next_commands(suite: Path) -> TextTable:
    """Return what to run next, and what it is for; a command is not folded, so that it can be copied."""
    run = f"pytest {what_to_run(suite)}"
    commands = {
        f"{run} -m trtgate_coverage": "says which operators TensorRT takes; needs no GPU",
        run: "measures them",
        f"{run} --trtgate-update-baselines": f"records them: commit the folder {BASELINES}",
        f"{run} --benchmark-compare": "judges them against what is recorded",
    }
    return TextTable(list(commands.items()), left=(0, 1), whole=(0,), titled=False, indent=2)


def git_top(folder: Path) -> Path | None:
    """Return the top of the git working tree that `folder` is in."""
    return next((base for base in (folder, *folder.parents) if (base / ".git").exists()), None)


def _places(suite: Path, root: Path, top: Path) -> dict[str, str]:
    folder = root.relative_to(top)
    runs = folder / ".trtgate/runs"
    return {"folder": _yaml(folder.as_posix()), "target": what_to_run(suite), "runs": _yaml(runs.as_posix())}


def _yaml(text: str) -> str:
    return text if re.fullmatch(r"[\w./-]+", text) else json.dumps(text, ensure_ascii=False)


def _template(file: Path, name: str, places: Mapping[str, str], force: bool) -> PlannedFile:
    text = resources.files(__package__).joinpath("templates", name).read_text(encoding="utf-8")
    content = Template(text).substitute(places) if places else text
    if not file.exists():
        return PlannedFile(path=file, content=content.encode(), said="written")
    if text_of(file) == content:
        return PlannedFile(path=file, content=None, said="is there")
    if not force:
        return PlannedFile(path=file, content=None, said="is there with other content, kept (--force overwrites it)")
    return PlannedFile(path=file, content=content.encode(), said="overwritten")


def _ignored(file: Path) -> PlannedFile:
    text = text_of(file) if file.exists() else ""
    if any(line.strip().strip("/") == IGNORED.strip("/") for line in text.splitlines()):
        return PlannedFile(path=file, content=None, said=f"is there, with {IGNORED}")
    return PlannedFile(path=file, content=appended(text, IGNORED).encode(), said=f"{IGNORED} added")


def _configured(root: Path, suite: Path, wanted: Mapping[str, str], top: Path) -> PlannedFile:
    found = find_configuration(suite.parent, top)
    if found is None:
        found = Configuration(path=root / "pytest.ini", section="pytest", exists=False, values={})
    if found.path.parent != root:
        raise TrtgateError(f"pytest reads {found.path} for {suite}: run trtgate init in {found.path.parent}")
    missing = {}
    for key, value in wanted.items():
        before = found.values.get(key)
        if before is None:
            missing[key] = value
        elif os.path.normpath(value) not in map(os.path.normpath, [before, *before.splitlines()]):
            raise TrtgateError(
                f"{found.path}: {key} is {before!r} already, and would become {value!r}: change it there"
            )
    if not missing:
        return PlannedFile(path=found.path, content=None, said=f"is there, with {' and '.join(wanted)}")
    text = text_of(found.path) if found.path.exists() else ""
    content = with_keys(found, text, missing)
    said = f"{' and '.join(missing)} added" if text else "written"
    return PlannedFile(path=found.path, content=content.encode(), said=said)


def carry_out(steps: list[PlannedFile]) -> None:
    """Write what is to be written. Raises TrtgateError, naming the file, when that fails."""
    for step in steps:
        if step.content is not None:
            try:
                write_whole(step.path, step.content)
            except OSError as error:
                raise TrtgateError(f"{step.path} could not be written ({error.strerror})") from error
