"""Rows as CSV (RFC 4180): text is quoted and never a formula, numbers are not quoted, what is not known is empty."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

import msgspec

from ..common.escaping import csv_cell
from .export_rows import ExportRow


def render(rows: Sequence[ExportRow]) -> str:
    """Return a header and one line a row; `time` is ISO 8601, `versions` a JSON object."""
    text = io.StringIO()
    writer = csv.writer(text, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
    writer.writerow(ExportRow.__struct_fields__)
    for row in rows:
        fields = msgspec.structs.asdict(row)
        fields["time"] = row.time.isoformat()
        fields["versions"] = json.dumps(row.versions, sort_keys=True)
        writer.writerow([_cell(value) for value in fields.values()])
    return text.getvalue()


def _cell(value: Any) -> Any:
    return csv_cell(value) if isinstance(value, str) else value
