"""A report as one HTML file that needs no network: tables that work without JavaScript, charts when a case is opened.

Needs the extra `report`: Jinja2 escapes everything that is shown, Plotly draws, and lies in the file.
"""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

from ..common import escaping, spent_time
from ..common.errors import TrtgateError
from ..common.metrics import METRICS
from ..common.text_columns import number_of
from ..gate.history import Series
from ..gate.sentences import change_text, limit_text, value
from .run_report import CaseReport, RunReport, primary_judgement
from .terminal_table import describe

OURS = {"style": "page.css", "charts": "charts.js", "tables": "tables.js"}
"""What the pages have in common, by the name in their templates."""


def render(report: RunReport) -> str:
    """Return the file. Raises TrtgateError when Jinja2 or Plotly is not installed."""
    return page(
        "report.html",
        [_data(case) for case in report.cases],
        report=report,
        described=escaping.printable(describe(report.accelerator), 1000),
        spent=spent_time.sentence(report.spent_s),
        primary=primary_judgement,
        figures_of=_figures,
        settings_of=_settings,
        title_of=lambda metric: METRICS[metric].title if metric in METRICS else metric,
        value_of=lambda metric, number: value(number, METRICS[metric].unit if metric in METRICS else ""),
        limit_of=limit_text,
        change_of=change_text,
        number=_number,
        seconds=lambda found: "" if found is None else f"{found:,.3f}",
        heat=_heat,
    )


def page(template: str, data: Any, **given: Any) -> str:
    """Return a page from a template; `data` is what its charts are drawn from.

    Raises TrtgateError when Jinja2 or Plotly is not installed.
    """
    try:
        import jinja2
        from markupsafe import Markup
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise TrtgateError("an HTML report needs Jinja2 and Plotly: pip install 'trtgate[report]'") from error
    folder = resources.files(__package__) / "templates"
    loader = jinja2.FunctionLoader(lambda name: (folder / name).read_text())
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, loader=loader)
    environment.filters["printable"] = escaping.printable
    environment.filters["number_of"] = number_of
    ours = {name: Markup((folder / file).read_text()) for name, file in OURS.items()}  # noqa: S704  - this package's
    return environment.get_template(template).render(
        **given,
        **ours,
        data=Markup(_script(data)),  # noqa: S704  - `_script` leaves no markup in it
        plotly=Markup(get_plotlyjs().replace("</script", "<\\/script")),  # noqa: S704  - a library's
    )


def _script(found: Any) -> str:
    """Return JSON that ends no script element and begins no comment in one."""
    return json.dumps(found, ensure_ascii=True, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _data(case: CaseReport) -> dict[str, Any]:
    """Return what the charts of a case are drawn from."""
    found: dict[str, Any] = {"before": case.base_captures_us, "now": case.captures_us, "history": None}
    found["load"] = {
        what: {
            "at_once": [number for number, _ in levels],
            "p50": [level.p50_us for _, level in levels],
            "p99": [level.p99_us for _, level in levels],
            "per_s": [level.throughput_per_s for _, level in levels],
        }
        for what, levels in (
            ("threads", [(one.threads, one) for one in case.load if one.processes == 1]),
            ("processes", [(one.processes, one) for one in case.load if one.threads == 1]),
        )
        if levels
    }
    if case.history is not None:
        found["history"] = over_runs(case.history)
    return found


def over_runs(series: Series) -> dict[str, Any]:
    """Return what the chart of a series is drawn from."""
    return {
        "us": [point.latency_us for point in series.points],
        "runs": [escaping.printable(f"{point.recorded} {point.commit[:12]}", 60) for point in series.points],
        "changes": [step.first for step in series.steps],
    }


def _figures(case: CaseReport) -> list[tuple[str, float | None, float | None]]:
    names = dict.fromkeys([*case.figures, *case.base_figures])
    return [(name, case.figures.get(name), case.base_figures.get(name)) for name in names]


def _settings(case: CaseReport) -> str:
    """Return those that say something, as `name=value`."""
    return ", ".join(f"{name}={found}" for name, found in case.settings.items() if found not in (None, "", [], {}))


def _number(found: float | None, of: float = 1) -> str:
    if found is None:
        return ""
    return f"{found / of:,.0f}" if abs(found / of) >= 1e5 else f"{found / of:,.5g}"


def _heat(share: float) -> str:
    """Return a colour: red where nothing is in TensorRT, green where everything is."""
    return f"hsl({120 * min(1.0, max(0.0, share)) ** 2:.0f} 55% 72%)"
