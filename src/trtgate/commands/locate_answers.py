"""What `trtgate locate` does: compiles a case as a worker does, then its submodules; and the table of these."""

from __future__ import annotations

import contextlib
import difflib
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from ..common import accelerator
from ..common.accelerator import Accelerator
from ..common.errors import TrtgateError, one_line
from ..common.escaping import printable
from ..common.explanations import Explanation, explained
from ..common.steps import OnStep
from ..common.text_columns import Line, TextTable, number_of
from ..launches.suite_here import suite_here
from ..suite.cases import Case
from ..suite.settings import OWN

if TYPE_CHECKING:
    from ..compiling.location import Checked, Location

LOCK_TIMEOUT_S = 900.0
SHOWN = 3
"""How many right submodules are shown before a wrong one of the same parent; the others are one row."""


def check_numbers(tolerance: float | None, time_limit: float | None) -> None:
    """Raise TrtgateError for a tolerance or a time limit that is no positive number."""
    for option, value in (("--tolerance", tolerance), ("--time-limit", time_limit)):
        if value is not None and not 0 < value < math.inf:
            raise TrtgateError(f"{option} {value:g}: write a positive number")


def case_of(case_id: str) -> Case:
    """Return a case of this folder's suite. Raises TrtgateError for one that is not there, or that nothing compiles."""
    source = suite_here()
    if source is None:
        raise TrtgateError("this folder has no suite: name it as trtgate_suite in the pytest configuration")
    cases = source.load().cases
    if case_id not in cases:
        close = difflib.get_close_matches(case_id, cases, n=1)
        listed = f"the suite has {number_of(len(cases), 'case')}, as pytest lists them"
        hint = f"did you mean {close[0]!r}?" if close else listed
        raise TrtgateError(f"unknown case {case_id!r}; {hint}")
    if cases[case_id].settings.frontend == "eager":
        raise TrtgateError(f"case {case_id} runs in eager, which is what others are compared with")
    if cases[case_id].settings.frontend == OWN:
        raise TrtgateError(f"case {case_id} is what its factory compiled: trtgate can't compile parts of it")
    return cases[case_id]


def find(case_id: str, tolerance: float | None, time_limit: float | None, step: OnStep) -> Location:
    """Return where a case goes wrong. Raises TrtgateError for what can't be found, run here, made or built."""
    case, found = case_of(case_id), accelerator.detect()
    step("importing torch")
    import torch

    from ..compiling import availability
    from ..timing import used_gpu
    from ..torch_trt import modelopt_package

    used_gpu.check(found)
    reason = availability.unavailable(case.settings, found)
    if reason:
        raise TrtgateError(f"case {case_id}: {reason}")
    modelopt_package.expect([case.settings.precision])
    try:
        with _turn(found, step):
            return _located(case, "cuda" if found.kind == "gpu" else "cpu", tolerance, time_limit, step)
    except torch.cuda.OutOfMemoryError as error:
        raise TrtgateError(f"case {case_id}: {one_line(error)}") from error


def _turn(found: Accelerator, step: OnStep) -> AbstractContextManager[None]:
    """On a GPU nobody times meanwhile."""
    from ..timing.device_lock import device_turn

    if found.kind != "gpu":
        return contextlib.nullcontext()
    return device_turn(found.lock_name, LOCK_TIMEOUT_S, step, shared=True)


def _located(case: Case, device: str, tolerance: float | None, time_limit: float | None, step: OnStep) -> Location:
    from ..compiling import locating_in_case
    from ..compiling.location import Location
    from ..compiling.reference import Reference

    reference = Reference(case, device, step)
    inference = reference.build(*reference.prepare(step), step)
    judge = locating_in_case.judge_of(reference, tolerance)
    calls = [
        (compared, problem if tolerance is None else judge(compared))
        for compared, problem in reference.expected.calls(case, inference)
    ]
    del inference
    whole = locating_in_case.whole(reference, *next((call for call in calls if call[1]), calls[0]))
    if not whole.problem:
        return Location(kind="right", whole=whole, wrong=whole)
    return locating_in_case.locate(case, reference, whole, judge, time_limit, step)


def lines(case_id: str, found: Location, time_limit: float | None) -> list[Line]:
    """Return what was found: the sentence, and the submodules on the way with their errors."""
    sentence = printable(found.sentence(), 1000)
    if found.kind == "right":
        return [f"{case_id}: {sentence}"]
    if found.kind == "unfinished":
        lies = f": {sentence}" if found.wrong.path else ""
        sentence = f"not located within {time_limit:g} s{lies}: allow more with --time-limit"
    table = [("submodule", "class", "relative L2", ""), _row(found.whole), *_rows(found.checked)]
    return [explained(f"{case_id}: {sentence}", Explanation.WRONG_OUTPUT), "", TextTable(table, left=(0, 1, 3))]


def _rows(checked: Sequence[Checked]) -> list[tuple[str, ...]]:
    """Return a row for each submodule; of many right ones in a row, of the last few."""
    rows: list[tuple[str, ...]] = []
    for place, one in enumerate(checked):
        ahead = checked[place : place + SHOWN + 1]
        if len(ahead) <= SHOWN or any(_is_shown(other, one) for other in ahead):
            rows.append(_row(one))
        elif rows and rows[-1][0].strip() == "…":
            pass
        else:
            rows.append((f"{'  ' * one.depth}…", "", "", "right"))
    return rows


def _is_shown(other: Checked, one: Checked) -> bool:
    return bool(other.problem or other.unable) or other.depth != one.depth


def _row(one: Checked) -> tuple[str, ...]:
    figure = "" if one.unable or math.isinf(one.relative_l2) else f"{one.relative_l2:.1e}"
    said = f"not checked: {printable(one.unable, 80)}" if one.unable else f"WRONG{one.when}" if one.problem else "right"
    return f"{'  ' * one.depth}{one.name}", one.kind, figure, said
