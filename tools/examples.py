"""Make the example reports of the documentation from measured records of this repository: `make examples`.

    python tools/examples.py FOLDER          the three reports; no GPU is used, nothing is measured
    python tools/examples.py --pictures      their pictures, docs/pictures/example-*.png; needs Chromium

The records are the sessions of `baselines/` and the document of a run in `tests/data/`. Pages are made by the code
that makes those of users. docs/examples.md says what each record is.
"""

from __future__ import annotations

import gzip
import json
import sys
import tempfile
from pathlib import Path

from trtgate.commands import history_answers, history_text, report_files
from trtgate.common.accelerator import Accelerator
from trtgate.gate import baselines
from trtgate.gate.baseline_record import CaseRecord, StoredSession
from trtgate.gate.saved_runs import Asked
from trtgate.launches.sweep import PointOutcome
from trtgate.records.measurement import Capture, CaseMeasurement, Launch, Loaded, Turn
from trtgate.report import run_report, sweep_page, sweep_table
from trtgate.suite.cases import Case, Model
from trtgate.suite.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
RUN = ROOT / "tests" / "data" / "h200_slower_report.json.gz"
"""What --trtgate-report wrote in the second run of studies/example_regression.py."""
H100 = "nvidia-h100-80gb-hbm3-80gib"
MODELS = ("mobilenet_v3_large", "resnet18", "resnet50", "vit_b_16")
FIGURES = ("engines", "engine_bytes", "gpu_memory_bytes", "pytorch_operators")
"""What is stored of the newest session, and was read off once."""
REPLAYS = 30
WIDTH = 1200
HEIGHTS = {"regression": 915, "sweep": 520, "fleet": 520}
"""Of a picture, in pixels of the page; the first ends within the layers of the slower case."""


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


def regression(target: Path) -> None:
    """Write the report of a recorded run, as `trtgate report` does. Raises TrtgateError when it can't be read."""
    with tempfile.TemporaryDirectory() as folder:
        document = Path(folder) / "run.json"
        document.write_bytes(gzip.decompress(RUN.read_bytes()))
        report_files.make(run_report.read(document), to_markdown=None, to_html=target)


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
    regression(folder / "regression.html")
    (folder / "sweep.html").write_text(sweep(), encoding="utf-8")
    fleet(folder / "fleet.html")


def take_pictures(folder: Path) -> None:
    """Take a picture of the upper part of each page."""
    import pictures

    with pictures.chromium() as browser:
        for name, height in HEIGHTS.items():
            page = pictures.opened(browser, folder / f"{name}.html", WIDTH)
            clip = {"x": 0, "y": 0, "width": WIDTH, "height": height}
            pictures.save(f"example-{name}.png", page.screenshot(clip=clip, full_page=True))


def main(arguments: list[str]) -> None:
    """Write the pages into the folder that is named, or take their pictures."""
    if arguments == ["--pictures"]:
        with tempfile.TemporaryDirectory() as folder:
            make(Path(folder))
            take_pictures(Path(folder))
    elif len(arguments) == 1 and not arguments[0].startswith("-"):
        make(Path(arguments[0]))
        print(f"{arguments[0]}: {', '.join(f'{name}.html' for name in HEIGHTS)}")
    else:
        raise SystemExit("name one folder, or --pictures")


if __name__ == "__main__":
    main(sys.argv[1:])
