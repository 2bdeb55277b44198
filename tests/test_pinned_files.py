"""Which imported files count as the code under test: those of the checkout, by whatever link they were imported."""

from __future__ import annotations

import shutil
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


@pytest.mark.parametrize(
    ("installed_as", "pinned"),
    [("a link", True), ("a copy", False), ("several folders", True), ("a copy and the checkout", True)],
)
def test_of_a_package_that_is_installed_its_own_place_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed_as: str, pinned: bool
) -> None:
    """As a link to the checkout, as a copy, as a namespace, or as a copy whose path the checkout extends."""
    checkout, site = tmp_path / "checkout", tmp_path / "checkout" / ".venv" / "site-packages"
    (checkout / "shop").mkdir(parents=True)
    site.mkdir(parents=True)
    for name in ("__init__.py", "net.py"):
        (checkout / "shop" / name).write_text(name)
    if installed_as == "a link":
        (site / "shop").symlink_to(checkout / "shop")
    elif installed_as.startswith("a copy"):
        shutil.copytree(checkout / "shop", site / "shop")
    folder = checkout if installed_as in ("several folders", "a copy and the checkout") else site
    package, module = ModuleType("shop"), ModuleType("shop.net")
    package.__file__ = None if installed_as == "several folders" else str(site / "shop" / "__init__.py")
    if installed_as == "a copy and the checkout":  # pkgutil.extend_path
        package.__path__ = [str(site / "shop"), str(checkout / "shop")]
    module.__file__ = str(folder / "shop" / "net.py")
    monkeypatch.setitem(sys.modules, "shop", package)
    monkeypatch.setitem(sys.modules, "shop.net", module)
    assert (str(checkout / "shop" / "net.py") in pinned_files.digests(str(checkout))) is pinned
