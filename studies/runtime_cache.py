"""How long does a stored module take to load with its runtime cache, and without, and how large is the cache?

    python studies/runtime_cache.py [--suite benchmarks/suite.py] [--starts 3] CASE …

Builds and stores each case once. Then fresh processes, which have imported all that they need, load it and run it once,
one after the other, with and without the cache in turn: seconds until the first output is there
(`compiling/cold_start.py`). Prints the median and the range of either, and bytes. Run it from the folder that the suite
is imported from. Needs a GPU; a release of torch_tensorrt before 2.13 has no cache, and is timed without.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

from trtgate.common.accelerator import detect
from trtgate.common.errors import TrtgateError
from trtgate.launches import messages
from trtgate.launches.session import Session
from trtgate.records.measurement import ColdStart
from trtgate.report.terminal_table import describe
from trtgate.suite.suite_source import SuiteSource
from trtgate.torch_trt.runtime_cache import FILE

TIMEOUT_S = 600.0


def main() -> None:
    """Build, load, print a row for each case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="+", metavar="CASE")
    parser.add_argument("--suite", default="benchmarks/suite.py")
    parser.add_argument("--starts", type=int, default=3, help="processes with the cache, and as many without")
    options = parser.parse_args()
    source, accelerator = SuiteSource(root=str(Path.cwd()), suites=(options.suite,)), detect()
    print(describe(accelerator))
    print("| case | built in s | without s | with s | module bytes | cache bytes |")
    print("|---|--:|--:|--:|--:|--:|")
    with tempfile.TemporaryDirectory() as root:
        logs = Path(root) / "logs"
        logs.mkdir()
        with Session(source, accelerator, logs, launches=1, timeout_s=TIMEOUT_S, tensorrt=True) as session:
            for case_id in options.cases:
                try:
                    print(row(session, case_id, Path(root) / "case", options.starts), flush=True)
                except TrtgateError as error:
                    print(f"| {case_id} | {error} |", flush=True)


def row(session: Session, case_id: str, folder: Path, starts: int) -> str:
    """Return a case's line. Raises TrtgateError for one that can't be built, stored or loaded."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as name:  # private, as what is unpickled must be
        place = Path(name)
        built = session.build(messages.BuildCase(case_id=case_id, folder=name), quiet)
        if not built.stored:
            raise TrtgateError("; ".join(built.notes) or "its frontend stores nothing")
        sizes = {file.name: file.stat().st_size for file in place.iterdir()}
        cache = sizes.pop(FILE, 0)
        without, cached = session.cold_starts(case_id, place, starts, quiet, kernels=bool(cache))
    figures = (
        f"{built.build.build_s:.1f}",
        seconds(without),
        seconds(cached),
        f"{sum(sizes.values()):,}",
        f"{cache:,}",
    )
    return f"| {case_id} | {' | '.join(figures)} |"


def seconds(starts: Sequence[ColdStart]) -> str:
    """Return the median and the range of cold starts."""
    values = [one.seconds for one in starts]
    return f"{statistics.median(values):.3f} ({min(values):.3f} to {max(values):.3f})" if values else "none"


def quiet(_step: str) -> None:
    """Say nothing of what is done."""


if __name__ == "__main__":
    main()
