"""Cold starts: load and first inference in fresh processes, seconds and memory, stored and judged like the rest."""

from __future__ import annotations

from typing import Any

import pytest

from trtgate.timing.device_memory import HostPeak

MODEL = """

if IN_WORKER:
    from trtgate.compiling import cold_start

    cold_start.time = pause.__self__
KEPT = []


def save(run, folder):
    (folder / "stored").touch()


def load(folder):
    import torch

    assert (folder / "stored").exists()
    pause(float(os.environ.get("LOAD_S", "1")))
    KEPT.append(bytearray(os.urandom(1 << 20)) * int(os.environ.get("LOAD_MIB", "64")))
    return torch.nn.Identity()


@trtgate.model(frontends=("own",), save=save, load=load)
def mine():
    import torch

    return trtgate.Compiled(torch.nn.Identity(), reference=torch.nn.Identity()), torch.ones(2, 4)




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
    folder.suite(more=MODEL)
    recorded = folder.gate("--trtgate-update-baselines", "--trtgate-cold-starts=2", *LATENCY)
    assert recorded.ret == 0
    stored = folder.stored_entries()["mine-own-as_is"]
    launches = stored["sessions"][0]["metrics"]["cold_start"]
    assert [len(launch) for launch in launches] == [1, 1]
    assert all(1.0 < launch[0] < 1.1 for launch in launches)
    assert 60 << 20 < stored["figures"]["cold_host_bytes"] < 140 << 20
    assert stored["figures"]["cold_start_s"] == pytest.approx(1.0, abs=0.1)
    assert not [name for name in stored["figures"] if name.startswith("cold") and name.endswith("_us")]
    assert "cold_start" in folder.stored_entries()["plain-eager-fp32"]["sessions"][0]["metrics"]

    same = folder.gate("--benchmark-compare", "--trtgate-cold-starts=2", *LATENCY)
    assert same.ret == 0
    slower = folder.gate(
        "--benchmark-compare", "--trtgate-cold-starts=2", *LATENCY, LOAD_S=9, LOAD_MIB=256, FIRST_S=9
    )  # fmt: skip
    assert slower.ret == 1
    slower.stdout.fnmatch_lines_random(
        [
            "mine-own-as_is *: cold start 1 s * 9 s, *; host memory of a cold start * MiB * MiB (+*%), limit 20 %*",
            "plain-eager-fp32 is slower: cold start * 9*s, *, limit 20 %*",
        ]
    )
    without = folder.gate("--benchmark-compare", *LATENCY, LOAD_S=9)
    assert without.ret == 0


def test_a_case_that_can_not_start_cold_says_so_in_a_line(folder: Any) -> None:
    folder.suite(more=MODEL)
    broken = folder.gate("--trtgate-cold-starts=1", *LATENCY, "-k", "mine", LOAD_S="never")
    assert broken.ret == 1
    assert "Traceback" not in broken.stdout.str()


def test_they_are_not_measured_beside_a_base(folder: Any) -> None:
    folder.suite("alpha")
    refused = folder.gate("--trtgate-base=HEAD", "--trtgate-cold-starts=2", *LATENCY)
    assert refused.ret == pytest.ExitCode.USAGE_ERROR
    refused.stderr.fnmatch_lines(["*--trtgate-cold-starts is about stored baselines*"])


def test_the_rise_of_a_peak_is_told_after_the_memory_is_freed() -> None:
    peak = HostPeak()
    held = bytearray(b"x") * (128 << 20)
    del held
    assert 100 << 20 < peak.rise_bytes() < 200 << 20
