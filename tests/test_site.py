"""The documentation as a site: it builds without a warning, and is read on a desk and on a phone, by day and night."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from tests.browsers import chromium
from trtgate.plugin import MARKERS

pytest.importorskip("sphinx", reason="needs Sphinx: pip install 'trtgate[docs]'")

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("Tutorial", "How-to", "Reference", "Explanation")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, module_forked: None) -> Path:
    """Built once: of several processes of -n one runs all of these tests."""
    return made(tmp_path_factory.mktemp("site"))


def made(folder: Path) -> Path:
    once = ["-D", "llms_txt_build_parallel=0"]  # the pages in Markdown are made of what was read for the others
    options = ["-W", "--keep-going", "-q", *once, "-d", f"{folder}.doctrees"]
    command = [sys.executable, "-m", "sphinx", *options, "docs", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, "WARNING" in done.stderr) == (0, False), done.stderr
    return folder


class Links(HTMLParser):
    """Collects where a page leads, and what can be led to in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.to: set[str] = set()
        self.ids: set[str] = set()
        self.feed(text)

    def handle_starttag(self, _tag: str, attributes: list[tuple[str, str | None]]) -> None:
        for name, value in attributes:
            if name in ("href", "src") and value:
                self.to.add(value)
            if name == "id" and value:
                self.ids.add(value)


def test_no_link_within_the_site_leads_nowhere(site: Path) -> None:
    pages = {path: Links(path.read_text()) for path in site.rglob("*.html") if "_modules" not in path.parts}
    broken = []
    for page, links in pages.items():
        for link in links.to:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or link == "#":
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            if not target.exists() or (parts.fragment and target in pages and parts.fragment not in pages[target].ids):
                broken.append((page.name, link))
    assert broken == []


def test_all_parts_are_in_the_contents_of_each_page(site: Path) -> None:
    text = (site / "verdicts.html").read_text()
    assert [part for part in PARTS if f'<span class="caption-text">{part}</span>' not in text] == []


def test_every_option_key_and_variable_has_a_place_in_the_reference(site: Path) -> None:
    pages = ("generated/cli", "generated/options", "environment")
    text = re.sub(r"<[^>]+>", "", "".join((site / "reference" / f"{name}.html").read_text() for name in pages))
    source = "".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
    patterns = (r'option\(\s*"(--trtgate-[a-z-]+)"', r'addini\(\s*"(trtgate_\w+)"', r"\b(TRTGATE_[A-Z_]+)\b")
    for pattern in patterns:
        names = set(re.findall(pattern, source))
        assert names
        assert sorted(name for name in names if name not in text) == []


def test_every_marker_is_beside_the_options(site: Path) -> None:
    text = (site / "reference" / "generated" / "options.md").read_text()
    assert len(MARKERS) > 4
    assert [name for name in MARKERS if f"`{name}`" not in text] == []


def test_the_list_of_commands_has_whole_sentences(site: Path) -> None:
    text = (site / "reference" / "generated" / "cli.html").read_text()
    (listed,) = re.findall(r"Commands</strong>:</p>\s*<ul.*?</ul>", text, re.DOTALL)[:1]
    said = re.findall(r"</span></code>: (.*?)</p>", listed)
    assert len(said) > 15
    assert [one for one in said if not one.endswith(".") or "…" in one] == []


def test_agents_read_the_same_pages_in_markdown(site: Path) -> None:
    index = (site / "llms.txt").read_text()
    assert not re.search(r"&#?\w+;", index)
    listed = re.findall(r"\]\(([^)]+\.md)\)", index)
    assert {"verdicts", "reference/api"} <= {name.removesuffix(".md").removesuffix(".html") for name in listed}
    assert all((site / name).is_file() for name in listed if "://" not in name)
    assert "trtgate.assert_supported" in (site / "reference" / "api.md").read_text()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    yield from chromium()


OWN = (
    "index", "tutorial", "examples", "gpu-states", "verdicts", "how-to/profile", "reference/verdicts",
    "reference/files", "reference/api", "reference/generated/options", "reference/generated/metrics",
)  # fmt: skip


def test_pages_fit_a_desk_and_a_phone_by_day_and_by_night(site: Path, browser: Any) -> None:
    """Each page is loaded once, and then seen in all four ways, first in that of the page before it."""
    page = browser.new_page()
    ways = [(1280, "light"), (1280, "dark"), (400, "dark"), (400, "light")]
    said: list[str] = []
    page.on("pageerror", lambda error: said.append(str(error)))
    for name in (*OWN, "examples/regression", "examples/sweep", "examples/fleet"):
        page.goto((site / f"{name}.html").as_uri())
        for width, scheme in ways:
            page.set_viewport_size({"width": width, "height": 900})
            page.emulate_media(color_scheme=scheme)
            assert page.evaluate("document.documentElement.scrollWidth") <= width, name
            colours = re.findall(r"\d+", page.evaluate("getComputedStyle(document.body).backgroundColor"))
            assert (sum(map(int, colours[:3])) < 200) == (scheme == "dark"), name
            if name in OWN and scheme == "light":
                contents = page.locator(".sidebar-tree").first.bounding_box()
                assert (contents["x"] >= 0) == (width > 1000), name  # on a phone a button brings it in
        ways.reverse()  # charts are drawn anew for another width
    page.close()
    assert said == []
