"""The gate as a user sees it: pytest-benchmark's features on our results, recording, accepting, confirming."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any


def sessions(file: Path) -> dict[str, int]:
    """Return the stored sessions of each case's model."""
    entries = json.loads(file.read_text())["benchmarks"]
    records = [entry["extra_info"]["trtgate"] for entry in entries]
    return {record["case"].partition("-")[0]: len(record["sessions"]) for record in records}


def test_what_pytest_benchmark_offers_works_on_our_results(folder: Any) -> None:
    folder.suite("alpha")
    saved = folder.gate("--benchmark-json=out.json", "--benchmark-save=mine", ALPHA_MS=5)
    assert saved.ret == 0
    saved.stdout.re_match_lines([r".*benchmark 'alpha-eager-fp32-b1': 1 tests", r"Name .*Median +IQR +Rounds$"])
    (entry,) = json.loads((folder.path / "out.json").read_text())["benchmarks"]
    assert entry["stats"]["rounds"] == len(entry["stats"]["data"]) > 1
    assert 0.005 <= entry["stats"]["median"] < 0.05  # the module's own 5 ms, not the time of an empty function
    assert entry["extra_info"]["trtgate"]["case"] == entry["group"] == "alpha-eager-fp32-b1"

    again = folder.gate("--benchmark-save=mine")
    assert again.ret == 0
    first, second = folder.plain_runs()
    compared = subprocess.run(
        [sys.executable, "-m", "pytest_benchmark", "compare", str(first), str(second), "--csv=out.csv"],
        cwd=folder.path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert compared.returncode == 0, compared.stderr
    assert compared.stdout.count("test_latency[alpha-eager-fp32-b1]") == 2
    assert (folder.path / "out.csv").exists()

    against_saved = folder.gate(f"--benchmark-compare={first.name[:4]}")
    assert against_saved.ret == 0
    against_saved.stdout.fnmatch_lines(["*test_latency*NOW*"])


def test_a_user_keeps_options_of_the_benchmark_marker_and_columns(folder: Any) -> None:
    folder.suite("alpha")
    done = folder.gate("--benchmark-columns=min,max", "--benchmark-sort=name")
    done.stdout.re_match_lines([r"Name .*Min +Max$"])


def test_sessions_accumulate_and_a_slow_one_must_be_accepted(folder: Any) -> None:
    file = folder.baseline("alpha", "beta")
    folder.suite("alpha", "beta")
    before = file.read_text()
    slow = folder.gate("--trtgate-update-baselines", "--trtgate-launches=1", ALPHA_MS=40)
    assert slow.ret == 1
    not_stored = (
        "WARNING: beta-*: not stored, since it is underpowered; *-accept 'beta-eager-fp32-b1' (docs: not-stored)"
    )
    slow.stdout.fnmatch_lines(["*alpha-eager-fp32-b1 is slower: host latency*", not_stored])
    assert sessions(file) == {"alpha": 1, "beta": 1}
    named = folder.gate("--trtgate-update-baselines", "--trtgate-launches=1", "--trtgate-accept=beta*", "-k", "beta")
    assert named.ret == 0
    named.stdout.fnmatch_lines(["stored: beta-*", "WARNING: beta-*: stored although it is underpowered*"])
    assert sessions(file) == {"alpha": 1, "beta": 2}
    alpha = before[before.index('"group": "alpha') : before.index('"group": "beta')]
    assert json.loads(before)["benchmarks"][0] == json.loads(file.read_text())["benchmarks"][0], alpha

    accepted = folder.gate(
        "--trtgate-update-baselines", "--trtgate-launches=1", "--trtgate-accept=alpha*", "-k", "alpha", ALPHA_MS=40
    )
    assert accepted.ret == 0
    accepted.stdout.fnmatch_lines(["accepted: alpha-eager-fp32-b1 is slower*", "stored: alpha-*older sessions dropped"])
    assert sessions(file) == {"alpha": 1, "beta": 2}


def test_what_fresh_launches_do_not_confirm_passes_with_a_line(folder: Any) -> None:
    """The first worker that measures is slow, all later ones are not."""
    folder.baseline("alpha")
    suite_with_a_slow_first_worker(folder)
    done = folder.gate("--benchmark-compare", "--trtgate-limit=host=100%")
    assert done.ret == 0
    done.stdout.fnmatch_lines(
        ["unconfirmed: alpha-eager-fp32-b1 looked slower, and fresh launches did not confirm it*"]
    )


def test_a_suspicion_that_fresh_launches_can_not_refute_is_said_loudly(folder: Any) -> None:
    """One session of a CPU leaves 40 % to noise: at a limit of 10 % nothing proves that alpha is as it was."""
    folder.baseline("alpha")
    suite_with_a_slow_first_worker(folder)
    done = folder.gate("--benchmark-compare", "--trtgate-require=verdict")
    assert done.ret == 1
    (folder.path / "pid").unlink()
    done = folder.gate("--benchmark-compare", "-q")
    assert done.ret == 0
    said = "alpha-eager-fp32-b1 looked worse, and measuring again neither confirmed nor refuted it"
    done.stdout.fnmatch_lines([f"WARNING: underpowered: {said}: host latency*; at first +*%; with 1 stored session*"])


def suite_with_a_slow_first_worker(folder: Any) -> None:
    folder.suite(
        alpha="if IN_WORKER and not os.path.exists('pid'):\n"
        "            open('pid', 'w').write(str(os.getpid()))\n"
        "        first = IN_WORKER and open('pid').read() == str(os.getpid())\n"
        "        pause(0.04 if first else 0.002)"
    )


def test_the_command_line_limit_wins(folder: Any) -> None:
    folder.baseline("alpha")
    folder.suite("alpha")
    done = folder.gate("--benchmark-compare", "--trtgate-limit=host=5000%", ALPHA_MS=20)
    assert done.ret == 0
    done.stdout.re_match_lines([r"alpha-eager-fp32-b1 .* unchanged"])


def test_other_tests_run_in_parallel_when_nothing_is_gated(folder: Any) -> None:
    folder.suite("alpha", "beta")
    done = folder.gate("-n", "2", "-rs")
    done.assert_outcomes(passed=2, skipped=2)
    done.stdout.fnmatch_lines(["SKIPPED*not timed: processes of -n*"])


def test_a_gpu_that_nvml_sees_and_torch_cannot_use_is_exit_4(folder: Any) -> None:
    folder.suite("alpha")
    (folder.path / "conftest.py").write_text(
        "from trtgate.common import accelerator\n"
        "found = accelerator.Accelerator(kind='gpu', name='NVIDIA Seen', uuid='GPU-1', driver='470.1')\n"
        "accelerator.detect = lambda: found\n"
    )
    folder.refused(folder.gate("--benchmark-compare"), "NVIDIA Seen", "470.1", "can't use it", "trtgate doctor")


def test_a_wrong_output_is_neither_timed_nor_stored(folder: Any) -> None:
    folder.suite(
        more="\n@trtgate.model(frontends=('aot_eager',), precisions=('fp32',))\n"
        "def wrong(batch):\n"
        "    import torch\n"
        "    return made(lambda x: x * (3 if torch.compiler.is_compiling() else 1), torch.ones(batch, 4))\n"
    )
    done = folder.gate("--trtgate-update-baselines")
    done.assert_outcomes(failed=2)
    done.stdout.fnmatch_lines(
        ["*wrong-aot_eager-fp32-b1: output differs from eager: 4 of 4 values are off*, relative L2 2.00e+00*"]
    )
    assert folder.saved_cases() == set()
    assert not list(folder.path.glob("baselines/*/*"))


def test_a_machine_too_busy_to_time_on_gives_no_verdict_and_records_nothing(folder: Any) -> None:
    file = folder.baseline("alpha")
    busy = (
        "from trtgate.timing.cpu_state import CpuMonitor\n"
        "CpuMonitor.void_reason = lambda self: 'other processes took the CPU'\n"
    )
    folder.suite("alpha", more=busy)
    compared = folder.gate("--benchmark-compare", "-m", "trtgate_latency")
    assert compared.ret == 0
    compared.assert_outcomes(skipped=1)
    compared.stdout.fnmatch_lines(
        [
            "*1 case: 1 underpowered",
            "underpowered: alpha-*: not one block counts: *other processes took the CPU (docs: void-blocks)",
        ]
    )
    required = folder.gate("--benchmark-compare", "-m", "trtgate_latency", "--trtgate-require=verdict")
    assert required.ret == 1
    before = file.read_bytes()
    new = folder.gate("--benchmark-compare", "-m", "trtgate_latency", "-o", "trtgate_baselines=none-yet")
    assert new.ret == 0
    new.stdout.fnmatch_lines(
        [
            "NEW: nothing is stored for *: alpha-eager-fp32-b1; add --trtgate-update-baselines *",
            "NEW: alpha-eager-fp32-b1 could not be recorded either: not one block *took the CPU (docs: void-blocks)",
        ]
    )
    recorded = folder.gate("--trtgate-update-baselines", "-m", "trtgate_latency")
    assert recorded.ret == 1
    assert "not one block counts" in folder.output_of(recorded)
    assert file.read_bytes() == before
