"""The live line on a terminal leaves alone what pytest wrote."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import pytest

from trtgate.pytest_plugin import shown_steps


class Terminal:
    """What a run needs of pytest's reporter, on a terminal."""

    isatty = True

    def __init__(self) -> None:
        self.out = io.StringIO()
        self.out.write("suite.py .s")
        self._ended = False

    def write(self, text: str, **_: object) -> None:
        self.out.write(text)

    def write_line(self, text: str) -> None:
        self.out.write(f"{text}\n")

    def ensure_newline(self) -> None:
        if not self._ended:
            self.out.write("\n")
        self._ended = True


class Ticking:
    """Shows each step at once, as time would."""

    def __init__(self, _write_line: Any, overwrite: Any, _whole: Any) -> None:
        self._overwrite = overwrite

    def step(self, text: str) -> None:
        self._overwrite("")
        self._overwrite(text)

    def done(self) -> None:
        self._overwrite("")


@pytest.mark.parametrize(
    ("steps", "wanted"),
    [((), "suite.py .s"), (("build", "time"), "suite.py .s\n\r\x1b[Ka: build\r\x1b[K\r\x1b[Ka: time\r\x1b[K")],
)
def test_what_pytest_wrote_stays(monkeypatch: pytest.MonkeyPatch, steps: Any, wanted: str) -> None:
    terminal = Terminal()
    plugins = {"terminalreporter": terminal, "capturemanager": None}
    config: Any = SimpleNamespace(
        pluginmanager=SimpleNamespace(get_plugin=plugins.get), option=SimpleNamespace(verbose=0)
    )
    monkeypatch.setattr(shown_steps, "ProgressLine", Ticking)
    with shown_steps.shown_steps(config, "a", str) as step:
        for text in steps:
            step(text)
    assert terminal.out.getvalue() == wanted
