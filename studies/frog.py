"""Does a case that gets slower bit by bit, or in some processes only, pass in silence? The policy itself is asked.

    python studies/frog.py [--frogs 40] [--suites 1000] [--cases 200] [--seed 1] [--processes N] [--before COMMIT]
                           [--markdown FILE]

*Bit by bit*: a baseline of 1 or 8 good sessions is updated again and again (`--trtgate-update-baselines`), and every
session is slower than the one before. Sessions until one is red, of MOST_SESSIONS at most, and how much slower the case
is by then. *Some processes*: a case is twice as slow in a share of its processes. *Unchanged*: suites of 100 cases; how
many are red, and how many sessions are not stored. With `--before` a commit answers the first two as well, from a git
worktree of its own. Latencies are drawn launch by launch; nothing is timed. Intervals are Clopper and Pearson's,
95 %.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import math
import os
import platform
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import scipy
from gate_runs import ROOT, worktree
from scipy import stats

NOISES = {  # capture or, on a CPU, block; launch; session: standard deviations of logs; limit
    "H100": (0.001, 0.0003, 0.001, 0.01),
    "CPU, quiet": (0.005, 0.02, 0.02, 0.10),
    "CPU": (0.005, 0.05, 0.05, 0.10),
}
RATES = (0.003, 0.005, 0.01, 0.02, 0.10)
GOOD = (1, 8)
MOST_SESSIONS = 60
SHARES = (0.8, 0.5, 0.2)
TESTS = 100
LAUNCHES = 3
CAPTURES = {"gpu": 6, "cpu": 5}
"""Of a launch; on a CPU its blocks, which count as captures do."""
CLOCKS = {"gpu": ("device", "cuda_graph"), "cpu": ("host", "host_mean")}
SUITES_AT_ONCE = 50
"""Of a process; each has random numbers of its own."""


class World:
    """Measures one case with a noise, as a measurer does; how much slower a launch is `slower` says."""

    def __init__(self, noise: str, rng: np.random.Generator, slower: Any) -> None:
        from trtgate import Case, Model, Settings
        from trtgate.common.accelerator import Accelerator

        self.kind = "gpu" if noise == "H100" else "cpu"
        self.metric, self.clock = CLOCKS[self.kind]
        self._block, self._launch, self._session, self.limit = NOISES[noise]
        self._rng, self.slower = rng, slower
        self._here = 0.0
        self.case = Case(Model("frog", lambda: None, ()), Settings(frontend="eager", precision="fp32"))
        self.card = Accelerator(kind=self.kind, name="simulated", uuid="GPU" if self.kind == "gpu" else "")

    def begin(self) -> None:
        """Begin another session: its launches share an offset."""
        self._here = self._rng.normal(0.0, self._session)

    def _launch_us(self) -> list[float]:
        own = 100.0 * self.slower(self._rng) * math.exp(self._here + self._rng.normal(0.0, self._launch))
        return [float(us) for us in own * np.exp(self._rng.normal(0.0, self._block, CAPTURES[self.kind]))]

    def _measured(self) -> Any:
        from trtgate.records.measurement import Capture, CaseMeasurement, Launch, Loaded, Turn

        launches = []
        for _ in range(LAUNCHES):
            captures = [Capture(blocks_us=[us], replays=1) for us in self._launch_us()]
            turn = Turn(clock=self.clock, captures=captures, host_us=[])
            launches.append(Launch(loaded=Loaded(seconds=1.0), turns=[turn]))
        return CaseMeasurement(case_id=self.case.id, launches=launches, uuid=self.card.uuid)

    def measure(self, _step: Any) -> Any:
        from trtgate.gate.policy import Measured

        return Measured(self._measured())

    def measure_fresh(self, _step: Any) -> Any:
        return self._measured()

    def judged(self, record: Any, *, update: bool) -> Any:
        """Return what the policy concludes of a session."""
        from trtgate.gate.driver import drive
        from trtgate.gate.policy import Situation

        self.begin()
        situation = Situation(
            case=self.case, accelerator=self.card, limit_of=lambda _metric: self.limit, record=record, update=update,
            tests=TESTS * (2 if getattr(record, "anchored", False) else 1),
        )  # fmt: skip
        return drive(situation, self, lambda _text: None)  # type: ignore[arg-type]

    def stored(self, record: Any, result: Any) -> Any:
        """Return the record with a session added, as the file would have it."""
        from trtgate.gate import baselines
        from trtgate.gate.baseline_record import CaseRecord
        from trtgate.gate.measurement_summary import record_of

        new = record_of(self.case, result, self.card.uuid, base="")
        entry = {"extra_info": {"trtgate": msgspec.to_builtins(new)}}
        document = {"benchmarks": [entry]}
        run = baselines.Run(path=Path("run"), accelerator=self.card, cases={new.case: new}, document=document)
        merged, _ = baselines._merged(run, new.case, record)
        assert merged is not None
        return msgspec.convert(merged["extra_info"]["trtgate"], CaseRecord)

    def good(self, sessions: int) -> Any:
        """Return a baseline of so many sessions of unchanged code, all of them stored."""
        from trtgate.gate.baseline_record import CaseRecord, StoredSession

        found = []
        for _ in range(sessions):
            self.begin()
            metrics = {self.metric: [self._launch_us() for _ in range(LAUNCHES)]}
            found.append(StoredSession(recorded="2026-01-01", uuid=self.card.uuid, clock=self.clock, metrics=metrics))
        return CaseRecord(case=self.case.id, settings={}, verdict="unchanged", sessions=found)


def frog(noise: str, rate: float, good: int, rng: np.random.Generator) -> tuple[int, float, int]:
    """Return after how many sessions one is red, how much slower it is then, and which is the first not stored.

    MOST_SESSIONS + 1 where none is. What is not stored is said loudly.
    """
    level = [0.0]
    world = World(noise, rng, lambda _rng: math.exp(level[0]))
    record = world.good(good)
    refused = MOST_SESSIONS + 1
    for session in range(1, MOST_SESSIONS + 1):
        level[0] += math.log1p(rate)
        result = world.judged(record, update=True)
        if not result.stored:
            refused = min(refused, session)
        if result.verdict == "regressed":
            return session, math.expm1(level[0]), refused
        if result.stored:
            record = world.stored(record, result)
    return MOST_SESSIONS + 1, math.expm1(level[0]), refused


def questions(given: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield what one process each answers, the longest first, in the order of the tables' rows."""
    rows = list(itertools.product(enumerate(NOISES), GOOD))
    for ((number, noise), good), rate in itertools.product(rows, RATES):
        seed = [given["seed"], number, good, round(rate * 1e4)]
        yield {"of": "frogs", "row": [noise, good, rate], "count": given["frogs"], "seed": seed}
    for ((number, noise), good), share in itertools.product(rows, SHARES):
        seed = [given["seed"], number, good, round(share * 10)]
        yield {"of": "modes", "row": [noise, good, share], "count": given["cases"], "seed": seed}
    for (number, noise), good in itertools.product(enumerate(NOISES), (*GOOD, 20)):
        for first in range(0, given["suites"], SUITES_AT_ONCE):
            count = min(SUITES_AT_ONCE, given["suites"] - first)
            yield {
                "of": "unchanged",
                "row": [noise, good],
                "count": count,
                "seed": [given["seed"], number, good, first],
            }


def answer(asked: dict[str, Any]) -> Any:
    """Return what the trtgate that is imported says to one question."""
    rng, count, row = np.random.default_rng(asked["seed"]), asked["count"], asked["row"]
    if asked["of"] == "frogs":
        noise, good, rate = row
        return [frog(noise, rate, good, rng) for _ in range(count)]
    if asked["of"] == "modes":
        noise, good, share = row
        return modes(noise, share, good, count, rng)
    noise, good = row
    return unchanged(noise, good, count, rng)


def modes(noise: str, share: float, good: int, cases: int, rng: np.random.Generator) -> dict[str, int]:
    """Return how often which verdict is said of a case that is twice as slow in a share of its processes."""
    said: Counter[str] = Counter()
    for _ in range(cases):
        world = World(noise, rng, lambda _rng: 1.0)
        record = world.good(good)
        world.slower = lambda rng: 2.0 if rng.random() < share else 1.0
        result = world.judged(record, update=False)
        loud = getattr(result, "suspected", False)
        said[f"{result.verdict}{', suspected' * loud}"] += 1
    return dict(said)


def unchanged(noise: str, good: int, suites: int, rng: np.random.Generator) -> tuple[int, int, int]:
    """Return how many of so many suites of 100 unchanged cases are red, and how many sessions are not stored."""
    red = refused = 0
    for _ in range(suites):
        failed = False
        for _ in range(TESTS):
            world = World(noise, rng, lambda _rng: 1.0)
            result = world.judged(world.good(good), update=True)
            failed |= result.verdict == "regressed"
            refused += not result.stored
        red += failed
    return red, suites, refused


def rate_of(hits: int, of: int) -> str:
    low, high = stats.binomtest(hits, of).proportion_ci(0.95, method="exact")
    return f"{100 * hits / of:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def _quantile(values: np.ndarray, share: float) -> float:
    return float(np.quantile(values, share, method="inverted_cdf"))


Answers = dict[str, dict[str, Any]]
VERDICTS = ("regressed", "underpowered, suspected", "underpowered", "unconfirmed", "unchanged")


def tables(found: Answers) -> str:
    """Return all answers as Markdown; `found` maps "before" and "now" to what each says."""
    return "\n\n".join("\n".join(rows(found)) for rows in (_of_frogs, _of_modes, _of_unchanged))


def _of_frogs(found: Answers) -> Iterator[str]:
    columns = (
        "noise", "good sessions", "a session", "rules", "first not stored", "red: median", "90 %",
        "slower by then: median", "90 %", "never red",
    )  # fmt: skip
    yield f"| {' | '.join(columns)} |"
    yield "|---|--:|--:|---|" + "--:|" * 6
    for rows in zip(*(one["frogs"] for one in found.values()), strict=True):
        for name, (noise, good, rate, frogs) in zip(found, rows, strict=True):
            sessions, slower, refused = np.asarray(frogs).T
            counts = [_quantile(refused, 0.5), _quantile(sessions, 0.5), _quantile(sessions, 0.9)]
            said = [f"> {MOST_SESSIONS}" if count > MOST_SESSIONS else f"{count:.0f}" for count in counts]
            by_then = [f"{_quantile(slower, share):+.1%}" for share in (0.5, 0.9)]
            unseen = f"{int(np.sum(sessions > MOST_SESSIONS))} of {len(frogs)}"
            yield f"| {' | '.join([noise, str(good), f'+{rate:.1%}', name, *said, *by_then, unseen])} |"


def _of_modes(found: Answers) -> Iterator[str]:
    yield f"| noise | good sessions | slow processes | rules | {' | '.join(VERDICTS)} |"
    yield "|---|--:|--:|---|" + "--:|" * len(VERDICTS)
    for rows in zip(*(one["modes"] for one in found.values()), strict=True):
        for name, (noise, good, share, said) in zip(found, rows, strict=True):
            total = sum(said.values())
            shares = [f"{100 * said.get(one, 0) / total:.1f}" for one in VERDICTS]
            yield f"| {noise} | {good} | {share:.0%} | {name} | {' | '.join(shares)} |"


def _of_unchanged(found: Answers) -> Iterator[str]:
    yield "| noise | stored sessions | red suites, % | not stored, % of sessions |"
    yield "|---|--:|--:|--:|"
    answered = found["now"]["unchanged"]
    for (noise, good), parts in itertools.groupby(answered, lambda row: row[:2]):
        red, suites, refused = np.sum([part[2] for part in parts], 0).tolist()
        yield f"| {noise} | {good} | {rate_of(red, suites)} | {rate_of(refused, suites * TESTS)} |"


def ask(source: Path, asked: dict[str, Any]) -> Any:
    """Return what the tree of that `src` says to one question, in a process of its own."""
    path = os.pathsep.join(filter(None, (str(source), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--serve", json.dumps(asked)]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, check=True).stdout)


def all_said(trees: dict[str, Path], given: dict[str, Any], processes: int) -> Answers:
    """Return what each tree says to all questions; what came before is not asked of unchanged suites."""
    asked = [(name, one) for name in trees for one in questions(given if name == "now" else {**given, "suites": 0})]
    with ThreadPoolExecutor(processes) as pool:
        said = list(pool.map(lambda pair: ask(trees[pair[0]], pair[1]), asked))
    found: Answers = {name: {"frogs": [], "modes": [], "unchanged": []} for name in trees}
    for (name, one), answered in zip(asked, said, strict=True):
        found[name][one["of"]].append([*one["row"], answered])
    return found


def main() -> None:
    """Ask both trees, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frogs", type=int, default=40)
    parser.add_argument("--suites", type=int, default=1000)
    parser.add_argument("--cases", type=int, default=200, help="cases that are slow in some processes")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="at once")
    parser.add_argument("--before", metavar="COMMIT", help="let this commit answer too")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="also write the tables to this file")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        print(json.dumps(answer(json.loads(options.serve))))
        return
    given = {"frogs": options.frogs, "suites": options.suites, "cases": options.cases, "seed": options.seed}
    with worktree(options.before) if options.before else contextlib.nullcontext() as tree:
        trees = {"before": tree / "src"} if tree else {}
        found = all_said({**trees, "now": ROOT / "src"}, given, options.processes)
    made_by = (
        f"Seed {options.seed}, NumPy {np.__version__}, SciPy {scipy.__version__}, Python {platform.python_version()}, "
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} CPUs."
    )
    text = f"{tables(found)}\n\n{made_by}"
    print(text)
    if options.markdown:
        options.markdown.write_text(text + "\n")


if __name__ == "__main__":
    main()
