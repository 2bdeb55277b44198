"""An actor that has a device of a Ray cluster's node, seen from the run: asked, waited for, and lost."""

from __future__ import annotations

import contextlib
import re
import time
from typing import Any

import msgspec

from ..common.errors import one_line
from ..common.steps import OnStep
from ..gate.card_jobs import CardLostError
from .ray_messages import Facts, Reply

POLL_S, CLOSE_S = 0.5, 5.0
ANSWER_S, WAKE_S = 60.0, 120.0
"""A node that says nothing at all for so long is lost; one whose actor is about to start may take longer."""
ERROR_LINE = re.compile(r"[A-Za-z_.]*(Error|Exception|Exit|Interrupt)\b: ")
"""How the last line of a traceback begins, in which Ray tells what a node raised."""
IMPORT_FAILED = ("ModuleNotFoundError", "ImportError")


class CardHandle:
    """An actor that has a device, seen from the run; `pulse` asks it what it is at."""

    def __init__(self, ray: Any, actor: Any, facts: Facts) -> None:
        self.facts = facts
        self.steps: dict[str, str] = {}
        """Case → the step that the node is at, as far as the run knows."""
        self._under_way: set[Any] = set()
        """Ray's references to what was not answered yet."""
        self._ray, self._actor = ray, actor
        self._asked: Any = None
        self._closing: Any = None
        self._heard = time.monotonic()
        self._lost = ""

    @property
    def busy(self) -> bool:
        """Whether the node is at work, as far as the run knows."""
        return bool(self._under_way)

    @property
    def rests(self) -> bool:
        """Whether it has no actor for now."""
        return self._actor is None

    def rest(self) -> None:
        """End the actor for now: what it holds of its node is free for others."""
        self.kill()
        self._actor = self._asked = self._closing = None

    def wake(self, actor: Any) -> None:
        """Have another actor on the same device."""
        self._heard = time.monotonic() + WAKE_S - ANSWER_S
        self._actor = actor

    def lose(self, reason: str) -> None:
        """Have it lost, unless it is already."""
        self._lost = self._lost or reason

    def pulse(self) -> None:
        """Take the answer to the last question, if there is one, and ask again; waits for nothing."""
        if self._actor is None or self._lost:
            return
        if self._asked is not None:
            ready, _ = self._ray.wait([self._asked], timeout=0)
            if not ready:
                return
            try:
                content = self._ray.get(self._asked, timeout=ANSWER_S)
                self.steps = msgspec.json.decode(content, type=dict[str, str])
                self._heard = time.monotonic()
            except Exception as error:
                self.lose(why_lost(error))
                return
        self._asked = self._actor.pulse.remote()

    def check(self) -> None:
        """Raise CardLostError where the node is gone, or says nothing any more."""
        silent_s = time.monotonic() - self._heard
        if not self._lost and silent_s > ANSWER_S:
            self.lose(f"no answer for {silent_s:.0f} s")
        if self._lost:
            self.kill()
            raise CardLostError(f"{self.facts.name} is lost: {self._lost}")

    def ask(self, method: str, *given: bytes) -> Any:
        """Ask the actor, and return Ray's reference to what it will answer."""
        try:
            return getattr(self._actor, method).remote(*given)
        except Exception as error:
            raise CardLostError(f"{self.facts.name} is lost: {why_lost(error)}") from error

    def answer(self, reference: Any, step: OnStep, case_id: str = "") -> msgspec.Raw:
        """Wait for an answer, and tell a case's steps meanwhile. Raises as the node did, or CardLostError."""
        told = ""
        self._under_way.add(reference)
        while not self._ray.wait([reference], timeout=POLL_S)[0]:
            self.check()
            told = self.steps.get(case_id, "") or told
            step(told or "waiting for the node")
        try:
            content = self._ray.get(reference, timeout=ANSWER_S)
        except Exception as error:
            self.lose(why_lost(error))
            self.check()
            raise
        self._under_way.discard(reference)
        return msgspec.json.decode(content, type=Reply).checked()

    def close(self) -> None:
        """Let the node clean up, if it is not at work, and end the actor."""
        self.begin_to_close()
        if self._closing is not None and not self._lost:
            with contextlib.suppress(Exception):  # then it is ended all the same
                self._ray.get(self._closing, timeout=CLOSE_S)
        self.kill()

    def begin_to_close(self) -> None:
        """Let the node clean up, if it is not at work, and wait for nothing: many nodes do so at once."""
        if self._closing is None and self._actor is not None and not (self.busy or self._lost):
            with contextlib.suppress(Exception):
                self._closing = self._actor.close.remote()

    def kill(self) -> None:
        """End the actor, and with it its workers."""
        try:
            if self._actor is not None:
                self._ray.kill(self._actor, no_restart=True)
        except Exception:  # it is gone, or the cluster is
            return


def why_lost(error: BaseException) -> str:
    """Return why Ray has no answer, in a line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = next((line[:300] for line in reversed(lines) if ERROR_LINE.match(line)), "")
    known = {
        "ActorDiedError": "its actor died, or its node",
        "ActorUnavailableError": "its node does not answer",
        "NodeDiedError": "its node died",
        "OutOfMemoryError": "its node ran out of memory",
        "GetTimeoutError": "it did not answer in time",
    }
    name = type(error).__name__
    if name in known and not (name == "ActorDiedError" and said.startswith(IMPORT_FAILED)):
        return known[name]
    return said or one_line(error)
