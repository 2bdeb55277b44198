"""An actor of a device in this process, driven as over a cluster: threads take the place of Ray."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from trtgate.fleet.ray_card import Card


class Method:
    """A method of an actor."""

    def __init__(self, pool: ThreadPoolExecutor, work: Callable[..., Any]) -> None:
        self._pool, self._work = pool, work

    def remote(self, *given: Any) -> Future[Any]:
        """Begin a call."""
        return self._pool.submit(self._work, *given)


class Actor:
    """What Ray's handle of an actor is to a run."""

    def __init__(self, card: Card, pool: ThreadPoolExecutor) -> None:
        self._card, self._pool = card, pool

    def __getattr__(self, name: str) -> Method:
        return Method(self._pool, getattr(self._card, name))


class LoopbackRay:
    """The part of the module `ray` that a `CardHandle` uses."""

    def __init__(self) -> None:
        self.pool = ThreadPoolExecutor(8)
        self.killed: list[Any] = []

    def wait(self, references: Sequence[Future[Any]], *, timeout: float) -> tuple[list[Any], list[Any]]:
        """Wait for calls."""
        done, left = futures.wait(references, timeout)
        return list(done), list(left)

    def get(self, reference: Future[Any], *, timeout: float) -> Any:
        """Return what a call returned."""
        return reference.result(timeout)

    def kill(self, actor: Any, *, no_restart: bool) -> None:
        """Remember that an actor was ended."""
        assert no_restart
        self.killed.append(actor)
