"""What a run asks of its devices, wherever they are; `run` is a `gate_run.GateRun`, which has them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from ..common.accelerator import Accelerator
from ..common.steps import OnStep
from ..suite.cases import Case

if TYPE_CHECKING:
    from ..gate.device_workers import DeviceWorkers


class Devices(Protocol):
    """Where a run builds and measures."""

    accelerators: list[Accelerator]
    """All of one kind."""

    @property
    def here(self) -> bool:
        """Whether they are this machine's."""

    @property
    def about(self) -> str:
        """What the header of the run says of where they are; empty for this machine."""

    @property
    def release(self) -> str:
        """What stored coverage calls the release of torch_tensorrt there."""

    def workers(self, run: Any) -> Sequence[DeviceWorkers]:
        """Return the workers of each, not started yet."""

    def workers_of(self, run: Any, case_id: str) -> DeviceWorkers:
        """Return the workers that build, check and profile a case."""

    def unavailable(self, run: Any, case: Case) -> tuple[str, str]:
        """Return what the devices lack for a case, and why they refuse it; empty where they don't."""

    def no_coverage(self, case: Case) -> str:
        """Return why coverage can't be asked there; empty where it can."""

    def begin(self, run: Any, items: Sequence[pytest.Item]) -> None:
        """Build what tests need, and begin to measure, as far as that is done before the first test."""

    def progress(self, run: Any, case_id: str) -> AbstractContextManager[OnStep]:
        """Show, within, what is done while a test waits for a case."""

    def free(self, run: Any, case_id: str, artifact: Path) -> None:
        """Give the disk that an artifact takes back."""

    def close(self) -> None:
        """Let go of them; workers have ended."""
