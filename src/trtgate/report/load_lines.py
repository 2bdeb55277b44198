"""What a case did when it started cold and under load, in lines for a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from ..common.metrics import COLD_L2, METRICS
from ..gate import measurement_summary
from ..gate.sentences import duration, rate, value
from ..records.measurement import CaseMeasurement, LoadLevel


def lines(case_id: str, measurement: CaseMeasurement) -> Iterator[str]:
    """Yield a line each for cold starts, threads, processes, memory and a cold L2, as far as they were measured."""
    if measurement.cold:
        found = measurement_summary.figures_beside(measurement)
        cached_s = found.get("cold_start_cached_s")
        cached = "" if cached_s is None else f", {value(cached_s, 's')} with a runtime cache"
        yield f"{case_id}: cold start {value(found['cold_start_s'], 's')}{cached}"
    levels = measurement_summary.load_levels(measurement)
    for what, some in (
        ("threads", [(one.threads, one) for one in levels if one.processes == 1]),
        ("processes", [(one.processes, one) for one in levels if one.threads == 1]),
    ):
        if some:
            yield f"{case_id} under load of {what}: {'; '.join(_level(*one) for one in some)}"
    for name, readings, grown in measurement_summary.growths(measurement):
        calls = readings.calls * len(readings.host_bytes)
        interval = f"{grown.bytes_a_call:+,.0f} bytes a call ({grown.low:+,.0f} to {grown.high:+,.0f})"
        yield f"{case_id}: {METRICS[name].title} over {calls:,} calls: {interval}"
    if COLD_L2 in measurement.metrics:
        cold_us = measurement_summary.figures_beside(measurement)["cold_l2_us"]
        yield f"{case_id}: {METRICS[COLD_L2].title}: {duration(cold_us)}"


def _level(number: int, level: LoadLevel) -> str:
    latencies = f"p50 {duration(level.p50_us)}, p99 {duration(level.p99_us)}"
    return f"{number}: {rate(level.throughput_per_s)}, {latencies}"
