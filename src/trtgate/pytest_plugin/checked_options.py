"""pytest's options and ini keys as one frozen record; contradictions are refused here, before anything runs."""

from __future__ import annotations

import difflib
import fnmatch
import os
import warnings
from pathlib import Path

import pytest

from ..common import limits
from ..common.errors import TrtgateError
from ..common.time_limit import TimeLimit
from ..compiling import artifact_cache
from ..compiling.artifact_cache import CacheRequest
from ..gate.run_options import Options
from ..launches.base_revision import BaseRequest
from ..suite.pytest_config import RUNS_KEY
from ..suite.selection import Selection
from ..suite.suite_import import ImportRule
from ..suite.suite_source import SuiteSource, suites_named
from . import changed_option, kept_runs, prebuilding, ray_options, run_filters, stage_options
from .pytest_options import LAUNCHES, RECORDING_LAUNCHES, REQUIRABLE, listed

KNOWN_KEYS = ("trtgate_suite", "trtgate_baselines", "trtgate_limits", "trtgate_cache_size", "trtgate_require", RUNS_KEY)
NEEDS_A_SUITE = (
    "trtgate_update_baselines", "trtgate_require", "trtgate_accept", "trtgate_limit", "trtgate_base",
    "trtgate_build_only", "trtgate_lifecycle", "trtgate_changed", "trtgate_shard", "trtgate_confirm", "trtgate_runs",
)  # fmt: skip
"""Options that judge or store: without a suite they would do neither."""


def source_of(config: pytest.Config) -> SuiteSource | None:
    """Return where the suite is, None where nothing asks for the plugin. Raises TrtgateError where something does."""
    suites = suites_named(suite_key(config), config.rootpath)
    factories = tuple(config.getoption("trtgate_model"))
    _refuse_unread_suites(config)
    if not suites and not factories:
        _refuse_to_be_left_out(config)
        return None
    return SuiteSource(root=str(config.rootpath), suites=suites, factories=factories, rule=ImportRule.of(config))


def suite_key(config: pytest.Config) -> str | list[str]:
    """Return the ini key trtgate_suite: pytest has no type of keys, before 9.2, that is one text or a list of them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = config.getini("trtgate_suite")
        except (TypeError, pytest.UsageError):  # a list in TOML
            found = config.inicfg["trtgate_suite"]
    return found if isinstance(found, list) else str(found or "")


def _refuse_unread_suites(config: pytest.Config) -> None:
    """Raise TrtgateError for a folder of the command line whose suite another ini file names: pytest reads one."""
    folders = [config.invocation_params.dir / argument.partition("::")[0] for argument in config.args]
    if len(folders) < 2:
        return
    from ..suite.pytest_config import find_configuration

    for folder in folders:
        own = find_configuration(Path(os.path.abspath(folder)))
        key = own.values.get("trtgate_suite") if own else None
        if own is None or not key or (config.inipath and own.path.samefile(config.inipath)):
            continue
        files = SuiteSource(root=str(own.path.parent), suites=suites_named(key, own.path.parent)).suite_files()
        if any(file.is_relative_to(folder.resolve()) for file in files.values()):
            raise TrtgateError(
                f"the suite in {folder} is named in {own.path}, and pytest has read "
                f"{config.inipath or 'no configuration'} for this run: run pytest for {folder} alone, or name all "
                "suites in one configuration"
            )


def _refuse_to_be_left_out(config: pytest.Config) -> None:
    """Raise TrtgateError where something is asked of this plugin, and no suite is named: nothing would be judged."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pytest 9 has no other way to the keys that it does not know
        written = list(config.inicfg)
    unknown = [name for name in written if name.startswith("trtgate") and name not in KNOWN_KEYS]
    asked = [f"--{name.replace('_', '-')}" for name in NEEDS_A_SUITE if config.getoption(name, None)]
    if unknown:
        close = difflib.get_close_matches(unknown[0], KNOWN_KEYS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(KNOWN_KEYS)}"
        raise TrtgateError(f"unknown ini key {unknown[0]!r}; {hint}")
    if asked:
        raise TrtgateError(
            f"{asked[0]} needs a suite, and none is named: set the ini key trtgate_suite, or --trtgate-model; "
            f"the configuration read is {config.inipath or 'none'}"
        )


def read(config: pytest.Config, source: SuiteSource) -> Options:
    """Return the options of a run. Raises TrtgateError for what contradicts itself or can't be a gate."""
    get = config.getoption
    if not hasattr(config.option, "benchmark_compare"):
        raise TrtgateError("the suite needs pytest-benchmark, and it is not loaded: install it, drop -p no:benchmark")
    _check_found(source)
    comparing = get("benchmark_compare") not in (None, [], False)
    update = get("trtgate_update_baselines")
    timing_off = _timing_off(config)
    _check_contradictions(config, comparing=comparing, update=update, timing_off=timing_off)
    prebuild, builds_in_turn = prebuilding.asked(config, distributed=_distributed(config))
    return Options(
        source=source,
        selection=_selection(config),
        baselines=config.rootpath / config.getini("trtgate_baselines"),
        compare=comparing or (update and not timing_off),
        base=_base(config, comparing=comparing, timing_off=timing_off),
        compare_file=_compare_file(config),
        update=update,
        accepted=tuple(get("trtgate_accept")),
        require=required(config),
        limits=limits.parse(config.getini("trtgate_limits"), "ini key trtgate_limits"),
        command_limits=limits.parse(get("trtgate_limit"), "--trtgate-limit"),
        launches=get("trtgate_launches") or (RECORDING_LAUNCHES if update else LAUNCHES),
        streams=get("trtgate_streams"),
        cold_starts=get("trtgate_cold_starts"),
        load=get("trtgate_load"),
        changed_only=changed_option.read(config, comparing=comparing, beside_base=_beside_base(config)),
        timeout_s=TimeLimit(get("trtgate_timeout"), "--trtgate-timeout"),
        strict_layers=get("trtgate_strict_layers"),
        zoo=get("trtgate_zoo"),
        report=None if get("trtgate_report") is None else config.invocation_params.dir / get("trtgate_report"),
        cache=_cache(config),
        gpus=_gpus(config),
        prebuild=prebuild,
        builds_in_turn=builds_in_turn,
        build_only=get("trtgate_build_only"),
        lifecycle=get("trtgate_lifecycle"),
        timing_off=timing_off,
        runs=kept_runs.folder(config),
        resume=kept_runs.resumes(config, beside_base=_beside_base(config)),
        **stage_options.read(config),
        **ray_options.read(config, beside_base=_beside_base(config), distributed=_distributed(config)),
    )


def _check_contradictions(config: pytest.Config, *, comparing: bool, update: bool, timing_off: str) -> None:
    get = config.getoption
    if get("benchmark_compare_fail"):
        raise TrtgateError(
            "--benchmark-compare-fail takes whole percentages of single runs and false-alarms: use "
            "--trtgate-limit device=1% (per metric, fractions allowed) with --benchmark-compare"
        )
    if timing_off and (comparing or (update and not _only_untimed(config))):
        asked = "--benchmark-compare" if comparing else "--trtgate-update-baselines"
        raise TrtgateError(f"{asked} needs timing, and {timing_off}: drop one of the two")
    for option in ("--trtgate-cold-starts", "--trtgate-load"):
        if get(option) and _beside_base(config):
            raise TrtgateError(f"{option} is about stored baselines, a base is measured in pairs: drop one")
    if get("trtgate_accept") and not update:
        raise TrtgateError("--trtgate-accept says what --trtgate-update-baselines may store: add that option")
    stage_options.check(config, timing_off=timing_off)
    if "verdict" in required(config):
        _check_nothing_hides(config)


def _check_nothing_hides(config: pytest.Config) -> None:
    """Refuse what takes required verdicts away, unless it was typed: in addopts or PYTEST_ADDOPTS nobody sees it."""
    hiding = {
        ("--collect-only", "--collectonly", "--co"): "collectonly", ("--trtgate-accept",): "trtgate_accept",
        ("--trtgate-shard",): "trtgate_shard",
    }  # fmt: skip
    for names, option in hiding.items():
        if config.getoption(option) and not run_filters.typed(config, *names):
            raise TrtgateError(
                f"{names[0]} in addopts or PYTEST_ADDOPTS would hide what --trtgate-require=verdict asks for: take it "
                "out there, or put it on the command line"
            )


def _distributed(config: pytest.Config) -> bool:
    return bool(os.environ.get("PYTEST_XDIST_WORKER") or config.getoption("numprocesses", None))


def _beside_base(config: pytest.Config) -> bool:
    return bool(config.getoption("trtgate_base") or config.getoption("trtgate_base_python"))


def _gpus(config: pytest.Config) -> str:
    asked = str(config.getoption("trtgate_gpus"))
    if asked and _beside_base(config):
        raise TrtgateError("--trtgate-gpus is about stored baselines, a base is measured on one card: drop one of them")
    if asked and _distributed(config):
        raise TrtgateError("--trtgate-gpus drives all cards from one process: drop -n")
    return asked


def _cache(config: pytest.Config) -> CacheRequest | None:
    no_cache, rebuild = config.getoption("trtgate_no_cache"), config.getoption("trtgate_rebuild")
    if no_cache and rebuild:
        raise TrtgateError("--trtgate-rebuild puts what it builds into the cache, --trtgate-no-cache forbids: drop one")
    limit_bytes = artifact_cache.limit_of(config.getini("trtgate_cache_size"))
    if no_cache and config.getoption("trtgate_build_only"):
        raise TrtgateError("--trtgate-build-only builds for the cache, and --trtgate-no-cache forbids it: drop one")
    if no_cache:
        return None
    return CacheRequest(folder=str(artifact_cache.default_folder()), limit_bytes=limit_bytes, rebuild=rebuild)


def _base(config: pytest.Config, *, comparing: bool, timing_off: str) -> BaseRequest | None:
    get = config.getoption
    request = BaseRequest(
        revision=get("trtgate_base"), python=get("trtgate_base_python"), setup=get("trtgate_base_setup")
    )
    if not request.revision and not request.python:
        if request.setup:
            raise TrtgateError("--trtgate-base-setup makes a base ready: name it with --trtgate-base")
        return None
    other = "--trtgate-update-baselines" if get("trtgate_update_baselines") else "--benchmark-compare" * comparing
    if other:
        raise TrtgateError(
            f"a base is measured beside the candidate, {other} is about stored baselines: drop one of them"
        )
    if timing_off:
        raise TrtgateError(f"a comparison with a base needs timing, and {timing_off}: drop one of the two")
    return request


def _check_found(source: SuiteSource) -> None:
    for suite in source.suites:
        if suite not in source.suite_files():
            raise TrtgateError(f"ini key trtgate_suite: no file or module {suite!r} under {source.root}")
    if len(source.factory_files()) < len(source.factories):
        raise TrtgateError(f"--trtgate-model {' '.join(source.factories)}: no such module under {source.root}")


def _timing_off(config: pytest.Config) -> str:
    get = config.getoption
    if get("trtgate_build_only"):
        return "--trtgate-build-only times nothing"
    if os.environ.get("PYTEST_XDIST_WORKER") or get("dist", "no") != "no" or get("numprocesses", None):
        return "processes of -n would disturb each other's timing"
    if get("benchmark_disable") and not get("benchmark_enable"):
        return "--benchmark-disable switches it off"
    if get("benchmark_skip") and not get("benchmark_only"):
        return "--benchmark-skip switches it off"
    return ""


def _only_untimed(config: pytest.Config) -> bool:
    """Whether `-m` leaves coverage or profile tests alone, which pytest-benchmark does not time."""
    return str(config.getoption("markexpr")).strip() in ("trtgate_coverage", "trtgate_profile")


def _selection(config: pytest.Config) -> Selection:
    get = config.getoption
    try:
        batches = tuple(int(text) for text in get("trtgate_batches"))
    except ValueError:
        raise TrtgateError(f"--trtgate-batches takes integers, not {','.join(get('trtgate_batches'))!r}") from None
    selection = Selection(
        models=get("trtgate_models"), frontends=get("trtgate_frontends"), precisions=get("trtgate_precisions"),
        batches=batches, shapes=get("trtgate_shapes"),
    )  # fmt: skip
    selection.sizes()  # which says what is no shape
    return selection


def required(config: pytest.Config) -> frozenset[str]:
    """Return what a run must have. Raises TrtgateError for what is none of REQUIRABLE."""
    asked = config.getoption("trtgate_require")
    wanted = listed(config.getini("trtgate_require")) if asked is None else asked
    where = "ini key trtgate_require" if asked is None else "--trtgate-require"
    for name in wanted:
        if name not in REQUIRABLE:
            raise TrtgateError(f"{where}: unknown {name!r}; there are {', '.join(REQUIRABLE)}")
    return frozenset(wanted)


def _compare_file(config: pytest.Config) -> Path | None:
    """Find the file that `--benchmark-compare=VALUE` names: a path, or a saved run in pytest-benchmark's storage."""
    value = config.getoption("benchmark_compare")
    if not isinstance(value, str) or not value:
        return None
    path = config.invocation_params.dir / value
    if path.is_dir() or value.partition("::")[0].endswith(".py"):
        raise TrtgateError(
            f"--benchmark-compare took {value!r} as the name of a saved run: put the path first, "
            f"pytest {value} --benchmark-compare"
        )
    if path.is_file():
        return path
    storage = Path(str(config.getoption("benchmark_storage")).removeprefix("file://"))
    folder = config.invocation_params.dir / storage
    saved = [*folder.glob("*/*.json"), *folder.glob("*.json")]
    named = [one for one in saved if fnmatch.fnmatch(str(one.relative_to(folder)), f"{value}*.json")]
    found = sorted(named or [one for one in saved if fnmatch.fnmatch(one.name, f"{value}*.json")], key=lambda p: p.name)
    if not found:
        raise TrtgateError(f"--benchmark-compare={value}: no such file, and no saved run of that name under {folder}")
    return found[-1]
