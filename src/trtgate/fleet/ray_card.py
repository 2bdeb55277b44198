"""What runs on a node of a Ray cluster: an actor that has one device, and starts the ordinary workers there."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import socket
import sys
import threading
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ..common import accelerator, machine, user_folders
from ..common.accelerator import Accelerator
from ..common.errors import PROBLEMS, TrtgateError, sentence_of
from ..common.run_folder import RunFolder
from ..common.steps import OnStep
from ..common.time_limit import TimeLimit
from ..compiling import availability
from ..compiling.artifact_cache import CacheRequest, default_folder
from ..launches.prebuild import HOST_BYTES_EACH
from ..launches.session import NextCase
from ..suite.settings import FRONTENDS, Settings
from ..torch_trt import modelopt_package, releases
from . import ray_messages
from .ray_messages import Facts, Open, Suite, answered

if TYPE_CHECKING:
    from ..gate.measurers import Workers

SILENT_S = 45.0
"""An actor of which nobody wants to know anything any more ends: its run is gone, or can't be reached."""
RAYS_OWN = f"{os.sep}ray{os.sep}"
"""Folders that Ray puts on the path of its processes have this in their names, below site-packages."""


class Card:
    """One device of a node, of `devices`, where Ray counts so many CPUs. Its methods take and return JSON."""

    def __init__(self, kind: str, node: str, cpus: int, devices: int) -> None:
        self._heard = time.monotonic()
        self._steps: dict[str, str] = {}
        self._turn = threading.Lock()
        self._workers: Workers | None = None
        self._folder: RunFolder | None = None
        as_the_node_has_it()
        if kind == "cpu":
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        (facts,) = _facts(node, lambda: [accelerator.detect()])
        self._facts = msgspec.structs.replace(facts, room=room(cpus, devices))
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while time.monotonic() - self._heard < SILENT_S:
            time.sleep(1.0)
        os._exit(1)  # and with this process its workers

    def facts(self) -> bytes:
        """Return the `Facts`."""
        return msgspec.json.encode(self._facts)

    def pulse(self) -> bytes:
        """Return case → the step that it is at; who asks is alive."""
        self._heard = time.monotonic()
        return msgspec.json.encode(self._steps.copy())

    def open(self, request: bytes) -> bytes:
        """Start the workers of an `Open` suite."""
        return answered(lambda: self._open(msgspec.json.decode(request, type=Open)))

    def _open(self, asked: Open) -> None:
        from ..gate.measurers import Workers  # and with it SciPy

        with self._turn:
            found = asked.here(Path.cwd())
            enter(found)
            options = msgspec.structs.replace(
                asked, source=found.source, timeout_s=TimeLimit(asked.timeout_s, "--trtgate-timeout")
            )
            self._folder = RunFolder(user_folders.state() / "ray")
            self._workers = Workers(
                options, self._facts.accelerator, self._folder, tensorrt=asked.tensorrt,
                logs=self._folder.own_logs.name, builders=asked.builders, cases_at_once=asked.cases_at_once,
            )  # fmt: skip
            self._workers.start()

    def call(self, request: bytes) -> bytes:
        """Do what a `Request` asks for; several may be built at once, all else takes the device one at a time."""
        asked = msgspec.json.decode(request, type=ray_messages.Request)
        case_id = ray_messages.case_id_of(asked)

        def step(text: str) -> None:
            self._steps[case_id] = text

        def work() -> Any:
            with contextlib.nullcontext() if isinstance(asked, BESIDE_OTHERS) else self._turn:
                try:
                    return ANSWERS[type(asked)](self, asked, step)
                finally:
                    self._steps.pop(case_id, None)

        return answered(work)

    def close(self) -> bytes:
        """End the workers, and remove what was built."""
        if self._workers is not None:
            self._workers.stop()
            with self._turn:
                self._workers.close()
        if self._folder is not None:
            self._folder.close()
        return b"null"

    @property
    def device(self) -> Accelerator:
        """What it measures on."""
        return self._facts.accelerator

    @property
    def workers(self) -> Workers:
        """Those of the suite. Raises TrtgateError before there is one."""
        if self._workers is None:
            raise TrtgateError("this card was given no suite")
        return self._workers

    def build(self, asked: ray_messages.BuildCase, step: OnStep) -> ray_messages.BuiltCase:
        """Build a case."""
        cache = _cache(asked.limit_bytes, rebuild=asked.rebuild) if asked.cache else None
        return ray_messages.BuiltCase.of(
            self.workers.build(
                asked.case.case, step, cache, builders=asked.builders,
                profiled=asked.profiled, lifecycle=asked.lifecycle, in_turn=asked.in_turn,
            )
        )  # fmt: skip


def _cache(limit_bytes: int, *, rebuild: bool = False) -> CacheRequest:
    """Return the node's own artifact cache."""
    return CacheRequest(folder=str(default_folder()), limit_bytes=limit_bytes, rebuild=rebuild)


def _measure(card: Card, asked: ray_messages.MeasureCase, step: OnStep) -> Any:
    session = card.workers.session
    measure = session.measure if asked.device else session.measure_host
    after = [NextCase(case_id, _path(artifact)) for case_id, artifact in asked.after]
    return measure(asked.case_id, _path(asked.artifact), step, after)


def _build_again(card: Card, asked: ray_messages.BuildAgain, _step: OnStep) -> ray_messages.BuiltCase:
    cache = None if asked.cache_bytes is None else _cache(asked.cache_bytes)
    return ray_messages.BuiltCase.of(card.workers.build_again(asked.case_id, pairs_next=False, cache=cache))


def _available(card: Card, asked: ray_messages.AskAvailability, _step: OnStep) -> dict[str, ray_messages.Availability]:
    settings = {one.id: one.case.settings for one in asked.cases}
    return {
        name: ray_messages.Availability(
            lacking=availability.lacking(its, card.device), refused=availability.refused(its, card.device)
        )
        for name, its in settings.items()
    }


def _free(_card: Card, asked: ray_messages.Free, _step: OnStep) -> None:
    shutil.rmtree(asked.artifact, ignore_errors=True)


ANSWERS: dict[type, Callable[[Card, Any, OnStep], Any]] = {
    ray_messages.BuildCase: lambda card, asked, step: card.build(asked, step),
    ray_messages.BuildAgain: _build_again,
    ray_messages.MeasureCase: _measure,
    ray_messages.Renew: lambda card, _asked, _: card.workers.session.renew(),
    ray_messages.StartCold: lambda card, asked, step: card.workers.session.cold_starts(
        asked.case_id, _path(asked.artifact), asked.count, step, kernels=asked.kernels
    ),
    ray_messages.CallUnderLoad: lambda card, asked, step: card.workers.session.under_load(
        asked.case_id, _path(asked.artifact), asked.most, step, launches=asked.launches
    ),
    ray_messages.ProfileCase: lambda card, asked, step: card.workers.session.profile(
        asked.case_id, _path(asked.artifact), step
    ),
    ray_messages.CheckFresh: lambda card, asked, step: card.workers.session.check_fresh(
        asked.case_id, Path(asked.artifact), step
    ),
    ray_messages.Free: _free,
    ray_messages.AskAvailability: _available,
}
BESIDE_OTHERS = (ray_messages.BuildCase, ray_messages.Free, ray_messages.AskAvailability)
"""What takes nothing from others; the run asks for no build while a card of the node is timed."""


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)


def room(cpus: int, devices: int) -> int:
    """Return how many processes there is room for by one of the devices of this node, where Ray counts so many CPUs."""
    share = min(machine.cpus(), cpus) // devices
    return max(1, min(share, machine.memory_bytes() // devices // HOST_BYTES_EACH))


def enter(found: Suite) -> None:
    """Let this process, and with it its workers, find the suite's modules, and files by where pytest was started."""
    rays = [entry for entry in sys.path if RAYS_OWN in f"{entry}{os.sep}" and "site-packages" in entry]
    others = [entry for entry in sys.path if entry not in rays]
    sys.path[:] = list(dict.fromkeys([*found.path, *others, *rays]))
    with contextlib.suppress(OSError):
        os.chdir(found.folder)


def as_the_node_has_it() -> None:
    """Undo what Ray changes of its processes: how many threads a CPU operator has, and how little CPU they get."""
    given = Path("/proc/self/environ").read_bytes().split(b"\0")
    if not any(one.startswith(b"OMP_NUM_THREADS=") for one in given):
        os.environ.pop("OMP_NUM_THREADS", None)
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, 0)


def node_facts(node: str) -> bytes:
    """Return the `Facts` of all devices of a node, as JSON; nothing of the node is held for that."""
    os.environ.pop("CUDA_VISIBLE_DEVICES", None)  # Ray's: of a task that has no GPU
    as_the_node_has_it()
    return msgspec.json.encode(_facts(node, accelerator.detect_each))


def _facts(node: str, detect: Callable[[], list[Accelerator]]) -> list[Facts]:
    """Return what this process's node and devices are."""
    try:
        found, problem = detect(), ""
    except PROBLEMS as error:
        found, problem = [Accelerator(kind="cpu", name="unknown")], sentence_of(error)
    return [
        Facts(
            host=socket.gethostname(),
            node=node,
            accelerator=here,
            python=platform.python_version(),
            ray=_version("ray"),
            trtgate=_version("trtgate"),
            release=releases.installed_release(),
            no_tensorrt=releases.unavailable(),
            no_modelopt=modelopt_package.unavailable(),
            frontends={name: availability.unavailable(Settings(frontend=name), here) for name in FRONTENDS},
            nice=os.getpriority(os.PRIO_PROCESS, 0),
            processes=accelerator.processes_on(here.uuid) if here.uuid else [],
            problem=problem,
        )
        for here in found
    ]


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""
