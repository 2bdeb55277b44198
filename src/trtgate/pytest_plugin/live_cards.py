"""What all devices of a cluster are at, in one live table; elsewhere than on a terminal in lines, as on one machine."""

from __future__ import annotations

import contextlib
import io
import os
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from ..common.steps import OnStep
from ..report import card_table
from ..report.card_table import CardRow, Progress
from .shown_steps import shown_steps, uncaptured

if TYPE_CHECKING:
    from ..gate.card_jobs import CardState
    from ..gate.gpu_queue import GpuQueue

PROGRESS_VARIABLE = "TRTGATE_CLUSTER_PROGRESS"
"""Names a file that a run of one kind of accelerator writes for the run that has started it."""
REFRESH_S = 1.0


def rows_of(queue: GpuQueue, names: Mapping[str, tuple[str, str]]) -> list[CardRow]:
    """Return what each card of a queue is at; `names` are its host and device."""
    now = time.monotonic()
    return [_row(*names[name], state, now) for name, state in list(queue.cards.items())]


def _row(host: str, device: str, state: CardState, now: float) -> CardRow:
    """Return the row of a card, with that of its cases that has been at its step longest."""
    steps = sorted(state.steps.copy().items(), key=lambda one: one[1][1])
    if not steps:
        return CardRow(host=host, device=device, done=state.done, lost=state.lost)
    case_id, (text, since) = steps[0]
    more = f" and {len(steps) - 1} more" if len(steps) > 1 else ""
    return CardRow(
        host=host, device=device, case_id=f"{case_id}{more}", text=text, seconds=now - since, done=state.done,
        lost=state.lost,
    )  # fmt: skip


@contextmanager
def shown(config: pytest.Config, who: str, progress: Callable[[], Progress]) -> Generator[OnStep]:
    """Within: the table is shown on a terminal; elsewhere the steps are, by `who`."""
    reporter: Any = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or config.option.verbose < 0 or not reporter.isatty:
        with shown_steps(config, who, lambda: "") as step:
            yield step
        return
    reporter.ensure_newline()
    with live_table(_Terminal(config, reporter), lambda: [progress()]):
        yield lambda _text: None


@contextmanager
def live_table(file: Any, progress: Callable[[], Sequence[Progress]]) -> Generator[None]:
    """Within: the tables are shown, and made anew every second."""
    from rich.console import Console, Group
    from rich.live import Live

    def render() -> Group:
        return Group(*(card_table.table(one) for one in progress()))

    console = Console(file=file, force_terminal=True)
    with Live(
        console=console, get_renderable=render, transient=True, refresh_per_second=1 / REFRESH_S,
        redirect_stdout=False, redirect_stderr=False,
    ):  # fmt: skip
        yield


class _Terminal(io.StringIO):
    """pytest's terminal, past its capturing."""

    def __init__(self, config: pytest.Config, reporter: Any) -> None:
        super().__init__()
        self._config, self._reporter = config, reporter

    def write(self, text: str) -> int:
        with uncaptured(self._config):
            self._reporter.write(text, flush=True)
        return len(text)

    def isatty(self) -> bool:
        return True


class ProgressFile:
    """Writes how far a run is for the run that has started it, where one has."""

    def __init__(self, progress: Callable[[], Progress]) -> None:
        self._path = os.environ.get(PROGRESS_VARIABLE)
        self._progress = progress
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._write, daemon=True)
        if self._path:
            self._thread.start()

    def _write(self) -> None:
        while not self._end.wait(REFRESH_S):
            with contextlib.suppress(OSError):  # it is only shown
                write(Path(str(self._path)), self._progress())

    def close(self) -> None:
        """Write no more."""
        self._end.set()
        if self._thread.is_alive():
            self._thread.join()


def write(path: Path, progress: Progress) -> None:
    """Write such a file, whole. Raises OSError."""
    part = path.with_suffix(".part")
    part.write_bytes(msgspec.json.encode(progress))
    part.replace(path)


def read(path: Path) -> Progress | None:
    """Return what such a file says; None before it says anything."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Progress)
    except (OSError, msgspec.DecodeError):
        return None
