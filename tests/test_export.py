"""Runs for other tools, each read back by a reader of that format that is not ours."""

from __future__ import annotations

import builtins
import csv
import datetime
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.in_process import InProcess, command
from tests.scripted_measurer import HERE
from tests.stage_files import SAME, SLOW, StagedRun, document, entry
from tests.test_baselines import document as run_document
from tests.test_baselines import record
from tests.test_run_report import HOSTILE, case, made
from trtgate.commands import export_files
from trtgate.common import files
from trtgate.common.errors import TrtgateError
from trtgate.common.metrics import METRICS
from trtgate.fleet.merged_document import UNCONFIRMED
from trtgate.gate.baseline_record import CaseRecord, StoredSession
from trtgate.gate.baselines import FILE_NAME
from trtgate.report import run_report
from trtgate.report.export_rows import ExportRow
from trtgate.verdict import Judgement, Verdict

COLUMNS = (
    "case model accelerator card metric unit value baseline change low high limit verdict commit branch time versions"
).split()
HOSTILE_NAMES = [
    HOSTILE, 'a,b;"c"', "=1+1", "+1", "-2+3",
    "@SUM(A1)", "\t=1", "\r=1", "\n=1", "  =1", "\uff1d1", "a\nb", "a\r\n=b", "\x00",
    "\u2028=1", "'", '"', '"=1"', "##[error]x", "::error::x", "\ufeff=1", "x" * 5000, "",
]  # fmt: skip
NUMBERS = ["value", "baseline", "change", "low", "high", "limit"]

BENCHMARK_RESULTS = {
    "type": "array",
    "minItems": 1,
    "items": {
        "type": "object",
        "required": ["name", "unit", "value"],
        "additionalProperties": False,
        "properties": {
            "name": {"type": "string", "minLength": 1},
            "unit": {"type": "string", "minLength": 1},
            "value": {"type": "number"},
            "range": {"type": "string"},
            "extra": {"type": "string"},
        },
    },
}
"""What github-action-benchmark documents of the files for customSmallerIsBetter; it refuses a file without entries."""


def judgement(metric: str = "device", change: float = 0.05, **more: Any) -> Judgement:
    given = {
        "metric": metric, "verdict": Verdict.REGRESSED, "now": 105.0, "baseline": 100.0, "change": change,
        "low": change - 0.002, "high": change + 0.002, "limit": 0.01, "threshold": 0.012, "detectable": 0.01,
        "evidence": "3 stored sessions",
    }  # fmt: skip
    return Judgement(**{**given, **more})


def saved_run(
    path: Path, names: Sequence[str] = ("net-dynamo-fp16-b1-mbs5",), *, judgements: Sequence[Judgement] = (),
    verdict: str = "regressed", **session: Any,
) -> Path:  # fmt: skip
    given = {
        "recorded": "2026-03-04T06:07:08+01:00", "uuid": "GPU-7", "clock": "cuda_graph_one_stream",
        "metrics": {"device": [[104.0], [106.0]], "host": [[300.0], [300.0]]},
        "versions": {"torch": "2.14.0", "driver": "580.1"}, "figures": {"engines": 2.0, "build_s": 12.5},
    }  # fmt: skip
    stored = StoredSession(**{**given, **session})
    records = [
        CaseRecord(case=name, settings={}, verdict=verdict, sessions=[stored], judgements=list(judgements))
        for name in names
    ]
    entries = [entry(str(number), msgspec.to_builtins(record)) for number, record in enumerate(records)]
    path.write_text(json.dumps(document(HERE, entries)))
    return path


def exported(to: str, *paths: Path) -> str:
    status, text = command("export", "--to", to, *map(str, paths))
    assert status == 0, text
    return text


def csv_rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


# What a row says


def test_there_is_a_row_for_each_case_and_metric_with_what_it_was_compared_with(tmp_path: Path) -> None:
    run = saved_run(tmp_path / "run.json", judgements=[judgement()])
    rows = csv_rows(exported("csv", run))
    assert list(rows[0]) == COLUMNS
    assert [row["metric"] for row in rows] == ["device", "host", "build", "engines"]
    device = {name: rows[0][name] for name in COLUMNS[:-1]}
    assert device == {
        "case": "net-dynamo-fp16-b1-mbs5", "model": "net", "accelerator": HERE.key, "card": "GPU-7",
        "metric": "device", "unit": "us", "value": "105.0", "baseline": "100.0", "change": "0.05",
        "low": "0.048", "high": "0.052000000000000005", "limit": "0.01", "verdict": "regressed", "commit": "c" * 40,
        "branch": "main", "time": "2026-03-04T05:07:08+00:00",
    }  # fmt: skip
    assert json.loads(rows[0]["versions"]) == {"torch": "2.14.0", "driver": "580.1"}
    assert {row["metric"]: (row["unit"], row["verdict"], row["baseline"]) for row in rows[1:]} == {
        "host": ("us", "", ""), "build": ("s", "", ""), "engines": ("1", "", ""),
    }  # fmt: skip


def test_the_value_of_what_was_not_judged_is_the_geometric_mean_of_its_launches(tmp_path: Path) -> None:
    rows = csv_rows(exported("csv", saved_run(tmp_path / "run.json", verdict="new")))
    assert float(rows[0]["value"]) == pytest.approx((104.0 * 106.0) ** 0.5, rel=1e-5)
    assert {row["verdict"] for row in rows} == {"new"}


def test_every_metric_has_a_unit_and_a_row(tmp_path: Path) -> None:
    rows = csv_rows(exported("csv", saved_run(tmp_path / "r.json", judgements=[judgement(name) for name in METRICS])))
    assert [row["metric"] for row in rows] == list(METRICS)
    assert {row["unit"] for row in rows} == {"us", "s", "bytes", "us/inference", "bytes/call", "1"}


def test_a_report_is_a_run_too(tmp_path: Path) -> None:
    report = made(
        case("net-eager-fp32-b1", "regressed", 0.02, figures={"engines": 3.0}),
        case("gone-eager-fp32-b1", "missing", medians_us={}, judgements=[], primary=""),
    )
    run_report.write(tmp_path / "report.json", report)
    rows = csv_rows(exported("csv", tmp_path / "report.json"))
    assert [(row["case"], row["metric"], float(row["value"])) for row in rows] == [
        ("net-eager-fp32-b1", "device", 102.0), ("net-eager-fp32-b1", "engines", 3.0),
    ]  # fmt: skip
    assert (rows[0]["card"], rows[0]["commit"], rows[0]["branch"]) == ("GPU-1", "0123456789abcdef", "main")


def test_several_runs_follow_each_other_and_one_that_is_named_twice_counts_once(tmp_path: Path) -> None:
    first, second = saved_run(tmp_path / "1.json"), saved_run(tmp_path / "2.json", uuid="GPU-8")
    cards = [row["card"] for row in csv_rows(exported("csv", first, second, first)) if row["metric"] == "device"]
    assert cards == ["GPU-7", "GPU-8"]


def test_what_a_merge_wrote_is_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    staged = StagedRun(tmp_path, [SAME, SLOW])
    manifest = staged.manifest([[name] for name in staged.cases])
    shards = [staged.shard(manifest, number) for number in (1, 2)]
    monkeypatch.chdir(tmp_path)
    status, _ = command("merge", *map(str, shards), "--baselines=baselines", "--output=merged.json")
    assert status == UNCONFIRMED
    rows = {
        row["case"]: row for row in csv_rows(exported("csv", tmp_path / "merged.json")) if row["metric"] == "device"
    }
    same, slow = (rows[name] for name in staged.cases)
    assert (same["verdict"], float(same["baseline"])) == ("unchanged", pytest.approx(100.0))
    assert float(slow["change"]) == pytest.approx(0.1, abs=1e-3)


# Readers


def test_github_action_benchmark_takes_what_is_written(tmp_path: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")
    found = json.loads(exported("github-action-benchmark", saved_run(tmp_path / "run.json", judgements=[judgement()])))
    jsonschema.validate(found, BENCHMARK_RESULTS)
    assert found[0] == {
        "name": f"net-dynamo-fp16-b1-mbs5 device ({HERE.key})", "unit": "us", "value": 105.0, "range": "± 0.2",
        "extra": "verdict: regressed\nbaseline: 100 us\ncard: GPU-7\ndriver: 580.1\ntorch: 2.14.0",
    }  # fmt: skip
    assert len({one["name"] for one in found}) == len(found) == 4


def test_half_the_interval_is_in_the_unit_of_the_value(tmp_path: Path) -> None:
    judged = [
        judgement("gpu_memory", 0.1, baseline=1e9, low=0.09, high=0.11),
        judgement("host_memory_growth", 300.0, baseline=100.0, low=290.0, high=310.0),
        judgement("waits", 2.0, baseline=0.0, low=1.0, high=3.0),
        judgement("engines", 0.0, low=0.0, high=0.0),
    ]
    found = json.loads(exported("github-action-benchmark", saved_run(tmp_path / "r.json", judgements=judged)))
    ranges = {one["name"].split()[1]: one.get("range") for one in found}
    assert (ranges["gpu_memory"], ranges["host_memory_growth"]) == ("± 1e+07", "± 10")
    assert (ranges["waits"], ranges["engines"], ranges["device"]) == ("± 1", None, None)


def test_github_action_benchmark_takes_one_value_of_each_name(tmp_path: Path) -> None:
    runs = [saved_run(tmp_path / f"{number}.json") for number in range(2)]
    status, said = command("export", "--to", "github-action-benchmark", *map(str, runs))
    assert status == 4
    assert "net-dynamo-fp16-b1-mbs5 is there twice on h100-0gib" in said


def test_no_name_is_a_formula_a_second_line_or_another_cell_of_csv(tmp_path: Path) -> None:
    """OWASP's rules for CSV injection: quotes around text, and `'` before what a spreadsheet would evaluate."""
    text = exported("csv", saved_run(tmp_path / "run.json", HOSTILE_NAMES))
    assert len(text.splitlines()) == 1 + 4 * len(HOSTILE_NAMES)
    rows = csv_rows(text)
    assert {len(row) for row in rows} == {len(COLUMNS)}
    cells = [cell for row in rows for name, cell in row.items() if name not in NUMBERS]
    assert [cell for cell in cells if cell.lstrip().startswith(tuple("=+-@\uff1d\uff0b\uff0d\uff20"))] == []
    assert all(cell.isprintable() for cell in cells)
    assert rows[4]["case"] == 'a,b;"c"'
    assert rows[8]["case"] == "'=1+1"
    assert not any("##[" in cell for cell in cells)
    quoted = [line for line in text.splitlines() if not line.startswith('"')]
    assert quoted == []


def test_pandas_reads_numbers_as_numbers(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    negative = judgement(change=-0.05, baseline=110.5)
    found = pandas.read_csv(io.StringIO(exported("csv", saved_run(tmp_path / "run.json", judgements=[negative]))))
    assert list(found.columns) == COLUMNS
    assert [str(found[name].dtype) for name in NUMBERS] == ["float64"] * len(NUMBERS)
    assert found["change"].tolist()[0] == -0.05
    assert found["baseline"].isna().tolist() == [False, True, True, True]


def test_duckdb_and_pyarrow_read_the_same_from_parquet(tmp_path: Path) -> None:
    duckdb = pytest.importorskip("duckdb", reason="DuckDB is not installed")
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    run = saved_run(tmp_path / "run.json", HOSTILE_NAMES, judgements=[judgement()])
    file = tmp_path / "it's; a file.parquet"
    status, said = command("export", "--to", "parquet", str(run), "--output", str(file))
    assert (status, said) == (0, f"written: {file} ({4 * len(HOSTILE_NAMES)} rows)\n")
    table = parquet.read_table(file)
    assert table.column_names == COLUMNS
    assert {str(table.schema.field(name).type) for name in NUMBERS} == {"double"}
    assert str(table.schema.field("time").type) == "timestamp[us, tz=UTC]"
    rows = table.to_pylist()
    assert list(dict.fromkeys(row["case"] for row in rows)) == HOSTILE_NAMES  # typed data: nobody evaluates it
    assert rows[0]["time"] == datetime.datetime(2026, 3, 4, 5, 7, 8, tzinfo=datetime.UTC)
    assert dict(rows[0]["versions"]) == {"torch": "2.14.0", "driver": "580.1"}
    assert [row["baseline"] for row in rows[:2]] == [100.0, None]
    query = "select metric, avg(value), any_value(versions['torch']) from read_parquet(?) group by 1 order by 1"
    assert duckdb.execute(query, [str(file)]).fetchall() == [
        ("build", 12.5, "2.14.0"), ("device", 105.0, "2.14.0"), ("engines", 2.0, "2.14.0"), ("host", 300.0, "2.14.0"),
    ]  # fmt: skip


def test_all_formats_have_the_columns_that_are_documented() -> None:
    text = (Path(__file__).parent.parent / "docs" / "export.md").read_text()
    assert [line.split("`")[1] for line in text.splitlines() if line.startswith("| `")] == COLUMNS
    assert list(ExportRow.__struct_fields__) == COLUMNS


# Refused


def without(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    whole = builtins.__import__

    def imported(name: str, *arguments: Any, **keywords: Any) -> Any:
        if name.partition(".")[0] == package:
            raise ImportError(name)
        return whole(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", imported)


def refused(line: str, *arguments: str) -> None:
    status, said = command("export", *arguments)
    assert (status, said.count("\n")) == (4, 1)
    assert said.startswith("trtgate: error: ")
    assert line in said


def test_parquet_without_duckdb_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "duckdb")
    run, file = saved_run(tmp_path / "run.json"), tmp_path / "x.parquet"
    refused("pip install 'trtgate[history]'", "--to", "parquet", str(run), "--output", str(file))
    assert not file.exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "can't be read"),
        ("", "is not valid JSON"),
        ("[]", "holds no object"),
        ('{"benchmarks": []}', "is not one of trtgate's files"),
        ('{"against": "", "cases": 1}', "has no `schema`|missing|broken"),
        ('{"against": "", "schema": 99}', "has schema 99"),
    ],
)
def test_what_is_no_run_is_one_line(tmp_path: Path, content: str | None, said: str) -> None:
    path = tmp_path / "run.json"
    if content is not None:
        path.write_text(content)
    status, line = command("export", "--to", "csv", str(path))
    assert (status, line.count("\n")) == (4, 1)
    assert any(part in line for part in said.split("|")), line


def test_what_nobody_judged_and_baselines_are_refused(tmp_path: Path) -> None:
    run = saved_run(tmp_path / "run.json")

    def changed(name: str, change: Mapping[str, Any]) -> str:
        path = tmp_path / name
        path.write_text(json.dumps(json.loads(run.read_text()) | change))
        return str(path)

    refused(
        "is shard 1/2, judged by nobody",
        "--to",
        "csv",
        changed("s.json", {"trtgate": {"schema": 1, "stage": "shard 1/2"}}),
    )
    refused("is a baseline", "--to", "csv", changed(FILE_NAME, {}))
    timeless = saved_run(tmp_path / "t.json", recorded="yesterday")
    refused("'yesterday', which is no time", "--to", "csv", str(timeless))
    refused("name a file with --output FILE", "--to", "parquet", str(run))
    refused("can't be written", "--to", "csv", str(run), "--output", str(run / "x.csv"))
    empty = tmp_path / "empty.json"
    run_report.write(empty, made())
    refused("no case was measured", "--to", "csv", str(empty))


def test_a_file_that_was_there_is_replaced_whole(tmp_path: Path) -> None:
    output = tmp_path / "out.csv"
    output.write_text("x" * 100_000)
    run = saved_run(tmp_path / "run.json")
    assert command("export", "--to", "csv", str(run), "--output", str(output))[0] == 0
    assert output.read_text() == exported("csv", run)


def test_what_a_run_saved_is_exported(here: InProcess) -> None:
    assert here.run("suite.py", "--trtgate-launches=1", "--trtgate-update-baselines")[0] == 0
    assert here.run("suite.py", "--trtgate-launches=1", "--benchmark-compare", "--trtgate-report=report.json")[0] == 0
    runs = (here.path / ".trtgate" / "runs").glob("*.json")
    newest = max(runs, key=lambda path: path.stat().st_mtime_ns)  # both may be of one second, which is in their names
    compared = {row["case"]: row for row in csv_rows(exported("csv", newest)) if row["metric"] == "host"}
    assert {name.partition("-")[0] for name in compared} == {"alpha", "beta"}
    assert all(float(row["value"]) == pytest.approx(101.5, abs=0.6) for row in compared.values())
    assert all(row["baseline"] and row["verdict"] and row["time"] for row in compared.values())
    reported = {
        row["case"]: row for row in csv_rows(exported("csv", here.path / "report.json")) if row["metric"] == "host"
    }
    for name, row in compared.items():
        assert {column: row[column] for column in COLUMNS[4:13]} == {
            column: reported[name][column] for column in COLUMNS[4:13]
        }


def test_a_file_that_is_named_twice_counts_once_and_is_never_overwritten(tmp_path: Path) -> None:
    path, link = tmp_path / "run.json", tmp_path / "link.json"
    files.write_json(path, {**run_document(record("net", 64.0)), "commit_info": None})
    link.symlink_to(path)
    before = path.read_bytes()
    assert export_files.export([str(path), str(tmp_path / "." / "run.json"), str(link)], "csv", None).rows == 2
    for output in (path, link):
        with pytest.raises(TrtgateError, match="would be lost: name another file"):
            export_files.export([str(path)], "csv", output)
    assert path.read_bytes() == before


def test_where_nothing_can_be_exported_the_reason_is_said(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    files.write_json(path, {**run_document(record("net", 1e300)), "commit_info": None})
    with pytest.raises(TrtgateError, match=r"no case was measured in .*run\.json; .*the session of .* is not used"):
        export_files.export([str(path)], "csv", None)


def test_a_run_that_did_not_end_is_exported_with_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    stored = run_document(record("net", 64.0))
    files.write_json(path, {**stored, "trtgate": {"unfinished": True, **stored["trtgate"]}, "commit_info": None})
    done = export_files.export([str(path)], "csv", None)
    assert (done.rows, done.warnings) == (2, [f"{path} goes on, or was killed: it may have a part of its cases alone"])
