"""docs/how-to/scripts.md: its examples print what it shows, and the fields that it names are there."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from trtgate.common.explanations import Explanation, explained
from trtgate.common.notices import Notice, Severity
from trtgate.gate.sentences import sentence
from trtgate.profiles.difference_text import LayerChange
from trtgate.report import run_report
from trtgate.report.run_report import CaseReport, CoverageReport, LayersReport, RunReport
from trtgate.verdict import Judgement, Verdict

from .test_run_report import case, judgement, made

PAGE = (Path(__file__).parent.parent / "docs" / "how-to" / "scripts.md").read_text()
SLOWER = "resnet18-dynamo-fp16-b1-mbs5"


def report() -> RunReport:
    """Return a run in which one case got slower, one lost coverage, and one is missing."""
    change = 194 / 182 - 1
    slower = msgspec.structs.replace(
        judgement(change, Verdict.REGRESSED),
        baseline=182.0, now=194.0, change=0.0659, low=0.0641, high=0.0677,
    )  # fmt: skip
    why = explained(sentence(SLOWER, Verdict.REGRESSED, [slower], "device"), Explanation.REGRESSED_DEVICE)
    cause = "same layers, slower"
    layers = [
        LayerChange(what="myl_31", modules="layer3.0.conv2, layer3.0.bn2", cause=cause, us=9.0),
        LayerChange(what="myl_30", modules="layer3.0.conv1, layer3.0.bn1", cause=cause, us=3.0),
    ]
    lost = explained("vit_b_16-dynamo-fp16-b1-mbs5 lost coverage", Explanation.COVERAGE_LOST)
    gone = "alexnet-eager-fp32-b1 is in the baseline and was not measured: not in the suite or not run"
    return made(
        case("resnet50-dynamo-fp16-b1-mbs5"),
        case(SLOWER, "regressed", judgements=[slower], sentence=why, layer_changes=layers),
        coverage=[
            CoverageReport(
                case_id="vit_b_16-dynamo-fp16-b1-mbs5", outcome="failed", said="regressed", sentence=lost, total=9
            )
        ],
        notices=[
            Notice(explained(gone, Explanation.MISSING_CASE), Severity.MISSING),
            Notice("run saved: .trtgate/runs/x.json"),
        ],
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    run_report.write(tmp_path / "report.json", report())
    return tmp_path


def typed(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


EXAMPLES = [
    tuple(part.split("\n", 1))
    for block in typed("console")
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]
]


@pytest.mark.skipif(shutil.which("jq") is None, reason="needs jq")
@pytest.mark.parametrize(("command", "shown"), EXAMPLES, ids=range(len(EXAMPLES)))
def test_an_example_prints_what_the_page_shows(folder: Path, command: str, shown: str) -> None:
    command = command.replace("trtgate ", f"{sys.executable} -m trtgate ")
    done = subprocess.run(["bash", "-c", command], cwd=folder, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", shown)


def test_the_example_in_python_finds_what_got_slower(folder: Path) -> None:
    (script,) = typed("python")
    done = subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, check=True)
    assert done.stdout == f"{SLOWER} regressed-device device\n"
    assert len(EXAMPLES) == 6


def test_the_fields_that_the_page_names_are_there() -> None:
    def of(heading: str) -> set[str]:
        table = PAGE.partition(f"| {heading} | holds |\n")[2].partition("\n\n")[0]
        return set(re.findall(r"`(\w+)`", "".join(line.split("|")[1] for line in table.splitlines())))

    assert of("part") <= set(RunReport.__struct_fields__)
    assert of("field") <= set(CaseReport.__struct_fields__)
    assert {"outcome", "said", "explanation"} <= set(CoverageReport.__struct_fields__) & set(
        LayersReport.__struct_fields__
    )
    (line,) = [line for line in PAGE.splitlines() if line.startswith("| `judgements`")]
    assert set(re.findall(r"`(\w+)`", line)) - {"judgements"} <= set(Judgement.__struct_fields__)
    assert f"`schema` is {run_report.SCHEMA}." in PAGE


def test_the_command_prints_the_document_itself_and_writes_files_beside_it(folder: Path) -> None:
    command = [sys.executable, "-m", "trtgate", "report", "--json", "report.json", "--markdown", "summary.md"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    assert done.stdout == (folder / "report.json").read_text()
    assert done.stderr == "written: summary.md\n"
    assert (folder / "summary.md").exists()


def test_each_part_of_a_report_has_the_name_that_its_sentence_ends_with(folder: Path) -> None:
    read = run_report.read(folder / "report.json")
    assert [one.explanation for one in read.cases] == ["regressed-device", ""]
    assert [one.explanation for one in read.coverage] == ["coverage-lost"]
    assert run_report.RunReport(**{f: getattr(read, f) for f in RunReport.__struct_fields__}) == read
