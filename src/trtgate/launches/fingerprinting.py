"""What the cases of one or two copies of the code are: worker processes export them, all sides at once."""

from __future__ import annotations

import queue
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

from ..common.accelerator import Accelerator
from ..common.errors import TrtgateError
from ..common.steps import OnStep
from ..records.program_part import Fingerprint
from ..suite.cases import Case
from . import messages
from .comparison_side import Side
from .worker_handle import LaunchError, WorkerHandle
from .worker_pool import WorkerPool

NO_GPU = Accelerator(kind="cpu", name="any")
"""What is exported is exported on the CPU, also where there is a GPU."""

Groups = Sequence[Sequence[str]]
"""Ids of cases, those together that one call of a factory makes."""


def groups_of(cases: Iterable[Case]) -> list[list[str]]:
    """Return the ids of cases, those together that one call of a factory makes."""
    found: dict[str, list[str]] = {}
    for case in cases:
        made = f"{case.model.name} {sorted(case.settings.optimum.items())} {sorted(case.settings.sizes.items())}"
        found.setdefault(made, []).append(case.id)
    return list(found.values())


class Fingerprinting:
    """Workers of some sides, `workers` each, which are started at once; all of them end with it."""

    def __init__(self, sides: Sequence[Side], folder: Path, *, workers: int, timeout_s: float) -> None:
        self._pool = WorkerPool(NO_GPU, folder, timeout_s=timeout_s)
        self._sides = {side.name: side for side in sides}
        self._idle: dict[str, queue.SimpleQueue[WorkerHandle]] = {}
        self._workers = workers
        for name in self._sides:
            self._idle[name] = queue.SimpleQueue()
            for number in range(workers):
                self._idle[name].put(self._started(name, number))

    def __enter__(self) -> Fingerprinting:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.stop()
        self._pool.close()

    def _started(self, side: str, number: int) -> WorkerHandle:
        return self._pool.start(
            self._sides[side], f"fingerprint-{side}-{number}", number=number, only_builds=True
        )  # fmt: skip

    def cases(self, side: str) -> list[str]:
        """Return the ids of a side's cases. Raises TrtgateError where it can't import its suite."""
        worker = self._idle[side].get()
        try:
            return worker.greet()
        except LaunchError as error:
            raise TrtgateError(f"{side}: {error}") from error
        finally:
            self._idle[side].put(worker)

    def ask(
        self, wanted: Mapping[str, Groups], step: OnStep, *, fresh: bool = False
    ) -> dict[str, dict[str, Fingerprint]]:
        """Return side → case → what it is, of groups of each side; with `fresh` no two cases share what was made.

        A process that dies is a case that can't be fingerprinted. Raises TrtgateError as `cases`.
        """
        total = sum(len(group) for groups in wanted.values() for group in groups)
        found: dict[str, dict[str, Fingerprint]] = {side: {} for side in wanted}

        def asked(side: str, group: Sequence[str]) -> None:
            worker = self._idle[side].get()
            try:
                for case_id in group:
                    request = messages.FingerprintCase(case_id=case_id, fresh=fresh, last=case_id == group[-1])
                    worker, found[side][case_id] = self._of(side, worker, request)
                    step(f"{sum(map(len, found.values()))} of {total}: {case_id}")
            finally:
                self._idle[side].put(worker)

        tasks = [(side, group) for groups in _in_turn(wanted) for side, group in groups]
        with ThreadPoolExecutor(max_workers=max(1, self._workers * len(wanted))) as executor:
            try:
                list(executor.map(asked, *zip(*tasks, strict=True)))
            except BaseException:
                self._pool.stop()  # the threads notice
                executor.shutdown(cancel_futures=True)
                raise
        return found

    def _of(
        self, side: str, worker: WorkerHandle, request: messages.FingerprintCase
    ) -> tuple[WorkerHandle, Fingerprint]:
        """Return who answers next, and what a case is."""
        try:
            worker.greet()
        except LaunchError as error:
            raise TrtgateError(f"{side}: {error}") from error
        case_id = request.case_id
        try:
            return worker, worker.ask(request, messages.FingerprintReply, case_id).fingerprint
        except LaunchError as error:
            if self._pool.stopped:
                raise
            self._pool.end(worker)
            return self._started(side, worker.number), Fingerprint(problem=str(error).removeprefix(f"{case_id}: "))


def _in_turn(wanted: Mapping[str, Groups]) -> list[list[tuple[str, Sequence[str]]]]:
    """Return groups of all sides in turns, so that no side waits for the other."""
    most = max(map(len, wanted.values()), default=0)
    return [
        [(side, groups[number]) for side, groups in wanted.items() if number < len(groups)] for number in range(most)
    ]
