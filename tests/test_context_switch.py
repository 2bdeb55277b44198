"""The process that uses the GPU when it is asked, as far as that shows without a GPU."""

from __future__ import annotations

import secrets
import socket
import subprocess
import sys
import threading

import pytest

from trtgate.timing import context_switch
from trtgate.timing.context_switch import ContextSwitcher, SwitchError, switch


@pytest.fixture
def serving() -> tuple[str, list[str]]:
    """A server in a thread; returns its name and what it worked."""
    name, worked = f"trtgate-test-{secrets.token_hex(8)}", []
    threading.Thread(target=context_switch.serve, args=(name, lambda: worked.append("once")), daemon=True).start()
    return name, worked


def test_it_works_once_a_request_and_tells_all_the_largest_ratio(serving: tuple[str, list[str]]) -> None:
    name, worked = serving
    assert [switch(name), switch(name, 1.18), switch(name, 1.01), switch(name)] == [0.0, 1.18, 1.18, 1.18]
    assert len(worked) == 4


def test_what_is_no_number_ends_no_server(serving: tuple[str, list[str]]) -> None:
    name, worked = serving
    switch(name)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect("\0" + name)
        connection.sendall(b"a lot\n")
        assert connection.makefile().read() == ""
    assert switch(name, 1.2) == 1.2
    assert len(worked) == 2


def test_another_users_process_is_not_worked_for(
    serving: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    name, worked = serving
    switch(name)
    monkeypatch.setattr(context_switch, "_user_of", lambda _connection: -1)
    with pytest.raises(SwitchError, match="another user's"):
        switch(name)
    assert len(worked) == 1


def test_where_there_is_no_driver_that_is_said() -> None:
    switcher = ContextSwitcher("GPU-0")
    try:
        with pytest.raises(SwitchError, match=r"there is no NVIDIA driver|gave CUDA error"):
            switch(switcher.name)
    finally:
        switcher.close()


def test_where_there_is_no_process_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context_switch, "CONNECTING_S", 0.0)
    with pytest.raises(SwitchError, match="no process to switch to answers"):
        switch("trtgate-nobody")


def test_it_ends_with_who_started_it() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "trtgate.timing.context_switch", "trtgate-x"], stdin=subprocess.PIPE
    )
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(60) == 0
