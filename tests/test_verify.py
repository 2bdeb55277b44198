"""`trtgate verify`: what it says of an installation that works, and of everything that may be wrong with one."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest
import torch

from trtgate.commands import doctor_facts, doctor_probes, verify_checks, verify_judging
from trtgate.commands.verify_checks import Checks
from trtgate.commands.verify_record import FAILED, NOT_HERE, OK, Verification
from trtgate.commands.verify_suite import BLOCK, IN_PYTORCH, convolutions
from trtgate.common.errors import TrtgateError
from trtgate.common.run_folder import RunFolder
from trtgate.common.time_limit import TimeLimit
from trtgate.launches import messages
from trtgate.launches.session import Session
from trtgate.launches.worker_handle import WorkerHandle
from trtgate.profiles.layer_names import normalised
from trtgate.records.coverage_record import EXCLUDED, Coverage, EngineOperators, Left
from trtgate.records.measurement import Build, Capture, CaseMeasurement, Launch, Loaded, Turn
from trtgate.suite.suite_source import SuiteSource
from trtgate.timing import device_lock
from trtgate.torch_trt import compile_options, releases

from . import forks
from .in_process import command
from .profile_data import resnet18_profile
from .pytest_folder import PytestFolder
from .test_cli import facts

TRTGATE = str(Path(sys.executable).parent / "trtgate")
needs_torch_tensorrt = pytest.mark.skipif(bool(releases.unavailable()), reason="torch_tensorrt is not installed")
NO_GPU = "needs a GPU, and there is none (NVML)"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRTGATE_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def read(file: Path) -> Verification:
    return msgspec.json.decode(file.read_bytes(), type=Verification)


def outcomes(found: Verification) -> dict[str, str]:
    return {check.name: check.outcome for check in found.checks}


# For real, without a GPU


@needs_torch_tensorrt
@pytest.mark.usefixtures("forked_with_tensorrt")
def test_a_cpu_is_checked_as_far_as_it_goes(folder: PytestFolder, own_cache: Path) -> None:
    result = folder.pytester.run(TRTGATE, "verify", timeout=200)
    assert result.ret == 0
    found = read(folder.path / ".trtgate" / "verify.json")
    here = ("installation", "device lock", "artifact cache", "frontend eager", "frontend aot_eager",
            "frontend inductor", "coverage, dry run", "clock")  # fmt: skip
    assert [name for name, outcome in outcomes(found).items() if outcome == OK] == list(here)
    said = {check.name: check.said for check in found.checks if check.outcome == NOT_HERE}
    assert said.pop("frontend fx").endswith("has no fx frontend")
    assert set(said.values()) == {NO_GPU}
    assert len(said) == 9
    assert "frontend ts_script" in said
    assert found.facts.device is not None
    assert found.facts.packages["torch"]
    lines = result.outlines
    for check in found.checks:
        (line,) = [line for line in lines if line.startswith(f"{check.name}  ")]
        assert re.fullmatch(rf"{check.name} +{check.outcome} +\d+\.\d s  {re.escape(check.said)}", line)
    assert lines[-2:] == [
        f"{len(found.checks)} checks: {len(here)} ok, 0 failed, {len(said) + 1} not here",
        f"written: {folder.path / '.trtgate' / 'verify.json'}",
    ]
    assert list((own_cache / "entries").iterdir()) == []
    assert not list((folder.path / ".trtgate").glob("artifacts-*"))


# For real, with faults

PLANTED = f"""
import os
import torch
from trtgate.suite.cases import Model
from trtgate.suite.declaring import grid

class Planted(torch.nn.Module):
    def forward(self, x):
        y = torch.sigmoid(x)
        return -y if torch.compiler.is_compiling() else y

def convolutions(batch):
    return Planted().eval(), torch.linspace(-3, 3, 64).reshape(1, 64)

def block(batch):
    os.read(os.pipe()[0], 1)  # for ever

MODELS = [
    Model("convolutions", convolutions, grid(["aot_eager", "eager", "dynamo"], ["fp32"], [1])),
    Model("{BLOCK}", block, grid(["dynamo"], ["fp16"], [32])),
]
"""


@pytest.fixture
def planted(folder: PytestFolder, monkeypatch: pytest.MonkeyPatch) -> PytestFolder:
    """A folder in which `verify`, run in this process, checks with models that are wrong compiled, and one that hangs.

    Its time limit for a dry run, once the worker is there, is half a second.
    """
    (folder.path / "planted.py").write_text(PLANTED)
    monkeypatch.setattr(verify_checks, "SOURCE", SuiteSource(root=str(folder.path), suites=("planted.py",)))
    ask = WorkerHandle.ask

    def impatient(self: Any, request: Any, *others: Any) -> Any:
        if isinstance(request, messages.DryRun):
            self._timeout_s = TimeLimit(0.5, "--timeout")
        return ask(self, request, *others)

    monkeypatch.setattr(WorkerHandle, "ask", impatient)
    return folder


@needs_torch_tensorrt
def test_what_is_wrong_hangs_or_raises_is_a_line_and_the_others_go_on(
    planted: PytestFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(*_arguments: Any) -> Any:
        raise KeyError("nobody thought of it")

    monkeypatch.setattr(Session, "measure", measure)
    before = len(forks.started)
    status, output = command("verify", "--json", "found.json")
    assert status == 1
    found = read(planted.path / "found.json")
    said = {check.name: check.said for check in found.failed}
    assert list(said) == ["frontend aot_eager", "coverage, dry run", "clock"]
    (logs,) = (planted.path / ".trtgate" / "logs").glob("run-*")
    where = f"the workers' logs are in {logs}"
    assert "case convolutions-aot_eager-fp32-b1: output differs from eager" in said["frontend aot_eager"]
    assert said["frontend aot_eager"].endswith(f"{where}/frontend-aot-eager (docs: wrong-output)")
    assert "output differs" in (logs / "frontend-aot-eager" / "worker-0.log").read_text()
    hung = "dry run: no answer within 0 s; raise --timeout if it needs longer"
    assert (
        said["coverage, dry run"]
        == f"block-dynamo-fp16-b32-mbs5: {hung}; {where}/coverage-dry-run (docs: worker-failed)"
    )
    assert re.fullmatch(
        r"unexpected: KeyError: 'nobody thought of it' \(test_verify.py, line \d+\): please report it", said["clock"]
    )
    others = {name: outcome for name, outcome in outcomes(found).items() if name not in said}
    assert set(others.values()) == {OK, NOT_HERE}
    assert others["frontend eager"] == OK  # which came after
    assert "Traceback" not in output
    assert f"to report what failed, send found.json and {logs}\n" in output
    assert len(forks.started) > before
    assert [pid for pid in forks.started[before:] if psutil.pid_exists(pid)] == []


def test_ctrl_c_shows_what_is_known(planted: PytestFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def build(*_arguments: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(Session, "build", build)
    status, output = command("verify")
    assert status == 2
    assert re.search(r"^artifact cache +ok ", output, re.MULTILINE)
    assert output.endswith("interrupted\n")
    assert not list((planted.path / ".trtgate").glob("artifacts-*"))


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"torch": doctor_facts.Torch(error="ImportError: libc10.so")}, "torch can't be imported: ImportError"),
        ({"torch": doctor_facts.Torch(version="2.14.0", device_error="no kernel image")}, "torch can't use it"),
        ({"device": None, "device_error": "NVML does not work"}, "NVML does not work"),
    ],
)
def test_where_nothing_can_be_run_that_is_all_it_says(
    folder: PytestFolder, monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], reason: str
) -> None:
    monkeypatch.setattr(doctor_probes, "probe", lambda _folder, _step: facts(**fields))
    status, output = command("verify")
    assert status == 4
    (line,) = output.splitlines()
    assert line.startswith("trtgate: error: nothing can be checked here: ")
    assert reason in line


# What is said of a GPU, its workers scripted


def coverage(*, left: str = f"{IN_PYTORCH}.default", engines: int = 2) -> Coverage:
    return Coverage(
        min_block_size=1, total=3, supported=3, in_tensorrt=2, in_pytorch=1, block_sizes=[],
        left=[Left(operator=left, reason=EXCLUDED, count=1)],
        engines=[EngineOperators(operators={"aten.mm.default": 1}, inputs=[], outputs=[]) for _ in range(engines)],
    )  # fmt: skip


def measured(*means_us: float, clock: str = "cuda_graph", void: tuple[str, ...] = ()) -> CaseMeasurement:
    def launch(us: float) -> Launch:
        captures = [Capture(blocks_us=[us] * (not void), replays=1, void=list(void)) for _ in range(4)]
        return Launch(loaded=Loaded(seconds=1.0), turns=[Turn(clock=clock, captures=captures, host_us=[])])

    return CaseMeasurement(case_id="convolutions", launches=[launch(us) for us in means_us])


class ScriptedGpu:
    """Stands in for the session of a machine where all works, but for what a test replaces."""

    asked: list[str]

    def __init__(self, *_where: Any, **_how: Any) -> None:
        self.asked = []

    def build(self, request: messages.BuildCase, _step: Any) -> messages.BuiltReply:
        again = request.cache is not None and request.case_id in self.asked
        self.asked.append(request.case_id)
        build = Build(build_s=1.0, engines=1, leaf_error=1e-4, cached=again)
        return messages.BuiltReply(build, stored=True, coverage=coverage())

    def check_fresh(self, *_arguments: Any) -> None: ...

    def profile(self, *_arguments: Any) -> messages.ProfileReply:
        return messages.ProfileReply(resnet18_profile())

    def dry_run(self, *_arguments: Any) -> Coverage:
        return coverage()

    def measure(self, *_arguments: Any) -> CaseMeasurement:
        return measured(100.0, 100.5)

    def close(self) -> None: ...


Verified = Callable[..., dict[str, tuple[str, str]]]


@pytest.fixture
def verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Verified:
    """Check a scripted GPU, with some of its answers replaced; returns check → outcome and sentence."""

    def verify(found: doctor_facts.Facts | None = None, **answers: Any) -> dict[str, tuple[str, str]]:
        scripted = type("Replaced", (ScriptedGpu,), {name: lambda *_a, v=v: v for name, v in answers.items()})
        monkeypatch.setattr(verify_checks, "Session", scripted)
        monkeypatch.setenv("TRTGATE_LOCK_DIR", str(tmp_path))
        folder = RunFolder(tmp_path / ".trtgate")
        checks = Checks(verify_checks.SOURCE, found or facts(), folder, 5.0, lambda _text: None)
        return {one.name: (one.outcome, one.said) for one in checks.results()}

    return verify


@needs_torch_tensorrt
def test_of_a_gpu_all_is_asked_but_for_what_the_release_lacks(
    verified: Verified, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compile_options, "has_runtimes", lambda: True)
    found = verified()
    lacking = {f"frontend {name}" for name in releases.LEGACY if releases.lacks(name)}
    assert {name for name, (outcome, _) in found.items() if outcome != OK} == lacking
    assert found["frontend dynamo"][1].endswith("stored, and right in a fresh process")
    assert found["frontend torch_compile"][1].endswith("every process builds it")
    assert found["runtime python"][1].endswith("every process builds it")
    assert "all named; modules known of 9" in found["profile"][1]
    assert found["clock"][1] == "two launches took 100 µs and 100.5 µs by the clock cuda_graph, 0.5 % apart"


def built(**fields: Any) -> messages.BuiltReply:
    build = Build(build_s=1.0, **{"engines": 1, "leaf_error": 1e-4, **fields.pop("build", {})})
    return messages.BuiltReply(build, **{"stored": True, "coverage": coverage(), **fields})


def without_a_name() -> messages.ProfileReply:
    profile = resnet18_profile()
    assert normalised(profile.parts[0].layers[3].name)
    profile.parts[0].layers[3].name = ""
    return messages.ProfileReply(profile)


@needs_torch_tensorrt
@pytest.mark.parametrize(
    ("answers", "name", "said"),
    [
        ({"build": built(build={"engines": 0})}, "frontend dynamo", "nothing of it became a TensorRT engine"),
        ({"build": built(stored=False, notes=["can't be stored: X"])}, "frontend dynamo", "can't be stored: X"),
        ({"build": built()}, "cached module", "was built twice, and never taken from the cache"),
        ({"build": built(coverage=None)}, "coverage, real build", "says nothing of its coverage"),
        ({"build": built(coverage=coverage(engines=3))}, "coverage, real build", "the dry run said: engines 2 → 3"),
        ({"dry_run": coverage(engines=1)}, "coverage, dry run", "two engines around aten.sigmoid were expected"),
        ({"dry_run": coverage(left="aten.mm.default")}, "coverage, dry run", "with aten.mm left to PyTorch"),
        ({"profile": without_a_name()}, "profile", "a layer has no name"),
        ({"measure": measured(100.0, 104.0)}, "clock", "4 % apart (more than 3 %): see that nothing else uses the GPU"),
        ({"measure": measured(100.0, 100.0, void=("throttled",) * 4)}, "clock", "blocks do not count: throttled"),
    ],
)
def test_what_a_gpu_gets_wrong_is_said(verified: Verified, answers: dict[str, Any], name: str, said: str) -> None:
    outcome, sentence = verified(**answers)[name]
    assert outcome == FAILED
    assert said in sentence


def test_launches_far_apart_are_noise_on_a_cpu() -> None:
    quiet = verify_judging.repeated(measured(100.0, 110.0, clock="host"))
    assert quiet == "two launches took 100 µs and 110 µs by the clock host, 10 % apart"
    assert "40 % apart (more than 25 %)" in verify_judging.repeated(measured(100.0, 140.0, clock="host"))
    void = verify_judging.repeated(measured(100.0, 110.0, clock="host", void=("others",) * 4))
    assert void.startswith("noisy: 0 of 2 launches could be timed (32 of 32 blocks do not count: others)")


@needs_torch_tensorrt
@pytest.mark.parametrize(
    ("name", "several", "features", "reason"),
    [
        ("runtime cpp", True, {"torch_tensorrt_runtime": False}, "has no C++ runtime"),
        ("runtime python", False, {}, "runtime=python can't be chosen"),
    ],
)
def test_a_runtime_that_the_build_lacks_is_not_here(
    verified: Verified,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    several: bool,
    features: dict[str, bool],
    reason: str,
) -> None:
    monkeypatch.setattr(compile_options, "has_runtimes", lambda: several)
    outcome, said = verified(facts(features=doctor_facts.Features(enabled=features)))[name]
    assert outcome == NOT_HERE
    assert reason in said


def test_a_torch_tensorrt_that_cannot_be_imported_fails_once(verified: Verified) -> None:
    found = verified(facts(features=doctor_facts.Features(error="ImportError: libnvinfer.so")))
    failed = {name: said for name, (outcome, said) in found.items() if outcome == FAILED}
    assert failed == {"installation": "torch_tensorrt is installed and can't be imported: ImportError: libnvinfer.so"}
    assert {found[name][0] for name in ("frontend dynamo", "profile", "coverage, dry run")} == {NOT_HERE}
    assert found["clock"][0] == OK


# A machine whose files are in the way


def test_a_lock_that_holds_nobody_off_fails(verified: Verified, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_lock, "try_lock", lambda *_arguments, **_keywords: True)
    outcome, said = verified()["device lock"]
    assert outcome == FAILED
    assert "was locked twice at once" in said
    assert "Set TRTGATE_LOCK_DIR" in said


def test_a_cache_that_others_may_write_fails(verified: Verified, own_cache: Path) -> None:
    own_cache.mkdir(mode=0o755)
    outcome, said = verified()["artifact cache"]
    assert outcome == FAILED
    assert "must be a folder of this user alone" in said


def test_a_cache_that_loses_what_it_takes_fails(verified: Verified, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify_checks.ArtifactCache, "take", lambda *_arguments: (None, ""))
    outcome, said = verified()["artifact cache"]
    assert outcome == FAILED
    assert "does not have what was just put there: set TRTGATE_CACHE_DIR to a folder" in said


def test_a_lock_that_cannot_be_opened_is_told_as_it_is(verified: Verified, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_path: Path) -> int:
        raise TrtgateError("not yours")

    monkeypatch.setattr(device_lock, "open_shared", refused)
    assert verified()["device lock"] == (FAILED, "not yours")


def test_what_every_frontend_builds_can_be_scripted() -> None:
    module, inputs = convolutions(batch=2)
    scripted = torch.jit.script(module)
    torch.testing.assert_close(scripted(inputs), module(inputs))
