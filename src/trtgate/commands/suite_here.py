"""The suites that pytest's configuration names for a folder, and where pytest would import them from."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest

from ..common.errors import TrtgateError, one_line
from ..suite.pytest_config import Configuration, find_configuration
from ..suite.suite_import import ImportRule
from ..suite.suite_source import SuiteSource, suites_named
from ..torch_trt import import_hook


def suite_here() -> SuiteSource | None:
    """Return where the suites of this folder are, Python's path being pytest's; None where none is configured.

    Raises TrtgateError where pytest can't read its configuration.
    """
    found = find_configuration(Path.cwd())
    source = None if found is None else _named_in(found)
    return None if source is None else _as_in_pytest(source, found, source.suite_files().values())


def factories_here(*names: str) -> SuiteSource:
    """Return a source of factories that are importable from this folder as they are in pytest. Raises TrtgateError."""
    source = SuiteSource(root=str(Path.cwd()), factories=names)
    return _as_in_pytest(source, find_configuration(Path.cwd()), [Path.cwd()])


def configured_suite(folder: Path, *, as_in_pytest: bool = False) -> tuple[SuiteSource, Path, list[str]]:
    """Return the suites that pytest's configuration names for `folder`, their `.trtgate` folder, and their limits.

    With `as_in_pytest` Python's path becomes pytest's; so it does where a suite is not found without. Raises
    TrtgateError when no suite is configured, or one is not there.
    """
    found = find_configuration(folder)
    source = None if found is None else _named_in(found)
    if found is None or source is None:
        raise TrtgateError(f"no suite is configured for {folder}: run trtgate init, or set the ini key trtgate_suite")
    if as_in_pytest or len(source.suite_files()) < len(source.suites):  # a module that is on pytest's path alone
        source = _as_in_pytest(source, found, source.suite_files().values())
    for name in source.suites:
        if name not in source.suite_files():
            raise TrtgateError(f"{found.path}: trtgate_suite names {name!r}, and there is no such file or module")
    return source, Path(source.root) / ".trtgate", found.values.get("trtgate_limits", "").split()


class Elsewhere(msgspec.Struct, frozen=True, kw_only=True):
    """What pytest has in another folder: where the suites are, Python's path, and variables that it changed."""

    source: SuiteSource | None
    path: tuple[str, ...] = ()
    variables: dict[str, str | None] = {}
    problem: str = ""


def suite_elsewhere(folder: Path, top: Path, answer: Path, variables: Mapping[str, str], timeout_s: float) -> Elsewhere:
    """Return what pytest has in `folder`: asked in a process of its own, which writes to `answer`.

    `variables` is the environment that it starts with. No configuration above `top` counts: a copy may lie in what it
    is a copy of. No source: nothing is configured there. Raises TrtgateError where pytest can't read its configuration
    there, where it does not answer within `timeout_s`, or a conftest file ends the process.
    """
    if not folder.is_dir():
        return Elsewhere(source=None)
    command = [sys.executable, "-P", "-m", __name__, str(top), str(answer)]
    with subprocess.Popen(
        command, cwd=folder, env=dict(variables), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            said = process.communicate(timeout=timeout_s)[1]
        except subprocess.TimeoutExpired:
            process.kill()
            raise TrtgateError(f"its pytest did not answer within {timeout_s:.0f} s: raise --timeout") from None
        except BaseException:
            process.kill()
            raise
    try:
        found = msgspec.json.decode(answer.read_bytes(), type=Elsewhere)
    except (OSError, msgspec.MsgspecError):
        last = (said.strip().splitlines() or ["it said nothing"])[-1]
        raise TrtgateError(f"its pytest can't be asked: {last[:300]}") from None
    if found.problem:
        raise TrtgateError(found.problem)
    return found


def _answer(top: Path) -> Elsewhere:
    before = dict(os.environ)
    found = find_configuration(Path.cwd(), top)
    source = None if found is None else _named_in(found)
    if source is None:
        return Elsewhere(source=None)
    try:
        source = _as_in_pytest(source, found, source.suite_files().values())
    except TrtgateError as error:
        return Elsewhere(source=None, problem=str(error))
    names = dict.fromkeys([*before, *os.environ])
    return Elsewhere(
        source=source, path=tuple(map(os.fspath, sys.path)),
        variables={name: os.environ.get(name) for name in names if before.get(name) != os.environ.get(name)},
    )  # fmt: skip


def _named_in(found: Configuration) -> SuiteSource | None:
    root = found.path.parent
    names = suites_named(found.values.get("trtgate_suite", ""), root)
    return SuiteSource(root=str(root), suites=names) if names else None


def _as_in_pytest(source: SuiteSource, found: Configuration | None, places: Iterable[Path]) -> SuiteSource:
    import_hook.install(everywhere=True, shared_cache=False)
    configuration = None if found is None else str(found.path)
    rule = _asked(configuration, tuple(map(str, places)) or (str(Path.cwd()),))
    return msgspec.structs.replace(source, rule=rule)


@cache
def _asked(configuration: str | None, places: tuple[str, ...]) -> ImportRule:
    """Let pytest itself prepare a run of some places, and take over the path that it has then; nothing is collected.

    Preparing is what decides the path: the ini key pythonpath, the conftest files that belong to the places, in the
    import mode of the options, plugins that the options name, and what these configure. A second reading of these would
    differ somewhere.
    """
    question, before = _Question(), list(sys.path)
    named = [] if configuration is None else [f"--config-file={configuration}"]
    with contextlib.redirect_stderr(io.StringIO()) as said, contextlib.redirect_stdout(said), _no_warnings():
        pytest.main([*named, *places], plugins=[question])
    if question.rule is None:
        sys.path[:] = before
        raise TrtgateError(f"pytest can't read its configuration or a conftest.py here: {_reason(said.getvalue())}")
    sys.path[:] = question.path
    return question.rule


@contextlib.contextmanager
def _no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class _Question:
    """A plugin that ends pytest when everything is prepared, and keeps what there is then."""

    rule: ImportRule | None = None
    path: list[str]

    @pytest.hookimpl(tryfirst=True)
    def pytest_cmdline_main(self, config: pytest.Config) -> int:
        try:
            for function in _own_hooks(config.hook.pytest_configure, config):
                function()
            self.rule, self.path = ImportRule.of(config), list(sys.path)
        except Exception as error:
            raise pytest.UsageError(one_line(error)) from error
        finally:
            for function in _own_hooks(config.hook.pytest_unconfigure, config):
                with contextlib.suppress(Exception):
                    function()
        return 0


def _own_hooks(hook: Any, config: pytest.Config) -> Iterator[Callable[[], Any]]:
    """Yield what conftest files and a user's modules do for a hook; installed plugins, and ours, configure nothing."""
    installed = [plugin for plugin, _ in config.pluginmanager.list_plugin_distinfo()]
    for one in reversed(hook.get_hookimpls()):
        own = isinstance(one.plugin, ModuleType) and one.plugin not in installed
        if own and not one.plugin.__name__.startswith(("_pytest", "trtgate.")) and not (one.wrapper or one.hookwrapper):
            yield partial(one.function, **dict.fromkeys(one.argnames, config))


def _reason(output: str) -> str:
    """Return what pytest said: its first line, and the exception of a conftest file, which comes last."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    raised = [line.removeprefix("E ").strip() for line in lines if line.startswith("E ")]
    return ": ".join([line.rstrip(":.") for line in lines[:1]] + raised[-1:]) or "it said nothing"


if __name__ == "__main__":
    Path(sys.argv[2]).write_bytes(msgspec.json.encode(_answer(Path(sys.argv[1]).resolve())))
