"""The workers on a device of a Ray cluster, as a run has them: `gate.device_workers.DeviceWorkers`."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from ..common.steps import OnStep
from ..compiling.artifact_cache import CacheRequest
from ..gate.policy import Pair, Situation
from ..launches import messages
from ..launches.pair import Artifacts
from ..launches.prebuild import Prebuilt
from ..launches.session import NextCase
from ..records.measurement import CaseMeasurement, ColdStart, LoadLaunch, Quadruple
from ..suite.cases import Case
from . import ray_messages
from .card_handle import CardHandle
from .ray_messages import Availability, Open

Given = TypeVar("Given")


class RayWorkers:
    """All workers of a run on one device of a cluster; their session too. Artifacts are paths of the node."""

    def __init__(self, card: CardHandle, opened: Open) -> None:
        self.accelerator = card.facts.accelerator
        self.cold_starts, self.load, self.launches = opened.cold_starts, opened.load, opened.launches
        self.card = card
        self._suite = opened
        self._opening: Any = None
        self._guard = threading.Lock()

    @property
    def session(self) -> _Session:
        """Those that measure."""
        return _Session(self)

    def start(self) -> list[str]:
        """Let the node start its workers; what is wrong with that the first case is told."""
        self._opening = self.card.ask("open", msgspec.json.encode(self._suite))
        return []

    def asked(self, request: ray_messages.Request, kind: type[Given], step: OnStep) -> Given:
        """Return what the node answers. Raises as it did, CardLostError where it is gone."""
        with self._guard:
            if self._opening is not None:
                self.card.answer(self._opening, lambda _text: step("starting workers"))
                self._opening = None
        asked = self.card.ask("call", msgspec.json.encode(request))
        return msgspec.json.decode(self.card.answer(asked, step, ray_messages.case_id_of(request)), type=kind)

    def build(
        self, case: Case, step: OnStep, cache: CacheRequest | None, *, builders: int = 1, profiled: bool = False,
        lifecycle: bool = False, in_turn: bool = False,
    ) -> Prebuilt:  # fmt: skip
        """Build a case on the node, with the node's cache; what went wrong is in the result."""
        request = ray_messages.BuildCase(
            case=ray_messages.case_of(case), cache=cache is not None, builders=builders, profiled=profiled,
            limit_bytes=cache.limit_bytes if cache else 0, rebuild=cache is not None and cache.rebuild,
            lifecycle=lifecycle, in_turn=in_turn,
        )  # fmt: skip
        return self.asked(request, ray_messages.BuiltCase, step).made

    def build_again(self, case_id: str, *, pairs_next: bool, cache: CacheRequest | None = None) -> Prebuilt:
        """Build a case in a fresh process of the node, for the node's cache; no pairs come next."""
        assert not pairs_next
        limit_bytes = None if cache is None else cache.limit_bytes
        request = ray_messages.BuildAgain(case_id=case_id, cache_bytes=limit_bytes)
        return self.asked(request, ray_messages.BuiltCase, _silent).made

    def kept(self, case_id: str, recorded: str) -> tuple[Path | None, str]:
        """Return that there is none: what is kept of a baseline lies on the machine that recorded it."""
        return None, f"a cluster keeps no compiled module of {case_id} ({recorded})"

    def pairs_beside_kept(
        self, situation: Situation, artifacts: Artifacts, wanted: Pair, step: OnStep
    ) -> list[list[Quadruple]]:
        """Never asked for: there is none."""
        raise NotImplementedError

    def free(self, artifact: Path) -> None:
        """Give the node's disk back; nobody waits for it."""
        self.card.ask("call", msgspec.json.encode(ray_messages.Free(artifact=str(artifact))))

    def availability(self, cases: Sequence[Case]) -> dict[str, Availability]:
        """Return case → why the device does not take it."""
        request = ray_messages.AskAvailability(cases=[ray_messages.case_of(case) for case in cases])
        reply = self.card.answer(self.card.ask("call", msgspec.json.encode(request)), _silent)
        return msgspec.json.decode(reply, type=dict[str, Availability])

    def stop(self) -> None:
        """End the workers under another thread's hands: it sees them gone; what is at rest begins to close."""
        if self.card.busy:
            self.card.kill()
        else:
            self.card.begin_to_close()

    def close(self) -> None:
        """Let the node end its workers and remove what was built, then end the actor."""
        self.card.close()


class _Session:
    """What `launches.session.Session` does, by the session on the node."""

    def __init__(self, workers: RayWorkers) -> None:
        self._workers = workers

    def measure(
        self, case_id: str, artifact: Path | None, step: OnStep, after: Sequence[NextCase] = ()
    ) -> CaseMeasurement:
        """Measure a case; `after` may be loaded with it."""
        return self._measured(case_id, artifact, step, after, device=True)

    def measure_host(
        self, case_id: str, artifact: Path | None, step: OnStep, after: Sequence[NextCase] = ()
    ) -> CaseMeasurement:
        """Measure what the host sees of a case, as `measure`."""
        return self._measured(case_id, artifact, step, after, device=False)

    def _measured(
        self, case_id: str, artifact: Path | None, step: OnStep, after: Sequence[NextCase], *, device: bool
    ) -> CaseMeasurement:
        request = ray_messages.MeasureCase(
            case_id=case_id, artifact=_text(artifact), device=device,
            after=[(one.case_id, _text(one.artifact)) for one in after],
        )  # fmt: skip
        return self._workers.asked(request, CaseMeasurement, step)

    def renew(self) -> None:
        """Replace the launches by fresh ones."""
        self._workers.asked(ray_messages.Renew(), type(None), _silent)

    def cold_starts(
        self, case_id: str, artifact: Path | None, count: int, step: OnStep, *, kernels: bool = False
    ) -> tuple[list[ColdStart], list[ColdStart]]:
        """Load and run a case in fresh processes."""
        request = ray_messages.StartCold(case_id=case_id, artifact=_text(artifact), count=count, kernels=kernels)
        return self._workers.asked(request, tuple[list[ColdStart], list[ColdStart]], step)

    def under_load(
        self, case_id: str, artifact: Path | None, most: int, step: OnStep, *, launches: int
    ) -> list[LoadLaunch]:
        """Let many threads and processes call a case."""
        request = ray_messages.CallUnderLoad(case_id=case_id, artifact=_text(artifact), most=most, launches=launches)
        return self._workers.asked(request, list[LoadLaunch], step)

    def profile(self, case_id: str, artifact: Path | None, step: OnStep) -> messages.ProfileReply:
        """Profile a case."""
        request = ray_messages.ProfileCase(case_id=case_id, artifact=_text(artifact))
        return self._workers.asked(request, messages.ProfileReply, step)

    def check_fresh(self, case_id: str, artifact: Path, step: OnStep) -> dict[str, str]:
        """Compare a case with eager in a process of its own."""
        request = ray_messages.CheckFresh(case_id=case_id, artifact=str(artifact))
        return self._workers.asked(request, dict[str, str], step)


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _silent(_text: str) -> None:
    pass
