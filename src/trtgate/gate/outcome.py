"""What a verdict means for a test: one function for latency, coverage, layers, accuracy and builds."""

from __future__ import annotations

import enum
from collections.abc import Collection

import msgspec

from ..common.escaping import terminal_lines
from ..common.explanations import Explanation, continued, explained
from ..common.notices import Notice, Severity
from ..suite import quarantines
from ..suite.expected_failures import ExpectedFailure
from ..suite.quarantines import Quarantine

PROBLEM = "problem"
"""Said beside the verdicts: the case can't be built, is wrong, or can't be asked."""


class Kind(enum.StrEnum):
    """What becomes of a test."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"
    EXPECTED_FAILURE = "expected failure"


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes of a test, why, and what the end of the run says of it."""

    kind: Kind = Kind.PASSED
    text: str = ""
    notices: tuple[Notice, ...] = ()


def outcome(
    verdict: str, case_id: str, sentence: str, *, require: Collection[str] = (), quarantine: Quarantine | None = None,
    accepted: bool = False, expected_failure: ExpectedFailure | None = None, updating: bool = False,
    strict: bool = False, suspected: bool = False, where: str = "", advice: str = "", moved: str = "",
) -> Outcome:  # fmt: skip
    """Return what a verdict of a case means for its test.

    Parameters
    ----------
    verdict
        A verdict of latency, coverage or layers; PROBLEM; empty for what was found right and is judged by nothing.
    require
        What `--trtgate-require` asks for.
    quarantine
        The case's, in force or expired.
    accepted
        Whether `--trtgate-accept` names the case.
    updating
        Whether this run stores what is new.
    strict
        Whether changed layers fail.
    suspected
        Whether the case looked worse, which could neither be confirmed nor refuted: said loudly.
    moved
        Why a case is red that was taken for the same; empty for all others. No quarantine excuses it: other cases of
        the run were not measured for the same reason.
    where, advice
        What a failure says beside the sentence: on lines of their own, unless `advice` goes on with a sentence.

    """
    if moved:
        return Outcome(kind=Kind.FAILED, text=terminal_lines(f"{moved}\n{sentence}".strip()))
    found = _outcome(
        verdict, case_id, sentence, require, quarantine, accepted=accepted, expected_failure=expected_failure,
        updating=updating, strict=strict, suspected=suspected, where=where, advice=advice,
    )  # fmt: skip
    return msgspec.structs.replace(found, text=terminal_lines(found.text))  # it quotes what is stored, and user code


def _outcome(
    verdict: str, case_id: str, sentence: str, require: Collection[str], quarantine: Quarantine | None, *,
    accepted: bool, expected_failure: ExpectedFailure | None, updating: bool, strict: bool, suspected: bool, where: str,
    advice: str,
) -> Outcome:  # fmt: skip
    in_force = quarantines.in_force(quarantine)
    if verdict == PROBLEM:
        return _of_problem(sentence, expected_failure, in_force)
    if expected_failure is not None:
        said = f"{case_id} passed, and is {expected_failure}: take that out of the suite"
        return Outcome(kind=Kind.FAILED, text=explained(said, Explanation.FAILURE_GONE))
    worse = verdict in ("regressed", "incomplete") or (verdict == "changed" and strict)
    if quarantine is not None and in_force is None:
        ended = explained(
            f"{case_id}: its quarantine ({quarantine.reason}) ended on {quarantine.until}: take it out of the suite, "
            "or give it another date",
            Explanation.QUARANTINE_ENDED,
        )
        before = f"{sentence}\n" * (worse and not accepted)
        return Outcome(kind=Kind.FAILED, text=f"{before}{ended}")
    if worse:
        return _of_worse(sentence, in_force, where, advice, accepted=accepted)
    required = () if in_force else require
    if accepted and (suspected or verdict in ("underpowered", "incomparable")):
        return Outcome(notices=(Notice(f"accepted: {sentence}"),))
    if verdict in ("underpowered", "incomparable"):
        if "verdict" in required:
            return Outcome(kind=Kind.FAILED, text=continued(sentence, " (--trtgate-require=verdict)"))
        severity = Severity.WARNING if suspected else Severity.INFO
        return Outcome(kind=Kind.SKIPPED, text=sentence, notices=(Notice(f"{verdict}: {sentence}", severity),))
    if verdict == "new" and not updating and "baseline" in required:
        return Outcome(kind=Kind.FAILED, text=continued(sentence, f" (--trtgate-require=baseline){advice}"))
    if verdict == "unconfirmed":
        return Outcome(notices=(Notice(f"unconfirmed: {sentence}"),))
    return Outcome()


def _of_problem(problem: str, expected: ExpectedFailure | None, quarantine: Quarantine | None) -> Outcome:
    problem = explained(problem, Explanation.BUILD_FAILED)
    if expected is not None:
        return Outcome(kind=Kind.EXPECTED_FAILURE, text=f"{expected}: {problem}")
    if quarantine is None:
        return Outcome(kind=Kind.FAILED, text=problem)
    line = f"{quarantine}: {problem}"
    return Outcome(kind=Kind.SKIPPED, text=line, notices=(Notice(line),))


def _of_worse(sentence: str, in_force: Quarantine | None, where: str, advice: str, *, accepted: bool) -> Outcome:
    if accepted:
        return Outcome(notices=(Notice(f"accepted: {sentence}"),))
    if in_force is not None:
        return Outcome(notices=tuple(Notice(line) for line in (f"{in_force}: {sentence}", where) if line))
    goes_on = advice.startswith((".", " "))
    said = [continued(sentence, advice)] if goes_on else [sentence, where, advice]
    return Outcome(kind=Kind.FAILED, text="\n".join(line for line in said if line))
