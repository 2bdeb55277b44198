"""Whether a Ray cluster's head still answers: without one nothing can be asked of its nodes for long."""

from __future__ import annotations

import socket
import threading
import time

from ..common.errors import TrtgateError

LOOK_S, CONNECT_S = 2.0, 5.0
GONE_S = 25.0
"""How long a head may be away: one that is started again, with what it knew, is there by then."""


class HeadWatch:
    """Looks every few seconds whether somebody listens at the head's address HOST:PORT, until `close`."""

    def __init__(self, address: str, *, look_s: float = LOOK_S, gone_s: float = GONE_S) -> None:
        self._address = address
        self._look_s, self._gone_s = look_s, gone_s
        self._end = threading.Event()
        self.gone = ""
        """Why the head is lost; empty while it is not."""
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        heard = time.monotonic()
        while not self._end.wait(self._look_s):
            if self._answers():
                heard = time.monotonic()
            elif time.monotonic() - heard >= self._gone_s:
                self.gone = f"the head of the Ray cluster at {self._address} is gone"
                return

    def _answers(self) -> bool:
        host, _, port = self._address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S).close()
        except OSError:
            return False
        return True

    def check(self) -> None:
        """Raise TrtgateError where the head is lost."""
        if self.gone:
            raise TrtgateError(self.gone)

    def close(self) -> None:
        """Look no more."""
        self._end.set()
