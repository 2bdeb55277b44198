"""Which imported files count as the code under test: those of the checkout, by whatever link they were imported."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

from trtgate.suite import pinned_files


@pytest.mark.parametrize(
    ("imported", "pinned"),
    [
        ("checkout/mine.py", True),
        ("checkout/package/../mine.py", True),
        ("link/mine.py", True),
        ("elsewhere/linked.py", True),
        ("elsewhere/other.py", False),
        ("checkout-too/mine.py", False),
        ("checkout/site-packages/mine.py", False),
        ("link-to-installed/mine.py", False),
        ("checkout/out.py", False),
        ("checkout/gone.py", False),
        ("checkout/mine.so", False),
    ],
)
def test_the_files_of_the_checkout_are_pinned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, imported: str, pinned: bool
) -> None:
    checkout, elsewhere = tmp_path / "checkout", tmp_path / "elsewhere"
    for folder in (checkout / "package", checkout / "site-packages", elsewhere, tmp_path / "checkout-too"):
        folder.mkdir(parents=True)
        for name in ("mine.py", "other.py", "mine.so"):
            (folder / name).write_text(str(folder))
    (checkout / "mine.py").write_text("mine")
    (checkout / "mine.so").touch()
    (tmp_path / "link").symlink_to(checkout)
    (tmp_path / "link-to-installed").symlink_to(checkout / "site-packages")
    (elsewhere / "linked.py").symlink_to(checkout / "mine.py")
    (checkout / "out.py").symlink_to(elsewhere / "other.py")
    module = ModuleType("mine_or_not")
    module.__file__ = str(tmp_path / imported)
    monkeypatch.setitem(sys.modules, "mine_or_not", module)
    for root in (checkout, tmp_path / "link"):
        found = pinned_files.digests(str(root))
        assert [Path(path) for path in found] == [(checkout / "mine.py").resolve()] * pinned
        assert pinned_files.changed(found) == []
    if pinned:
        (checkout / "mine.py").write_text("another")
        assert pinned_files.changed(found) == list(found)
