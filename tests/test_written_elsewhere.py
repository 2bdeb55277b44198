"""What one file writes into the module of another is part of the other's code; files of data that code names, too."""

from __future__ import annotations

import base64
import hashlib
import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from trtgate.common import library_files
from trtgate.torch_trt import code_values, data_files, function_code, imported_files, written_elsewhere

Digest = Callable[..., str]


@pytest.fixture
def digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Digest:
    """Write files, import the modules of the first folder in their order, and return the digest of `mine.own.read`."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/__init__.py").write_text("from mine.own import CALLED, TABLE, register\n")
    code = "TABLE = {}\nCALLED, LEVEL = [], []\ndef register(*what): CALLED.append(what)\n"

    def of(writes: str = "", own: str = code) -> str:
        (tmp_path / "mine/own.py").write_text(f"{own}\ndef read(): ...\n")
        (tmp_path / "writes.py").write_text(writes)
        for name in ("mine", "mine.own", "writes"):
            monkeypatch.delitem(sys.modules, name, raising=False)
        importlib.invalidate_caches()
        sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
        try:
            read = importlib.import_module("mine.own").read
            importlib.import_module("writes")
        finally:
            sys.dont_write_bytecode = before
        return function_code.digest([read])

    return of


WRITES = {
    "an entry": "import mine.own\nmine.own.TABLE['scale'] = {0}",
    "an item": "from mine.own import LEVEL as level\nlevel.append({0})",
    "a new name": "from mine import own\nif own:\n    own.SCALE = {0}",
    "what a name of a class holds": "import mine.own as own\nclass Own: ...\nown.OWN = Own()\nown.OWN.scale = {0}",
    "by a function": "from mine.own import register\nregister('scale', {0})",
    "by name": "import mine.own as own\nsetattr(own, 'SCALE', {0})",
    "by a decorator": "import mine.own as own\n@own.register\ndef scale(): return {0}",
    "within a factory": "def factory():\n    from mine import own\n    own.TABLE['scale'] = {0}",
    "through the package": "from mine import TABLE\nTABLE['scale'] = {0}",
    "a function in a table": "import mine.own as own\ndef scale(): return {0}\nvars(own)['TABLE']['scale'] = scale",
    "a function with an argument": (
        "import functools\nimport mine.own as own\ndef scale(x): return x * {0}\n"
        "locals()['own'].SCALE = functools.partial(scale, 1)"
    ),
}  # fmt: skip
"""What a file does, with a number."""


@pytest.mark.parametrize("how", WRITES.values(), ids=WRITES)
def test_what_another_file_writes_into_a_module_is_its_code_too(digest: Digest, how: str) -> None:
    assert digest(how.format(1)) == digest(how.format(1)) != digest(how.format(20))


@pytest.mark.parametrize(
    "how",
    ["import mine.own\nscale = {0}", "from mine.own import TABLE\nTABLE = {0}", "def TABLE(): ...\nTABLE.scale = {0}",
     "import mine.own\ndef factory():\n    scale = mine.own.read()\n    return scale, {0}"],
    ids=["a name of its own", "a name that it takes over", "something else of that name", "what only calls it"],
)  # fmt: skip
def test_what_another_file_keeps_to_itself_is_not(digest: Digest, how: str) -> None:
    assert digest(how.format(1)) == digest(how.format(20))


def test_the_order_of_the_files_that_write_decides_nothing(digest: Digest, tmp_path: Path) -> None:
    digest("import mine.own\nmine.own.TABLE['b'] = 1\nmine.own.TABLE['a'] = 1")
    found = written_elsewhere.into(tmp_path / "mine/own.py", written_elsewhere.writers())
    assert len(found) == 2
    assert [one.text for one in found] == sorted(one.text for one in found)


@pytest.mark.parametrize("order", [("writes", "fills"), ("fills", "writes")])
def test_a_statement_that_runs_at_import_counts_though_another_file_has_it_in_a_function(
    digest: Digest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: tuple[str, str]
) -> None:
    """Only what runs at import makes a container that starts empty part of the code, whichever file comes first."""
    statement = "mine.own.TABLE['a'] = object()"
    first, second = (
        f"import mine.own\n{statement}" if one == "writes" else f"import mine.own\ndef run():\n    {statement}"
        for one in order
    )
    (tmp_path / "later.py").write_text(second)
    monkeypatch.delitem(sys.modules, "later", raising=False)
    digest(first)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    importlib.import_module("later")
    (written,) = written_elsewhere.into(tmp_path / "mine/own.py", written_elsewhere.writers())
    assert "TABLE" in written.words


@pytest.mark.parametrize(
    "how",
    ["import helper\nown.register('scale', helper.SCALE)", "from helper import SCALE\nown.register('scale', SCALE)",
     "import helper\nfor key, value in sorted(vars(helper).items()):\n    own.TABLE[key] = value"],
)  # fmt: skip
def test_values_that_another_file_writes_need_not_be_in_its_statement(
    digest: Digest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    def of(scale: int) -> str:
        (tmp_path / "helper.py").write_text(f"SCALE = {scale}\n")
        monkeypatch.delitem(sys.modules, "helper", raising=False)
        return digest(f"from mine import own\n{how}")

    assert of(1) == of(1) != of(20)


def test_what_a_run_fills_from_another_file_is_not_its_code(digest: Digest) -> None:
    writes = "import mine.own\ndef run(): mine.own.TABLE[1] = 1\n"
    assert digest(writes) == digest(f"{writes}run()")


READS = {
    "no ending": ("scale", "open('scale')"),
    "no ending in a folder": ("tables/scale", "Path(__file__).parent / 'tables' / 'scale'"),
    "the ending of the code": ("own.json", "Path(__file__).with_suffix('.json')"),
    "a pattern": ("scale_1.json", "Path(__file__).parent.glob('scale_*.json')"),
    "any file of a folder": ("tables/1.json", "(Path(__file__).parent / 'tables').glob('*.json')"),
    "an f-string": ("scale_1.json", "open(f'scale_{len(CALLED)}.json')"),
    "an f-string of a folder": ("tables/1.json", "open(f'tables/{len(CALLED)}.json')"),
    "a package with dots": ("tables/v2/scale.json", "resources.files('mine.tables.v2') / 'scale.json'"),
}


@pytest.mark.parametrize(("file", "reads"), READS.values(), ids=READS)
def test_files_of_data_that_code_names_in_other_ways(digest: Digest, tmp_path: Path, file: str, reads: str) -> None:
    place = tmp_path / "mine" / file
    place.parent.mkdir(parents=True, exist_ok=True)

    def of(text: str) -> str:
        place.write_text(text)
        return digest(own=f"TABLE, CALLED = {{}}, []\ndef register(): return {reads}")

    assert of("1") == of("1") != of("20")


@pytest.mark.parametrize(("file", "reads"), [(".git", "'.git'"), ("run.json", "f'{TABLE}.json'")])
def test_what_a_checkout_or_a_run_has_in_the_working_folder_decides_nothing(
    digest: Digest, tmp_path: Path, file: str, reads: str
) -> None:
    """In a worktree .git is a file, and in other checkouts a folder."""

    def of(text: str) -> str:
        (tmp_path / file).write_text(text)
        return digest(own=f"TABLE, CALLED = {{}}, []\ndef register(): return {reads}")

    assert of("1") == of("20")


@pytest.mark.parametrize(("files", "decide"), [(data_files.MOST_MATCHING, True), (data_files.MOST_MATCHING + 1, False)])
def test_a_pattern_of_many_files_is_a_data_set(digest: Digest, tmp_path: Path, files: int, decide: bool) -> None:
    """To read one would take longer than to measure the case."""
    place = tmp_path / "mine" / "images"
    place.mkdir()

    def of(text: str) -> str:
        for number in range(files):
            (place / f"{number}.jpg").write_text(text)
        return digest(own="TABLE, CALLED = {}, []\ndef register(): return Path('images').glob('*.jpg')")

    assert (of("1") != of("20")) == decide


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Install a package of one version, with that code, from a folder or from an index."""
    place = tmp_path / "site-packages"
    information = place / "kernels_of_mine-1.0.dist-info"
    information.mkdir(parents=True)
    monkeypatch.syspath_prepend(str(place))
    for module in (imported_files, function_code):
        monkeypatch.setattr(module, "INSTALLED", (*imported_files.INSTALLED, f"{place}{os.sep}"))
    monkeypatch.setattr(function_code, "_distributions", lambda: {"kernels_of_mine": ["kernels-of-mine"]})

    def install(code: str, *, from_index: bool) -> None:
        (place / "kernels_of_mine.py").write_text(code)
        (information / "METADATA").write_text("Metadata-Version: 2.1\nName: kernels-of-mine\nVersion: 1.0\n")
        sha256 = base64.urlsafe_b64encode(hashlib.sha256(code.encode()).digest()).rstrip(b"=").decode()
        (information / "RECORD").write_text(f"kernels_of_mine.py,sha256={sha256},{len(code)}\n")
        if not from_index:
            (information / "direct_url.json").write_text('{"url": "file:///of/mine", "dir_info": {}}')
        library_files.of_no_index.cache_clear()
        monkeypatch.delitem(sys.modules, "kernels_of_mine", raising=False)

    return install


@pytest.mark.parametrize("from_index", [False, True])
def test_a_package_that_is_installed_from_a_folder_is_its_files(
    digest: Digest, installed: Callable[..., None], from_index: bool
) -> None:
    """A version of an index is always the same."""

    def of(scale: int) -> str:
        installed(f"SCALE = {scale}\n", from_index=from_index)
        return digest(own="import kernels_of_mine\nTABLE = CALLED = register = None")

    assert of(1) == of(1)
    assert (of(1) == of(2)) == from_index


def test_a_tensor_of_a_layout_that_has_no_dense_form_has_no_text() -> None:
    assert code_values.plain(torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged)) == ""


TENSORS: dict[str, Callable[[int], Any]] = {
    "one value of a column": lambda number: torch.full((1, 2), number)[:, 0],
    "a negative view": lambda number: torch.full((2,), number * 1j).conj().imag,
    "a sparse one": lambda number: (torch.eye(2) * number).to_sparse(),
}


@pytest.mark.parametrize("kind", TENSORS)
def test_tensors_that_lie_otherwise_in_memory_are_told_apart(kind: str) -> None:
    made = TENSORS[kind]
    assert code_values.plain(made(3)) == code_values.plain(made(3)) != code_values.plain(made(4))
