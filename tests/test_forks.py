"""What a forked process of a test is to its starter: the same as one that an interpreter begins anew."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

SAYS = "import os, sys; print(sys.argv[1:], os.getcwd(), os.environ.get('GIVEN'), sys.path[0], sys.stdin.read())"


def of(command: list[str], folder: Path) -> Any:
    """Return all that a command's starter sees of it."""
    environment = {**os.environ, "GIVEN": "this"}
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=environment,
        input="asked",
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout, done.stderr.splitlines()[-1:]


@pytest.mark.parametrize(
    "command",
    [
        ["-c", SAYS, "a", "-b"],
        ["-P", "-c", SAYS, "a"],
        ["-P", "-m", "named", "a", "-b"],
        ["-mnamed"],
        ["-c", "raise SystemExit(3)"],
        ["-c", "raise SystemExit('a reason')"],
        ["-c", "raise ValueError('wrong')"],
        ["-c", "import os; os._exit(7)"],
        ["-c", "import os; os.abort()"],
        ["-c", "import os, signal; os.kill(os.getpid(), signal.SIGINT)"],
        ["-c", "import atexit; atexit.register(print, 'at the end')"],
        ["-c", "import weakref; kept = type('Kept', (), {})(); weakref.finalize(kept, print, 'of an object')"],
        ["-c", "import threading; threading.Timer(0.01, print, ('of a thread',)).start()"],
    ],
)
def test_a_fork_does_and_ends_as_the_command_would(
    fork_server: str,
    command: list[str],
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "named.py").write_text(SAYS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        usual = of(command, tmp_path)
    finally:
        signal.signal(signal.SIGINT, handler)
    request.getfixturevalue("forked")
    assert of(command, tmp_path) == usual


def test_a_fork_has_imported_torch_and_trtgate(forked: None) -> None:
    code = "import sys; print([name in sys.modules for name in ('torch', 'trtgate.plugin', 'torch_tensorrt')])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[True, True, False]\n"


@pytest.mark.parametrize("way", ["PYTHONPATH", "the working folder"])
def test_a_fork_that_would_import_another_trtgate_has_none_of_this_one(
    forked: None, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "trtgate").mkdir()
    (tmp_path / "trtgate" / "__init__.py").write_text("OTHER = True\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path if way == "PYTHONPATH" else tmp_path / "nothing"))
    monkeypatch.chdir(tmp_path if way == "the working folder" else tmp_path.parent)
    code = "import sys, trtgate; print(trtgate.OTHER, [name for name in sys.modules if name.startswith('trtgate.')])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "True []\n"


@pytest.mark.usefixtures("forked")
def test_a_fork_with_a_session_of_its_own_is_killed_with_what_it_started() -> None:
    child = (
        "import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', 'input()']).pid, flush=True); input()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", child], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    below = psutil.Process(int(process.stdout.readline()))
    assert process.poll() is None
    assert os.getpgid(process.pid) == os.getpgid(below.pid) == process.pid
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait(30) == process.returncode == -signal.SIGKILL
    assert not psutil.pid_exists(process.pid)
    below.wait(30)
