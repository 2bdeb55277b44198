"""A launch: `python -m trtgate.worker`, told over a pipe what to load or build, and when to measure.

It sleeps in a read when it is not its turn, and dies with the process that started it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Callable
from typing import IO, Any

from ..common import garbage
from ..common.errors import PROBLEMS, TrtgateError, is_fault, one_line, sentence_of, told_with_fault
from . import load_messages, load_worker, messages
from .build_turn import BuildTurn
from .worker_state import Worker

PR_SET_PDEATHSIG = 1


ANSWERS: dict[type, Callable[[Worker, Any], messages.Reply]] = {
    messages.BuildCase: lambda worker, request: worker.build(request),
    messages.Load: lambda worker, request: messages.LoadedReply(worker.load(request)),
    messages.StartCold: lambda worker, request: messages.ColdReply(worker.start_cold(request)),
    load_messages.BeginLoad: load_worker.begin,
    load_messages.EndLoad: load_worker.end,
    load_messages.MeasureColdL2: load_worker.measure_cold_l2,
    load_messages.ReadMemory: load_worker.read_memory,
    messages.RecordProfile: lambda worker, request: worker.profile(request),
    messages.DryRun: lambda worker, request: messages.DryRunReply(worker.dry_run(request)),
    messages.FingerprintCase: lambda worker, request: messages.FingerprintReply(worker.fingerprint(request)),
    messages.Delay: lambda worker, request: worker.delay(request),
    messages.Measure: lambda worker, request: messages.TurnReply(worker.measure(request)),
    messages.Unload: lambda worker, request: messages.UnloadedReply(
        gpu_memory_bytes=worker.unloaded_bytes(measure=request.measure_memory)
    ),
}


def serve(requests: IO[bytes], replies: IO[bytes]) -> None:
    """Answer requests until the pipe closes. A failure is answered too; then the process ends.

    A worker that could not build a case, or be told its coverage, and whose device still works, goes on.
    """

    def say(reply: messages.Reply) -> None:
        replies.write(messages.encode(reply))
        replies.flush()

    def wait_for_turn() -> float:
        asked = time.perf_counter()
        say(messages.Prepared())
        assert isinstance(messages.decode_request(requests.readline()), messages.GoOn)
        return time.perf_counter() - asked

    turn = BuildTurn(wait_for_turn, lambda: say(messages.Compiled()))
    worker: Worker | None = None
    for line in requests:
        reply = _answer(worker, line, turn)
        if isinstance(reply, Worker):
            worker, reply = reply, messages.Greeting(reply.cases())
        say(reply)
        if isinstance(reply, messages.Failed) and reply.ended:
            return


def _answer(worker: Worker | None, line: bytes, turn: BuildTurn) -> messages.Reply | Worker:
    request: messages.Request | None = None
    try:
        request = messages.decode_request(line)
        if isinstance(request, messages.Hello):
            with garbage.later():  # what it imports is none
                return Worker(request, turn)
        if worker is None:
            raise TrtgateError("a worker's first message must be Hello")
        return ANSWERS[type(request)](worker, request)
    except BaseException as error:  # pytest.skip in a user's code is no Exception
        kinds = (messages.BuildCase, messages.DryRun)
        goes_on = worker is not None and isinstance(request, kinds) and worker.recovered()
        names_case = isinstance(error, TrtgateError) and isinstance(request, messages.BuildCase)
        return messages.Failed(_reason(error), names_case=names_case, fault=is_fault(error), ended=not goes_on)


def _reason(error: BaseException) -> str:
    import traceback

    traceback.print_exception(error)  # to the worker's log
    return told_with_fault(sentence_of(error) if isinstance(error, PROBLEMS) else one_line(error), error)


def _private_pipes() -> tuple[IO[bytes], IO[bytes]]:
    """Take stdin and stdout for the protocol; what libraries print goes to stderr, the log."""
    requests = os.fdopen(os.dup(0), "rb")
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    return requests, replies


def main() -> None:
    """Serve on stdin and stdout until they close."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the session's to handle; it ends its workers
    with contextlib.suppress(BrokenPipeError):
        serve(*_private_pipes())
