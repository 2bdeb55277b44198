"""What is counted needs no statistics: engines, operators, bytes, the error of the output."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from .judgement import Judgement, Verdict


def judge_exact(metric: str, now: float, baseline: float, *, limit: float, resolution: float = 0.0) -> Judgement:
    """Judge a counted metric, of which more is worse: beyond `baseline`·(1 + `limit`) it is `regressed`.

    Differences up to `resolution` count as none. Of a baseline of 0 the change is the count itself. Assumes that the
    same code gives the same count; where that may fail (engines of another build), the caller counts again before it
    believes a regression.
    """
    change = now / baseline - 1 if baseline > 0 else now
    verdict = Verdict.UNCHANGED
    if abs(now - baseline) > resolution:
        if now > baseline * (1 + limit):
            verdict = Verdict.REGRESSED
        elif now < baseline / (1 + limit):
            verdict = Verdict.IMPROVED
    return Judgement(
        metric=metric, verdict=verdict, now=now, baseline=baseline, change=change, low=change, high=change, limit=limit,
        threshold=limit, detectable=max(limit, resolution / baseline if baseline > 0 else 0.0), evidence="counted",
        p=0.0 if verdict is Verdict.REGRESSED else 1.0,
    )  # fmt: skip


def more_of(before: Mapping[str, int] | None, now: Mapping[str, int] | None, most: int = 3) -> str:
    """Return what there is more of than before, as `+2 NAME, +1 NAME`; empty where one of the two is unknown.

    The largest comes first, and of equal ones what was not there at all.
    """
    if before is None or now is None:
        return ""
    more = sorted((Counter(now) - Counter(before)).items(), key=lambda one: (-one[1], one[0] in before))
    return ", ".join(f"{extra:+d} {name}" for name, extra in more[:most])
