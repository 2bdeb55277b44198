"""Whose code a worker runs: the candidate's, or a base's from another folder, or with another Python."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path

import msgspec

from ..common.accelerator import Accelerator
from ..suite.suite_source import SuiteSource
from ..timing.device_state import ONE
from . import messages
from .relocated_imports import OURS, relocated, standard_modules

OF_THE_MACHINE = re.compile(r"HOME|TRTGATE_.*")
"""Variables whose folders both sides share, also where they lie in the checkout."""


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """One side of a comparison.

    Parameters
    ----------
    name
        "base" or "candidate", as messages say it.
    source
        The suite, in this side's own copy of the code.
    python
        The interpreter, and with it the environment.
    moved
        (the user's checkout, the copy that stands in for it); None for the checkout itself.
    package_folder
        A folder that holds this very trtgate and nothing else, for an interpreter that may lack it.
    streams
        The state of the GPU that device latency is measured in, "one" or "many" streams.
    path
        Python's path, where it is not this process's: what pytest has in the copy.
    variables
        Environment variables that are others than this process's; None for one that is not set.
    rtx
        Whether TensorRT is TensorRT-RTX, which builds engines without timing anything on the GPU.

    """

    name: str
    source: SuiteSource
    python: str = sys.executable
    moved: tuple[str, str] | None = None
    package_folder: str = ""
    streams: str = ONE
    path: tuple[str, ...] = ()
    variables: dict[str, str | None] = {}
    rtx: bool = False

    @property
    def other_python(self) -> bool:
        """Whether its packages are not those of this process."""
        return self.python != sys.executable

    def hello(self, accelerator: Accelerator, *, tensorrt: bool = False, switcher: str = "") -> messages.Hello:
        """Return the first message to a worker of this side; with `tensorrt` it imports torch_tensorrt at once."""
        entries = list(dict.fromkeys(_absolute(self.path or sys.path)))
        if self.other_python:  # its site-packages are its own; only the user's code is shared
            roots = self.moved or (self.source.root,)
            entries = [entry for entry in entries if any(map(Path(os.path.realpath(entry)).is_relative_to, roots))]
            entries = [entry for entry in entries if "site-packages" not in entry and not entry.startswith(sys.prefix)]
        return messages.Hello(
            source=self.source,
            device="cuda" if accelerator.kind == "gpu" else "cpu",
            uuid=accelerator.uuid,
            sys_path=entries,
            standard=standard_modules(),
            moved=self.moved,
            tensorrt=tensorrt,
            streams=self.streams,
            switcher=switcher,
        )

    def environment(self, variables: dict[str, str]) -> dict[str, str]:
        """Return the environment variables of its workers, made from this process's."""
        known = [] if self.other_python else _absolute(_entries(variables.get("PYTHONPATH", "")))
        first = self.package_folder or ("" if "site-packages" in OURS.parts else str(OURS.parent))
        if path := [*([first] if first else []), *known]:
            variables["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(path))
        changed = variables | self.variables
        return {name: self._in_its_copy(name, value) for name, value in changed.items() if value is not None}

    def _in_its_copy(self, name: str, value: str) -> str:
        """Return a variable with its paths in the user's checkout, such as GITHUB_WORKSPACE, in this side's copy."""
        if self.moved is None or OF_THE_MACHINE.fullmatch(name):
            return value
        return os.pathsep.join(relocated(one, *self.moved) if os.path.isabs(one) else one for one in _entries(value))

    def working_folder(self) -> str | None:
        """Return where its workers run: a path that code writes relative to it is one of this side's files.

        None for this process's own; of a copy that lacks it the top.
        """
        if self.moved is None:
            return None
        here = os.path.realpath(Path.cwd())
        return relocated(here, *self.moved) if relocated(here, *self.moved) != here else self.moved[1]


def _entries(path: str) -> list[str]:
    return path.split(os.pathsep) if path else []


def _absolute(entries: Iterable[str]) -> list[str]:
    """Return the folders of a search path, which may be relative; what names none is an import hook's, and stays."""
    return [os.path.abspath(entry) if Path(entry).exists() else entry for entry in map(os.fspath, entries)]
