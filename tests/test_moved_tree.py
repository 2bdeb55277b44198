"""A worktree stands in for the user's checkout: what is imported from where, and what would be the wrong code."""

from __future__ import annotations

import _ctypes
import _elementtree
import ctypes
import importlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from trtgate.common.errors import TrtgateError
from trtgate.launches import relocated_imports


class Trees:
    """The checkout, and in it, as `trtgate ab` makes it, the base's copy."""

    def __init__(self, folder: Path) -> None:
        self.old = folder / "checkout"
        self.new = self.old / ".trtgate" / "base-1-x" / "tree"
        for tree in (self.old, self.new):
            (tree / "src" / "mine").mkdir(parents=True)
            (tree / "mine.py").touch()
        self.pair = (str(self.old), str(self.new))


@pytest.fixture
def trees(tmp_path: Path) -> Trees:
    return Trees(tmp_path.resolve())


def test_a_path_of_the_checkout_is_relocated(trees: Trees) -> None:
    assert relocated_imports.relocated(str(trees.old), *trees.pair) == str(trees.new)
    assert relocated_imports.relocated(f"{trees.old}/src/../src/mine", *trees.pair) == f"{trees.new}/src/mine"


@pytest.mark.parametrize("path", ["/usr/lib/python3", "{old}-else/src", "{old}/only-the-candidate-has"])
def test_other_paths_stay(trees: Trees, path: str) -> None:
    path = path.format(old=trees.old)
    assert relocated_imports.relocated(path, *trees.pair) == path


def test_a_link_into_the_checkout_is_relocated(trees: Trees, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(trees.old / "src")
    assert relocated_imports.relocated(str(tmp_path / "link"), *trees.pair) == f"{trees.new}/src"


def test_a_search_path_is_relocated_in_place(trees: Trees) -> None:
    entries = same = ["/first", f"{trees.old}/src", "/last", str(trees.old)]
    relocated_imports.relocate(entries, *trees.pair)
    assert entries is same
    assert entries == ["/first", f"{trees.new}/src", "/last", str(trees.new)]


def test_the_usual_places_are_added_to_a_search_path(trees: Trees) -> None:
    entries = ["/first"]
    relocated_imports.relocate(entries, *trees.pair)
    assert entries == [str(trees.new), f"{trees.new}/src", "/first"]
    (trees.new / "src" / "mine").rmdir()
    (trees.new / "src").rmdir()
    entries = ["/first"]
    relocated_imports.relocate(entries, *trees.pair)
    assert entries == [str(trees.new), "/first"]


def imported(monkeypatch: pytest.MonkeyPatch, file: Path | str | None, name: str = "mine") -> None:
    module = ModuleType(name)
    module.__file__ = None if file is None else str(file)
    monkeypatch.setitem(sys.modules, name, module)


def test_a_module_of_the_candidate_is_refused_by_name(trees: Trees, monkeypatch: pytest.MonkeyPatch) -> None:
    imported(monkeypatch, trees.old / "mine.py")
    with pytest.raises(TrtgateError, match=r"candidate's code: module mine comes from .*checkout/mine\.py") as caught:
        relocated_imports.check_origin(*trees.pair)
    assert "--base-python" in str(caught.value)


def test_a_module_whose_file_is_no_text_or_that_can_not_be_loaded_is_nobodys(
    trees: Trees, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Lazy(ModuleType):
        def __getattr__(self, name: str) -> object:
            raise ImportError(name)

    numbered = ModuleType("numbered")
    numbered.__file__ = 7  # type: ignore[assignment]
    for module in (numbered, Lazy("lazy_one")):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    relocated_imports.check_origin(*trees.pair)


@pytest.fixture
def library_in(trees: Trees) -> Iterator[Callable[[str], None]]:
    """Load a C library that lies somewhere in the checkout."""
    handles: list[int] = []

    def load(place: str) -> None:
        (trees.old / place).mkdir(parents=True, exist_ok=True)
        copied = shutil.copy(_elementtree.__file__, trees.old / place / "operators.so")
        handles.append(ctypes.CDLL(copied)._handle)

    yield load
    for handle in handles:
        _ctypes.dlclose(handle)


def test_a_library_of_the_candidate_is_refused_as_its_modules_are(
    trees: Trees, library_in: Callable[[str], None]
) -> None:
    """As LD_LIBRARY_PATH finds it in the checkout's build folder, which no commit has."""
    library_in(".trtgate/base-1-x/tree/build")
    library_in(".venv/site-packages/torchvision")
    relocated_imports.check_origin(*trees.pair)
    library_in("build")
    with pytest.raises(TrtgateError, match=r"candidate's code: library operators\.so comes from .*checkout/build/oper"):
        relocated_imports.check_origin(*trees.pair)


def test_a_module_that_a_link_hides_is_refused(trees: Trees, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "link.py").symlink_to(trees.old / "mine.py")
    imported(monkeypatch, tmp_path / "link.py")
    with pytest.raises(TrtgateError, match="module mine"):
        relocated_imports.check_origin(*trees.pair)


def test_modules_that_were_looked_at_are_not_looked_at_again(trees: Trees, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each case asks for all modules, which are thousands."""
    relocated_imports.check_origin(*trees.pair)
    looked_at: list[str] = []
    monkeypatch.setattr(os.path, "isfile", lambda file: bool(looked_at.append(file)))
    imported(monkeypatch, trees.new / "mine.py")
    relocated_imports.check_origin(*trees.pair)
    assert looked_at == [str(trees.new / "mine.py")]


@pytest.mark.parametrize("file", [None, "frozen", "{new}/mine.py", "{old}/gone.py", "{old}/.venv/site-packages/a.py"])
def test_other_modules_are_not(trees: Trees, monkeypatch: pytest.MonkeyPatch, file: str | None) -> None:
    packages = trees.old / ".venv" / "site-packages"
    packages.mkdir(parents=True)
    (packages / "a.py").touch()
    imported(monkeypatch, file and file.format(old=trees.old, new=trees.new))
    relocated_imports.check_origin(*trees.pair)


def test_trtgate_itself_is_exempt(trees: Trees, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relocated_imports, "OURS", trees.old / "src")
    (trees.old / "src" / "gate.py").touch()
    imported(monkeypatch, trees.old / "src" / "gate.py")
    relocated_imports.check_origin(*trees.pair)


def test_a_copy_that_is_named_through_a_link_is_the_copy(
    trees: Trees, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with `pytest --rootdir=LINK`."""
    (tmp_path / "link").symlink_to(trees.old)
    new = tmp_path / "link" / trees.new.relative_to(trees.old)
    imported(monkeypatch, new / "mine.py")
    relocated_imports.check_origin(str(trees.old), str(new))


@pytest.mark.parametrize("place", ["checkout", "checkout/dist/package.whl", "elsewhere"])
def test_a_copy_of_the_candidates_package_that_was_installed_is_not_the_bases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """As `pip install .` leaves it: both sides would import it, and be the same."""
    name = f"installed_{abs(hash(str(tmp_path)))}"
    site, information = tmp_path / "site-packages", tmp_path / "site-packages" / f"{name}-1.0.dist-info"
    for folder in (site / name, information, tmp_path / "checkout" / "base"):
        folder.mkdir(parents=True)
    (site / name / "__init__.py").write_text("")
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (information / "RECORD").write_text(f"{name}/__init__.py,,\n")
    (information / "direct_url.json").write_text(json.dumps({"url": (tmp_path / place).as_uri(), "dir_info": {}}))
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setitem(sys.modules, name, importlib.import_module(name))
    roots = str(tmp_path / "checkout"), str(tmp_path / "checkout" / "base")
    relocated_imports._installed_from.cache_clear()
    if place == "elsewhere":
        relocated_imports.check_origin(*roots)
    else:
        with pytest.raises(TrtgateError, match=f"module {name} comes from"):
            relocated_imports.check_origin(*roots)
