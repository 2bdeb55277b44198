"""Cold starts: load and first inference in fresh processes, seconds and memory, stored and judged like the rest."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from trtgate.common.accelerator import Accelerator
from trtgate.common.errors import TrtgateError
from trtgate.launches.session import Session
from trtgate.launches.worker_pool import WorkerPool
from trtgate.records.measurement import ColdStart
from trtgate.suite.suite_source import SuiteSource
from trtgate.timing import device_memory
from trtgate.timing.device_memory import HostPeak

MODEL = """

if IN_WORKER:
    from trtgate.compiling import cold_start

    cold_start.time = pause.__self__
KEPT, LOADED = [], []


def save(run, folder):
    (folder / "stored").touch()


def load(folder):
    import torch

    assert (folder / "stored").exists()
    pause(float(os.environ.get("LOAD_S", "1")))
    LOADED.extend(["artifact"] * ("KERNELS_S" in os.environ))
    KEPT.append(bytearray(os.urandom(1 << 20)) * int(os.environ.get("LOAD_MIB", "64")))
    return torch.nn.Identity()


@trtgate.model(frontends=("own",), save=save, load=load)
def mine():
    import torch

    return trtgate.Compiled(torch.nn.Identity(), reference=torch.nn.Identity()), torch.ones(2, 4)




if IN_WORKER:
    from trtgate.compiling import building
    from trtgate.torch_trt import runtime_cache

    loaded = building.load

    def load_with_engines(*given, kernels=True):
        pause(0 if kernels else float(os.environ.get("KERNELS_S", "0")))
        return loaded(*given, kernels=kernels)

    building.load = load_with_engines

    def in_use(*_given, **_fields):
        found = ("artifact" if LOADED else "", "")
        LOADED.clear()
        return found

    runtime_cache.in_use = in_use


@trtgate.model(frontends=("eager",), precisions=("fp32",))
def plain():
    def forward(x):
        if os.environ.get("FIRST_S") and not KEPT:
            KEPT.append(0)
            pause(float(os.environ["FIRST_S"]))
        return x + 1

    return made(forward, __import__("torch").ones(1, 4))
"""
LATENCY = ("--trtgate-launches=1", "-m", "trtgate_latency")


def test_they_are_stored_and_a_longer_or_larger_one_fails(folder: Any) -> None:
    """Of what has a runtime cache there are two: one compiles kernels, for 4 s here, and one takes them from it."""
    folder.suite(more=MODEL)
    engines = {"KERNELS_S": 4}
    recorded = folder.gate("--trtgate-update-baselines", "-v", "--trtgate-cold-starts=2", *LATENCY, **engines)
    assert recorded.ret == 0
    recorded.stdout.fnmatch_lines_random(
        [
            "mine-own-as_is: cold start 5 s, 1 s with a runtime cache",
            "plain-eager-fp32: cold start 0.0001* s",
        ]
    )
    stored = folder.stored_entries()["mine-own-as_is"]
    session = stored["sessions"][0]
    for metric, seconds in (("cold_start", 5.0), ("cold_start_cached", 1.0)):
        launches = session["metrics"][metric]
        assert [len(launch) for launch in launches] == [1, 1]
        assert all(seconds < launch[0] < seconds + 0.1 for launch in launches)
        assert stored["figures"][f"{metric}_s"] == pytest.approx(seconds, abs=0.1)
    assert session["runtime_cache"] == "artifact"
    assert 60 << 20 < stored["figures"]["cold_host_bytes"] < 140 << 20
    assert not [name for name in stored["figures"] if name.startswith("cold") and name.endswith("_us")]
    plain = folder.stored_entries()["plain-eager-fp32"]["sessions"][0]
    assert "cold_start" in plain["metrics"]
    assert "cold_start_cached" not in plain["metrics"]

    same = folder.gate("--benchmark-compare", "--trtgate-cold-starts=2", *LATENCY, **engines)
    assert same.ret == 0
    slower = folder.gate(
        "--benchmark-compare", "--trtgate-cold-starts=2", "--trtgate-report=run.json", *LATENCY, **engines,
        LOAD_S=9, LOAD_MIB=256, FIRST_S=9,
    )  # fmt: skip
    assert slower.ret == 1
    slower.stdout.fnmatch_lines_random(
        [
            "mine-own-as_is *: cold start 5 s * 13 s, *; cold start with a runtime cache 1 s * 9 s, *; "
            "host memory of a cold start * MiB * MiB (+*%), limit 20 %*",
            "plain-eager-fp32 is slower: cold start * 9*s, *, limit 20 %*",
        ]
    )
    cases = {one["case_id"]: one for one in json.loads((folder.path / "run.json").read_text())["cases"]}
    assert {name: one["runtime_cache"] for name, one in cases.items()} == {
        "mine-own-as_is": "artifact", "plain-eager-fp32": ""
    }  # fmt: skip
    without = folder.gate("--benchmark-compare", *LATENCY, LOAD_S=9)
    assert without.ret == 0


def test_a_case_that_can_not_start_cold_says_so_in_a_line(folder: Any) -> None:
    folder.suite(more=MODEL)
    broken = folder.gate("--trtgate-cold-starts=1", *LATENCY, "-k", "mine", LOAD_S="never")
    assert broken.ret == 1
    assert "Traceback" not in broken.stdout.str()


@pytest.mark.parametrize("kernels", [False, True])
def test_many_are_started_a_few_at_a_time_and_take_turns(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kernels: bool
) -> None:
    """Each process that waits for its turn takes the memory of torch, and of a context on a GPU."""
    at_once: list[int] = []

    @contextlib.contextmanager
    def fresh(_self: Session, _name: str, count: int, *, tensorrt: bool) -> Iterator[list[int]]:
        at_once.append(count)
        yield list(range(count))

    def start(_self: Session, worker: int, kernels: bool, *_given: Any) -> ColdStart:
        return ColdStart(seconds=1.0 + kernels, host_bytes=worker)

    monkeypatch.setattr(Session, "_fresh", fresh)
    monkeypatch.setattr(Session, "_cold_start", start)
    monkeypatch.setattr(WorkerPool, "device", lambda *_given, **_options: contextlib.nullcontext())
    cpu = Accelerator(kind="cpu", name="some CPU")
    session = Session(SuiteSource(root=str(tmp_path), suites=("suite.py",)), cpu, tmp_path, launches=1, timeout_s=60.0)
    found, cached = session.cold_starts("case", None, 50, lambda _step: None, kernels=kernels)
    assert [one.seconds for one in found] == [1.0] * 50
    assert [one.seconds for one in cached] == [2.0] * 50 * kernels
    assert max(at_once) <= 8
    assert sum(at_once) == 50 * (1 + kernels)


def test_they_are_not_measured_beside_a_base(folder: Any) -> None:
    folder.suite("alpha")
    refused = folder.gate("--trtgate-base=HEAD", "--trtgate-cold-starts=2", *LATENCY)
    assert refused.ret == pytest.ExitCode.USAGE_ERROR
    refused.stderr.fnmatch_lines(["*--trtgate-cold-starts is about stored baselines*"])


def test_the_command_line_takes_back_what_addopts_asks_for(folder: Any) -> None:
    """A project that starts all its cases cold measures beside a base all the same."""
    folder.suite(more=MODEL)
    asked = ("-o", "addopts=--trtgate-cold-starts=2 --trtgate-load=2", "--trtgate-report=run.json")
    off = folder.gate(*asked, "--trtgate-cold-starts=0", "--trtgate-load=0", *LATENCY, "-k", "plain")
    assert off.ret == 0
    (case,) = json.loads((folder.path / "run.json").read_text())["cases"]
    assert "cold_start_s" not in case["figures"]
    assert case["load"] == []
    none = folder.gate("--trtgate-cold-starts=-1", *LATENCY)
    assert none.ret == pytest.ExitCode.USAGE_ERROR
    none.stderr.fnmatch_lines(["*--trtgate-cold-starts: must be 0 or a whole number above 0, not -1"])


def test_the_rise_of_a_peak_is_told_after_the_memory_is_freed() -> None:
    peak = HostPeak()
    held = bytearray(b"x") * (128 << 20)
    del held
    assert 100 << 20 < peak.rise_bytes() < 200 << 20


def test_a_machine_that_keeps_no_peak_tells_the_rise_and_one_that_tells_nothing_is_no_start_without_memory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As in sandboxes, which take `clear_refs` and have no VmHWM."""
    status = tmp_path / "status"
    monkeypatch.setattr(device_memory, "STATUS", status)
    monkeypatch.setattr(device_memory, "FORGET", tmp_path / "clear_refs")
    status.write_text("VmRSS:\t    1000 kB\n")
    peak = HostPeak()
    status.write_text("VmRSS:\t    3000 kB\n")
    assert peak.rise_bytes() == 2000 << 10
    status.write_text("Name:\tpython\n")
    with pytest.raises(TrtgateError, match="does not say VmRSS"):
        HostPeak()
