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
        ["-P", "-m", "named", "a", "-b"],
        ["-mnamed"],
        ["-c", "raise SystemExit(3)"],
        ["-c", "raise SystemExit('a reason')"],
        ["-c", "raise ValueError('wrong')"],
        ["-c", "import os; os._exit(7)"],
        ["-c", "import os; os.abort()"],
        ["-c", "import os, signal; os.kill(os.getpid(), signal.SIGINT)"],
        ["-c", "import atexit; atexit.register(print, 'at the end')"],
        ["-c", "import threading; threading.Timer(0.01, print, ('of a thread',)).start()"],
    ],
)
def test_a_fork_does_and_ends_as_the_command_would(
    command: list[str], tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
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


def test_a_fork_has_imported_torch_and_nothing_of_trtgate(forked: None) -> None:
    code = "import sys; print('torch' in sys.modules, any(name.startswith('trtgate') for name in sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "True False\n"


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
