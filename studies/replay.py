"""Do the policy, the driver and `outcome` say what the code before them said? Both are given the same evidence.

    python studies/replay.py [--count 2000] [--seed 1] [--before 22e4add]

Evidence is that of the committed baselines (each case's newest session against its others, as it is and 2 % slower,
twice) and of seeded random measurements over devices, metrics, options and failures. A process that runs the commit
before, from a git worktree of its own, and one that runs this tree answer; judgements, verdict, sentence, whether it is
stored and the outcome of latency, coverage, layers, accuracy and build tests are compared. Rules that changed on
purpose since then (docs/decisions/0055-outcomes-that-changed.md) are named in CHANGED: differences are counted by rule
and by verdict, and only one that no rule explains is printed and exits with 1. Nothing is timed: workers, and what lies
on disk, are stood in for.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import random
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

ROOT = Path(__file__).resolve().parents[1]
CARD, OTHER = "GPU-here", "GPU-there"
REQUIRED = ("baseline", "verdict")
CHANGED = {
    "suspicion": "a suspicion is refuted only by proof, checked once more, and told where it is neither",
    "order": "three sessions or more of a card are spread by their successive differences, and may have an anchor",
    "storing": "only what is proven is stored unasked, and measured further for it",
    "clock": "sessions of another clock are left out, and a case that has no others is new",
    "accepting": "a case that is stored as --trtgate-accept names it passes, whatever is not known of it, and says so",
}
"""Rule → what changed."""

# Evidence, as plain data


def scenarios(count: int, seed: int) -> list[dict[str, Any]]:
    rng = random.Random(seed)
    found = list(of_baselines(rng))
    found += [at_random(rng) for _ in range(count)]
    found += [of_other_tests(rng) for _ in range(max(500, count // 4))]
    return found


def of_baselines(rng: random.Random) -> Iterator[dict[str, Any]]:
    for path in sorted(ROOT.glob("baselines/*/latency.json")):
        document = json.loads(path.read_text())
        for entry in document["benchmarks"]:
            record = entry["extra_info"]["trtgate"]
            figures = record["figures"]
            figures |= error(figures["output_error"]) if "output_error" in figures else {}
            *others, newest = record["sessions"]
            for change in (1.0, 1.02):
                for _ in range(2):
                    made = at_random(rng, gpu=True)
                    launches = len(newest["metrics"]["device"])
                    now = {
                        "case_id": record["case"],
                        "uuid": newest["uuid"],
                        "seconds": 3.0,
                        "launches": [launch_of(newest, number, change) for number in range(launches)],
                    }
                    made |= {"gpu": True, "measured": [now, *made["measured"]], "frontend": "dynamo"}
                    made["record"] = {**record, "sessions": others or [newest]}
                    made["uuid"] = newest["uuid"]
                    yield made


def launch_of(session: dict[str, Any], number: int, change: float) -> dict[str, Any]:
    metrics, state = session["metrics"], session.get("state", {})
    captures = [{"blocks_us": [us * change], "replays": 10} for us in metrics["device"][number]]
    turn = {"clock": session["clock"], "captures": captures, "canary_us": state.get("canary_us", {})}
    for metric in ("host", "enqueue"):
        turn[f"{metric}_us"] = [us * change for us in metrics[metric][number]] if metric in metrics else [100.0]
    return {"loaded": {"seconds": 1.0, "gpu_memory_bytes": 1 << 28}, "turns": [turn]}


def measurement(rng: random.Random, gpu: bool, us: float, spread: float, odd: str) -> dict[str, Any]:
    launches = []
    for _ in range(3):
        own = us * (1 + rng.gauss(0, spread))
        captures = []
        for _ in range(4):
            void = odd == "all void" or (odd == "void" and rng.random() < 0.7)
            block = own * (1 + rng.gauss(0, spread))
            captures.append({"blocks_us": [] if void else [block], "replays": 9, "void": ["hot"] if void else []})
        turn: dict[str, Any] = {
            "clock": ("cuda_events" if odd == "clock" else "cuda_graph") if gpu else "host",
            "captures": captures,
            "host_us": [own * 2] if gpu else [],
            "enqueue_us": [own * 0.5] if gpu else [],
            "canary_us": {"sm_clock": 650.0 if odd == "canary" else 500.0},
        }
        memory = rng.choice([*[1 << 28] * 9, 1 << 29]) if gpu else None
        launches.append({"loaded": {"seconds": 1.0, "gpu_memory_bytes": memory}, "turns": [turn]})
    return {"case_id": "x", "launches": launches, "uuid": CARD if gpu else "", "seconds": 2.0}


def error(value: float) -> dict[str, float]:
    """Return the error of an output by the name that this code has for it, and by the one that the code before has."""
    return {"leaf_error": value, "output_error": value}


def build(rng: random.Random) -> dict[str, Any]:
    worse = {"build_s": 40.0, "engines": 2, "engine_bytes": 1300000, "leaf_error": 9e-3, "pytorch_operators": 3}
    usual = {"build_s": 10.0, "engines": 1, "engine_bytes": 1000000, "leaf_error": 1e-3, "pytorch_operators": 0}
    mixed = {name: rng.choice([usual, usual, worse])[name] for name in usual}
    made = usual if rng.random() < 0.6 else mixed
    return {**made, **error(made["leaf_error"]), "builders": rng.choice([1, 1, 2])}


def turn_of(rng: random.Random, gpu: bool, us: float) -> dict[str, Any]:
    host, enqueue = (us * (1 + rng.choice([0, 0.3, 1]) * abs(rng.gauss(0, 0.3))) for _ in range(2))
    return {
        "clock": "cuda_graph" if gpu else "host", "captures": [{"blocks_us": [us], "replays": 9}],
        "host_us": [host * 2] if gpu else [], "enqueue_us": [enqueue / 2] if gpu else [],
        "canary_us": {"sm_clock": 500.0},
    }  # fmt: skip


def quadruples(rng: random.Random, gpu: bool, change: float, spread: float, count: int) -> list[dict[str, Any]]:
    def us(side: float) -> float:
        return 100.0 * side * (1 + rng.gauss(0, spread))

    return [
        {
            side: [turn_of(rng, gpu, us(factor)) for _ in range(2)]
            for side, factor in (("base", 1.0), ("candidate", change))
        }
        for _ in range(count)
    ]


def at_random(rng: random.Random, *, gpu: bool | None = None) -> dict[str, Any]:
    gpu = rng.random() < 0.8 if gpu is None else gpu
    change, spread = (
        rng.choice([0.9, 1.0, 1.0, 1.0, 1.004, 1.01, 1.05, 1.3, 4.0]),
        rng.choice([2e-4, 2e-4, 2e-3, 0.02, 0.1]),
    )
    oddities = [*[""] * 7, "void", "all void", "clock", "canary"]
    further = rng.random() < 0.15  # such as more launches might tell
    if further:
        change, spread = rng.choice([1.0, 1.002]), rng.choice([0.003, 0.01, 0.015])
    measured = [measurement(rng, gpu, 100.0 * change, spread, "" if further else rng.choice(oddities))]
    for _ in range(3):
        again = rng.choice([change, change, 1.0])
        measured.append(measurement(rng, gpu, 100.0 * again, spread, rng.choice(oddities)))
    mine = CARD if gpu else ""
    sessions: list[dict[str, Any]] = [
        {
            "recorded": f"2026-01-{number + 1:02}", "uuid": rng.choice([mine, mine, OTHER]),
            "clock": "cuda_graph" if gpu else "host",
            "metrics": {
                metric: [[100.0 * scale * (1 + rng.gauss(0, spread)) for _ in range(4)] for _ in range(3)]
                for metric, scale in ((("device", 1), ("host", 2), ("enqueue", 0.5)) if gpu else (("host", 1),))
            },
            "state": {"canary_us": {"sm_clock": 500.0}},
        }
        for number in range(rng.choice([1, 1, 2, 3, 8]))
    ]  # fmt: skip
    if rng.random() < 0.02:
        sessions[0]["metrics"].pop("device", None)
        sessions = sessions[:1]
    figures = {
        "build_s": 10.0, "engines": 1.0, "engine_bytes": 1e6, **error(1e-3), "pytorch_operators": 0.0,
        "gpu_memory_bytes": float(1 << 28),
    }  # fmt: skip
    beside_base = rng.random() < 0.3
    ends = [*[""] * 6, "base", "candidate", "disturbed"]
    return {
        "kind": "latency", "gpu": gpu, "uuid": mine, "frontend": rng.choice(["eager", "dynamo"]),
        "beside_base": beside_base,
        "compare": not beside_base and rng.random() < 0.85, "update": not beside_base and rng.random() < 0.3,
        "accepted": rng.random() < 0.2, "require": [one for one in REQUIRED if rng.random() < 0.3],
        "quarantine": rng.choice(["", "", "", "9999-12-31", "2000-01-01"]),
        "limits": {"device": rng.choice([0.002, 0.01, 0.03, 0.05]), "host": 0.1}, "tests": rng.choice([1, 30, 300]),
        "record": None if rng.random() < 0.1 else
        {"case": "x", "settings": {}, "verdict": "unchanged", "sessions": sessions, "figures": figures},
        "measured": measured, "build": build(rng), "base_build": build(rng),
        "rebuilt": build(rng), "base_rebuilt": build(rng), "artifact": rng.random() < 0.6,
        "kept": rng.random() < 0.7, "in_base": rng.random() < 0.95,
        "memory": [rng.choice([1 << 28, 1 << 29]) for _ in range(4)],
        "screened": quadruples(rng, gpu, change, spread, 16),
        "pairs": [
            quadruples(rng, gpu, rng.choice([change, change, 1.0]) * (1 + rng.gauss(0, spread)), spread, 4)
            for _ in range(16)
        ],
        "screen_ends": rng.choice(ends), "pairs_end": rng.choice(ends), "pairs_end_at": rng.randrange(14),
        "build_ends": rng.choice([*[""] * 9, "base", "candidate"]),
    }  # fmt: skip


def of_other_tests(rng: random.Random) -> dict[str, Any]:
    kind = rng.choice(["coverage", "layers", "problem"])
    verdicts = {
        "coverage": ["regressed", "improved", "changed", "new", "unchanged"],
        "layers": ["new", "unchanged", "changed"],
        "problem": ["", "problem"],
    }
    return {
        "kind": kind, "verdict": rng.choice(verdicts[kind]), "accepted": rng.random() < 0.3,
        "update": rng.random() < 0.4, "require": [one for one in REQUIRED if rng.random() < 0.4],
        "quarantine": rng.choice(["", "", "9999-12-31", "2000-01-01"]), "strict": rng.random() < 0.5,
        "expected": rng.random() < 0.3,
    }  # fmt: skip


# Standing in for workers: for both trees alike


class Session:
    """Gives the measurements of a scenario, one after the other."""

    def __init__(self, given: dict[str, Any]) -> None:
        from trtgate.records import measurement as records

        self._given = given
        self._left = [decoded(one, records.CaseMeasurement) for one in given["measured"]]
        self._asked = given["asked"] = []

    def renew(self) -> None:
        self._asked.append("renew")

    def measure(self, _case_id: str, _artifact: Any, _step: Any, _after: Any = ()) -> Any:
        self._asked.append("measure")
        return self._left.pop(0)

    def build_fresh(self, _case_id: str, _folder: Any, _imported: Any = None) -> Any:
        from trtgate.records import measurement as records

        self._asked.append("build")
        return decoded(self._given["rebuilt"], records.Build)


class Pairs:
    """Gives the quadruples of a scenario, and its failures."""

    def __init__(self, given: dict[str, Any]) -> None:
        self._given = given
        self._fresh = 0
        self._made = 0

    def _one(self) -> Any:
        from trtgate.records import measurement as records

        def whole(_case_id: str, side: str) -> Any:
            base, now = self._given["memory"][:2] if self._given["gpu"] else (None, None)
            loaded = records.Loaded(seconds=1.0, gpu_memory_bytes=base if side == "base" else now)
            turns = [turn for quadruple in one.quadruples for turn in getattr(quadruple, side)]
            launch = records.Launch(loaded=loaded, turns=turns)
            return records.CaseMeasurement(case_id="x", launches=[launch])

        one = SimpleNamespace(quadruples=[], unload=lambda: None, measurement=whole)
        return one

    def resident(self) -> Any:
        return self._one()

    def start(self, count: int) -> list[Any]:
        return [self._one() for _ in range(count)]

    def end(self, _pair: Any) -> None:
        pass

    unload = load = lambda *_given: None
    expect = imported = lambda *_given: None

    @contextlib.contextmanager
    def fresh(self) -> Iterator[Any]:
        yield self._one()

    def greet(self, _pair: Any) -> dict[str, list[str]]:
        return {"base": [self._given["case_id"]] if self._given["in_base"] else []}

    def build(self, _pair: Any, _case_id: str, _folders: Any, **_shared: Any) -> dict[str, Any]:
        from trtgate.records import measurement as records

        self._made += 1
        if self._given["build_ends"] and self._made == 1:
            raise_for(self._given["build_ends"])
        again = self._made > 1
        names = {"candidate": "rebuilt" if again else "build", "base": "base_rebuilt" if again else "base_build"}
        return {
            side: SimpleNamespace(build=decoded(self._given[name], records.Build), stored=False)
            for side, name in names.items()
        }

    def load_resident(self, _case_id: str, _artifacts: Any) -> Any:
        return self._one()

    def load_fresh(self, _case_id: str, _artifacts: Any) -> Any:
        from trtgate.records import measurement as records

        base, now = self._given["memory"][2:]
        return {
            side: records.Loaded(seconds=1.0, gpu_memory_bytes=value)
            for side, value in (("base", base), ("candidate", now))
        }

    def at_once(self, _case_id: str) -> int:
        return 6

    def measure(self, pair: Any, enough: Any, _step: Any, *, delay: float = 0.0) -> float:
        from trtgate.records import measurement as records

        screening = self._given["beside_base"] and not self._fresh and not pair.quadruples and not self._screened
        if screening:
            self._screened = True
            raise_for(self._given["screen_ends"])
            source = self._given["screened"]
        else:
            if self._fresh == self._given["pairs_end_at"]:
                raise_for(self._given["pairs_end"])
            source = self._given["pairs"][self._fresh]
            self._fresh += 1
        pair.quadruples = []
        for one in source:
            pair.quadruples.append(decoded(one, records.Quadruple))
            if enough(pair):
                break
        return delay

    _screened = False


def raise_for(end: str) -> None:
    from trtgate.launches.pair import DisturbedError, SideError

    if end == "disturbed":
        raise DisturbedError("nothing counts")
    if end:
        raise SideError(end, "no luck")


def decoded(given: Any, kind: Any) -> Any:
    import msgspec

    return msgspec.convert(given, kind)


# Answers


def answer(given: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return what the trtgate that is imported says."""
    from trtgate.common.errors import TrtgateError

    case, options, accelerator = asked(given, folder)
    if given["kind"] != "latency":
        return {"outcome": outcome_of_other(given, case, options)}
    given["case_id"] = case.id
    found = (None, "none is kept") if not given["kept"] else (Path("kept"), "")
    try:
        with mock.patch("trtgate.gate.kept_artifacts.find", return_value=found):
            result = (judged_now if find_spec("trtgate.gate.driver") else judged_before)(
                given, case, options, accelerator, folder
            )
    except TrtgateError as error:
        return {"error": f"{type(error).__name__}: {error}"}
    import msgspec

    return {
        "verdict": str(result.verdict),
        "sentence": result.sentence,
        "judgements": msgspec.to_builtins(result.judgements),
        "stored": result.stored,
        "launches": len(result.measurement.launches),
        "base": result.base is not None,
        "asked": given.get("asked"),
        "outcome": outcome_of(given, case, options, result),
    }


def asked(given: dict[str, Any], folder: Path) -> tuple[Any, Any, Any]:
    from trtgate import Case, Model, Settings, quarantine
    from trtgate.common.accelerator import Accelerator
    from trtgate.gate.run_options import Options
    from trtgate.launches.base_revision import BaseRequest
    from trtgate.suite.suite_source import SuiteSource

    apart = find_spec("trtgate.suite.selection")  # before, it was beside cases
    Selection = import_module("trtgate.suite.selection" if apart else "trtgate.suite.cases").Selection  # noqa: N806
    until = given["quarantine"]
    held = quarantine("a reason", until="9999-12-31") if until else None
    if held is not None:
        held = type(held)(held.reason, datetime.date.fromisoformat(until))
    settings = Settings(frontend=given.get("frontend", "dynamo"), precision="fp32", quarantine=held)
    case = Case(Model("model", lambda: None, ()), settings)
    options = Options(
        source=SuiteSource(root="."), selection=Selection(), baselines=folder / "baselines",
        compare=given.get("compare", False), base=BaseRequest(revision="HEAD") if given.get("beside_base") else None,
        compare_file=None, update=given["update"], accepted=("model*",) if given["accepted"] else (),
        require=frozenset(given["require"]), limits=given.get("limits", {}), command_limits={}, launches=3,
        timeout_s=1.0, strict_layers=given.get("strict", False), zoo=False, report=None, cache=None, prebuild=None,
        builds_in_turn=False,
        gpus="", build_only=False, timing_off="",
    )  # fmt: skip
    gpu = given.get("gpu", True)
    accelerator = Accelerator(kind="gpu" if gpu else "cpu", name="replayed", uuid=given.get("uuid", ""))
    return case, options, accelerator


def judged_before(given: dict[str, Any], case: Any, options: Any, accelerator: Any, folder: Path) -> Any:
    import msgspec
    from trtgate.gate.case_record import CaseRecord  # type: ignore[import-not-found]  # of the code before

    from trtgate.gate import gate as gates
    from trtgate.records.measurement import Build
    from trtgate.suite import quarantines

    then: Any = gates  # as it was
    gate = then.Gate(msgspec.structs.replace(options, base=None), accelerator, folder / "run")
    gate.options = options
    gate.accepted = {case.id} if given["accepted"] else set()
    record = decoded(given["record"], CaseRecord) if given["record"] and options.compare else None
    session, pairs = Session(given), Pairs(given)
    with (
        mock.patch.object(type(gate), "tests", given["tests"]),
        mock.patch.object(gate, "_record", return_value=record),
        mock.patch.object(gate, "session", return_value=session),
        mock.patch.object(gate, "pairs", return_value=pairs),
    ):
        if options.base is not None:
            return gate.run_against_base(case, lambda _text: None)
        artifact = Path("artifact") if given["artifact"] else None
        result = gate.run(case, artifact, decoded(given["build"], Build), lambda _text: None)
    held = case.settings.quarantine
    if held is not None and quarantines.in_force(held) is None and case.id not in gate.accepted:
        result.stored = False  # as its test does
    return result


def judged_now(given: dict[str, Any], case: Any, options: Any, accelerator: Any, folder: Path) -> Any:
    from trtgate.common.run_folder import RunFolder
    from trtgate.gate.base_measurer import BaseMeasurer
    from trtgate.gate.baseline_record import CaseRecord
    from trtgate.gate.driver import drive
    from trtgate.gate.gate import Gate
    from trtgate.gate.measurers import StoredMeasurer
    from trtgate.records.measurement import Build

    run_folder = RunFolder(folder / "run")
    gate = Gate(options, accelerator, run_folder)
    record = decoded(given["record"], CaseRecord) if given["record"] and options.compare else None
    workers: Any = SimpleNamespace(
        session=Session(given), pairs=Pairs(given), folder=run_folder, accelerator=accelerator
    )  # fmt: skip
    artifact = Path("artifact") if given["artifact"] else None
    with mock.patch.object(gate, "_record", return_value=record):
        situation = gate.situation(
            case, accelerator=accelerator, tests=given["tests"], accepted=given["accepted"],
            pairable=artifact is not None, base_cases=[case.id] if given["in_base"] else [],
        )  # fmt: skip
    if options.base is not None:
        with BaseMeasurer(workers, situation) as beside:
            return drive(situation, beside, lambda _text: None)
    stored = StoredMeasurer(workers, situation, artifact, decoded(given["build"], Build))
    return drive(situation, stored, lambda _text: None)


def run_of(given: dict[str, Any], case: Any, options: Any) -> Any:
    """Return what stands in for a run, with what either tree asks of it."""
    from trtgate.suite import quarantines
    from trtgate.suite.expected_failures import ExpectedFailure

    accepted = {case.id} if given["accepted"] else set()
    return SimpleNamespace(
        options=options, accepted=accepted, gate=SimpleNamespace(accepted=accepted, add=lambda _result: None),
        lines=[], notices=[], undecided=[], new=[], where={},
        coverage_of_builds={case.id: None}, accelerator=SimpleNamespace(key="key"),
        folder=Path("folder"), config=SimpleNamespace(invocation_params=SimpleNamespace(dir=Path.cwd())),
        quarantine_of=lambda _case_id: quarantines.in_force(case.settings.quarantine),
        expected_failure_of=lambda _case_id: ExpectedFailure("known") if given.get("expected") else None,
    )  # fmt: skip


def ending(call: Any) -> list[str]:
    """Return what becomes of a test."""
    import pytest

    from trtgate.common.errors import TrtgateError

    try:
        call()
    except pytest.fail.Exception as error:
        return ["failed", str(error)]
    except pytest.skip.Exception as error:
        return ["skipped", str(error)]
    except pytest.xfail.Exception as error:
        return ["xfailed", str(error)]
    except TrtgateError as error:
        return ["problem", str(error)]
    return ["passed", ""]


def said_by(run: Any) -> list[str]:
    return [getattr(one, "text", one) for one in (*run.lines, *run.notices, *run.undecided, *run.new)]


def outcome_of(given: dict[str, Any], case: Any, options: Any, result: Any) -> Any:
    from trtgate.profiles.profile_gate import Where
    from trtgate.pytest_plugin import latency_tests

    run = run_of(given, case, options)
    gate = latency_tests.LatencyGate.__new__(latency_tests.LatencyGate)
    gate._run = run
    benchmark: Any = SimpleNamespace(has_error=False)
    profiles = SimpleNamespace(where=lambda _built: Where(sentence="where: there" if given["artifact"] else ""))
    with mock.patch.object(latency_tests, "profiles_of", return_value=profiles):
        built: Any = None
        found = ending(lambda: gate._conclude(benchmark, case, result, built))
    return [*found, benchmark.has_error, *said_by(run)]


def outcome_of_other(given: dict[str, Any], case: Any, options: Any) -> Any:
    from trtgate.common.errors import TrtgateError
    from trtgate.pytest_plugin.hooks import Hooks

    run = run_of(given, case, options)
    item: Any = SimpleNamespace(user_properties=[])
    tests = {"coverage": coverage_test, "layers": layers_test, "problem": problem_test}
    first = ending(lambda: tests[given["kind"]](given, case, run, item))
    names = ("coverage_gate",) if given["kind"] == "coverage" else ("compiled",)
    function: Any = SimpleNamespace(
        callspec=SimpleNamespace(params={"trtgate_case": case.id}), fixturenames=names, user_properties=[]
    )  # fmt: skip

    def hooked() -> None:
        called = Hooks(run).pytest_pyfunc_call(function)
        next(called)
        try:
            called.throw(TrtgateError(first[1])) if first[0] == "problem" else called.send(None)
        except StopIteration:
            return

    return [first, ending(hooked), *said_by(run)]


def coverage_test(given: dict[str, Any], case: Any, run: Any, item: Any) -> None:
    from trtgate.coverage import coverage_gate
    from trtgate.pytest_plugin import coverage_tests

    result = coverage_gate.CoverageResult(
        case_id=case.id, verdict=coverage_gate.CoverageVerdict(given["verdict"]), in_tensorrt=1, total=2, engines=1,
        release="rtx-2.14.0", said="is as it is",
    )  # fmt: skip
    run.coverage_of_builds = {case.id: "found"}
    with (
        mock.patch.object(coverage_gate, "judge", return_value=result),
        mock.patch("trtgate.coverage.coverage_baselines.store"),
        mock.patch("trtgate.torch_trt.releases.installed_release", return_value="rtx-2.14.0"),
    ):
        coverage_tests.CoverageGate(run, item)(case)


def layers_test(given: dict[str, Any], case: Any, run: Any, item: Any) -> None:
    from trtgate.profiles import profile_files, profile_gate
    from trtgate.pytest_plugin import profile_tests

    result = profile_gate.ProfileResult(
        case_id=case.id, verdict=profile_gate.LayersVerdict(given["verdict"]), device_us=1.0, sum_us=1.0, layers=1,
        engines=1, attributed=1.0, changes={"added": ["one"]},
    )  # fmt: skip
    recorded = SimpleNamespace(profile=None, information=None)
    with (
        mock.patch.object(profile_tests, "profiles_of", return_value=SimpleNamespace(of=lambda _built: recorded)),
        mock.patch.multiple(profile_files, write_folder=mock.DEFAULT, read=mock.DEFAULT, store_baseline=mock.DEFAULT),
        mock.patch.multiple(profile_gate, complaint=lambda _profile: "", judge=lambda *_given: result),
    ):
        profile_tests.ProfileGate(run, item)(SimpleNamespace(case=case))  # type: ignore[arg-type]


def problem_test(given: dict[str, Any], case: Any, _run: Any, _item: Any) -> None:
    from trtgate.common.errors import TrtgateError

    if given["verdict"]:
        raise TrtgateError(f"case {case.id}: it can't be built")


# What differs on purpose


def explanation(given: dict[str, Any], before: dict[str, Any], now: dict[str, Any]) -> str:
    """Return the rule of CHANGED that lets two answers differ; empty where none does."""
    if given["kind"] != "latency":
        return ""
    if ": timed with the clock " in before.get("sentence", "") and now.get("verdict") == "new":
        return "clock"
    judged = now.get("judgements") or []
    again = len(before.get("asked") or []) > 1 or len(now.get("asked") or []) > 1
    suspected = any(one["suspected"] is not None or one["groups"] for one in judged)
    if again or suspected or {"regressed", "unconfirmed"} & {before.get("verdict"), now.get("verdict")}:
        return "suspicion"
    sessions = Counter(one["uuid"] for one in (given["record"] or {"sessions": []})["sessions"])
    if not given["beside_base"] and sessions and max(sessions.values()) > 2:
        return "order"
    plain = without_new_fields(now)
    if _is_accepted(before, plain):
        return "accepting"
    only_stored = {name for name in before.keys() | now.keys() if before.get(name) != plain.get(name)} <= {"stored"}
    return "storing" if only_stored and before["stored"] and not now["stored"] else ""


def _is_accepted(before: dict[str, Any], now: dict[str, Any]) -> bool:
    """Whether the outcome alone differs: what was skipped or failed passes, with a line that it was accepted."""
    apart = {name for name in before.keys() | now.keys() if before.get(name) != now.get(name)}
    if apart != {"outcome"} or not now["stored"]:
        return False
    (was, *_), (is_now, _, _, *said) = before["outcome"], now["outcome"]
    return was in ("skipped", "failed") and is_now == "passed" and any(one.startswith("accepted: ") for one in said)


def without_new_fields(given: dict[str, Any]) -> dict[str, Any]:
    """Return an answer with what it had before: fields of judgements, no name of a missing file, no last digits.

    Advice on how to record a case anew is left out too.
    """
    new = ("since_anchor", "suspected", "groups")
    plain = [
        {
            name: round(value, 12) if isinstance(value, float) else value
            for name, value in one.items()
            if name not in new
        }
        for one in given.get("judgements", [])
    ]
    found = {**given, "judgements": plain} if "judgements" in given else given
    text = re.sub(r" \(no file [^)]*\)", "", json.dumps(found))
    return json.loads(re.sub(r": trtgate baseline remove [^,]*, and record it anew", "; record it anew", text))


# Both trees


def serve() -> None:
    """Answer scenarios from stdin, with whichever trtgate is on the path."""
    with tempfile.TemporaryDirectory() as folder:
        for line in sys.stdin:
            said = json.dumps(answer(json.loads(line), Path(folder))).replace(folder, "FOLDER")
            print(said.replace("output_error", "leaf_error").replace("output error", "leaf error"), flush=True)


def answers(source: Path, asked: list[dict[str, Any]]) -> list[dict[str, Any]]:
    lines = "".join(json.dumps(one) + "\n" for one in asked)
    environment = {**os.environ, "PYTHONPATH": str(source), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, __file__, "--serve"], input=lines, stdout=subprocess.PIPE, text=True, env=environment,
        check=True,
    )  # fmt: skip
    return [json.loads(line) for line in done.stdout.splitlines()]


@contextlib.contextmanager
def worktree(commit: str) -> Iterator[Path]:
    from trtgate.common import git

    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        git.run(ROOT, "worktree", "add", "--quiet", "--detach", str(tree), commit).check_returncode()
        try:
            yield tree
        finally:
            git.run(ROOT, "worktree", "remove", "--force", str(tree)).check_returncode()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--before", default="22e4add")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve()
        return 0
    asked = scenarios(given.count, given.seed)
    with worktree(given.before) as tree:
        before = answers(tree / "src", asked)
    answered = answers(ROOT / "src", asked)
    before, now = ([without_new_fields(one) for one in both] for both in (before, answered))
    latency = [number for number, one in enumerate(asked) if one["kind"] == "latency"]
    print(f"{len(asked)} scenarios, {len(latency)} of latency; seed {given.seed}")
    for field in ("judgements", "verdict", "sentence", "stored", "launches", "base", "asked", "error", "outcome"):
        agree = sum(one.get(field) == other.get(field) for one, other in zip(before, now, strict=True))
        print(f"{field}: {agree} of {len(asked)} agree")
    for what in ("verdict", "error"):
        print(what, dict(Counter(str(before[number].get(what))[:60] for number in latency).most_common(12)))
    print("outcome", dict(Counter(str((one.get("outcome") or ["none"])[0])[:12] for one in before).most_common(12)))
    differing = [number for number, (one, other) in enumerate(zip(before, now, strict=True)) if one != other]
    rules = {number: explanation(asked[number], before[number], answered[number]) for number in differing}
    for rule, why in CHANGED.items():
        concerned = [number for number in differing if rules[number] == rule]
        print(f"{len(concerned)} differ since {why}")
        moves = Counter(f"{before[number].get('verdict')} → {now[number].get('verdict')}" for number in concerned)
        print(f"  {dict(moves.most_common())}")
    unexplained = [number for number in differing if not rules[number]]
    print(f"{len(unexplained)} differ for no known reason")
    for number in unexplained[:5]:
        print(f"differs, scenario {number}:\n  before {before[number]}\n  now    {now[number]}")
    return 1 if unexplained else 0


if __name__ == "__main__":
    sys.exit(main())
