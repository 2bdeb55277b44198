"""`trtgate doctor`: its options, and what was found as lines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ..common.accelerator import GIB
from ..common.text_columns import Line, TextTable
from .console import BROKEN, BaselinesOption, print_lines, progress

if TYPE_CHECKING:
    from .doctor_facts import Facts
    from .doctor_findings import DoctorReport


def doctor(
    json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
    baselines: BaselinesOption = None,
    ray: Annotated[
        str | None, typer.Option("--ray", metavar="HOST:PORT", help="Check all nodes of a Ray cluster instead.")
    ] = None,
) -> None:
    """Show what this machine can measure, and what is broken on it (exit code 1)."""
    from json import dumps

    if ray is not None:
        _of_cluster(ray, json=json)
        return

    import msgspec

    from ..suite.pytest_config import baselines_folder
    from .doctor_findings import examine

    with progress() as step:
        report = examine(baselines_folder(baselines), step)
    if json:
        typer.echo(dumps(msgspec.to_builtins(report), indent=2))  # in ASCII, which every terminal can show
    else:
        print_lines(_report_lines(report))
    if report.problems:
        raise typer.Exit(BROKEN)


def _of_cluster(address: str, *, json: bool) -> None:
    from json import dumps

    import msgspec

    from . import doctor_cluster

    with progress() as step:
        report = doctor_cluster.examine(address, step)
    if json:
        typer.echo(dumps(msgspec.to_builtins(report), indent=2))
    else:
        print_lines(doctor_cluster.lines(report))
    if report.problems:
        raise typer.Exit(BROKEN)


def _report_lines(report: DoctorReport) -> list[Line]:
    facts = report.facts
    rows = {
        "Python": facts.python,
        "system": facts.system,
        "packages": ", ".join(f"{name} {version}" for name, version in facts.packages.items()) or "none",
        "GPU": _gpu(facts),
        "torch": _torch(facts),
        "features": _features(facts),
        "runtime cache": _runtime_cache(facts),
        "C++ compiler": facts.compiler or "none (inductor needs one)",
        "free disk": f"{facts.free_disk_bytes / GIB:.1f} GiB",
        "GPU needs": report.needs or "unknown",
        "key": report.key or "unknown",
        "baselines": _baselines(report),
        **{state.name: f"{'runs' if state.runs else 'does not run'}: {state.said}" for state in report.frontends},
    }
    said = [f"BROKEN: {problem}" for problem in report.problems] or ["Nothing is broken."]
    notes = [f"note: {note}" for note in report.notes]
    return [TextTable(list(rows.items()), left=(0, 1), whole=(0,), titled=False), *notes, "", *said]


def _gpu(facts: Facts) -> str:
    nvml = facts.nvml
    if nvml.error or nvml.absent:
        return f"none ({nvml.error or nvml.absent})"
    cards = [
        f"{card.name} {card.memory_bytes / GIB:.0f} GiB{', divided (MIG)' if card.mig else ''} {card.uuid}"
        for card in nvml.cards
    ]
    chosen = "" if facts.visible_devices is None else f", CUDA_VISIBLE_DEVICES={facts.visible_devices}"
    return f"{'; '.join(cards)}; driver {nvml.driver} (up to CUDA {nvml.cuda}){chosen}"


def _torch(facts: Facts) -> str:
    torch = facts.torch
    if torch.error:
        return f"can't be imported: {torch.error}"
    built = f"{torch.version}, built for CUDA {torch.cuda}" if torch.cuda else f"{torch.version}, built without CUDA"
    if torch.device and not torch.device_error:
        return f"{built}, uses {torch.device}, compute capability {torch.capability}"
    return f"{built}, uses no GPU ({torch.device_error})"


def _features(facts: Facts) -> str:
    features = facts.features
    if features.error:
        return f"torch_tensorrt can't be imported: {features.error}"
    if not features.enabled:
        return "torch_tensorrt is not installed"
    said = ", ".join(name if on else f"no {name}" for name, on in features.enabled.items())
    return f"{said}; others can't be told without a GPU" if features.guessed else said


def _runtime_cache(facts: Facts) -> str:
    if facts.runtime_cache == "none":
        return "none: only TensorRT-RTX with torch_tensorrt 2.13 or newer can be given one"
    return "stored with each compiled module; the file that torch_tensorrt shares by default is not used"


def _baselines(report: DoctorReport) -> str:
    stored = [f"{found.key}{' (this machine)' * (found.key == report.key)}" for found in report.facts.baselines]
    return ", ".join(stored) or f"none under {report.facts.baselines_folder}"
