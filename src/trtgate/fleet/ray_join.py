"""Joins a Ray cluster that is named, and sends it the code; never starts one, and never looks for one."""

from __future__ import annotations

import importlib.util
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..common.errors import TrtgateError, one_line
from ..compiling import process_flags
from ..launches.relocated_imports import OURS

ADDRESS_VARIABLE = "RAY_ADDRESS"
JOIN_S, PROBE_S = 5.0, 30.0
"""How long a cluster may take to be reached, and to say that it is one."""
OF_RAY = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_AUTO_CONNECT": "0",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "86400",
}
"""Ray's own variables: it sends nothing home, starts no cluster by itself, and outlives a head that is gone.

Without the last one it ends this process after a minute, and says nothing; `ray_head` says it.
"""
EXCLUDED = [
    ".git", ".venv", "venv", ".trtgate", ".env", ".env.*", "*.pem", ".netrc", "__pycache__", ".benchmarks",
    ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis",
]  # fmt: skip
"""What is not sent, beside what git ignores."""
TOO_LARGE = "maximum size"
"""Words of Ray's about a folder that it does not take."""
PROBE = """
import sys
from ray._raylet import GcsClient
GcsClient(address=sys.argv[1]).internal_kv_keys(b"x", namespace=b"trtgate")
"""


def address_of(asked: str) -> str:
    """Return the address HOST:PORT that an option, or else the environment, names.

    Raises TrtgateError where none is named, or one that would start or find a cluster by itself.
    """
    address, where = asked or os.environ.get(ADDRESS_VARIABLE, ""), "--trtgate-ray" if asked else ADDRESS_VARIABLE
    if not address:
        raise TrtgateError(
            f"--trtgate-ray names no cluster: write --trtgate-ray=HOST:PORT as `ray start --head` prints it, or set "
            f"{ADDRESS_VARIABLE}"
        )
    if address.startswith("ray://"):
        raise TrtgateError(
            f"{where}={address}: Ray's client is not used: run pytest on a machine of the cluster (ray start "
            "--address=HOST:PORT --num-cpus=0 makes this one of it), and name HOST:PORT"
        )
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise TrtgateError(
            f"{where}={address}: write HOST:PORT as `ray start --head` prints it; no cluster is looked for, or started"
        )
    return address


def joined(address: str, root: Path | None) -> Any:
    """Join a cluster, and let it have the folder `root`, if there is one, and this package; returns the module ray.

    Of the environment go only variables that decide how something is compiled or computed. Raises TrtgateError for what
    is no cluster, or one of another Ray or Python.
    """
    ray = _imported()
    _probe(address)
    sent = {} if root is None else {"working_dir": str(root), "excludes": EXCLUDED}
    runtime = {"py_modules": [str(OURS)], "env_vars": process_flags.environment(), **sent}
    try:
        with _unnamed():
            ray.init(
                address=address, runtime_env=runtime, log_to_driver=False, logging_level=logging.ERROR,
                configure_logging=False,
            )  # fmt: skip
    except Exception as error:
        ray.shutdown()  # it may have joined in part
        hint = (
            f"; let git ignore what of {root} no suite needs, or keep it elsewhere" if TOO_LARGE in str(error) else ""
        )
        raise TrtgateError(f"the Ray cluster at {address} can't be joined: {_why(error)}{hint}") from error
    return ray


def _imported() -> Any:
    if importlib.util.find_spec("ray") is None:
        raise TrtgateError("--trtgate-ray needs Ray: pip install 'trtgate[ray]'")
    for name, value in OF_RAY.items():
        os.environ.setdefault(name, value)
    import ray
    import ray.util.scheduling_strategies

    logging.getLogger("ray").setLevel(logging.ERROR)  # advice about its own options, on standard error

    if ray.is_initialized():
        raise TrtgateError(
            "this process uses Ray already, and --trtgate-ray joins a cluster itself: leave out ray.init"
        )
    return ray


def _probe(address: str) -> None:
    """Raise TrtgateError where nobody, or no Ray, listens: Ray itself would try for minutes, and end this process."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=JOIN_S).close()
    except OSError as error:
        raise TrtgateError(
            f"there is no Ray cluster at {address}: {error.strerror or error}; `ray start --head` prints the address"
        ) from error
    try:
        done = subprocess.run([sys.executable, "-c", PROBE, address], timeout=PROBE_S, capture_output=True, text=True)
    except subprocess.TimeoutExpired as error:
        raise TrtgateError(f"what listens at {address} is no Ray cluster: it does not answer as one") from error
    if done.returncode:
        said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise TrtgateError(f"what listens at {address} is no Ray cluster of this Ray: {said[:200]}")


@contextmanager
def _unnamed() -> Iterator[None]:
    """Within: Ray does not tell the cluster this process's command line, which may hold secrets of URLs."""
    from ray._private import utils

    before = utils.get_entrypoint_name
    utils.get_entrypoint_name = lambda: "trtgate"
    try:
        yield
    finally:
        utils.get_entrypoint_name = before


def _why(error: Exception) -> str:
    """Return what Ray says in a line: its messages about versions have several."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if "Version mismatch" in str(error):
        return " ".join(lines)[:300]
    if type(error).__name__ == "RuntimeEnvSetupError" and len(lines) > 1:
        return " ".join(lines[1:])[:300]
    return one_line(error)
