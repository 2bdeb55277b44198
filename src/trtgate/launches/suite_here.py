"""The suites that pytest's configuration names for a folder, and where pytest would import them from."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache, partial
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest

from ..common.errors import TrtgateError, one_line
from ..common.explanations import Explanation, explained
from ..suite.pytest_config import Configuration, find_configuration
from ..suite.suite_import import ImportRule
from ..suite.suite_source import SuiteSource, suites_named
from ..torch_trt import import_hook

OF_A_SESSION = ("terminal", "cacheprovider", "tmpdir")
"""Plugins of pytest's own that a session which starts may use: it writes to the terminal, or asks the cache."""


def suite_here() -> SuiteSource | None:
    """Return where the suites of this folder are, Python's path being pytest's; None where none is configured.

    Raises TrtgateError where pytest can't read its configuration.
    """
    found = find_configuration(Path.cwd())
    source = None if found is None else named_in(found)
    return None if source is None else on_pytests_path(source, found, source.places())


def factories_here(*names: str) -> SuiteSource:
    """Return a source of factories that are importable from this folder as they are in pytest. Raises TrtgateError."""
    source = SuiteSource(root=str(Path.cwd()), factories=names)
    return on_pytests_path(source, find_configuration(Path.cwd()), [Path.cwd()])


def configured_suite(folder: Path, *, as_in_pytest: bool = False) -> tuple[SuiteSource, Path, list[str]]:
    """Return the suites that pytest's configuration names for `folder`, their `.trtgate` folder, and their limits.

    With `as_in_pytest` Python's path becomes pytest's; so it does where a suite is not found without. Raises
    TrtgateError when no suite is configured, or one is not there.
    """
    found = find_configuration(folder)
    source = None if found is None else named_in(found)
    if found is None or source is None:
        raise TrtgateError(f"no suite is configured for {folder}: run trtgate init, or set the ini key trtgate_suite")
    if as_in_pytest or len(source.suite_files()) < len(source.suites):  # a module that is on pytest's path alone
        source = on_pytests_path(source, found, source.places())
    for name in source.suites:
        if name not in source.suite_files():
            raise TrtgateError(f"{found.path}: trtgate_suite names {name!r}, and there is no such file or module")
    return source, Path(source.root) / ".trtgate", found.values.get("trtgate_limits", "").split()


def named_in(found: Configuration) -> SuiteSource | None:
    """Return the suites that a configuration names; None where it names none."""
    root = found.path.parent
    names = suites_named(found.values.get("trtgate_suite", ""), root)
    return SuiteSource(root=str(root), suites=names) if names else None


def on_pytests_path(source: SuiteSource, found: Configuration | None, given: Iterable[str | Path]) -> SuiteSource:
    """Let Python's path become the one that pytest has for what it is given; returns the source with its import rule.

    Raises TrtgateError where pytest can't read its configuration.
    """
    import_hook.install(everywhere=True, shared_cache=False)
    configuration = None if found is None else str(found.path)
    rule = _asked(configuration, tuple(map(str, given)) or (str(Path.cwd()),))
    return msgspec.structs.replace(source, rule=rule)


@cache
def _asked(configuration: str | None, places: tuple[str, ...]) -> ImportRule:
    """Let pytest itself start a session of some places, and take over its path and variables; nothing is collected.

    That decides them: the ini key pythonpath, the conftest files that belong to the places, in the import mode of the
    options, plugins that the options name, and what these configure and do when a session starts. A second reading of
    these would differ somewhere.
    """
    question, before = _Question(), list(sys.path)
    named = [] if configuration is None else [f"--config-file={configuration}"]
    with contextlib.redirect_stderr(io.StringIO()) as said, contextlib.redirect_stdout(said), _no_warnings():
        pytest.main([*named, *places], plugins=[question])
    if question.rule is None:
        sys.path[:] = before
        raise TrtgateError(f"pytest can't read its configuration or a conftest.py here: {_reason(said.getvalue())}")
    sys.path[:] = question.path
    for name in os.environ.keys() - question.variables.keys():
        del os.environ[name]
    os.environ.update(question.variables)
    return question.rule


@contextlib.contextmanager
def _no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class _Question:
    """A plugin that ends pytest when its session has started, and keeps what there is then."""

    rule: ImportRule | None = None
    path: list[str]
    variables: dict[str, str]

    @pytest.hookimpl(tryfirst=True)
    def pytest_cmdline_main(self, config: pytest.Config) -> int:
        hook, session = config.hook, pytest.Session.from_config(config)
        for plugin in filter(None, map(config.pluginmanager.get_plugin, OF_A_SESSION)):
            plugin.pytest_configure(config)
        started: dict[str, Any] = {"config": config, "session": session}
        try:
            for function in _own((hook.pytest_configure, hook.pytest_sessionstart), started):
                function()
            self.rule, self.path, self.variables = ImportRule.of(config), list(sys.path), dict(os.environ)
        except Exception as error:
            raise pytest.UsageError(explained(one_line(error), Explanation.SUITE_PROBLEM)) from error
        finally:
            ended = {**started, "exitstatus": pytest.ExitCode.OK}
            for function in _own((hook.pytest_sessionfinish, hook.pytest_unconfigure), ended):
                with contextlib.suppress(Exception):
                    function()
        return 0


def _own(hooks: Iterable[Any], given: Mapping[str, Any]) -> Iterator[Callable[[], Any]]:
    """Yield what conftest files and a user's modules do for hooks; installed plugins, and ours, configure nothing."""
    installed = [plugin for plugin, _ in given["config"].pluginmanager.list_plugin_distinfo()]
    for one in chain.from_iterable(reversed(hook.get_hookimpls()) for hook in hooks):
        own = isinstance(one.plugin, ModuleType) and one.plugin not in installed
        if own and not one.plugin.__name__.startswith(("_pytest", "trtgate.")) and not (one.wrapper or one.hookwrapper):
            yield partial(one.function, **{name: given[name] for name in one.argnames})


def _reason(output: str) -> str:
    """Return what pytest said: its first line, and the exception of a conftest file, which comes last."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    raised = [line.removeprefix("E ").strip() for line in lines if line.startswith("E ")]
    return ": ".join([line.rstrip(":.") for line in lines[:1]] + raised[-1:]) or "it said nothing"
