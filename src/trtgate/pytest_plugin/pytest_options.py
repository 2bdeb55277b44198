"""The options and ini keys of pytest that trtgate declares."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import pytest

from ..fleet import shards
from ..gate.run_options import CHANGED_DAYS
from ..timing.device_state import ONE, STREAMS
from .prebuilding import AUTO, OFF

Declare = Callable[..., None]
"""Declares an option, as argparse's add_argument does."""

REQUIRABLE = ("gpu", "baseline", "verdict")
LAUNCHES, RECORDING_LAUNCHES = 3, 5
TIMEOUT_S = 900.0


def add(parser: pytest.Parser) -> None:
    """Declare all options and ini keys; each begins with trtgate."""
    _add_ini_keys(parser)
    option = parser.getgroup("trtgate", "trtgate: a performance gate for Torch-TensorRT").addoption
    _add_selection(option)
    _add_judging(option)
    _add_base(option)
    _add_stages(option)
    option(
        "--trtgate-strict-layers",
        action="store_true",
        help="Fail a profile test if layers, fusions, tactics or precisions differ from the stored profile.",
    )
    option("--trtgate-zoo", action="store_true", help="Also test the coverage of some 110 well-known models.")
    _add_building(option)
    option(
        "--trtgate-report",
        metavar="FILE",
        help="Write the run as JSON. `trtgate report` makes Markdown and HTML from it.",
    )
    option(
        "--trtgate-runs",
        metavar="DIR|URL",
        default=None,
        help="Also store this run there: a folder, or any URL that fsspec knows, such as s3://bucket/trtgate.",
    )
    option(
        "--trtgate-resume",
        action="store_true",
        help="With --trtgate-runs: store the measurement of each case there, and reuse those of an interrupted run "
        "with the same commit, suite, baseline, versions and options that are at most a day old.",
    )
    option(
        "--trtgate-timeout",
        metavar="SECONDS",
        type=_positive(float),
        default=TIMEOUT_S,
        help=f"Time limit of one step of a worker ({TIMEOUT_S:.0f}).",
    )


def _add_ini_keys(parser: pytest.Parser) -> None:
    parser.addini(
        "trtgate_suite", "Modules or files that define the models, one a line: package.module or path/to/file.py"
    )
    parser.addini("trtgate_baselines", "Folder of the baselines", default="baselines")
    parser.addini("trtgate_limits", "Largest tolerated changes, such as device=1% host=10%", type="args")
    parser.addini("trtgate_cache_size", "Largest size of the artifact cache", default="20GiB")
    parser.addini("trtgate_runs", "Folder or URL that stores runs beyond the life of this machine", default="")
    parser.addini("trtgate_require", f"Requirements of a run: any of {', '.join(REQUIRABLE)}", default="")


def _add_selection(option: Declare) -> None:
    option(
        "--trtgate-model",
        metavar="MODULE:FACTORY",
        action="append",
        default=[],
        help="Add a model; may be repeated.",
    )
    for name, what in (
        ("models", "models"),
        ("frontends", "frontends"),
        ("precisions", "precisions"),
        ("batches", "batch sizes"),
        ("shapes", "sizes of other dimensions, such as seq=128"),
    ):
        option(f"--trtgate-{name}", metavar="A,B", type=listed, default=(), help=f"Only these {what}.")


def _add_judging(option: Declare) -> None:
    option(
        "--trtgate-limit",
        metavar="METRIC=PERCENT",
        action="append",
        default=[],
        help="Limit of a metric, such as device=0.5%%; overrides the suite and the ini file.",
    )
    option(
        "--trtgate-launches",
        metavar="N",
        type=_positive(int),
        help=f"Processes that measure each case ({LAUNCHES}, recording {RECORDING_LAUNCHES}).",
    )
    option(
        "--trtgate-streams",
        choices=STREAMS,
        default=ONE,
        help="Measure device latency in the state of the GPU of a process that uses one stream, or many.",
    )
    option(
        "--trtgate-cold-starts",
        metavar="N",
        type=_positive(int, or_off=True),
        default=0,
        help="Load each case and run it once in N further processes: measures seconds and memory of a cold start "
        "(0: off).",
    )
    option(
        "--trtgate-changed",
        action="store_true",
        help="Skip the device latency of a dynamo case if its program and machine are those of a proven session.",
    )
    option(
        "--trtgate-changed-days",
        metavar="DAYS",
        type=float,
        default=CHANGED_DAYS,
        help=f"With --trtgate-changed: largest age of that session ({CHANGED_DAYS:g}).",
    )
    option(
        "--trtgate-changed-seed",
        metavar="N",
        type=int,
        help="With --trtgate-changed: seed that selects the 5%% of such cases that are measured nevertheless.",
    )
    option(
        "--trtgate-load",
        metavar="N",
        type=_at_once,
        default=0,
        help="Call each case from up to N threads, and up to N processes, at once: measures throughput and latencies "
        "under load, growth of memory over 10,000 calls, and, on a GPU, device latency with a cold L2 (0: off).",
    )
    option(
        "--trtgate-update-baselines",
        action="store_true",
        help="Store the cases that ran and passed as this accelerator's baseline.",
    )
    option(
        "--trtgate-accept",
        metavar="CASE",
        action="append",
        default=[],
        help="With --trtgate-update-baselines: store this case even if it regressed; may be a pattern.",
    )
    option(
        "--trtgate-require",
        metavar="A,B",
        type=listed,
        default=None,
        help=f"Fail if one is missing: {', '.join(REQUIRABLE)}.",
    )


def _add_base(option: Declare) -> None:
    option(
        "--trtgate-base",
        metavar="REVISION",
        default="",
        help="Measure beside a git revision, in its own worktree, instead of comparing with stored baselines.",
    )
    option(
        "--trtgate-base-python",
        metavar="PATH",
        default="",
        help="Measure beside another Python's environment, with the code of --trtgate-base, or this code.",
    )
    option(
        "--trtgate-base-setup",
        metavar="COMMAND",
        default="",
        help="Run this first in the base's worktree, for instance to build an extension.",
    )


def _add_stages(option: Declare) -> None:
    option(
        "--trtgate-shard",
        metavar="I/N",
        default=None,
        help="Measure the I-th of N parts of the cases and judge nothing: `trtgate merge` judges all parts at once.",
    )
    option(
        "--trtgate-shard-by",
        choices=shards.BY,
        default=None,
        help="Unit that stays together in a shard: a case, or all cases of a model.",
    )
    option(
        "--trtgate-confirm",
        metavar="RUN.json",
        default=None,
        help="Measure again the cases that `trtgate merge` suspects, by the next steps of an undivided run.",
    )


def _add_building(option: Declare) -> None:
    option(
        "--trtgate-prebuild",
        metavar="N|auto",
        type=_builders,
        default=None,
        help="Build all cases before the first test, in N processes at once (beside a base N for both sides); build "
        "times are not judged then. Default on a GPU: as many processes as the machine can run export and load all "
        "cases, and build one at a time. 0: build each case when its first test needs it.",
    )
    option(
        "--trtgate-gpus",
        metavar="all|0,1",
        default="",
        help="Measure on several cards of one kind at once, one process at a time on each. All cases are built first.",
    )
    option(
        "--trtgate-ray",
        metavar="HOST:PORT",
        nargs="?",
        const="",
        default=None,
        help="Build and measure on the devices of a running Ray cluster; RAY_ADDRESS is the default address.",
    )
    option(
        "--trtgate-accelerators",
        metavar="A,B",
        type=listed,
        default=(),
        help="With --trtgate-ray: use these kinds of accelerators, by words of their names, such as h100,l4.",
    )
    option(
        "--trtgate-build-only",
        action="store_true",
        help="Build all cases into the artifact cache and measure nothing; with -n N in N processes at once.",
    )
    option(
        "--trtgate-lifecycle",
        action="store_true",
        help="Also compare outputs with eager from a second thread, with other inputs, as a replayed CUDA graph, after "
        "a refit, after loading in a fresh process, and from the artifact cache.",
    )
    option(
        "--trtgate-no-cache",
        action="store_true",
        help="Do not use the artifact cache.",
    )
    option(
        "--trtgate-rebuild",
        action="store_true",
        help="Build all cases, also those in the artifact cache, and store them there.",
    )


def listed(text: Any) -> tuple[str, ...]:
    """Return the parts of a text between commas or blanks."""
    return tuple(part for part in str(text).replace(",", " ").split() if part)


def _builders(text: str) -> int:
    if text != "auto" and not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be auto, 0 or a number of processes, not {text}")
    return AUTO if text == "auto" else int(text) or OFF


MOST_AT_ONCE = 32


def _at_once(text: str) -> int:
    """Return how many threads call at once, each on a stream of its own: PyTorch has 32 of a priority."""
    if not text.isdecimal() or int(text) > MOST_AT_ONCE:
        raise argparse.ArgumentTypeError(f"must be 0 to {MOST_AT_ONCE}, not {text}")
    return int(text)


def _positive(kind: type, *, or_off: bool = False) -> Any:
    wanted = f"{'0 or ' * or_off}a {'whole ' * (kind is int)}number above 0"

    def convert(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = -1
        if not (0 < value < float("inf") or (or_off and value == 0)):
            raise argparse.ArgumentTypeError(f"must be {wanted}, not {text}")
        return value

    return convert
