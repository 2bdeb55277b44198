"""What a user, a model or the machine can get wrong: a readable line, the right exit code, nothing stored lost."""

from __future__ import annotations

import json
import os
import re
import signal
from importlib.util import find_spec
from typing import Any

import pytest

TIMEOUT_S = 120
OK, FAILED, INTERRUPTED = pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.INTERRUPTED


# Refused before anything runs


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--trtgate-models=alpa", "model 'alpa' 'alpha'"),
        ("--trtgate-models=alpha,nothing", "model 'nothing'"),
        ("--trtgate-frontends=egger", "frontend 'egger' 'eager'"),
        ("--trtgate-precisions=fp31", "precision 'fp31' 'fp32'"),
        ("--trtgate-batches=1,two", "--trtgate-batches two"),
        ("--trtgate-require=gpus", "--trtgate-require 'gpus' gpu, baseline, verdict"),
        ("-o trtgate_require=verdicts", "require 'verdicts' gpu, baseline, verdict"),
        ("--trtgate-limit=hots=5%", "--trtgate-limit 'hots' 'host'"),
        ("--trtgate-limit=host=fast", "--trtgate-limit 'host=fast' host=1%"),
        ("--trtgate-limit=host=-5%", "--trtgate-limit 'host=-5%' host=1%"),
        ("--trtgate-limit=host=nan", "--trtgate-limit 'host=nan' host=1%"),
        ("--trtgate-limit=host", "--trtgate-limit 'host' host=1%"),
        ("-o trtgate_limits=devise=1%", "trtgate_limits 'devise' 'device'"),
        ("-o trtgate_limits=host=0", "trtgate_limits 'host=0' host=1%"),
        ("--trtgate-accept=alpha-eager-fp32-b1", "--trtgate-accept --trtgate-update-baselines"),
        ("--trtgate-accept=alpha-b1 --trtgate-update-baselines", "--trtgate-accept alpha-b1"),
        ("-o trtgate_suite=absent.py", "suite absent.py"),
        ("-o trtgate_suite=absent.module", "suite absent.module"),
        ("--benchmark-compare=absent", "--benchmark-compare absent"),
    ],
)
def test_unknown_names_and_values(folder, arguments, words):
    folder.baseline("alpha")
    folder.suite("alpha")
    folder.refused(folder.gate(*arguments.split()), *words.split())


def test_without_pytest_benchmark(folder):
    folder.suite("alpha")
    folder.refused(folder.gate("-p", "no:benchmark"), "pytest-benchmark")


def test_a_selection_that_takes_no_case(folder):
    """Each name is known, no case has them all: nothing would be measured, and nothing could fail."""
    folder.baseline("alpha")
    folder.suite("alpha")
    folder.refused(folder.gate("--benchmark-compare", "--trtgate-models=alpha", "--trtgate-batches=7"), "alpha", "7")


@pytest.mark.parametrize(
    ("suite", "words"),
    [
        ("raise RuntimeError('no luck')", ["can't be imported", "RuntimeError: no luck"]),
        ("def broken(:", ["can't be imported", "SyntaxError"]),
        ("models = []", ["defines no model", "@trtgate.model"]),
        ("import trtgate\n@trtgate.model(frontends=['egger'])\ndef tiny(): ...", ["'egger'", "'eager'"]),
    ],
    ids=["raises", "syntax", "empty", "unknown-frontend"],
)
def test_broken_suite(folder, suite, words):
    folder.suite()
    (folder.path / "suite.py").write_text(suite)
    folder.refused(folder.gate("--benchmark-compare"), "suite.py", *words)


def test_broken_suite_of_hand_written_tests(folder):
    folder.suite()
    (folder.path / "suite.py").write_text("raise RuntimeError('no luck')")
    (folder.path / "test_mine.py").write_text("from trtgate.pytest_plugin.suite_tests import test_latency")
    folder.refused(folder.pytest("test_mine.py"), "suite.py", "can't be imported", "RuntimeError: no luck")


@pytest.mark.skipif(find_spec("torch_tensorrt") is None, reason="its options are read from an installed torch_tensorrt")
def test_unknown_compile_option(folder):
    folder.suite("alpha", more=MISSPELT_OPTION)
    folder.refused(folder.gate(), "gamma-dynamo", "'min_blok_size'", "'min_block_size'")


MISSPELT_OPTION = """

@trtgate.model(frontends=("dynamo",), precisions=("fp32",), options={"min_blok_size": 3})
def gamma(batch):
    raise AssertionError("never called")
"""


def test_baseline_of_another_schema(folder):
    stored = folder.baseline("alpha")
    with folder.edited(stored) as document:
        document["trtgate"]["schema"] = 999
    before = stored.read_bytes()
    folder.suite("alpha")
    folder.refused(folder.gate("--benchmark-compare"), "latency.json", "schema", "999")
    folder.refused(folder.gate("--trtgate-update-baselines"), "latency.json", "schema", "999")
    assert stored.read_bytes() == before


def test_baseline_of_another_accelerator(folder):
    stored = folder.baseline("alpha")
    with folder.edited(stored) as document:
        document["machine_info"]["accelerator"]["name"] = "Abacus"
    stored.rename(folder.path / "theirs.json")
    folder.suite("alpha")
    result = folder.gate("--benchmark-compare=theirs.json")
    folder.refused(result, "theirs.json", "cpu-abacus-", stored.parent.name)


# Models


def test_mistakes_of_models(folder):
    """Each fails its own tests with a reason, the right one is stored, and what was stored before stays."""
    stored = folder.baseline("alpha", "beta")
    before = json.loads(stored.read_text())["benchmarks"]
    folder.suite("right", more=MISTAKES)
    result = folder.gate("--trtgate-update-baselines")
    assert result.ret == FAILED
    result.assert_outcomes(passed=2, failed=2 * len(SAID_OF_MISTAKES))
    said = folder.output_of(result)
    for words in SAID_OF_MISTAKES:
        assert [line for line in said.splitlines() if all(word in line for word in words)], words
    assert "Traceback" not in said
    assert folder.saved_cases() == {"right-eager-fp32-b1"}
    after = json.loads(stored.read_text())["benchmarks"]
    assert [entry for entry in after if entry in before] == before
    assert len(after) == len(before) + 1
    assert "During handling of the above exception" not in said
    assert "PytestBenchmarkWarning" not in said  # the user can change nothing about it


SAID_OF_MISTAKES = [
    ["'alpha'", "factory", "RuntimeError: no luck"],
    ["'beta'", "must return (module, inputs)", "Linear"],
    ["'wrong_batch'", "batch 1", "(3, 4)"],
    ["'wrong_shape'", "example inputs", "(1, 5)", "RuntimeError"],
    ["'no_tensor'", "inputs must be", "tensor"],
    ["'nan'", "eager's own output", "NaN"],
    ["'unsteady'", "not deterministic", "two eager runs differ"],
]
MISTAKES = """

def eager(factory):
    return trtgate.model(factory, frontends=("eager",), precisions=("fp32",))


@eager
def alpha(batch):
    raise RuntimeError("no luck")


@eager
def beta(batch):
    import torch
    return torch.nn.Linear(4, 4)


@eager
def wrong_batch(batch):
    import torch
    return torch.nn.Linear(4, 4), torch.ones(3, 4)


@eager
def wrong_shape(batch):
    import torch
    return torch.nn.Linear(4, 4), torch.ones(batch, 5)


@eager
def no_tensor(batch):
    import torch
    return torch.nn.Linear(4, 4), "four"


@eager
def nan(batch):
    import torch
    return made(lambda x: x / 0 * 0, torch.ones(batch, 4))


@eager
def unsteady(batch):
    import torch
    return made(lambda x: x + next(CALLS), torch.ones(batch, 4))
"""


# Required, and not there


def test_a_required_gpu(folder):
    folder.suite(more=NEEDS_A_GPU)
    result = folder.gate()
    assert result.ret == OK
    result.assert_outcomes(skipped=2)
    result = folder.gate("--trtgate-require=gpu")
    assert result.ret == FAILED
    result.stdout.fnmatch_lines(["*gamma-eager-fp16-b1: needs a GPU*--trtgate-require=gpu*"])


NEEDS_A_GPU = """

@trtgate.model(frontends=("eager",), precisions=("fp16",))
def gamma(batch):
    raise AssertionError("skipped without a GPU, so never called")
"""


def test_a_required_baseline_and_verdict(folder):
    """alpha's baseline is from 20 µs to 20 s, so no change could be told from noise; nothing is stored of gamma."""
    with folder.edited(folder.baseline("alpha")) as document:
        record = document["benchmarks"][0]["extra_info"]["trtgate"]
        (session,) = record["sessions"]
        record["sessions"] = [{**session, "metrics": {"host": [[us, us]]}} for us in (2e1, 2e7)]
    folder.suite("alpha", "gamma")
    result = folder.gate("--benchmark-compare")
    assert result.ret == OK
    result.assert_outcomes(passed=3, skipped=1)
    result.stdout.fnmatch_lines(["NEW: *gamma-eager-fp32-b1*"])

    result = folder.gate("--benchmark-compare", "--trtgate-require=baseline,verdict")
    assert result.ret == FAILED
    result.assert_outcomes(passed=2, failed=2)
    result.stdout.fnmatch_lines(["*alpha-eager-fp32-b1 can't be told from noise*--trtgate-require=verdict*"])
    result.stdout.fnmatch_lines(["*gamma-eager-fp32-b1*--trtgate-require=baseline*"])


# The machine


def test_workers_that_crash(folder):
    """The cases that killed theirs fail with the reason, and the next is measured."""
    folder.suite("gamma", alpha="if IN_WORKER: os._exit(3)", beta="if measuring(): os.abort()")
    result = folder.gate()
    assert result.ret == FAILED
    result.assert_outcomes(passed=3, failed=3)
    result.stdout.fnmatch_lines(["*_ test_latency?alpha-*", "*building*exit code 3*"])
    result.stdout.fnmatch_lines(["*_ test_latency?beta-*", "*measuring*SIGABRT*"])
    assert folder.saved_cases() == {"gamma-eager-fp32-b1"}
    result.stdout.fnmatch_lines(["alpha-eager-fp32-b1: *exit code 3*", "beta-eager-fp32-b1: *SIGABRT*"])


def test_worker_that_hangs(folder):
    folder.suite("beta", alpha="if measuring(): time.sleep(600)")
    result = folder.gate("--trtgate-timeout=5")
    assert result.ret == FAILED
    result.assert_outcomes(passed=3, failed=1)
    result.stdout.fnmatch_lines(["*_ test_latency?alpha-*", "*measuring*5 s*--trtgate-timeout*"])
    assert folder.saved_cases() == {"beta-eager-fp32-b1"}


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_no_worker_outlives_its_run(folder, how):
    folder.suite(alpha="if measuring(): open('measuring', 'w').close(), time.sleep(600)")
    run = folder.start("--trtgate-launches=2")
    workers: list[int] = []
    try:
        folder.wait_until(lambda: (folder.path / "measuring").exists() or run.poll() is not None)
        workers = folder.workers_of(run)
        assert len(workers) == 2
        run.send_signal(how)
        output, _ = run.communicate(timeout=TIMEOUT_S)
        folder.wait_until(lambda: not any(folder.is_worker(pid) for pid in workers))
    finally:
        run.kill()
        for pid in filter(folder.is_worker, workers):
            os.kill(pid, signal.SIGKILL)
    if how is signal.SIGINT:
        assert run.returncode == INTERRUPTED
        assert "KeyboardInterrupt" in output


FILES_OF_16_KIB = """
import resource

resource.setrlimit(resource.RLIMIT_FSIZE, (16 << 10, 16 << 10))
"""


def test_no_space_left(folder):
    """A stored baseline of 20 cases that would grow by one, where a file may have 16 KiB: enough for the saved run."""
    stored = folder.baseline("beta")
    with folder.edited(stored) as document:
        (beta,) = document["benchmarks"]
        document["benchmarks"] = [renamed(beta, f"beta{number}-eager-fp32-b1") for number in range(20)]
    before = stored.read_bytes()
    assert len(before) > 16 << 10
    folder.suite("alpha", "gamma")
    (folder.path / "conftest.py").write_text(FILES_OF_16_KIB)
    run = folder.gate("--trtgate-update-baselines", "-k", "alpha")
    output = folder.output_of(run)
    assert run.ret == FAILED
    assert re.search(r"latency\.json could not be written", output)
    assert "Traceback" not in output
    assert stored.read_bytes() == before
    assert list(stored.parent.iterdir()) == [stored]
    assert folder.saved_cases() == {"alpha-eager-fp32-b1"}


def renamed(entry: dict[str, Any], case_id: str) -> dict[str, Any]:
    record = {**entry["extra_info"]["trtgate"], "case": case_id}
    return {**entry, "name": case_id, "extra_info": {"trtgate": record}}


# Not used


@pytest.mark.parametrize("arguments", ["", "-n 2", "--benchmark-compare --benchmark-compare-fail=min:9999%"])
def test_without_a_suite_the_plugin_changes_nothing(folder, arguments):
    folder.plain_tests("alpha")
    with (folder.path / "test_plain.py").open("a") as file:
        file.write("\n\ndef test_nothing(): ...\n")
    assert folder.plain("--benchmark-save=base").ret == OK
    without = folder.plain(*arguments.split())
    beside = folder.pytest("test_plain.py", *arguments.split())
    assert (without.ret, beside.ret) == (OK, OK)
    assert lines_in(folder.output_of(beside)) == lines_in(folder.output_of(without))
    assert not (folder.path / ".trtgate").exists()


def lines_in(output: str) -> list[str]:
    """Return what a run says, in order of words: without numbers, which decide the order of a table, and rules."""
    lines = [line for line in output.splitlines() if not line.startswith("plugins: ")]
    return sorted(re.sub(r"[\d.,;()=>-]+|\s+", " ", line).strip() for line in lines)


def test_only_workers_make_models(folder):
    """What the code under test does to its process, it does to a worker."""
    folder.suite("beta", alpha="open('made_by', 'a').write(str(IN_WORKER) + ' ')")
    result = folder.gate("--trtgate-launches=1")
    result.assert_outcomes(passed=4)
    assert set((folder.path / "made_by").read_text().split()) == {"True"}


def test_a_builder_goes_on_after_a_case_that_is_wrong(folder):
    """A process that failed to build one case builds the next: starting another would take seconds."""
    note = "open('builders', 'a').write(f'{os.getpid()} ')"
    folder.suite("gamma", alpha=f"{note}; raise ValueError('no such layer')", beta=note)
    result = folder.gate("--trtgate-launches=1", "-m", "trtgate_accuracy")
    result.assert_outcomes(passed=2, failed=1, deselected=3)
    result.stdout.fnmatch_lines(["*ValueError: no such layer*"])
    assert len(set((folder.path / "builders").read_text().split())) == 1


def test_a_model_whose_calls_grow_is_measured_and_said_to_grow(folder):
    folder.suite(
        "beta",
        more="""


@trtgate.model(frontends=("eager",), precisions=("fp32",))
def growing(batch):
    import torch

    class Growing(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.calls = 0

        def forward(self, x):
            self.calls += 1
            pause(1e-3 * self.calls)
            return x

    return Growing(), torch.ones(batch, 4)
""",
    )
    result = folder.gate("--trtgate-launches=1", "-q")
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines(
        ["NOTICE: growing-eager-fp32-b1: it changes calls with every call, and later calls take * longer*"]
    )
