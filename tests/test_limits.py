"""Limits: what is one, what is not, and whose wins."""

from __future__ import annotations

from pathlib import Path

import pytest

from trtgate.common import limits
from trtgate.common.errors import TrtgateError
from trtgate.common.metrics import EXACT, METRICS, OF_GROWTH
from trtgate.gate.run_options import Options
from trtgate.suite.cases import Case, Model
from trtgate.suite.selection import Selection
from trtgate.suite.settings import Settings
from trtgate.suite.suite_source import SuiteSource


def test_percentages_and_fractions_of_every_metric() -> None:
    assert limits.parse(["device=0.5%", "host=0.2"], "here") == {"device": 0.005, "host": 0.2}
    shares = [metric for metric in METRICS if metric not in OF_GROWTH]
    assert limits.parse([f"{metric}=3%" for metric in shares], "here") == dict.fromkeys(shares, 0.03)


def test_growth_is_limited_in_bytes_a_call() -> None:
    for metric in OF_GROWTH:
        assert limits.parse([f"{metric}=512"], "here") == limits.checked({metric: 512}, "here") == {metric: 512.0}
        assert limits.parse([f"{metric}=0"], "here") == {metric: 0.0}
        for bad in ("10%", "-1", "nan", "inf", "much"):
            with pytest.raises(TrtgateError, match=r"no limit; it is in bytes a call, write .*=512"):
                limits.parse([f"{metric}={bad}"], "here")


def test_a_mapping_is_read_as_texts_are() -> None:
    assert limits.checked({"device": "0.5%", "host": 0.2, "build": "200%"}, "here") == {
        "device": 0.005,
        "host": 0.2,
        "build": 2.0,
    }


def test_only_what_is_counted_may_be_held_to_its_count() -> None:
    for metric in METRICS:
        if metric in OF_GROWTH:
            continue
        if metric in EXACT:
            assert limits.parse([f"{metric}=0"], "here") == limits.checked({metric: "0%"}, "here") == {metric: 0.0}
        else:
            with pytest.raises(TrtgateError, match="is no limit"):
                limits.parse([f"{metric}=0"], "here")


@pytest.mark.parametrize(
    "bad",
    [
        "devise=1%", "device", "device=", "device=-1%", "device=nan", "device=inf", "device=x%", "device=%",
        "device=100", "engines=-1", "=1%", "",
    ],
)  # fmt: skip
def test_what_is_no_limit_is_refused_where_it_stands(bad: str) -> None:
    with pytest.raises(TrtgateError, match=r"^ini key trtgate_limits: "):
        limits.parse([bad], "ini key trtgate_limits")


@pytest.mark.parametrize("bad", [{"device": None}, {"device": True}, {"device": [1]}, {1: 0.5}, "device=1%"])
def test_what_is_no_mapping_of_limits_is_refused_where_it_stands(bad: dict) -> None:
    with pytest.raises(TrtgateError, match=r"^model 'm': "):
        limits.checked(bad, "model 'm'")


def test_an_unknown_metric_is_refused_with_the_nearest_name_or_with_all() -> None:
    with pytest.raises(TrtgateError, match="did you mean 'engine_bytes'"):
        limits.checked({"engine_byte": 0.1}, "here")
    with pytest.raises(TrtgateError, match=r"there are: device, host, .*pytorch_operators"):
        limits.checked({"zzz": 0.1}, "here")


def test_the_nearest_to_the_command_line_wins() -> None:
    """Each source names one metric less than the one after it."""
    order = [name for name in METRICS if name != "enqueue"]

    def of(count: int) -> dict[str, float]:
        return dict.fromkeys(order[:count], count / 10)

    case = Case(Model("m", lambda: None, [], limits=of(4)), Settings(frontend="eager", limits=of(3)))
    options = Options(
        source=SuiteSource(root="."),
        selection=Selection(),
        baselines=Path(),
        compare=True,
        base=None,
        compare_file=None,
        update=False,
        accepted=(),
        require=frozenset(),
        limits=of(5),
        command_limits=of(1),
        launches=1,
        timeout_s=1.0,
        strict_layers=False,
        zoo=False,
        cache=None,
        prebuild=None,
        builds_in_turn=False,
        gpus="",
        build_only=False,
        report=None,
        timing_off="",
    )
    assert [options.limit(name, case, of(2)) for name in order[:5]] == [0.1, 0.2, 0.3, 0.4, 0.5]
    assert options.limit("enqueue", case, of(2)) == METRICS["enqueue"].limit


def test_a_metric_that_has_another_name_now_is_refused_with_it() -> None:
    with pytest.raises(
        TrtgateError, match=r"^here: the metric 'output_error' of 'output_error=1' is 'leaf_error' now, "
    ):
        limits.parse(["output_error=1"], "here")
    with pytest.raises(TrtgateError, match="write leaf_error there"):
        limits.checked({"output_error": 0.5}, "model 'm'")
