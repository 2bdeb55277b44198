"""These tests need an NVIDIA GPU, torch with CUDA and torch_tensorrt; elsewhere they are skipped with the reason."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from trtgate.common import accelerator
from trtgate.torch_trt import releases

ROOT = Path(__file__).resolve().parent.parent.parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    missing = "" if accelerator.detect().kind == "gpu" else "needs an NVIDIA GPU (NVML sees none)"
    reason = missing or releases.unavailable()
    for item in items:
        if reason and Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.skip(reason=reason))


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def gate_run(tmp_path: Path) -> Run:
    """Run pytest with the plugin in a folder, as a user does; returns the finished process."""

    def run(*arguments: str, cwd: Path = tmp_path, **environment: str) -> subprocess.CompletedProcess[str]:
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "trtgate.plugin", "-p", "no:cacheprovider", *arguments],
            cwd=cwd,
            env={
                **os.environ,
                "PYTHONPATH": f"{ROOT / 'src'}:{os.environ.get('PYTHONPATH', '')}",
                "TRTGATE_CACHE_DIR": str(tmp_path / "cache"),
                **environment,
            },
            capture_output=True,
            text=True,
            timeout=500,
        )
        print(done.stdout[-6000:], done.stderr[-2000:], f"{time.perf_counter() - start:.0f} s")
        return done

    return run
