"""What `trtgate ab` compares with: a git revision in a worktree of its own, another Python, or both."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from ..common import git
from ..common.errors import TrtgateError
from ..common.locks import ClaimedFolder, remove_abandoned
from ..suite.suite_import import is_path
from ..suite.suite_source import SuiteSource
from ..torch_trt import releases
from . import base_pytest
from .comparison_side import Side
from .relocated_imports import OURS

PYTHON_TIMEOUT_S = 120.0
OLDEST_PYTHON = (3, 11)
ASKED_OF_PYTHON = (
    "import sys, importlib.util as util, importlib.metadata as metadata; print(*sys.version_info[:2], "
    "int(util.find_spec('pytest') is not None), int(any(metadata.distributions(name='torch-tensorrt-rtx'))))"
)


class BaseRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The base as asked for: a revision, a Python, or both; and a command that makes the worktree ready."""

    revision: str = ""
    python: str = ""
    setup: str = ""

    def __str__(self) -> str:
        return " with ".join(part for part in (self.revision, self.python) if part)


class BaseRevision:
    """A base that was made ready; `close` removes what was made.

    Raises TrtgateError on construction, with nothing left behind, for a revision or Python that isn't there, for a
    setup that fails, and for a revision whose own pytest can't be asked.

    Parameters
    ----------
    before
        The variables of this process before its own conftest files changed them: a revision runs as in its own pytest.
        None: it runs with the path and the variables of this process.
    given
        What that pytest is given on its command line: options, and files of suites by their paths from the root, but
        for those that the base lacks. No files: those of all suites that are configured there.

    """

    configured: SuiteSource | None = None
    """The suites that a revision's own configuration names."""

    def __init__(
        self, request: BaseRequest, source: SuiteSource, folder: Path, *, timeout_s: float,
        before: Mapping[str, str] | None = None, given: Sequence[str] = (),
    ) -> None:  # fmt: skip
        self._root = Path(source.root).resolve()
        self._toplevel: Path | None = None
        self._made: ClaimedFolder | None = None
        try:
            python, has_pytest, rtx = sys.executable, True, releases.flavour() == "rtx"
            if request.python:
                python, has_pytest, rtx = _checked_python(request.python)
            folder.mkdir(parents=True, exist_ok=True)
            for gone in remove_abandoned(folder, "base"):
                self._forget(gone)
            self._made = ClaimedFolder(folder, "base")
            moved = self._check_out(request) if request.revision else None
            if request.setup:
                self._set_up(request.setup, timeout_s)
            self.side = Side(
                name="base",
                source=source if moved is None else self._moved_source(source, moved[1]),
                python=python,
                moved=moved,
                package_folder=self._package_folder(),
                rtx=rtx,
            )
            if moved is not None and before is not None and has_pytest:
                self._ask_its_pytest(request, before, given, timeout_s)
        except BaseException:
            self.close()
            raise

    @property
    def folder(self) -> Path:
        """Where what is made for it lies."""
        assert self._made is not None
        return self._made.path

    @property
    def _tree(self) -> Path:
        assert self._made is not None
        return self._made.path / "tree"

    def _check_out(self, request: BaseRequest) -> tuple[str, str]:
        top = _git(self._root, "rev-parse", "--show-toplevel")
        if not top:
            raise TrtgateError(f"base {request.revision!r}: {self._root} is in no git repository")
        self._toplevel = Path(top).resolve()
        commit = _git(
            self._root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{request.revision}^{{commit}}"
        )
        if not commit:
            raise TrtgateError(f"base {request.revision!r}: the repository {self._toplevel} has no such revision")
        done = git.run(self._root, "worktree", "add", "--detach", "--force", str(self._tree), commit)
        if done.returncode:
            raise TrtgateError(f"base {request.revision!r} can't be checked out: {_last_line(done.stderr)}")
        return str(self._toplevel), str(self._tree)

    def _moved_source(self, source: SuiteSource, tree: str) -> SuiteSource:
        """Return the source in the base's tree, without suites that are new since, unless all are."""
        assert self._toplevel is not None
        root = Path(tree) / self._root.relative_to(self._toplevel)
        known = tuple(name for name in source.suites if not is_path(name) or (root / name).is_file())
        return msgspec.structs.replace(source, root=str(root), suites=known or source.suites)

    def _ask_its_pytest(
        self, request: BaseRequest, before: Mapping[str, str], given: Sequence[str], timeout_s: float
    ) -> None:
        """Let its workers have the path and variables of its own pytest, and its suites where it has none of these."""
        root, answer = Path(self.side.source.root), self.folder / "pytest.json"
        given = [one for one in given if one.startswith("-") or (root / one).is_file()]
        try:
            self.side, self.configured = base_pytest.in_its_pytest(self.side, answer, before, timeout_s, given)
        except TrtgateError as error:
            raise TrtgateError(f"base {request.revision!r}: {error}") from error
        source = self.side.source
        if self.configured is not None and source.suites and not _any_there(source):
            source = msgspec.structs.replace(source, suites=self.configured.suites)
            self.side = msgspec.structs.replace(self.side, source=source)

    def _set_up(self, command: str, timeout_s: float) -> None:
        where = self._tree if self._tree.is_dir() else self._root
        process = subprocess.Popen(
            ["sh", "-c", command],
            cwd=where, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
            env=git.environment(),
        )  # fmt: skip
        try:
            output, errors = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            raise TrtgateError(f"the base's setup {command!r} did not end within {timeout_s:g} s") from None
        finally:
            if process.returncode is None:  # and with it all that it started
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if process.returncode:
            said = _last_line(errors) if errors.strip() else _last_line(output)
            raise TrtgateError(
                f"the base does not install: {command!r} ended with exit code {process.returncode}: {said}"
            )

    def _package_folder(self) -> str:
        """Make a folder that holds this trtgate alone: on another Python's path its packages must not follow."""
        assert self._made is not None
        folder = self._made.path / "package"
        folder.mkdir()
        (folder / OURS.name).symlink_to(OURS, target_is_directory=True)
        return str(folder)

    def close(self) -> None:
        """Remove the worktree, also from git's own list."""
        if self._made is not None:
            self._forget(self._made.path)
            self._made.remove()
            self._made = None

    def _forget(self, made: Path) -> None:
        with contextlib.suppress(OSError, TrtgateError):
            if (made / "tree").exists():
                git.run(self._root, "worktree", "remove", "--force", "--force", str(made / "tree"))
            shutil.rmtree(made, ignore_errors=True)
            git.run(self._root, "worktree", "prune")


def _any_there(source: SuiteSource) -> bool:
    """Whether one of the suites may be found: a module is looked for in another process."""
    return any(not is_path(name) or (Path(source.root) / name).is_file() for name in source.suites)


def _checked_python(path: str) -> tuple[str, bool, bool]:
    """Return an interpreter's absolute path, and whether it has pytest, and TensorRT-RTX.

    Raises TrtgateError for what is none.
    """
    found = shutil.which(path)
    if found is None:
        raise TrtgateError(f"--base-python {path!r}: no such program")
    try:
        said = subprocess.run(
            [found, "-c", ASKED_OF_PYTHON],
            capture_output=True, text=True, timeout=PYTHON_TIMEOUT_S, check=True,
        ).stdout  # fmt: skip
        *version, has_pytest, rtx = (int(part) for part in said.split())
    except (OSError, ValueError, subprocess.SubprocessError):
        raise TrtgateError(f"--base-python {path!r} is no Python interpreter") from None
    if tuple(version) < OLDEST_PYTHON:
        raise TrtgateError(
            f"--base-python {path!r} is Python {'.'.join(map(str, version))}; 3.11 is the oldest that works"
        )
    return str(Path(found).absolute()), bool(has_pytest), bool(rtx)


def _git(folder: Path, *arguments: str) -> str:
    done = git.run(folder, *arguments)
    return done.stdout.strip() if done.returncode == 0 else ""


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1].strip()[:300] if lines else "it said nothing"
