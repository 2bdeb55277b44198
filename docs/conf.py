"""How Sphinx builds the documentation: `make docs`."""

from __future__ import annotations

import html
import sys
from pathlib import Path
from typing import Any

import torch

from trtgate.common.version import VERSION
from trtgate.suite import compiled_elsewhere

DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS / "_sphinx"), str(DOCS.parent / "tools")]

project = "trtgate"
author = "the developers of trtgate"
version = release = VERSION
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_llm.txt",
    "generated_pages",
]
exclude_patterns = ["_build", "_sphinx", "_examples"]
source_suffix = {".md": "markdown"}


default_role = "literal"

html_theme = "furo"
html_title = "trtgate"
html_static_path = ["_static"]
html_extra_path = ["_examples"]
html_css_files = ["trtgate.css"]
html_show_sourcelink = False
html_copy_source = False

llms_txt_suppress_unknown_node_warnings = ["abbreviation"]
llms_txt_nested_enabled = False  # an index for each folder too takes a fifth of a build
llms_txt_exclude = ["decisions/0*"]  # they are in decisions/index.md, and keep their Markdown
llms_txt_description = (
    "A performance gate for PyTorch models that are compiled with Torch-TensorRT: a pytest plugin and a command line."
)

myst_enable_extensions = ["attrs_inline", "colon_fence", "deflist"]
myst_heading_anchors = 4

autodoc_member_order = "bysource"
autodoc_typehints = "description"
compiled_elsewhere.torch = torch  # type: ignore[attr-defined] # it imports torch for types alone, and autodoc asks


def setup(app: Any) -> None:
    """Make the example reports, and keep decisions out of every page's navigation: they cost a third of a build."""
    reports = DOCS / "_examples" / "examples"
    reports.mkdir(parents=True, exist_ok=True)

    def make_reports(app: Any) -> None:
        if app.builder.name == "html":  # the Markdown of the pages is built by a process of its own
            import examples

            examples.make(reports)

    def is_read(app: Any, _doctree: Any) -> None:
        if app.env.docname.startswith("decisions/0"):
            app.env.metadata[app.env.docname]["orphan"] = "True"

    def unescape_index(app: Any, error: Exception | None) -> None:
        index = Path(app.outdir) / "llms.txt"
        if error is None and index.exists():  # the extension escapes it as HTML, and it is read as text
            index.write_text(html.unescape(index.read_text()))

    app.connect("builder-inited", make_reports)
    app.connect("doctree-read", is_read)
    app.connect("build-finished", unescape_index, priority=900)  # the extension's own is at 101


linkcheck_ignore = [r"https?://(localhost|127\.0\.0\.1).*"]
linkcheck_timeout = 20
