"""Runs that are kept outside of this machine: where that is asked for, and putting them there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ..common import accelerator, git, run_places
from ..common.errors import TrtgateError
from ..common.notices import Notice
from ..common.run_places import Folder, Place
from ..suite.pytest_config import RUNS_KEY, RUNS_VARIABLE

if TYPE_CHECKING:
    from .gate_run import GateRun


def folder(config: pytest.Config) -> Folder | None:
    """Return where runs are kept: by option, environment or ini key, the first that is given; None where nowhere.

    Raises TrtgateError for a URL of no use.
    """
    option = config.getoption("trtgate_runs")
    asked = os.environ.get(RUNS_VARIABLE, "").strip() if option is None else option
    if asked or option == "":
        return run_places.at(asked, config.invocation_params.dir) if asked else None
    key = str(config.getini(RUNS_KEY)).strip()
    return run_places.at(key, config.rootpath) if key else None


def to_confirm(config: pytest.Config) -> Place | None:
    """Return the run that a merge left to be confirmed. Raises TrtgateError where a folder or a URL has none."""
    asked = config.getoption("trtgate_confirm")
    if asked is None:
        return None
    key, commit = accelerator.detect().key, git.head(config.rootpath)
    return run_places.to_confirm(asked, config.invocation_params.dir, key=key, commit=commit)


def resumes(config: pytest.Config, *, beside_base: bool) -> bool:
    """Return whether a run resumes. Raises TrtgateError where it can't."""
    get = config.getoption
    if not get("trtgate_resume"):
        return False
    if folder(config) is None:
        raise TrtgateError("--trtgate-resume takes what an earlier run kept: say where with --trtgate-runs")
    if beside_base:
        raise TrtgateError("--trtgate-resume is about stored baselines, a base is measured anew: drop one of them")
    for option in ("trtgate_shard", "trtgate_confirm", "trtgate_changed", "trtgate_update_baselines"):
        if get(option):
            raise TrtgateError(f"--trtgate-resume does not go with --{option.replace('_', '-')}: drop one of them")
    return True


def keep(run: GateRun, path: Path, kind: str = "") -> Notice | None:
    """Put a run, or a report of it, where it outlives this machine, and return what to say of that."""
    from ..gate import history

    folder, name = run.options.runs, run.run_folder.run_name
    if folder is None or not name:
        return None
    here = os.path.relpath(path, run.config.invocation_params.dir)
    commit = history.commit_of(run.json.commit_info).id
    _, said = run_places.keep(
        folder, name, path.read_bytes(), key=run.accelerator.key, commit=commit, here=here, kind=kind
    )
    return said
