"""The charts of docs/measured/ are drawn from the figures of its tables, and of nothing else."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

pytest.importorskip("jinja2", reason="Jinja2 is not installed")

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import chart_figures  # noqa: E402
import charts  # noqa: E402
import state_pictures  # noqa: E402

MEASURED = sorted((ROOT / "docs" / "measured").glob("*.md"))
ANSWERS = [page for page in MEASURED if page.name != "index.md"]
SWEEP = """
```
net, against net-dynamo-fp16-b8-mbs5
  point                          device            change                      host    build
  default                     347.69 µs                                   724.71 µs  4.9 s ?
  min_block_size=9           1.5657 ms  +130.85% ± 0.84%  slower  5.9653 ms slower  3.9 s ?
  runtime=cpp cudagraphs=on  391.76 µs *    +4.01% ± 0.85%    same   315.55 µs faster  4.1 s ?
  precision=fp8: net-dynamo-fp8: building: the output has NaN
```
"""


DRAWN = {name: lambda make=make: charts.drawn(make()) for name, make in charts.CHARTS.items()} | state_pictures.DRAWN


@pytest.mark.parametrize("name", DRAWN)
def test_charts_are_current(name: str) -> None:
    made = DRAWN[name]()
    assert (charts.PICTURES / f"{name}.svg").read_text() == made, "make charts"


def test_pictures_are_those_that_are_drawn_or_taken_and_not_too_large() -> None:
    pictures = [path for path in (ROOT / "docs").rglob("*") if path.suffix in (".svg", ".png", ".jpg", ".gif", ".webp")]
    assert {path.stem for path in pictures if path.suffix == ".svg"} == set(DRAWN)
    assert sum(path.stat().st_size for path in pictures) < charts.MOST_BYTES


@pytest.mark.parametrize("name", charts.CHARTS)
def test_text_of_a_chart_is_text_and_it_needs_nothing_from_elsewhere(name: str) -> None:
    tree = ElementTree.fromstring((charts.PICTURES / f"{name}.svg").read_text())
    space = "{http://www.w3.org/2000/svg}"
    said = [element.text for element in tree.iter(f"{space}text")]
    chart = charts.CHARTS[name]()
    assert {row.label for row in chart.rows} <= set(said)
    assert tree.findtext(f"{space}title") == chart.title
    assert "prefers-color-scheme: dark" in (tree.findtext(f"{space}style") or "")
    assert not [value for element in tree.iter() for key, value in element.attrib.items() if "href" in key]


def marks_of(picture: str) -> list[tuple[float, float]]:
    """Where a picture of points has them, in pixels."""
    return [(float(x), float(y)) for x, y in re.findall(r"M(\S+) (\S+)h\.01", picture)]


def test_the_states_are_drawn_from_what_was_recorded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    points = marks_of(state_pictures.two_states())
    assert len(points) == 2 * 3 * 24
    below = [x for x, y in points if y > 250]
    assert len(below) >= 10
    assert len({round(x / 60) for x in below}) == 2  # the first capture of either turn is in the other state
    recorded = json.loads(state_pictures.BLOCKS.read_text())
    recorded["launches"][0][0][2] *= 1.004
    monkeypatch.setattr(state_pictures, "BLOCKS", tmp_path / "blocks.json")
    state_pictures.BLOCKS.write_text(json.dumps(recorded))
    assert state_pictures.plateaus() != (charts.PICTURES / "states-plateaus.svg").read_text()
    recorded["launches"][0][0][2] *= 2
    state_pictures.BLOCKS.write_text(json.dumps(recorded))
    with pytest.raises(ValueError, match="lies off the axis"):
        state_pictures.plateaus()


def test_the_pictures_of_the_states_fit_their_width_and_need_nothing_from_elsewhere() -> None:
    for name in state_pictures.DRAWN:
        tree = ElementTree.fromstring((charts.PICTURES / f"{name}.svg").read_text())
        assert not [value for element in tree.iter() for key, value in element.attrib.items() if "href" in key]
        for element in tree.iter("{http://www.w3.org/2000/svg}text"):
            share = {"m": 0.5, "e": 0.0}.get(element.get("class", ""), 1.0)  # of a text, to the right of its place
            end = float(element.get("x", 0)) + share * 6.4 * len(element.text or "")
            assert end <= state_pictures.WIDTH, element.text


def test_a_figure_that_changes_moves_its_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    before = charts.drawn(charts.precisions())
    page = charts.page("precisions").replace("+11.88%", "+21.88%")
    monkeypatch.setattr(charts, "page", lambda _name: page)
    after = charts.drawn(charts.precisions())
    assert "+11.88 %" in before
    assert "+11.88 %" not in after
    assert "+21.88 %" in after
    marks = [re.findall(r"translate\((\S+) ", text) for text in (before, after)]
    assert len([1 for one, other in zip(*marks, strict=True) if one != other]) == 1


def test_rows_of_a_sweep_are_read_as_they_were_printed() -> None:
    (sweep,) = chart_figures.sweeps(SWEEP)
    assert sweep.model == "net"
    default, slower, queued = sweep.points
    assert (default.device_us, default.host_us, default.change) == (347.69, 724.71, None)
    assert (slower.device_us, slower.host_us, slower.verdict) == (1565.7, 5965.3, "slower")
    assert (slower.change, slower.half) == pytest.approx((1.3085, 0.0084))
    assert (queued.name, queued.queued, queued.host_us) == ("runtime=cpp cudagraphs=on", True, 315.55)


def test_a_row_that_can_not_be_read_is_named() -> None:
    with pytest.raises(ValueError, match="not a row of a sweep: min_block_size=9 about 1 ms"):
        chart_figures.sweeps(SWEEP.replace("min_block_size=9           1.5657 ms", "min_block_size=9 about 1 ms"))


def test_a_table_is_found_by_its_first_heading() -> None:
    text = "| device | `dynamo` |\n|---|---|\n| resnet18 | 1.02 ms (+3%) |\n| vit | none |\n"
    rows = chart_figures.table(text, "device")
    assert [chart_figures.microseconds(row["dynamo"]) for row in rows] == [1020.0, None]
    with pytest.raises(ValueError, match="0 tables"):
        chart_figures.table(text, "host")


def test_a_mark_off_its_axis_is_refused() -> None:
    row = charts.Row("net", (charts.Mark(0, 3.0),))
    with pytest.raises(ValueError, match="off the axis"):
        charts.drawn(charts.Chart("title", (row,), ("one",), {0.0: "0", 2.0: "2"}))


@pytest.mark.parametrize("path", ANSWERS, ids=lambda path: path.stem)
def test_a_page_has_result_chart_table_command_versions_and_machine(path: Path) -> None:
    text = path.read_text()
    found = re.match(r"# (.+\?)\n\n\*\*(.+?\.)\*\*\n\n(.*)", text, re.DOTALL)
    assert found is not None
    title, result, rest = found.groups()
    drawn = re.findall(r"^!\[(.{40,})\]\(\.\./pictures/(.+)\.svg\)$", rest, re.MULTILINE)
    assert drawn or "No chart" in rest
    assert {name for _, name in drawn} <= set(charts.CHARTS)
    assert "\n| " in rest or "  point  " in rest
    measured = rest.partition("## How it was measured")[2]
    assert re.search(r"```\n(trtgate|pytest) ", measured)
    assert re.search(r"NVIDIA H100 80GB HBM3, driver [\d.]+", measured)
    assert re.search(r"torch 2\.\d+\.\d, Torch-TensorRT-RTX 2\.\d+\.\d, TensorRT-RTX 1\.\d", measured)
    index = (ROOT / "docs" / "measured" / "index.md").read_text()
    assert f"| [{title}]({path.name}) | {' '.join(result.split())} |" in index
