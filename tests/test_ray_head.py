"""A head that is gone is noticed, without a cluster."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from trtgate.common.errors import TrtgateError
from trtgate.fleet.ray_head import HeadWatch

LONG_S = 30.0


@pytest.fixture
def head() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def address_of(head: socket.socket) -> str:
    return f"127.0.0.1:{head.getsockname()[1]}"


def test_a_head_that_listens_is_not_lost(head: socket.socket) -> None:
    watch = HeadWatch(address_of(head), look_s=0.001, gone_s=0.0)
    for _ in range(3):
        head.accept()[0].close()  # it has looked
    watch.check()
    watch.close()


def test_a_head_that_listens_no_more_is_lost_with_its_address(head: socket.socket) -> None:
    address = address_of(head)
    watch = HeadWatch(address, look_s=0.001, gone_s=0.0)
    head.accept()[0].close()
    head.close()
    watch._thread.join(LONG_S)
    with pytest.raises(TrtgateError, match=f"^the head of the Ray cluster at {address} is gone$"):
        watch.check()


def test_a_head_that_comes_back_in_time_is_not_lost(head: socket.socket) -> None:
    address = head.getsockname()
    watch = HeadWatch(address_of(head), look_s=0.001, gone_s=LONG_S)
    head.accept()[0].close()
    head.close()
    back = threading.Event()
    with socket.create_server(address) as again:
        while not back.is_set():  # what came in between was refused
            again.accept()[0].close()
            back.set()
        watch.check()
    watch.close()
