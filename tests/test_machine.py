"""How many processes there is room for, on machines and in containers that a test makes up."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from trtgate.common import machine
from trtgate.common.accelerator import GIB

AVAILABLE = "MemTotal:       {0} kB\nMemFree:        1 kB\nMemAvailable:   {0} kB\nHugePages_Total:       0\n"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder where `meminfo`, `v2` and `v1` are what the machine says; nothing is there yet. 16 CPUs."""
    monkeypatch.setattr(machine, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(machine, "LIMITS", (tmp_path / "v2", tmp_path / "v1"))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(16)))
    return tmp_path


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ({"meminfo": AVAILABLE.format(32 << 20)}, 32 * GIB),
        ({"meminfo": AVAILABLE.format(32 << 20), "v2": "max\n"}, 32 * GIB),
        ({"meminfo": AVAILABLE.format(32 << 20), "v2": f"{8 * GIB}\n"}, 8 * GIB),
        ({"meminfo": AVAILABLE.format(32 << 20), "v1": f"{6 * GIB}\n"}, 6 * GIB),
        ({"meminfo": AVAILABLE.format(32 << 20), "v1": "9223372036854771712\n"}, 32 * GIB),
        ({"meminfo": "nonsense"}, sys.maxsize),
        ({}, sys.maxsize),
    ],
)
def test_memory_is_the_machines_within_the_containers_limit(place: Path, said: dict[str, str], wanted: int) -> None:
    for name, text in said.items():
        (place / name).write_text(text)
    assert machine.memory_bytes() == wanted


@pytest.mark.parametrize(("gib", "wanted"), [(128, 16), (24, 6), (5, 1), (1, 1)])
def test_there_is_room_for_as_many_as_cpus_and_memory_allow(place: Path, gib: int, wanted: int) -> None:
    (place / "meminfo").write_text(AVAILABLE.format(gib << 20))
    assert machine.processes(4 * GIB) == wanted


def test_this_machine_says_something_that_can_be() -> None:
    assert 1 <= machine.cpus() <= (os.cpu_count() or 1)
    assert 0 < machine.memory_bytes() < sys.maxsize
