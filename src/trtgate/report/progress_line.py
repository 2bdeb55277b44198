"""What is going on right now: one live line on a terminal, plain lines for slow steps elsewhere."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Sequence

SHOWN_AFTER_S = 5.0
"""Steps shorter than this leave no line where there is no terminal."""
REPEAT_S = 60.0


def how_far(done: Sequence[float | None], to_do: Sequence[float | None], elapsed_s: float) -> str:
    """Return which case is worked on and how long those that are left will take.

    Of each case that is done, and of each that is not, what it took when it was recorded, seconds; None where that is
    not known. They take now what those that are done took in `elapsed_s`, compared with what these took then; a case of
    which nothing is known is as long as a typical other.
    """
    total = len(done) + len(to_do)
    number = f"{min(len(done) + 1, total)} of {total}"
    known = [one for one in (*done, *to_do) if one]
    if not known and not done:
        return f"[{number}] "
    typical_s = statistics.median(known) if known else 1.0
    done_s, left_s = (sum(typical_s if one is None else one for one in some) for some in (done, to_do))
    left_s *= elapsed_s / done_s if done_s else 1.0
    left = f"{left_s / 60:.0f} min" if left_s >= 90 else f"{left_s:.0f} s"
    return f"[{number}, about {left} left] "


class ProgressLine:
    """Shows the current step of a case with the time it has taken.

    Parameters
    ----------
    write_line
        Writes a line of its own, past any capturing.
    overwrite
        Replaces the last line of the terminal; None where there is no terminal.
    whole
        Says how far the whole run is, for the live line.

    """

    def __init__(
        self,
        write_line: Callable[[str], None],
        overwrite: Callable[[str], None] | None,
        whole: Callable[[], str] = lambda: "",
    ) -> None:
        self._write_line = write_line
        self._overwrite = overwrite
        self._whole = whole
        self._text = ""
        self._since = 0.0
        self._lines = 0
        self._stop = threading.Event()
        self._guard = threading.Lock()
        self._thread: threading.Thread | None = None

    def step(self, text: str) -> None:
        """Begin a step; the one before it is done."""
        with self._guard:
            self._finish_step()
            self._text, self._since, self._lines = text, time.monotonic(), 0
        if self._thread is None:
            self._stop.clear()
            self._thread = threading.Thread(target=self._tick, daemon=True)
            self._thread.start()

    def done(self) -> None:
        """End the last step and clear the live line."""
        if self._thread is None:
            return
        self._stop.set()
        self._thread.join()
        self._thread = None
        with self._guard:
            self._finish_step()
            self._text = ""

    def _finish_step(self) -> None:
        elapsed = time.monotonic() - self._since
        if self._overwrite is not None:
            self._overwrite("")
        elif self._text and elapsed >= SHOWN_AFTER_S:
            self._write_line(f"trtgate: {self._text}: {elapsed:.0f} s")

    def _tick(self) -> None:
        while not self._stop.wait(0.5):
            with self._guard:
                elapsed = time.monotonic() - self._since
                if self._overwrite is not None and elapsed >= 1:
                    self._overwrite(f"  {self._whole()}{self._text} … {elapsed:.0f} s")
                elif self._overwrite is None and elapsed >= REPEAT_S * (self._lines + 1):
                    self._lines += 1
                    self._write_line(f"trtgate: {self._text} … {elapsed:.0f} s so far")
