"""Git as we start it: it works on the folder that we name, whatever the environment says of another repository.

In a git hook, GIT_DIR, GIT_INDEX_FILE and others name the repository and the index of the commit under way. A git that
inherits them writes there: `git worktree add` would put its own tree into the user's commit.
"""

from __future__ import annotations

import contextlib
import functools
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from .errors import TrtgateError

TIMEOUT_S = 120.0


@functools.cache
def repository_variables() -> frozenset[str]:
    """Return the environment variables that tie git to one repository, as git lists them; none where it is missing."""
    try:
        listed = subprocess.run(
            ["git", "rev-parse", "--local-env-vars"], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return frozenset()
    return frozenset(listed.split())


def environment() -> dict[str, str]:
    """Return this process's environment variables, without those that tie git to one repository."""
    return {name: value for name, value in os.environ.items() if name not in repository_variables()}


@contextlib.contextmanager
def unbound() -> Iterator[None]:
    """Within: this process's environment ties git to no repository, for code of others that starts git."""
    taken = {name: os.environ.pop(name) for name in repository_variables() if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(taken)


def head(folder: Path) -> str:
    """Return the commit that is checked out in a folder; empty where git knows none, or is not installed."""
    try:
        return run(folder, "rev-parse", "--verify", "--quiet", "HEAD").stdout.strip()
    except TrtgateError:
        return ""


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run git in a folder. Raises TrtgateError where git is not installed, and when it takes longer than TIMEOUT_S."""
    try:
        return subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True, text=True, errors="replace", timeout=TIMEOUT_S, check=False, env=environment(),
        )  # fmt: skip
    except FileNotFoundError:
        raise TrtgateError("a base revision needs git, and it is not installed") from None
    except subprocess.TimeoutExpired:
        raise TrtgateError(f"git {arguments[0]} did not end within {TIMEOUT_S:g} s in {folder}") from None
