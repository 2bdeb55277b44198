"""A folder of source code that stands in for another: a base revision's worktree for the user's checkout."""

from __future__ import annotations

import contextlib
import functools
import importlib
import json
import os
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ..common import module_files
from ..common.errors import TrtgateError

OURS = Path(__file__).resolve().parents[1]
"""The folder of this package."""


def relocated(path: str, old: str, new: str) -> str:
    """Return `path` below `new` instead of `old`, where it is below `old` and there is such a thing below `new`."""
    try:
        moved = Path(new) / Path(os.path.realpath(path)).relative_to(old)
    except ValueError:
        return path
    return str(moved) if moved.exists() else path


def relocate(search_path: list[str], old: str, new: str) -> None:
    """Make Python find the modules of `old` in `new`: every entry of a search path, and two usual places of code."""
    search_path[:] = [relocated(entry, old, new) for entry in search_path]
    for folder in (Path(new) / "src", Path(new)):
        if folder.is_dir() and str(folder) not in search_path:
            search_path.insert(0, str(folder))


def standard_modules() -> list[str]:
    """Return the modules of the standard library that this process has imported, none of the user's of such a name."""
    own = tuple(os.path.join(sysconfig.get_path(kind), "") for kind in ("stdlib", "platstdlib"))
    return [
        name for name, module in list(sys.modules.items())
        if name in sys.stdlib_module_names and str(getattr(module, "__file__", own[0])).startswith(own)
    ]  # fmt: skip


def set_path(entries: Sequence[str], moved: tuple[str, str] | None, standard: Iterable[str]) -> None:
    """Put folders in front of Python's path, moved as `relocate` has it.

    These modules of the standard library, and torch, are imported before: so pytest has them when it puts the folder of
    a suite there, in which files may have their names.
    """
    for name in standard:
        with contextlib.suppress(ImportError):  # another Python may lack it
            importlib.import_module(name)
    if moved is None:
        with contextlib.suppress(ImportError):  # it may lie in these folders
            import torch  # noqa: F401
    sys.path[:] = dict.fromkeys([*entries, *sys.path])
    if moved is not None:
        relocate(sys.path, *moved)


@contextlib.contextmanager
def path_kept() -> Iterator[None]:
    """Within: importing a suite may put folders in front of Python's path; afterwards those stand as they stood."""
    before = list(sys.path)
    yield
    sys.path[:] = dict.fromkeys([*before, *sys.path])


def check_origin(old: str, new: str) -> None:
    """Check that no module or library is from `old` (an editable install may go its own ways): it is not the base's.

    So is what was installed from `old` as a copy, which both sides would share. Trtgate itself is exempt: both
    sides are measured by the same code. Raises TrtgateError, naming the module or library.
    """
    from ..torch_trt import imported_files, native_files  # import torch, which who starts workers need not

    copy = str(Path(new).resolve())
    modules = [(f"module {name}", imported_files.file_of(name)) for name in list(sys.modules)]
    libraries = [(f"library {file.name}", file) for file in native_files.loaded()]
    for name, file in modules + libraries:
        if file is not None and _is_of_candidate(str(file), old, copy):
            raise TrtgateError(
                f"the base would run the candidate's code: {name} comes from {_followed(str(file))}, not from the "
                "base's copy: make it importable from a folder of the repository, or compare two environments "
                "(--base-python)"
            )


_followed = module_files.followed()


@functools.cache
def _is_of_candidate(file: str, old: str, copy: str) -> bool:
    """Whether a module's file is the candidate's: asked for each case of all modules, and looked at once."""
    if not os.path.isabs(file) or not os.path.isfile(file):
        return False
    path = _followed(file)
    installed = path in _installed_from(old, copy)
    if not installed and not path.startswith(os.path.join(old, "")):
        return False
    if Path(path).is_relative_to(OURS):
        return False
    return installed or not (Path(path).is_relative_to(copy) or "site-packages" in Path(path).parts)


@functools.cache
def _installed_from(old: str, copy: str) -> frozenset[str]:
    """Return the files of distributions that were installed from a folder, or a file in it, but not from `copy`."""
    found: set[str] = set()
    for distribution in metadata.distributions():
        text = distribution.read_text("direct_url.json")
        try:
            url = urlsplit(json.loads(text)["url"]) if text else urlsplit("")
        except (ValueError, KeyError, TypeError):
            continue
        place = Path(unquote(url.path))
        if url.scheme == "file" and place.is_relative_to(old) and not place.is_relative_to(copy):
            found |= {os.path.realpath(str(distribution.locate_file(file))) for file in distribution.files or ()}
    return frozenset(found)
