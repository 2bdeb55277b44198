"""The HTML report, opened in a real browser: nothing is requested, nothing fails, charts are drawn, tables work."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from trtgate.commands import report_files
from trtgate.common.errors import TrtgateError
from trtgate.common.notices import Notice, Severity
from trtgate.gate.history import CaseHistory, HistoryPoint, analysed
from trtgate.profiles.difference_text import LayerChange
from trtgate.profiles.profile_summary import LayerTime
from trtgate.records.measurement import LoadLevel
from trtgate.report import fleet_page, html, run_report
from trtgate.report.run_report import CoverageReport, Failure, LayersReport, Matrix, RunReport
from trtgate.verdict import Growth, judge_growth

from .browsers import chromium
from .test_run_report import HOSTILE, case, made

LONG = "x" * 4000
NAME = "resnet18-dynamo-fp16-b1-mbs5"


LOAD = [
    LoadLevel(
        threads=threads, processes=processes, throughput_per_s=1234.5 * threads * processes, p50_us=800, p99_us=901
    )
    for threads, processes in ((1, 1), (2, 1), (4, 1), (1, 2), (1, 4))
]
GROWTH = judge_growth(
    "host_memory_growth", Growth(bytes_a_call=1032.0, low=990.0, high=1080.0), 0.0, limit=256.0, calls=9955
)
CHANGES = [
    LayerChange(what="layer4.conv", modules="layer4", cause="tactics changed", us=3.0, low_us=2.5, high_us=3.5),
    LayerChange(what=HOSTILE, modules=HOSTILE, cause="", us=-1.0),
]


def series(count: int = 12) -> Any:
    points = [
        HistoryPoint(
            recorded=f"2026-01-{1 + n:02}T00:00:00+00:00", run=HOSTILE, commit="0" * 40, branch=HOSTILE, dirty=False,
            latency_us=100.0 + 5 * (n >= 6) + 0.01 * (n % 3), verdict="unchanged",
        )
        for n in range(count)
    ]  # fmt: skip
    return analysed("device", "cuda_graph", "GPU-1", points)


def report() -> RunReport:
    captures = {"captures_us": [[102.0, 102.1, 101.9]] * 3, "base_captures_us": [[100.0, 100.1, 99.9]] * 3}
    explained = {"layer_changes": CHANGES, "where": "where: layer4", "advice": "if that is intended: accept"}
    layers = LayersReport(
        case_id=HOSTILE, outcome="passed", said="unchanged", sentence=HOSTILE, device_us=1.0, sum_us=2.0,
        attributed=0.9, layers=[LayerTime(name=HOSTILE, modules=[HOSTILE], us=2.0)], modules={HOSTILE: 2.0},
        changes=CHANGES,
    )  # fmt: skip
    coverage = CoverageReport(
        case_id=HOSTILE, outcome="passed", said="unchanged", sentence=HOSTILE, in_tensorrt=3, total=4, engines=2,
        release="rtx-2.14.0",
    )  # fmt: skip
    return made(
        case(NAME, "regressed", 0.02, history=series(), **explained, **captures),
        case(HOSTILE, "regressed", 0.01, where=HOSTILE, advice=HOSTILE, settings={HOSTILE: HOSTILE}, history=series()),
        case(LONG),
        case(
            "fast",
            "improved",
            -0.05,
            load=LOAD,
            judgements=[*case("fast", "improved", -0.05).judgements, GROWTH],
            **captures,
        ),
        case("none", "skipped", judgements=[], medians_us={}),
        failures=[Failure(test=HOSTILE, sentence=HOSTILE)],
        notices=[Notice(HOSTILE, Severity.MISSING), Notice(HOSTILE)],
        environment=[f"driver {HOSTILE} → 2"],
        coverage=[coverage],
        profiles=[layers],
        matrix=Matrix(releases=[HOSTILE, "rtx-2.14.0"], shares={HOSTILE: [0.5, None]}),
    )


def test_what_is_shown_is_escaped_and_nothing_is_fetched() -> None:
    content = html.render(report())
    shown = content[: content.index('<script type="application/json"')]
    for harmful in ("<script>", "onerror=", "\x1b", "\u202e"):
        assert harmful not in shown
    assert "&lt;script&gt;" in shown
    data = content[content.index('id="data">') : content.index("</script>")]
    assert "<" not in data.removeprefix('id="data">')
    assert not re.search(r'(?:src|href)="(?!#)', shown)
    assert "default-src 'none'" in shown


def test_tables_need_no_javascript() -> None:
    content = html.render(report())
    shown = re.sub(r"<script.*?</script>", "", content, flags=re.DOTALL)
    for wanted in (NAME, "+2.00", "where: layer4", "if that is intended: accept", "3 of 4", "50.0", "none"):
        assert wanted in shown
    for wanted in ("+3.00", "+2.50 to +3.50", "tactics changed", "layer4.conv"):
        assert wanted in shown
    assert shown.count("<table") == shown.count("<caption>") + shown.count("Figures and settings")


def test_figures_are_whole_numbers_where_they_are_large_and_settings_stand_as_a_user_writes_them() -> None:
    settings = {"frontend": "dynamo", "batch": 1, "cudagraphs": False, "shape": {}, "runtime": "", "quarantine": None}
    figures = {"engine_bytes": 24_427_500.0, "build_s": 3.81333}
    shown = html.render(made(case("net", figures=figures, settings=settings)))
    assert ">24,427,500<" in shown
    assert ">3.8133<" in shown
    assert ">frontend=dynamo, batch=1, cudagraphs=False<" in shown


def test_layers_of_a_slower_case_are_shown_once_with_its_latency_and_what_is_known_of_them() -> None:
    slower = case(NAME, "regressed", 0.02, layer_changes=CHANGES)
    of_profile = LayersReport(
        case_id=NAME, outcome="passed", said="changed", sentence="its layers changed", device_us=193.5, sum_us=338.1,
        attributed=0.98, layers=[LayerTime(name="__myl_Move", modules=[], us=2.0)], modules={"?": 2.0}, changes=CHANGES,
    )  # fmt: skip
    shown = html.render(made(slower, profiles=[of_profile]))
    assert shown.count("layers that changed most") == 1
    assert html.render(made(case(NAME), profiles=[of_profile])).count("layers that changed most") == 1
    assert "latency 193.5 µs; layers, each timed by itself, 338.1 µs, 98 % of it attributed to modules" in shown
    assert shown.count("(unknown)") == 2


def test_load_and_growth_are_tables_too_in_their_units() -> None:
    shown = re.sub(r"<script.*?</script>", "", html.render(report()), flags=re.DOTALL)
    for wanted in (
        "Called by several at once",
        "4,938",
        "1,032 bytes a call",
        "+1,032 bytes a call",
        "256 bytes a call",
    ):
        assert wanted in shown
    assert shown.count("Called by several at once") == 1, "nothing is shown of what was not measured"


def test_an_html_report_is_made_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_report.write(tmp_path / "run.json", report())
    read = run_report.read(tmp_path / "run.json")
    assert report_files.make(read, to_markdown=tmp_path / "run.md", to_html=tmp_path / "run.html") == [
        f"written: {tmp_path}/run.md",
        f"written: {tmp_path}/run.html",
    ]
    monkeypatch.setitem(__import__("sys").modules, "plotly.offline", None)
    with pytest.raises(TrtgateError, match=r"pip install 'trtgate\[report\]'"):
        report_files.make(read, to_markdown=None, to_html=tmp_path / "run.html")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    yield from chromium()


@contextmanager
def opened_in(browser: Any, path: Path, content: str) -> Iterator[Any]:
    """Within: a page; at the end nothing was requested but the file, and nothing failed."""
    path.write_text(content)
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    opened = context.new_page()
    said: list[str] = []
    requested: list[str] = []
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.on("request", lambda request: requested.append(request.url))
    opened.goto(path.as_uri())
    yield opened
    assert said == []
    assert [url for url in requested if not url.startswith(("data:", "blob:"))] == [path.as_uri()]
    context.close()


@pytest.fixture
def page(browser: Any, tmp_path: Path) -> Iterator[Any]:
    """The report, opened."""
    with opened_in(browser, tmp_path / "report.html", html.render(report())) as opened:
        yield opened


def overview(page: Any) -> list[str]:
    """Return the names of the cases that the table shows, cut."""
    rows = page.locator("#overview tbody tr:visible td.name").all_inner_texts()
    return [text[:8] for text in rows]


def test_a_case_is_found_sorted_and_opened(page: Any) -> None:
    assert page.title().startswith("trtgate failed: 2 regressed, 1 improved, 1 unchanged, 1 skipped")
    assert overview(page)[:2] == ["resnet18", "<script>"]
    page.get_by_role("button", name="change %").click()
    assert page.locator("th[aria-sort=ascending]").inner_text().startswith("change %")
    assert overview(page)[0] == "fast"
    page.get_by_role("button", name="change %").click()
    assert overview(page)[-2:] == ["fast", "none"]  # no figure is no large one
    page.get_by_label("Find a case").fill("RESNET18")
    assert overview(page) == ["resnet18"]
    assert page.get_by_role("status").inner_text() == "1 case"
    page.get_by_label("Find a case").fill("")
    page.locator("#overview a", has_text="fast").click()
    opened = page.locator("details[open]", has_text="improved fast")
    opened.locator(".boxlayer path.box").first.wait_for()  # drawn by the event that follows opening


def test_charts_have_drawn_elements(page: Any) -> None:
    first = page.locator("details[data-case][open]")
    assert first.count() == 1  # the worst is open
    first.locator(".scatterlayer .point").first.wait_for()
    first.locator(".boxlayer path.box").first.wait_for()
    assert first.locator(".boxlayer path.box").count() == 6
    assert first.locator(".scatterlayer .point").count() == 12
    assert first.locator(".shapelayer path").count() == 1  # where it changed
    assert first.get_by_role("img", name="Captures by launch, before and now").is_visible()
    width = "one.querySelector('.main-svg').getBoundingClientRect().width"
    cut = f"charts => charts.filter(one => {width} > one.clientWidth + 1).length"
    assert first.locator(".chart").evaluate_all(cut) == 0


def test_latency_and_throughput_are_drawn_against_load(page: Any) -> None:
    page.locator("#overview a", has_text="fast").click()
    opened = page.locator("details[open]", has_text="improved fast")
    for what in ("threads", "processes"):
        chart = opened.get_by_role("img", name=f"Latency against load of {what}")
        chart.locator(".scatterlayer .point").first.wait_for()
        assert chart.locator(".scatterlayer .point").count() == 9  # p50, p99 and throughput at 1, 2 and 4
        assert chart.locator(".legendtext").all_text_contents() == ["p50", "p99", "throughput"]


def test_hostile_names_are_text_in_the_browser(page: Any) -> None:
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    assert page.evaluate("document.querySelectorAll('body script').length") == 3
    assert page.locator("img[src]").count() == 0
    assert page.get_by_text("<script>alert(1)</script>").count() > 5


def test_nothing_is_wider_than_the_window(page: Any) -> None:
    for width, scheme in ((1280, "light"), (1280, "dark"), (400, "dark"), (400, "light")):
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme=scheme)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, scheme
        shades = "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
        assert len(set(page.evaluate(shades))) == 2, (width, scheme)


def test_captions_are_whole_and_headings_of_layers_in_one_line_in_a_narrow_window(page: Any) -> None:
    page.set_viewport_size({"width": 400, "height": 900})
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    right = "one.getBoundingClientRect().right"
    cut = f"all => all.filter(one => {right} > one.closest('.scroll').getBoundingClientRect().right + 1)"
    assert page.locator("caption").evaluate_all(f"{cut}.map(one => one.innerText)") == []
    modules = page.locator("td", has_text=re.compile("^layer4$")).first
    assert modules.evaluate(f"one => {right}") < 400, "whose layers changed is seen without scrolling"
    heads = page.locator("th", has_text="faster | slower")
    assert set(heads.evaluate_all("all => all.map(one => one.querySelector('span').getClientRects().length)")) == {1}


def test_the_table_is_used_by_keyboard(page: Any) -> None:
    page.get_by_role("button", name="verdict", exact=True).focus()
    page.keyboard.press("Enter")
    assert page.locator("th[aria-sort]").inner_text().startswith("verdict")
    page.locator("details[data-case] > summary").last.focus()
    page.keyboard.press("Enter")
    assert page.locator("details[data-case]").last.get_attribute("open") is not None


def test_it_is_readable_without_javascript(browser: Any, tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text(html.render(report()))
    context = browser.new_context(java_script_enabled=False)
    opened = context.new_page()
    opened.goto((tmp_path / "report.html").as_uri())
    assert overview(opened)[0] == "resnet18"
    opened.locator("details[data-case] > summary").last.click()
    assert opened.locator("details[data-case]").last.get_attribute("open") is not None
    context.close()


# Of many accelerators


def fleet() -> str:
    """Return a page of three cases: one that got slower on the second accelerator, one on both little, one on one."""

    def of(key: str, case_id: str, step: float) -> fleet_page.Row:
        points = [
            msgspec.structs.replace(one, latency_us=100 + step * (n >= 6)) for n, one in enumerate(series().points)
        ]
        on_card = analysed("device", "cuda_graph", HOSTILE, points)
        found = CaseHistory(case_id=case_id, series=[on_card], beside_base=0, disturbed=0)
        return fleet_page.Row(key=key, case=found, lines=[f"said of {case_id}", HOSTILE])

    rows = [of("h100", "slow", 0.0), of(HOSTILE, "slow", 9.0), of("h100", HOSTILE, 1.0), of(HOSTILE, HOSTILE, -5.0)]
    return fleet_page.render([*rows, of("h100", "single", -3.0)], [f"one event, 2 cases: {HOSTILE}"])


def test_a_fleet_shows_what_got_slower_most_first_and_a_click_opens_its_history(browser: Any, tmp_path: Path) -> None:
    with opened_in(browser, tmp_path / "fleet.html", fleet()) as page:
        assert page.title() == "trtgate: 3 cases on 2 accelerators"
        assert overview(page) == ["slow", "<script>", "single"]
        page.get_by_role("button", name="h100 %").click()
        assert overview(page)[0] == "single"
        assert page.locator(".scatterlayer").count() == 0
        page.locator("#overview a", has_text="slow").click()
        opened = page.locator("details[open]")
        opened.locator(".scatterlayer .point").first.wait_for()  # drawn by the event that follows opening
        assert opened.get_by_text("said of slow").count() == 2
        assert opened.locator(".scatterlayer .point").count() == 24
        assert opened.locator(".shapelayer path").count() == 1  # it changed on one of them
        assert page.locator("img[src]").count() == 0
        assert page.evaluate("document.querySelectorAll('body script').length") == 3
        page.set_viewport_size({"width": 400, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= 400
        page.locator("thead button").nth(1).click()
        assert overview(page) == ["<script>", "slow", "single"]
        page.locator("thead button").nth(1).click()
        assert overview(page) == ["slow", "<script>", "single"]  # no figure is no large one
        page.locator("thead button").nth(2).click()
        page.locator("thead button").nth(2).click()
        assert overview(page) == ["<script>", "slow", "single"]


def test_a_card_with_too_few_runs_has_no_change_instead_of_none_at_all() -> None:
    few = msgspec.structs.replace(series(), points=series().points[:4], steps=[])
    cases = [
        CaseHistory(case_id=name, series=[one], beside_base=0, disturbed=0)
        for name, one in (("young", few), ("old", msgspec.structs.replace(series(), steps=[])))
    ]
    page = fleet_page.render([fleet_page.Row(key="h100", case=case, lines=[]) for case in cases], [])
    young, old = (
        re.findall(r"<td[^>]*>([^<]*)</td>", row) for row in re.findall(r'<tr><td class="name">.*</tr>', page)[::-1]
    )
    assert (young[0], old[0]) == ("", "+0.00")


def test_the_charts_of_a_large_fleet_have_room_in_one_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet_page, "MOST_POINTS", 20)
    found = CaseHistory(case_id="net", series=[series(), series()], beside_base=0, disturbed=0)
    (_, data, _) = re.split(r'<script type="application/json" id="data">|</script>', fleet_page.render(
        [fleet_page.Row(key="h100", case=found, lines=[])], []
    ), maxsplit=2)  # fmt: skip
    stored = json.loads(data)
    first, second = stored["cases"][0]
    assert first["us"][:5] == [100.02, 100.0, 100.01, 100.02, 105.0]
    assert first["title"].endswith(", newest 10 of 12 runs")
    assert [first["changes"], second["changes"]] == [[4], [4]]
    assert [stored["runs"][number][:10] for number in first["runs"]] == [f"2026-01-{3 + n:02}" for n in range(10)]
    assert len(stored["runs"]) == 10
