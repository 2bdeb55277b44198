"""The example reports of the documentation say what the records of this repository say, and nothing else."""

from __future__ import annotations

import gzip
import html as markup
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("jinja2", reason="Jinja2 is not installed")
pytest.importorskip("plotly", reason="Plotly is not installed")

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import examples  # noqa: E402


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("examples")
    examples.make(folder)
    return {name: (folder / f"{name}.html").read_text() for name in examples.HEIGHTS}


def rows(page: str) -> dict[str, list[str]]:
    """Cells of the overview's rows, by their first."""
    (body,) = re.findall(r'<table id="overview">.*?<tbody>(.*?)</tbody>', page, re.DOTALL)
    cells = [re.findall(r"<td[^>]*>(.*?)</td>", row, re.DOTALL) for row in body.split("<tr")[1:]]
    plain = [[markup.unescape(re.sub(r"<[^>]+>", "", cell)).strip() for cell in row] for row in cells]
    return {" ".join(row[:1] if row[1:2] and row[1] in VERDICTS else row[:2]): row for row in plain}


SLOWER, SAME = "resnet18-dynamo-fp16-b1-mbs5", "mobilenet_v3_large-dynamo-fp16-b1-mbs5"
VERDICTS = ("regressed", "unchanged", "underpowered", "improved", "unconfirmed")


def document() -> Any:
    """The recorded run."""
    return json.loads(gzip.decompress(examples.RUN.read_bytes()))


def first_case(page: str) -> str:
    """What is shown of the first case, which is open."""
    return markup.unescape(page.partition('<details id="case-0"')[2].partition('<details id="case-1"')[0])


def stored(case_id: str, card: str) -> list[float]:
    """The mean of all captures in each session of a card, µs."""
    document: Any = json.loads((ROOT / "baselines" / examples.H100 / "latency.json").read_text())
    (entry,) = [one["extra_info"]["trtgate"] for one in document["benchmarks"] if one["param"] == case_id]
    sessions = [one["metrics"]["device"] for one in entry["sessions"] if one["uuid"].startswith(card)]
    return [sum(map(sum, one)) / sum(map(len, one)) for one in sessions]


def test_the_recorded_run_failed_for_one_slower_model_and_its_page_says_in_which_layers(pages: dict[str, str]) -> None:
    found = rows(pages["regression"])
    assert {name: row[1] for name, row in found.items()} == {SLOWER: "regressed", SAME: "unchanged"}
    opened, recorded = first_case(pages["regression"]), document()["cases"][0]
    assert all(recorded[line] in opened for line in ("sentence", "where", "advice"))
    table = opened.partition("layers that changed most")[2].partition("</table>")[0]
    assert "layer4.1.fc1" in table
    assert "layer4.3.fc2" in table


def test_the_recorded_run_names_no_folder_of_the_machine_that_it_ran_on() -> None:
    assert not [text for text in texts(document()) if re.search(r"(^|[\s=:'\"])/\w", text)]


def texts(found: Any) -> Iterator[str]:
    """All strings of a JSON document."""
    if isinstance(found, str):
        yield found
    elif isinstance(found, list | dict):
        for one in [*found, *(found.values() if isinstance(found, dict) else ())]:
            yield from texts(one)


def test_points_of_the_sweep_are_the_newest_session(pages: dict[str, str]) -> None:
    found = rows(pages["sweep"])
    assert len(found) == 4 * len(examples.MODELS)
    for name, case_id in (("default", "resnet50-dynamo-fp16-b1-mbs5"), ("frontend=eager", "resnet50-eager-fp16-b1")):
        device = float(found[f"resnet50 {name}"][2].replace(",", ""))
        assert device == pytest.approx(stored(case_id, "GPU-8c3b")[0], rel=1e-3)


def test_a_fleet_of_few_runs_claims_no_change(pages: dict[str, str]) -> None:
    text = pages["fleet"]
    assert "24 cases on 2 accelerators" in text
    assert not re.search(r'<td class="number[^"]*">[+-]\d', text)
    assert len(re.findall(r"nvidia-h200-140gib, card GPU-", text)) >= 16


def test_the_page_of_examples_has_its_figures_from_the_reports(pages: dict[str, str]) -> None:
    said = (ROOT / "docs" / "examples.md").read_text()
    row = rows(pages["regression"])[SLOWER]
    assert f"from {row[3]} to {row[2]} µs" in said
    machine = document()["accelerator"]
    for name in (machine["name"], machine["driver"], *machine["libraries"].values()):
        assert name in said, name
    assert {f"examples/{name}.html" for name in examples.HEIGHTS} == set(re.findall(r'href="([^"]+)"', said))
