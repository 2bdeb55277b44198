"""pytest's configuration file: which one pytest reads for a folder, what it says of a suite, and adding keys to it."""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import iniconfig
import msgspec

from ..common import run_places
from ..common.errors import TrtgateError
from ..common.files import read_bytes
from ..common.run_places import Folder

SUITE_KEY, BASELINES_KEY, RUNS_KEY = "trtgate_suite", "trtgate_baselines", "trtgate_runs"
RUNS_VARIABLE = "TRTGATE_RUNS"
"""The environment variable that wins over the key."""
BASELINES = "baselines"
STARTED_WITH = "trtgate-started-with"
"""The name of a plugin by which a command says with which `variables` it was started, before it asked pytest."""

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
    """A list is one value a line, as in an ini file."""


# pytest's configuration


def find_configuration(folder: Path, top: Path | None = None) -> Configuration | None:
    """Return the configuration that pytest reads for `folder`: its own or the nearest above, up to `top`.

    Raises TrtgateError when a file on the way can't be read.
    """
    for base in (folder, *folder.parents):
        for name in CONFIGURATIONS:
            if (base / name).is_file() and (found := _configuration(base / name, text_of(base / name))) is not None:
                return found
        if base == top:
            break
    return None


def baselines_folder(option: Path | None) -> Path:
    """Return the folder of the baselines: the one asked for, else pytest's ini key, else `baselines`."""
    if option is not None:
        return option
    found = find_configuration(Path.cwd())
    if found is None:
        return Path(BASELINES)
    return Path(os.path.relpath(found.path.parent / found.values.get(BASELINES_KEY, BASELINES)))


def runs_folder() -> Folder | None:
    """Return where runs are kept that outlive this machine, as the environment or pytest's ini key says; else None.

    Raises TrtgateError for a URL of no use.
    """
    if asked := os.environ.get(RUNS_VARIABLE, "").strip():
        return run_places.at(asked)
    found = find_configuration(Path.cwd())
    asked = "" if found is None else found.values.get(RUNS_KEY, "").strip()
    return run_places.at(asked, Path(os.path.relpath(found.path.parent))) if found and asked else None


def with_keys(found: Configuration, text: str, keys: Mapping[str, str]) -> str:
    """Insert keys below the section's header, and make sure that a parser sees these keys more and nothing else."""
    toml = found.path.suffix == ".toml"
    lines = [f"{key} = {json.dumps(value, ensure_ascii=False) if toml else value}" for key, value in keys.items()]
    if not found.exists:
        changed = appended(text, f"[{found.section}]", *lines)
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


def appended(text: str, *lines: str) -> str:
    """Return a file's text with lines at its end, which end as its own do."""
    end = "\r\n" if "\r\n" in text else "\n"
    gap = end if text and not text.endswith("\n") else ""
    return text + gap + "".join(line + end for line in lines)


def _configuration(path: Path, text: str) -> Configuration | None:
    """Return what pytest reads from a file; None when it passes the file over."""
    sections = _sections(path, text)
    for section in _SECTIONS[path.name](sections):
        values = {key: _text(value) for key, value in _table(sections.get(section)).items()}
        return Configuration(path=path, section=section, exists=section in sections, values=values)
    return None


def _text(value: Any) -> str:
    return "\n".join(map(str, value)) if isinstance(value, list) else str(value)


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


def text_of(path: Path) -> str:
    """Return a file's text, its line ends as they are. Raises TrtgateError."""
    try:
        return read_bytes(path).decode()  # not read_text, which would change line ends
    except OSError as error:
        raise TrtgateError(f"{path} can't be read: {error.strerror}") from error
    except UnicodeDecodeError:
        raise TrtgateError(f"{path} can't be read: it is not UTF-8 text") from None
