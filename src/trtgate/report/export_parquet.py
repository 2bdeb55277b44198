"""Rows as a Parquet file, written by DuckDB: `time` is a time in UTC, `versions` a map, what is not known is null."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec

from ..common.errors import TrtgateError
from ..gate.compacted_database import ALONE
from .export_rows import ExportRow

TYPES = {"time": "TIMESTAMPTZ", "versions": "MAP(VARCHAR, VARCHAR)"} | dict.fromkeys(
    ("value", "baseline", "change", "low", "high", "limit"), "DOUBLE"
)
COLUMNS = {name: TYPES.get(name, "VARCHAR") for name in ExportRow.__struct_fields__}


def render(rows: Sequence[ExportRow]) -> bytes:
    """Return the file's content. Raises TrtgateError where DuckDB is not installed, or there is no room for it."""
    try:
        import duckdb
    except ImportError as error:
        raise TrtgateError("Parquet needs DuckDB: pip install 'trtgate[history]', or: pip install duckdb") from error
    with tempfile.TemporaryDirectory(prefix="trtgate-export-") as folder, duckdb.connect(config=ALONE) as database:
        lines, file = Path(folder) / "rows.jsonl", Path(folder) / "rows.parquet"
        lines.write_bytes(b"".join(msgspec.json.encode(row) + b"\n" for row in rows))
        try:
            table = database.read_json(str(lines), format="newline_delimited", columns=COLUMNS)
            table.write_parquet(str(file), compression="zstd")
        except duckdb.Error as error:
            raise TrtgateError(f"the Parquet file can't be made: {str(error).splitlines()[0]}") from error
        return file.read_bytes()
