"""DuckDB over files of rows where runs are kept: it sees that store, fetches nothing, and ends within limits."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ..common.errors import TrtgateError, one_line

Settings = dict[str, str | bool | int | float | list[str]]
ALONE: Settings = {
    "autoinstall_known_extensions": False, "autoload_known_extensions": False, "allow_community_extensions": False,
}  # fmt: skip
"""Of any DuckDB of ours: nothing is fetched, JSON and Parquet are built in."""
MEMORY = "2GB"
"""What DuckDB may take; beyond, it writes to a temporary folder of its own."""
LIMIT_S = 120.0
"""Longest that one may take: files of others can declare billions of rows in a few bytes."""
MOST_ROWS = 1_000_000
"""Rows that a query may return: about 1 GB as points of a history."""


@contextmanager
def database(store: Any) -> Iterator[Any]:
    """Within: a DuckDB in memory that sees a store as `dir://`. Raises TrtgateError where there is none of use."""
    try:
        import duckdb
    except ImportError as error:
        raise TrtgateError("compacted runs need DuckDB: pip install 'trtgate[history]'") from error
    with tempfile.TemporaryDirectory(prefix="trtgate-") as folder:
        settings: Settings = {**ALONE, "memory_limit": MEMORY, "temp_directory": folder}
        try:
            found = duckdb.connect(":memory:", config=settings)
            found.execute("SET enable_progress_bar = false")
            found.register_filesystem(store)
        except duckdb.Error as error:
            raise TrtgateError(
                f"DuckDB {duckdb.__version__} can't be used for compacted runs: {one_line(error)}"
            ) from error
        late = threading.Timer(LIMIT_S, found.interrupt)
        late.daemon = True
        late.start()
        try:
            yield found
        except duckdb.InterruptException as error:
            raise TrtgateError(f"DuckDB has no answer within {LIMIT_S:g} s") from error
        finally:
            late.cancel()
            found.close()


def asked(store: Any, query: str, given: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    """Return the rows of a query, one more than MOST_ROWS of too many.

    Raises TrtgateError as `database`, and whatever DuckDB or the store raises.
    """
    with database(store) as found:
        rows: list[tuple[Any, ...]] = found.execute(query, list(given)).fetchmany(MOST_ROWS + 1)
    return rows
