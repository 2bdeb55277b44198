"""`trtgate verify` on a real GPU: every check is answered, and none fails, but for what the installed release lacks."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import msgspec
from packaging.requirements import Requirement

from trtgate import frontends
from trtgate.commands.verify_record import FAILED, NOT_HERE, Verification
from trtgate.suite.settings import FRONTENDS
from trtgate.torch_trt import compile_options, releases

from .conftest import ROOT


def lacking() -> set[str]:
    """Return the checks that this flavour, release or machine can't answer, whatever state it is in."""
    found = {f"frontend {name}" for name in FRONTENDS if releases.lacks(name) or frontends.get(name).unavailable()}
    return found if compile_options.has_runtimes() else {*found, "runtime cpp", "runtime python"}


def without_triton() -> set[str]:
    """Return what must fail where the Triton that this torch asks for is not installed: Inductor on a GPU."""
    wanted = [Requirement(text) for text in importlib.metadata.requires("torch") or []]
    for requirement in (one for one in wanted if one.name == "triton"):
        try:
            if requirement.specifier.contains(importlib.metadata.version("triton")):
                return set()
        except importlib.metadata.PackageNotFoundError:
            pass
        return {"frontend inductor"}
    return set()


def test_this_installation_works(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "trtgate", "verify", "--json", "found.json"],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": f"{ROOT / 'src'}:{os.environ.get('PYTHONPATH', '')}",
            "TRTGATE_CACHE_DIR": str(tmp_path / "cache"),
        },
        capture_output=True,
        text=True,
        timeout=580,
    )
    shown = f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    for log in sorted(tmp_path.glob(".trtgate/logs/verify/*/*.log")):  # those of checks that failed
        shown += f"\n{log.relative_to(tmp_path)}\n{log.read_text(errors='replace')[-3000:]}"
    print(shown)
    assert (tmp_path / "found.json").is_file(), shown
    found = msgspec.json.decode((tmp_path / "found.json").read_bytes(), type=Verification)
    assert found.facts.device is not None
    assert found.facts.device.kind == "gpu"
    failed = {check.name for check in found.checks if check.outcome == FAILED}
    not_here = {check.name for check in found.checks if check.outcome == NOT_HERE}
    assert failed <= without_triton(), shown
    assert not_here == lacking(), shown
    assert done.returncode == (1 if failed else 0), shown
    assert "Traceback" not in done.stdout + done.stderr, shown
    seconds = sum(check.seconds for check in found.checks)
    print(f"{len(found.checks)} checks in {seconds:.0f} s on {found.facts.device.name}")
