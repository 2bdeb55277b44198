"""Reference pages that are made from the code whenever the documentation is built: they can't fall behind it.

They lie in docs/reference/generated, which git ignores.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

if TYPE_CHECKING:
    from sphinx.application import Sphinx

FOLDER = Path(__file__).resolve().parent.parent / "reference" / "generated"


class Declared:
    """Takes what `pytest_options.add` declares, as pytest's parser and its group do."""

    def __init__(self) -> None:
        self.options: list[tuple[tuple[str, ...], dict[str, Any]]] = []
        self.keys: list[tuple[str, str, Any]] = []

    def getgroup(self, *_names: str) -> Declared:
        """Return what takes options: there is one group."""
        return self

    def addoption(self, *names: str, **attributes: Any) -> None:
        """Take an option."""
        self.options.append((names, attributes))

    def addini(self, name: str, said: str, **attributes: Any) -> None:
        """Take an ini key."""
        self.keys.append((name, said, attributes.get("default")))


def declared() -> Declared:
    """Return all options and ini keys of the pytest plugin."""
    from trtgate.pytest_plugin import pytest_options

    found = Declared()
    pytest_options.add(found)  # type: ignore[arg-type]
    return found


def pages() -> Mapping[str, str]:
    """Return the name of each page without its suffix, and its Markdown."""
    return {"cli": cli_page(), "options": options_page(), "metrics": metrics_page()}


def cli_page() -> str:
    """Return the page of the command line, as typer writes it."""
    from typer.cli import app as typers
    from typer.core import TyperCommand, TyperGroup

    def first_sentence(command: TyperCommand | TyperGroup, limit: int = 0) -> str:  # noqa: ARG001  - typer cuts it at 45 characters
        return re.split(r"\.?\n\n", inspect.cleandoc(command.help or ""))[0].replace("\n", " ").rstrip(".") + "."

    said = io.StringIO()
    with (
        contextlib.redirect_stdout(said),
        contextlib.suppress(SystemExit),
        mock.patch.object(TyperCommand, "get_short_help_str", first_sentence),
        mock.patch.object(TyperGroup, "get_short_help_str", first_sentence),
    ):
        typers(["trtgate.cli", "utils", "docs", "--name", "trtgate", "--title", "Command line"], prog_name="typer")
    if "## `trtgate" not in said.getvalue():
        raise RuntimeError(f"typer wrote no page of the command line: {said.getvalue()[:200]}")
    return said.getvalue()


def options_page() -> str:
    """Return the page of pytest's options, ini keys and markers."""
    from trtgate.plugin import MARKERS

    found = declared()
    lines = [
        "# Options, ini keys and markers of pytest", "",
        "`pytest --help` and `pytest --markers` show the same.", "", "## Options", "",
    ]  # fmt: skip
    for names, attributes in found.options:
        lines += _option(names, attributes)
    lines += ["## Ini keys", "", "| key | what it says | default |", "|---|---|---|"]
    lines += [
        f"| `{name}` | {_cell(said)} | {f'`{default}`' if default else 'none'} |" for name, said, default in found.keys
    ]
    lines += ["", "## Markers", "", "| marker | means |", "|---|---|"]
    lines += [f"| `{name}` | {_cell(said)} |" for name, said in MARKERS.items()]
    return "\n".join(lines) + "\n"


def _option(names: tuple[str, ...], attributes: dict[str, Any]) -> Iterator[str]:
    shown = attributes.get("metavar") or ""
    if not shown and attributes.get("choices"):
        shown = "|".join(map(str, attributes["choices"]))
    if isinstance(shown, tuple):
        shown = " ".join(shown)
    optional = f"[{shown}]" if attributes.get("nargs") == "?" else shown
    for name in names:
        yield f"({name.lstrip('-')})="
    yield f"### `{' '.join([', '.join(names), optional]).strip()}`"
    yield ""
    yield _cell(attributes.get("help") or "").replace("%%", "%")
    if attributes.get("action") == "append" and "may be repeated" not in attributes.get("help", ""):
        yield "May be repeated."
    yield ""


def metrics_page() -> str:
    """Return the page of what is measured and judged."""
    from trtgate.common.metrics import EXACT, METRICS, SAMPLED

    units = {"us": "µs", "s": "s", "bytes": "bytes", "us_each": "inferences a second", "bytes_a_call": "bytes a call"}
    lines = [
        "# Metrics and their limits", "",
        "A limit is the largest tolerated change for the worse. `--trtgate-limit`, the ini key `trtgate_limits`, and "
        "`limits=` of a model change it. How each is judged: [verdicts](../../verdicts.md).", "",
        "| name | metric | unit | limit | judged |", "|---|---|---|---|---|",
    ]  # fmt: skip
    for name, metric in METRICS.items():
        how = "exactly" if name in EXACT else "in every block" if name in SAMPLED else "with an error rate"
        limit = (
            f"{metric.limit:g} bytes a call"
            if metric.unit == "bytes_a_call"
            else f"{metric.limit:.2%}".replace(".00", "")
        )
        lines.append(f"| `{name}` | {metric.title} | {units.get(metric.unit, 'count or ratio')} | {limit} | {how} |")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", "\\|").strip()


def write() -> None:
    """Write the pages that differ: an unchanged one is not built again."""
    FOLDER.mkdir(exist_ok=True)
    made = {f"{name}.md": text for name, text in pages().items()}
    for old in FOLDER.glob("*.md"):
        if old.name not in made:
            old.unlink()
    for name, text in made.items():
        path = FOLDER / name
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


def setup(app: Sphinx) -> dict[str, bool]:
    """Write the pages before Sphinx looks for sources."""
    app.connect("config-inited", lambda _app, _config: write())
    return {"parallel_read_safe": True, "parallel_write_safe": True}


if __name__ == "__main__":
    sys.exit(write())
