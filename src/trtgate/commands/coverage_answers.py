"""What `trtgate coverage` does: ask for models' coverage, show it, compare two releases. Needs no GPU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from ..common import garbage
from ..common.errors import TrtgateError, one_line
from ..common.explanations import Explanation, explained
from ..common.files import write_json
from ..common.steps import OnStep
from ..common.text_columns import Line, TextTable, first_few, number_of
from ..coverage import coverage_baselines, unseen_operators
from ..coverage.coverage_comparison import compare
from ..records.coverage_record import Coverage, Left
from ..suite import zoo
from ..suite.cases import Case
from ..suite.pytest_config import baselines_folder
from ..suite.settings import DEFAULT_MIN_BLOCK_SIZE
from . import model_names
from .shape_options import case_of

LEFT_SHOWN = 12
ENGINES_SHOWN = 8
HISTOGRAM_SHOWN = 6
SOURCES_SHOWN = 3


class CoverageAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The coverage of a case, or why it could not be had; both where it does not tell of the whole model."""

    case_id: str
    coverage: Coverage | None = None
    problem: str = ""


# Which cases


def cases(
    names: Sequence[str],
    *,
    whole_zoo: bool,
    frontend: str,
    precisions: Sequence[str],
    min_block_size: int = DEFAULT_MIN_BLOCK_SIZE,
    torch_executed_ops: Sequence[str] = (),
    shape: Sequence[str] = (),
) -> list[Case]:
    """Return the cases to ask for: models of the suite of this folder, of the zoo, or `package.module:factory`.

    Raises TrtgateError for an unknown model, frontend or precision, and a shape that a model does not take.
    """
    chosen = [(model_names.find(name), precision) for name in names for precision in precisions]
    if whole_zoo:
        every = [(model, precision) for model in zoo.models() for precision in precisions]
        chosen += [(model, precision) for model, precision in every if not zoo.unavailable(model.name, precision)]
    if not chosen:
        raise TrtgateError("name models, such as resnet18 or package.module:factory, or give --zoo")
    fields: dict[str, Any] = {
        "frontend": frontend, "min_block_size": min_block_size, "torch_executed_ops": tuple(torch_executed_ops)
    }  # fmt: skip
    return [case_of(model, shape, precision=precision, **fields) for model, precision in chosen]


# Asking


def ask(wanted: Sequence[Case], step: OnStep) -> list[CoverageAnswer]:
    """Ask for the coverage of every case; what fails is an answer too.

    Raises TrtgateError when nothing can be asked at all: no torch_tensorrt, or an unknown operator is excluded.
    """
    from ..torch_trt import compile_options, modelopt_package, releases

    modelopt_package.expect(case.settings.precision for case in wanted)
    reason = releases.unavailable()
    if reason:
        raise TrtgateError(reason)
    step("importing torch")
    with garbage.importing():
        from ..coverage import dry_run

    compile_options.executed_operators(name for case in wanted for name in case.settings.torch_executed_ops)
    answers = []
    for number, case in enumerate(wanted):
        at = f"{number + 1} of {len(wanted)}: " if len(wanted) > 1 else ""

        def said(text: str, at: str = at, case: Case = case) -> None:
            step(f"{at}{case.id}: {text}")

        try:
            found = dry_run.ask(case, said)
            unseen = unseen_operators.problem(found)
            problem = explained(f"coverage of {case.id}: {unseen}", Explanation.COVERAGE_INCOMPLETE) if unseen else ""
            answers.append(CoverageAnswer(case_id=case.id, coverage=found, problem=problem))
        except TrtgateError as error:
            answers.append(CoverageAnswer(case_id=case.id, problem=str(error)))
        except Exception as error:
            answers.append(CoverageAnswer(case_id=case.id, problem=one_line(error)))
    return answers


def save(answers: Sequence[CoverageAnswer], release: str, path: Path) -> None:
    """Write all answers as JSON, atomically. Raises TrtgateError when that fails."""
    document: dict[str, Any] = {
        "schema": coverage_baselines.SCHEMA,
        "release": release,
        "cases": {a.case_id: msgspec.to_builtins(a.coverage, order="sorted") for a in answers if a.coverage},
        "problems": {a.case_id: a.problem for a in answers if a.problem},
    }
    write_json(path, document)


# Showing


def shown(answers: Sequence[CoverageAnswer], release: str) -> list[Line]:
    """Return a table of all answers, and all that is known of a single one."""
    rows: list[tuple[str, ...]] = [("case", "in TensorRT", "", "engines", "average", "most", "breaks", "recommended")]
    rows += [_row(answer.case_id, answer.coverage) for answer in answers if answer.coverage is not None]
    lines: list[Line] = [f"coverage by {release}, dry run"]
    if len(rows) > 1:
        lines.append(TextTable(rows))
    asked = [answer for answer in answers if answer.coverage is not None]
    for answer in asked:
        assert answer.coverage is not None
        lines += _details(answer.case_id, answer.coverage, alone=len(asked) == 1)
    return lines + [
        explained(f"FAILED: {answer.problem}", Explanation.BUILD_FAILED) for answer in answers if answer.problem
    ]


def _row(case_id: str, found: Coverage) -> tuple[str, ...]:
    share = found.in_tensorrt / found.total if found.total else 0.0
    return (
        case_id,
        f"{found.in_tensorrt} of {found.total}",
        f"{share:.1%}",
        str(len(found.engines)),
        f"{found.average_size:.1f}",
        str(found.most),
        str(sum(found.graph_breaks.values())),
        " or ".join(map(str, found.recommended)) or "-",
    )


def _details(case_id: str, found: Coverage, *, alone: bool) -> list[Line]:
    lines: list[Line] = []
    if found.left:
        lines.append(f"{case_id}, left to PyTorch:")
        lines += _left(found.left)
    if found.graph_breaks:
        lines.append(f"{case_id}, {number_of(found.graphs, 'graph')}, broken by:")
        lines += [f"  {n}: {reason}" for reason, n in found.graph_breaks.items()]
    if found.skipped:
        lines.append(f"{case_id}, frames that Dynamo skipped:")
        lines += [f"  {n}: {reason}" for reason, n in found.skipped.items()]
    if alone and found.engines:
        lines.append("engines:")
        lines += [f"  {line}" for line in _engine_rows(found)]
    if alone and found.block_sizes:
        lines.append("min_block_size:")
        rows = [("up to", "engines", "operators in TensorRT")]
        rows += [(str(row.min_block_size), str(row.engines), str(row.operators)) for row in found.block_sizes]
        lines.append(TextTable([*rows, ("above", "0", "0")], indent=2))
    return lines


def _left(left: Sequence[Left]) -> list[Line]:
    """Return the operators that PyTorch runs as a table: how many of each, why, and below that where they come from."""
    most_first = sorted(left, key=lambda entry: (-entry.count, entry.operator))
    rows: list[tuple[str, ...]] = []
    for entry in most_first[:LEFT_SHOWN]:
        rows.append((entry.operator, str(entry.count), entry.reason))
        rows += [("", "", line) for line in _source_rows(entry)]
    hidden = len(most_first) - LEFT_SHOWN
    more = [f"  … and {hidden} more kinds: --json has them all"] if hidden > 0 else []
    return [TextTable(rows, left=(0, 2), titled=False, indent=2), *more]


def _source_rows(entry: Left) -> list[str]:
    most_first = sorted(entry.sources.items(), key=lambda item: (-item[1], item[0]))
    lines = [f"{source}{f' ({n} times)' if n > 1 else ''}" for source, n in most_first[:SOURCES_SHOWN]]
    hidden = len(most_first) - SOURCES_SHOWN
    return [*lines, f"… and {number_of(hidden, 'more line')}: --json has them all"] if hidden > 0 else lines


def _engine_rows(found: Coverage) -> list[str]:
    lines = []
    for number, engine in enumerate(found.engines[:ENGINES_SHOWN], start=1):
        common = sorted(engine.operators.items(), key=lambda item: (-item[1], item[0]))
        named = ", ".join(f"{n} {name}" for name, n in common[:HISTOGRAM_SHOWN])
        more = f" and {len(common) - HISTOGRAM_SHOWN} more kinds" if len(common) > HISTOGRAM_SHOWN else ""
        lines.append(
            f"{number}: {number_of(engine.size, 'operator')}, {_tensors(engine.inputs)} → {_tensors(engine.outputs)}"
        )
        lines.append(f"   {named}{more}")
    hidden = len(found.engines) - ENGINES_SHOWN
    return [*lines, f"… and {hidden} more: --json has them all"] if hidden > 0 else lines


def _tensors(names: Sequence[str]) -> str:
    return first_few(names, 3, separator=" ")


# Comparing releases


def differences(old: str, new: str, folder: Path | None) -> list[str]:
    """Return what changed between two folders or stored releases, a line a case, and a summary.

    Raises TrtgateError for an unknown release and a broken file.
    """
    root = baselines_folder(folder)
    (before_name, before), (after_name, after) = _release(old, root), _release(new, root)
    lines, counts = [], {"lost": 0, "gained": 0, "another graph": 0, "unchanged": 0}
    for case_id in sorted(before.keys() & after.keys()):
        found = compare(before[case_id], after[case_id])
        for what, phrases in (("lost", found.lost), ("gained", found.gained), ("another graph", found.other)):
            if phrases:
                lines.append(f"{case_id} {what}: {'; '.join(phrases)}")
                counts[what] += 1
        counts["unchanged"] += not found
    lines += [f"{case_id} is only in {before_name}" for case_id in sorted(before.keys() - after.keys())]
    lines += [f"{case_id} is only in {after_name}" for case_id in sorted(after.keys() - before.keys())]
    summary = ", ".join(f"{n} {what}" for what, n in counts.items() if n) or "no case in common"
    return [*lines, f"{before_name} → {after_name}: {summary}"]


def _release(name: str, root: Path) -> tuple[str, dict[str, Coverage]]:
    if Path(name).is_dir():
        return name, coverage_baselines.read_release(Path(name))
    known = coverage_baselines.releases(root)
    found = [release for release in known if name in (release, release.rpartition("-")[2])]
    if len(found) != 1:
        what = "is stored for several flavours" if found else "is no folder, and no stored release"
        raise TrtgateError(f"{name!r} {what}; there are: {', '.join(found or known) or 'none'}")
    return found[0], coverage_baselines.read_release(root / coverage_baselines.FOLDER / found[0])
