"""A run that compares with a base: the base made ready, as its own pytest would have it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ..suite.suite_import import is_path

if TYPE_CHECKING:
    from ..gate.run_options import Options
    from ..launches.base_revision import BaseRevision

IMPORT_MODE = "--import-mode"
VARIABLES = pytest.StashKey[dict[str, str]]()
"""The environment before conftest files changed it."""


def made_ready(options: Options, config: pytest.Config, folder: Path) -> BaseRevision | None:
    """Return what a run compares with, made in `folder`; None where it has no base. Raises TrtgateError."""
    from ..launches.base_revision import BaseRevision

    if options.base is None:
        return None
    files = [name for name in options.source.suites if is_path(name)]
    return BaseRevision(
        options.base, options.source, folder, timeout_s=options.timeout_s, before=config.stash[VARIABLES],
        given=[*_import_mode(config), *files],
    )  # fmt: skip


def _import_mode(config: pytest.Config) -> list[str]:
    """Return the import mode where it was typed: the base's own configuration does not have it then."""
    typed = any(str(argument).startswith(IMPORT_MODE) for argument in config.invocation_params.args)
    return [f"{IMPORT_MODE}={config.getoption('importmode')}"] if typed else []
