"""What `trtgate init` writes into a repository. Everything is planned, and refused, before anything is written."""

from __future__ import annotations

import json
import os
import re
import shlex
import tomllib
from collections.abc import Callable, Mapping
from importlib import metadata, resources
from pathlib import Path
from string import Template
from typing import Any

import iniconfig
import msgspec

from ..common.errors import TrtgateError
from ..common.files import write_whole
from ..suite.suite_source import SuiteSource

SUITE_KEY, BASELINES_KEY = "trtgate_suite", "trtgate_baselines"
BASELINES = "baselines"
WORKFLOW = Path(".github/workflows/trtgate.yml")
IGNORED = ".trtgate/"

CONFIGURATIONS = ("pytest.toml", ".pytest.toml", "pytest.ini", ".pytest.ini", "pyproject.toml", "tox.ini", "setup.cfg")
"""Files that pytest looks for in a folder, in its order (`_pytest.config.findpaths`)."""
TOML_SINCE = 9
"""The pytest from which on pytest.toml and the table tool.pytest count."""


class Configuration(msgspec.Struct, frozen=True, kw_only=True):
    """The one file that pytest reads, and what stands in its section."""

    path: Path
    section: str
    exists: bool
    """Whether the section does: a pytest.ini counts without it."""
    values: dict[str, str]


class PlannedFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file and what it is to hold; None when it stays as it is."""

    path: Path
    content: bytes | None
    said: str


# The plan


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


def next_commands(suite: Path) -> list[str]:
    """Return what to run next, and what it is for."""
    run = f"pytest {what_to_run(suite)}"
    commands = {
        f"{run} -m trtgate_coverage": "says which operators TensorRT takes; needs no GPU",
        run: "measures them",
        f"{run} --trtgate-update-baselines": f"records them: commit the folder {BASELINES}",
        f"{run} --benchmark-compare": "judges them against what is recorded",
    }
    width = max(map(len, commands))
    return [f"  {command:<{width}}  {purpose}" for command, purpose in commands.items()]


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
    if _text(file) == content:
        return PlannedFile(path=file, content=None, said="is there")
    if not force:
        return PlannedFile(path=file, content=None, said="is there with other content, kept (--force overwrites it)")
    return PlannedFile(path=file, content=content.encode(), said="overwritten")


def _ignored(file: Path) -> PlannedFile:
    text = _text(file) if file.exists() else ""
    if any(line.strip().strip("/") == IGNORED.strip("/") for line in text.splitlines()):
        return PlannedFile(path=file, content=None, said=f"is there, with {IGNORED}")
    return PlannedFile(path=file, content=_appended(text, IGNORED).encode(), said=f"{IGNORED} added")


# pytest's configuration


def find_configuration(folder: Path, top: Path | None = None) -> Configuration | None:
    """Return the configuration that pytest reads for `folder`: its own or the nearest above, up to `top`.

    Raises TrtgateError when a file on the way can't be read.
    """
    for base in (folder, *folder.parents):
        for name in CONFIGURATIONS:
            if (base / name).is_file() and (found := _configuration(base / name, _text(base / name))) is not None:
                return found
        if base == top:
            break
    return None


def configured_suite(folder: Path) -> tuple[SuiteSource, Path, list[str]]:
    """Return the suite that pytest's configuration names for `folder`, its `.trtgate` folder, and its limits.

    Raises TrtgateError when there is none, or its file is not there.
    """
    found = find_configuration(folder)
    suite = found.values.get("trtgate_suite") if found else None
    if found is None or not suite:
        raise TrtgateError(f"no suite is configured for {folder}: run trtgate init, or set the ini key trtgate_suite")
    root = found.path.parent
    source = SuiteSource(root=str(root), suite=suite)
    if source.suite_file() is None:
        raise TrtgateError(f"{found.path}: trtgate_suite names {suite!r}, and there is no such file or module")
    return source, root / ".trtgate", found.values.get("trtgate_limits", "").split()


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
        elif os.path.normpath(before) != os.path.normpath(value):
            raise TrtgateError(
                f"{found.path}: {key} is {before!r} already, and would become {value!r}: change it there"
            )
    if not missing:
        return PlannedFile(path=found.path, content=None, said=f"is there, with {' and '.join(wanted)}")
    text = _text(found.path) if found.path.exists() else ""
    content = _with_keys(found, text, missing)
    said = f"{' and '.join(missing)} added" if text else "written"
    return PlannedFile(path=found.path, content=content.encode(), said=said)


def _with_keys(found: Configuration, text: str, keys: Mapping[str, str]) -> str:
    """Insert keys below the section's header, and make sure that a parser sees these keys more and nothing else."""
    toml = found.path.suffix == ".toml"
    lines = [f"{key} = {json.dumps(value, ensure_ascii=False) if toml else value}" for key, value in keys.items()]
    if not found.exists:
        changed = _appended(text, f"[{found.section}]", *lines)
    else:
        before, header, after = _split_at_header(found, text)
        end = "\r\n" if header.endswith("\r\n") else "\n"
        header = header if header.endswith("\n") else header + end
        changed = before + header + "".join(line + end for line in lines) + after
    expected = {**_sections(found.path, text)}
    expected[found.section] = {**expected.get(found.section, {}), **keys}
    if _sections(found.path, changed) != expected:
        raise _by_hand(found, lines)
    return changed


def _split_at_header(found: Configuration, text: str) -> tuple[str, str, str]:
    name = r"\s*\.\s*".join(re.escape(part) for part in found.section.split("."))
    header = re.compile(rf"^[ \t]*\[\s*{name}\s*\][ \t]*([#;].*)?$")
    lines = text.splitlines(keepends=True)
    for number, line in enumerate(lines):
        if header.match(line.removeprefix("\N{BYTE ORDER MARK}").rstrip("\r\n")):
            return "".join(lines[:number]), line, "".join(lines[number + 1 :])
    raise _by_hand(found, ["the keys trtgate_suite and trtgate_baselines"])


def _by_hand(found: Configuration, lines: list[str]) -> TrtgateError:
    return TrtgateError(
        f"{found.path} is written in a way that can't be edited safely: add to [{found.section}] {', '.join(lines)}"
    )


def _appended(text: str, *lines: str) -> str:
    end = "\r\n" if "\r\n" in text else "\n"
    gap = end if text and not text.endswith("\n") else ""
    return text + gap + "".join(line + end for line in lines)


def _configuration(path: Path, text: str) -> Configuration | None:
    """Return what pytest reads from a file; None when it passes the file over."""
    sections = _sections(path, text)
    for section in _SECTIONS[path.name](sections):
        values = {key: str(value) for key, value in _table(sections.get(section)).items()}
        return Configuration(path=path, section=section, exists=section in sections, values=values)
    return None


def _toml_counts() -> bool:
    return int(metadata.version("pytest").split(".")[0]) >= TOML_SINCE


_SECTIONS: dict[str, Callable[[Mapping[str, Any]], list[str]]] = {
    **dict.fromkeys(("pytest.toml", ".pytest.toml"), lambda _: ["pytest"] if _toml_counts() else []),
    **dict.fromkeys(("pytest.ini", ".pytest.ini"), lambda _: ["pytest"]),
    "pyproject.toml": lambda found: (
        ["tool.pytest"] * (_toml_counts() and bool(found.get("tool.pytest")))
        + ["tool.pytest.ini_options"] * ("tool.pytest.ini_options" in found)
    ),
    "tox.ini": lambda found: ["pytest"] * ("pytest" in found),
    "setup.cfg": lambda found: ["tool:pytest"] * ("tool:pytest" in found),
}
"""File name → from its sections, those that pytest reads; the first counts."""


def _sections(path: Path, text: str) -> dict[str, Any]:
    """Return section → key → value, of TOML the tables that may be pytest's and the rest of the document.

    Raises TrtgateError when the file is not in its format.
    """
    try:
        if path.suffix != ".toml":  # pytest's own parser
            ini = iniconfig.IniConfig(str(path), data=text)
            return {name: dict(keys) for name, keys in ini.sections.items()}
        document = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, iniconfig.ParseError) as error:
        raise TrtgateError(f"{path} can't be read, by pytest neither: {error}") from error
    if path.name != "pyproject.toml":
        return document
    rest = {**document, "tool": {**_table(document.get("tool"))}}
    pytest_table = _table(rest["tool"].pop("pytest", None))
    found: dict[str, Any] = {"": rest}
    if "ini_options" in pytest_table:
        found["tool.pytest.ini_options"] = pytest_table["ini_options"]
    if others := {key: value for key, value in pytest_table.items() if key != "ini_options"}:
        found["tool.pytest"] = others
    return found


def _table(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


# Files


def carry_out(steps: list[PlannedFile]) -> None:
    """Write what is to be written. Raises TrtgateError, naming the file, when that fails."""
    for step in steps:
        if step.content is not None:
            try:
                write_whole(step.path.resolve(), step.content)
            except OSError as error:
                raise TrtgateError(f"{step.path} could not be written ({error.strerror})") from error


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode()  # not read_text, which would change line ends
    except OSError as error:
        raise TrtgateError(f"{path} can't be read: {error.strerror}") from error
    except UnicodeDecodeError:
        raise TrtgateError(f"{path} can't be read: it is not UTF-8 text") from None
