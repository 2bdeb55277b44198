"""How a suite's file becomes a module: with the name and the search path that pytest gives to a test in its place."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec

from ..common.errors import TrtgateError

PREPEND, APPEND, IMPORTLIB = "prepend", "append", "importlib"


class ImportRule(msgspec.Struct, frozen=True, kw_only=True):
    """What pytest's configuration says of imports.

    `mode` is its `--import-mode`: "prepend", "append" or "importlib". `namespaces` is its ini key
    `consider_namespace_packages`.
    """

    mode: str = PREPEND
    namespaces: bool = False

    @classmethod
    def of(cls, config: Any) -> ImportRule:
        """Return the rule of a `pytest.Config`."""
        return cls(mode=config.getoption("importmode"), namespaces=config.getini("consider_namespace_packages"))


def is_path(name: str) -> bool:
    """Whether a suite is named by its file, and not as a module."""
    return name.endswith(".py") or "/" in name


def file_of(name: str, root: Path) -> Path | None:
    """Return the file of a path below `root`, or of a module there or on Python's path; None where there is none."""
    if is_path(name):
        file = Path(os.path.abspath(root / name))
        return file if file.is_file() else None
    return _on_path(name, map(Path, sys.path)) or _on_path(name, [root])


def _on_path(name: str, folders: Iterable[Path]) -> Path | None:
    for folder in folders:
        base = folder.joinpath(*name.split("."))
        for file in (base.with_name(f"{base.name}.py"), base / "__init__.py"):
            if file.is_file():
                return Path(os.path.abspath(file))
    return None


def import_name(name: str, root: Path) -> ModuleType:
    """Import a module by its name; `root` becomes the first folder of Python's path if the others do not have it."""
    if _on_path(name, map(Path, sys.path)) is None:
        sys.path.insert(0, str(root))
    return importlib.import_module(name)


def import_file(file: Path, root: Path, rule: ImportRule) -> ModuleType:
    """Import a file as pytest imports a test: as part of the package that it lies in, else by its own name.

    Outside of a package a name that another module has is no obstacle: the suite gets one of its own. Raises
    TrtgateError where its package has the name of another one that this process has imported.
    """
    base, name = _place(file, rule)
    for own in (name, _name_below(file, root), _name_below(file, Path("/"))):
        known = sys.modules.get(own)
        if known is not None and _is_same(getattr(known, "__file__", None), file):
            return known
    _extend_path(str(base), rule)
    if "." in name:
        _import_package(name.rpartition(".")[0], file.parent)
    elif name in sys.modules:
        below = _name_below(file, root)
        name = _name_below(file, Path("/")) if below in sys.modules else below
    return _executed(name, file)


def _place(file: Path, rule: ImportRule) -> tuple[Path, str]:
    """Return the folder that is to be on Python's path, and the module's dotted name there."""
    folder, names = file.parent, [] if file.stem == "__init__" else [file.stem.replace(".", "_")]
    while (folder / "__init__.py").is_file() and folder.name.isidentifier():
        names.insert(0, folder.name)
        folder = folder.parent
    if rule.namespaces:
        for above in (folder, *folder.parents):
            dotted = ".".join([*folder.relative_to(above).parts, *names])
            if _is_importable(dotted, file):
                return above, dotted
    return folder, ".".join(names)


def _is_importable(name: str, file: Path) -> bool:
    if not all(part.isidentifier() for part in name.split(".")):
        return False
    with contextlib.suppress(ImportError, ValueError):
        spec = importlib.util.find_spec(name)
        return spec is not None and _is_same(spec.origin, file)
    return False


def _extend_path(folder: str, rule: ImportRule) -> None:
    if rule.mode == PREPEND and sys.path[:1] != [folder]:
        sys.path.insert(0, folder)
    elif rule.mode == APPEND and folder not in sys.path:
        sys.path.append(folder)


def _import_package(name: str, folder: Path) -> None:
    above = name.rpartition(".")[0]
    if above:
        _import_package(above, folder.parent)
    known = sys.modules.get(name)
    if known is None and (folder / "__init__.py").is_file():
        known = _executed(name, folder / "__init__.py")
    elif known is None:  # part of a namespace
        known = importlib.import_module(name)
    places = [str(place) for place in getattr(known, "__path__", ())]
    if not any(_is_same(place, folder) for place in places):
        raise TrtgateError(
            f"the package {name} is {', '.join(places) or known.__name__} already, and {folder} has the same name: "
            "rename one of the two folders"
        )


def _executed(name: str, file: Path) -> ModuleType:
    places = [str(file.parent)] if file.name == "__init__.py" else None
    spec = importlib.util.spec_from_file_location(name, file, submodule_search_locations=places)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    above, _, own = name.rpartition(".")
    if above:
        setattr(sys.modules[above], own, module)
    return sys.modules[name]


def _is_same(path: str | None, other: Path) -> bool:
    return path is not None and os.path.realpath(path) == os.path.realpath(other)


def _name_below(file: Path, folder: Path) -> str:
    return "trtgate_suite_" + re.sub(r"\W", "_", os.path.relpath(file, folder))
