"""Files of data that code of a user's own names."""

from __future__ import annotations

import ast
import contextlib
import fnmatch
import functools
import glob
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from ..common import sealed_folder

FILE = re.compile(r"(?!/)[^\n\0]{1,200}")
"""Texts that may name a file."""
ENDING = re.compile(r"\.\w{1,12}")
PATTERN = re.compile(r"[^\n\0]{0,200}\*[^\n\0]{0,200}\.\w{1,12}")
"""Texts that may mean several."""
FOLDER = re.compile(r"[\w-][\w.-]{0,60}")
"""Texts that may name a folder of them."""
MOST_PLACES = 32
"""Folders that are looked into for the files that one file of code names."""
MOST_MATCHING = 64
"""Files of a folder that a pattern may mean: more are a data set, which takes long to read and decides no operator."""
NO_DATA = (".py", ".pyc")
"""Ends of files whose code is told elsewhere."""
OF_GIT = ".git"
"""A file in a worktree, a folder in other checkouts."""


def named(tree: ast.Module, texts: set[str], folder: Path, stem: str) -> dict[str, str]:
    """Return the files that code names, each name with the digests of what it may mean.

    A file lies in `folder`, that of the code, in one above it within the working folder, or in folders that the code
    names, whole or part by part. It is named whole, by its ending if its `stem` is the code's, by a pattern, or by an
    f-string. Patterns that begin with any text mean no files of the working folder, where runs write theirs; nor do
    patterns of more than MOST_MATCHING files mean any.
    """
    places = _places(texts, folder)
    endings = {f"{stem}{text}" for text in texts if ENDING.fullmatch(text)} if stem else set()
    names = {*filter(FILE.fullmatch, texts), *endings, *_matching({*texts, *_formatted(tree)}, places)}
    return {name: digest for name in sorted(names) if (digest := _of_files(name, places))}


def _formatted(tree: ast.Module) -> Iterator[str]:
    """Yield f-strings as patterns."""
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = (one.value if isinstance(one, ast.Constant) else None for one in node.values)
            yield "".join("*" if one is None else glob.escape(str(one)) for one in parts)


def _matching(texts: Iterable[str], places: Mapping[str, set[str]]) -> Iterator[str]:
    here = os.getcwd()
    for pattern in {text.rpartition("/")[2] for text in texts if PATTERN.fullmatch(text)}:
        for place, there in places.items():
            matching = fnmatch.filter(there, pattern) if place != here or not pattern.startswith("*") else []
            if len(matching) <= MOST_MATCHING:
                yield from matching


def _places(texts: Iterable[str], folder: Path) -> dict[str, set[str]]:
    """Return the folders in which files may lie that code of a folder names, with what lies there.

    A folder may be named part by part.
    """
    here = Path.cwd()
    above = [one for one in (folder, *folder.parents) if one.is_relative_to(here)] or [folder]
    places = list(dict.fromkeys(map(str, (*above, here))))
    parts = {part for text in texts for part in (*text.split("/"), *text.split(".")) if FOLDER.fullmatch(part)}
    found: dict[str, set[str]] = {}
    for place in places:  # it grows
        found[place] = set()
        with contextlib.suppress(OSError):  # it is none, or nobody may read it
            found[place].update(os.listdir(place))
        below = [os.path.join(place, name) for name in sorted(parts & found[place])]
        places += [one for one in below if len(places) < MOST_PLACES and one not in places and os.path.isdir(one)]
    return found


def _of_files(name: str, places: Mapping[str, set[str]]) -> str:
    """Return the digests of the data files that a name may mean; empty where there are none, and for code."""
    first = name.partition("/")[0]
    if first == OF_GIT:
        return ""
    possible = [Path(place, name) for place, there in places.items() if first in there or first in (".", "..")]
    return " ".join(dict.fromkeys(filter(None, map(_of_file, possible))))


def _of_file(place: Path) -> str:
    with contextlib.suppress(OSError, ValueError):  # half a surrogate pair names no file
        status = place.stat()
        if stat.S_ISREG(status.st_mode) and place.suffix not in NO_DATA:
            return _of_content(place.absolute(), status.st_mtime_ns, status.st_size)
    return ""


@functools.lru_cache(maxsize=4096)
def _of_content(file: Path, _mtime_ns: int, _size: int) -> str:
    return sealed_folder.digest(file)
