"""Make the example reports of the documentation from measured records of this repository: `make examples`.

    python tools/examples.py FOLDER          the three reports; no GPU is used, nothing is measured
    python tools/examples.py --pictures      their pictures, docs/pictures/example-*.png; needs Chromium

The records are the sessions of `baselines/` and the profiles of `tests/data/`. Policy, statistics and pages are
those that users get. docs/examples.md says what each record is.
"""

from __future__ import annotations

import gzip
import json
import sys
import tempfile
from pathlib import Path

import msgspec

from trtgate.commands import history_answers, history_text
from trtgate.common.accelerator import Accelerator
from trtgate.common.metrics import METRICS
from trtgate.gate import baselines, history
from trtgate.gate.baseline_record import CaseRecord, StoredSession
from trtgate.gate.driver import NoneKeptError, drive
from trtgate.gate.outcome import outcome
from trtgate.gate.policy import Measured, Situation
from trtgate.gate.saved_runs import Asked
from trtgate.launches.sweep import PointOutcome
from trtgate.profiles import profile_files, profile_gate
from trtgate.pytest_plugin import run_document
from trtgate.records.measurement import Capture, CaseMeasurement, Launch, Loaded, Turn
from trtgate.records.profile_record import Profile
from trtgate.report import html, report_parts, run_report, sweep_page, sweep_table
from trtgate.suite.cases import Case, Model
from trtgate.suite.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("regression", "sweep", "fleet")
H100 = "nvidia-h100-80gb-hbm3-80gib"
CARD = "GPU-52f05657"
"""It has two sessions of one day: the first is stored, the second is the run that is judged."""
CHANGED = ("resnet18-dynamo-fp16-b1-mbs5", "resnet18-dynamo-fp32-b1-mbs5")
"""The case that got slower, and the case whose sessions are what it got."""
MODELS = ("mobilenet_v3_large", "resnet18", "resnet50", "vit_b_16")
FIGURES = ("engines", "engine_bytes", "gpu_memory_bytes", "pytorch_operators")
"""What is stored of the newest session, and was read off once."""
REPLAYS = 30
WIDTH, HEIGHT = 1200, 520
"""Of a picture, in pixels of the page."""


def records(key: str = H100) -> tuple[Accelerator, dict[str, CaseRecord]]:
    """Return the baseline of an accelerator."""
    run = baselines.read(ROOT / "baselines" / key / baselines.FILE_NAME)
    return run.accelerator, run.cases


def case_of(record: CaseRecord) -> Case:
    """Return a case as its record has it."""
    known = {name: value for name, value in record.settings.items() if name in ("frontend", "precision", "batch")}
    settings = Settings(**known, min_block_size=record.settings.get("min_block_size"))
    return Case(Model(record.case.split("-", 1)[0], lambda batch: None, (settings,)), settings)  # noqa: ARG005


def measured(case_id: str, session: StoredSession) -> CaseMeasurement:
    """Return a stored session as what a session measures: a launch for each of its launches, a block for each mean."""
    launches = []
    for number, means in enumerate(session.metrics["device"]):
        captures = [Capture(blocks_us=[us], replays=REPLAYS) for us in means]
        host, enqueue = (session.metrics[name][number] for name in ("host", "enqueue"))
        turn = Turn(
            clock=session.clock, captures=captures, host_us=host, enqueue_us=enqueue, canary_us=session.state.canary_us
        )
        launches.append(Launch(loaded=Loaded(seconds=0.0), turns=[turn]))
    return CaseMeasurement(case_id=case_id, launches=launches, uuid=session.uuid)


# A regression


class Recorded:
    """A measurer that has two sessions: one is what it measures first, the other what fresh launches give."""

    def __init__(self, first: CaseMeasurement, again: CaseMeasurement) -> None:
        self._first, self._again = first, again

    def measure(self, _step: object) -> Measured:
        """Return the first session."""
        return Measured(self._first)

    def measure_fresh(self, _step: object) -> CaseMeasurement:
        """Return the other one."""
        return self._again

    def __getattr__(self, what: str) -> object:
        raise NoneKeptError(f"nothing was recorded for {what}")


def regression() -> str:
    """Return the report of a run in which a case's tensors are fp32 where they were fp16."""
    accelerator, stored = records()
    now = {case_id: [one for one in record.sessions if one.uuid.startswith(CARD)] for case_id, record in stored.items()}
    ended = max(sessions[-1].recorded for sessions in now.values())
    began = min(sessions[-1].recorded for sessions in now.values())
    accelerator = msgspec.structs.replace(accelerator, uuid=next(iter(now.values()))[0].uuid)
    cases = []
    for case_id, record in stored.items():
        first, second = now[CHANGED[1] if case_id == CHANGED[0] else case_id]
        own = now[case_id][0]
        held = msgspec.structs.replace(
            record, sessions=[one for one in record.sessions if one.recorded <= own.recorded]
        )
        situation = Situation(
            case=case_of(record), accelerator=accelerator, limit_of=lambda metric: METRICS[metric].limit,
            tests=3 * len(stored), record=held,
        )  # fmt: skip
        measurer = Recorded(measured(case_id, second), measured(case_id, first))
        result = drive(situation, measurer, lambda _text: None)
        found = outcome(str(result.verdict or ""), case_id, result.sentence)
        kind = {"passed": run_report.PASSED, "skipped": run_report.SKIPPED}.get(found.kind, run_report.FAILED)
        said = report_parts.case_report(situation.case, result, accelerator, outcome=kind, stored=held)
        cases.append(msgspec.structs.replace(said, figures={}, base_figures={}))  # stored of the newest session alone
    failed = any(case.outcome == run_report.FAILED for case in cases)
    return html.render(run_report.RunReport(
        outcome=run_report.FAILED if failed else run_report.PASSED, exit_status=int(failed), created=ended,
        seconds=(history.utc(ended) - history.utc(began)).total_seconds(), accelerator=accelerator,
        against=f"baseline baselines/{H100}/latency.json", command=["make", "examples"], commit=history.Commit(),
        cases=cases, profiles=layers(),
    ))  # fmt: skip


def layers() -> list[run_report.LayersReport]:
    """Return what the profile tests of two launches' profiles say: resnet18's is compared with another launch's."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        profile_files.store_baseline(Path(folder), H100, profile("resnet18_profile_0"))
        for name in ("resnet18_profile_1", "vit_b_16_profile_0"):
            result = profile_gate.judge(profile(name), Path(folder), H100)
            seen = run_document.Seen(outcome=run_report.PASSED, result=msgspec.json.encode(result).decode())
            found.append(run_document.layers_report(result.case_id, seen))
    return found


def profile(name: str) -> Profile:
    """Return a recorded profile."""
    return msgspec.json.decode(
        gzip.decompress((ROOT / "tests/data" / f"h100_{name}.json.gz").read_bytes()), type=Profile
    )


# A sweep


def sweep() -> str:
    """Return the page of the newest session's cases of batch 1, as points around dynamo, fp16."""
    accelerator, stored = records()
    points = []
    for model in MODELS:
        names = sorted(name for name in stored if name.startswith(f"{model}-") and "-b1" in name)
        default = f"{model}-dynamo-fp16-b1-mbs5"
        outcomes = [point(stored[name]) for name in [default, *(name for name in names if name != default)]]
        for found in sweep_table.points_of(outcomes):
            known = stored[found.case_id].figures
            found.figures = {name: known[name] for name in FIGURES if name in known}
            found.figures |= {"leaf_error": known["output_error"]} if found.figures.get("engines") else {}
            points.append(found)
    versions = accelerator.libraries
    return sweep_page.render(sweep_table.SweepFindings(
        accelerator=accelerator, flavour="rtx", release=f"rtx-{versions['torch-tensorrt-rtx']}", launches=5,
        points=points, left_out=[],
    ))  # fmt: skip


def point(record: CaseRecord) -> PointOutcome:
    """Return the newest session of a case as a point."""
    return PointOutcome(case=case_of(record), launches=measured(record.case, record.sessions[-1]).launches)


# A fleet


def fleet(target: Path) -> None:
    """Write the page of all stored sessions: each session of a card is a saved run."""
    with tempfile.TemporaryDirectory() as folder:
        for key in baselines.keys(ROOT / "baselines"):
            write_runs(key, Path(folder))
        found = history_answers.find(["*"], Path(folder), Asked(key=history_answers.ALL))
        history_text.save_page(found, target)


def write_runs(key: str, folder: Path) -> None:
    """Write each card's first session of each case as one saved run, its second as another."""
    document = json.loads((ROOT / "baselines" / key / baselines.FILE_NAME).read_text())
    runs: dict[tuple[str, int], list[dict[str, object]]] = {}
    for entry in document["benchmarks"]:
        sessions, of_card = entry["extra_info"]["trtgate"]["sessions"], dict[str, int]()
        for session in sessions:
            number = of_card[session["uuid"]] = of_card.get(session["uuid"], 0) + 1
            kept = {**entry["extra_info"]["trtgate"], "sessions": [session]}
            runs.setdefault((session["uuid"], number), []).append({**entry, "extra_info": {"trtgate": kept}})
    for (uuid, number), entries in runs.items():
        machine = document["machine_info"]
        machine = {**machine, "accelerator": {**machine["accelerator"], "uuid": uuid}}
        run = {**document, "machine_info": machine, "commit_info": {}, "benchmarks": entries}
        (folder / f"{key}-{uuid[:12]}-{number}.json").write_text(json.dumps(run))


# Pages and pictures


def make(folder: Path) -> None:
    """Write the three pages. Raises TrtgateError where a record can't be read."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "regression.html").write_text(regression(), encoding="utf-8")
    (folder / "sweep.html").write_text(sweep(), encoding="utf-8")
    fleet(folder / "fleet.html")


def take_pictures(folder: Path) -> None:
    """Take a picture of the upper part of each page."""
    import pictures

    with pictures.chromium() as browser:
        for name in PAGES:
            page = pictures.opened(browser, folder / f"{name}.html", WIDTH)
            clip = {"x": 0, "y": 0, "width": WIDTH, "height": HEIGHT}
            pictures.save(f"example-{name}.png", page.screenshot(clip=clip))


def main(arguments: list[str]) -> None:
    """Write the pages into the folder that is named, or take their pictures."""
    if arguments == ["--pictures"]:
        with tempfile.TemporaryDirectory() as folder:
            make(Path(folder))
            take_pictures(Path(folder))
    elif len(arguments) == 1 and not arguments[0].startswith("-"):
        make(Path(arguments[0]))
        print(f"{arguments[0]}: {', '.join(f'{name}.html' for name in PAGES)}")
    else:
        raise SystemExit("name one folder, or --pictures")


if __name__ == "__main__":
    main(sys.argv[1:])
