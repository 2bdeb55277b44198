"""Files of shards as tests make them: of cases whose measurements are written down."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from tests.scripted_measurer import HERE, ScriptedMeasurer, measurement, pairs, record
from trtgate import Case, Model, Settings
from trtgate.common.accelerator import Accelerator
from trtgate.common.metrics import METRICS
from trtgate.common.run_folder import RunFolder
from trtgate.common.version import VERSION
from trtgate.fleet import gathering, stage_record
from trtgate.fleet.manifest import Manifest, ManifestCase
from trtgate.fleet.merged_run import MergedRun, options_of
from trtgate.fleet.stage_record import CONFIRMATION, KEY, CaseEvidence, CaseOutcome, StageRecord
from trtgate.gate import baselines, policy
from trtgate.gate.case_result import CaseResult
from trtgate.gate.driver import drive, gather
from trtgate.gate.gate import Gate
from trtgate.gate.known_programs import Known
from trtgate.gate.policy import Measured, Situation, is_of_first_stage
from trtgate.records.measurement import (
    HOST_ALONE,
    CaseMeasurement,
    ColdStart,
    Launch,
    Loaded,
    LoadLaunch,
    LoadLevel,
    MemoryReadings,
    Turn,
)
from trtgate.verdict import LOOKS

LIMIT = 0.03
FAILED = "can't be built"


class Script(msgspec.Struct, frozen=True):
    """What a case's launches measure, in µs: at first, and in fresh launches of what is asked for then.

    `first` is None where the case can't be built, `stored` where nothing is stored of it.
    """

    first: Sequence[float] | None
    fresh: Sequence[Sequence[float]] = ()
    stored: Sequence[float] | None = (100.0, 100.0, 100.0)
    changes: tuple[float, float] | None = None
    """Beside a base: by how much it is slower in the first pair, and in fresh ones; a run has such cases alone."""
    load: bool = False
    """Whether its launches were called by several threads and processes too; a known one is started cold as well."""
    known: bool = False
    """Whether it is the same program as a proven session's, so that its device latency is left out."""


SAME = Script((100.0, 100.1, 99.9))
SLOW = Script((110.0, 110.1, 109.9), [(110.0, 110.1, 109.9)])
REFUTED = Script((110.0, 110.1, 109.9), [(100.0, 100.1, 99.9)])
FAST = Script((90.0, 90.1, 89.9))
NEW = Script((100.0, 100.1, 99.9), stored=None)
NOISY = Script((98.5, 102.0, 100.5), [(100.0, 99.0, 101.0)], (100.0, 98.6, 101.3, 100.8, 99.3))
WILD = Script((98.5, 102.0, 100.5), [(96.0, 105.0, 103.0)], (100.0, 98.6, 101.3, 100.8, 99.3))
BROKEN = Script(None)
LOADED = Script((100.0, 100.1, 99.9), load=True)
KNOWN = Script((100.0, 100.1, 99.9), known=True)
SCRIPTS = {"same": SAME, "slow": SLOW, "refuted": REFUTED, "fast": FAST, "new": NEW, "noisy": NOISY, "wild": WILD,
           "broken": BROKEN, "known": KNOWN, "loaded": LOADED}  # fmt: skip


BESIDE_BASE = {
    "same": Script((), changes=(0.0, 0.0)), "slow": Script((), changes=(0.1, 0.1)),
    "refuted": Script((), changes=(0.1, 0.0)), "broken": Script(None, changes=(0.0, 0.0)),
}  # fmt: skip


class StagedRun:
    """A run of scripted cases, as one whole or in shards, in a folder with its baseline."""

    def __init__(self, folder: Path, scripts: Sequence[Script], accelerator: Accelerator = HERE) -> None:
        self.folder = folder
        self.accelerator = accelerator
        settings = Settings(frontend="eager", precision="fp32")
        self.cases = {
            case.id: case for case in (Case(Model(f"m{n}", lambda: None, ()), settings) for n in range(len(scripts)))
        }
        self.scripts = dict(zip(self.cases, scripts, strict=True))
        self.base = "HEAD" if scripts[0].changes is not None else ""
        self.baselines = folder / "baselines"
        self._store()
        self.whole = self.manifest([list(self.cases)])
        self.gate = Gate(options_of(self.whole, self.baselines, folder), accelerator, RunFolder(folder / ".trtgate"))

    def _store(self) -> None:
        entries = []
        for name, script in self.scripts.items():
            if script.stored is not None and not self.base:
                stored = msgspec.structs.replace(record(script.stored), case=name)
                entries.append(entry(name, msgspec.to_builtins(stored)))
        if entries:
            path = baselines.path_of(self.baselines, self.accelerator.key)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(document(msgspec.structs.replace(self.accelerator, libraries={}), entries)))

    def manifest(self, shards: Sequence[Sequence[str]], **changed: Any) -> Manifest:
        path = baselines.path_of(self.baselines, self.accelerator.key)
        limits = dict.fromkeys(METRICS, LIMIT)
        made = Manifest(
            key=self.accelerator.key, kind="gpu", versions=self.accelerator.versions, trtgate=VERSION, commit="c" * 40,
            dirty=False,
            suite="s", baseline=hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else "",
            compare=not self.base, base=self.base,
            launches=3, streams="one", cold_starts=0, tests=3, by="case", shards=[list(one) for one in shards],
            cases=[
                ManifestCase(id=name, model=case.model.name, settings=msgspec.to_builtins(case.settings), limits=limits)
                for name, case in self.cases.items()
            ],
        )  # fmt: skip
        return msgspec.structs.replace(made, **changed)

    # What is measured

    def situation(self, name: str) -> Situation:
        found = self.gate.situation(
            self.cases[name],
            accelerator=self.accelerator,
            tests=3,
            accepted=False,
            pairable=False,
            base_cases=[name],
        )
        known = Known(recorded="2026-01-01T00:00:00+00:00", clock="cuda_graph") if self.scripts[name].known else None
        return msgspec.structs.replace(found, limit_of=lambda _metric: LIMIT, known=known)

    def measurer(self, name: str) -> ScriptedMeasurer:
        script = self.scripts[name]
        assert script.first is not None
        if script.changes is not None:
            return ScriptedMeasurer(
                [self._beside(name, script.changes[0])], paired=[pairs(script.changes[1], LOOKS[0])]
            )
        return ScriptedMeasurer(
            [self._measured(name, script.first)],
            [self._measured(name, one) for one in script.fresh],
            host=[self._of_host(name)],
        )

    def _measured(self, name: str, us: Sequence[float]) -> CaseMeasurement:
        load = [loaded(100.0 + number) for number in range(3)] if self.scripts[name].load else []
        return msgspec.structs.replace(measurement(*us), case_id=name, uuid=self.accelerator.uuid, load=load)

    def _beside(self, name: str, change: float) -> Measured:
        quadruples = [one for pair in pairs(change, 2) for one in pair][: LOOKS[0]]
        now, before = self._measured(name, [100.0 * (1 + change)]), self._measured(name, [100.0])
        screened, _ = policy.screened(quadruples, now, lambda _metric: LIMIT, 3)
        return Measured(now, before, tuple(screened))

    def _of_host(self, name: str) -> CaseMeasurement:
        turn = Turn(clock=HOST_ALONE, captures=[], host_us=[400.0], enqueue_us=[200.0])
        launch = Launch(loaded=Loaded(seconds=1.0), turns=[turn])
        load = [loaded(100.0)] if self.scripts[name].load else []
        cold = [ColdStart(seconds=1.0, host_bytes=1 << 20)] if self.scripts[name].load else []
        return CaseMeasurement(case_id=name, launches=[launch], uuid=self.accelerator.uuid, load=load, cold=cold)

    def in_one(self) -> dict[str, CaseResult]:
        """Return the results of a run that is not divided."""
        built = [name for name, script in self.scripts.items() if script.first is not None]
        return {name: drive(self.situation(name), self.measurer(name), lambda _: None) for name in built}

    def evidence(self, names: Sequence[str], *, confirmed: bool = False) -> dict[str, CaseEvidence]:
        """Return what a shard finds of cases; `confirmed`: what a confirmation does."""
        found = {}
        for name in names:
            if self.scripts[name].first is None:
                continue
            situation, _ = gather(
                self.situation(name), self.measurer(name), lambda _: None,
                does=(lambda _: True) if confirmed else is_of_first_stage,
            )  # fmt: skip
            found[name] = CaseEvidence(
                evidence=situation.evidence,
                uuid=self.accelerator.uuid,
                recorded="2026-01-01T00:00:00+00:00",
                known=situation.known,
            )
        return found

    # Files

    def shard(self, manifest: Manifest, number: int, **changed: Any) -> Path:
        part = f"{number}/{len(manifest.shards)}"
        names = manifest.shards[number - 1]
        latency = {name: self._outcome(name) for name in names}
        broken = [name for name in names if self.scripts[name].first is None]
        given = {
            "latency": latency,
            "evidence": self.evidence(names),
            "failed": broken,
            "exit_status": int(bool(broken)),
        }
        return self.write(manifest, part, **{**given, **changed})

    def confirmation(self, manifest: Manifest, names: Sequence[str], **changed: Any) -> Path:
        latency = {name: CaseOutcome("passed") for name in names}
        given = {"latency": latency, "evidence": self.evidence(names, confirmed=True)}
        return self.write(manifest, CONFIRMATION, **{**given, **changed})

    def _outcome(self, name: str) -> CaseOutcome:
        built = self.scripts[name].first is not None
        return CaseOutcome("passed") if built else CaseOutcome("failed", f"{name}: {FAILED}")

    def write(self, manifest: Manifest, part: str, **fields: Any) -> Path:
        given = {
            "attempt": part,
            "started": "2026-01-01T00:00:00+00:00",
            "complete": True,
            "accelerator": self.accelerator,
        }
        found = StageRecord(manifest=manifest, part=part, **{**given, **fields})
        entries = [entry(name, {"case": name}) for name in found.evidence]
        path = self.folder / f"{len(list(self.folder.glob('*.json')))}.json"
        path.write_text(json.dumps({**document(self.accelerator, entries), KEY: msgspec.to_builtins(found)}))
        return path

    def merged(self, paths: Sequence[Path]) -> MergedRun:
        """Judge files of one kind of accelerator."""
        (found,) = gathering.gathered([stage_record.read(path) for path in paths])
        return MergedRun(found, self.baselines, self.folder, RunFolder(self.folder / ".trtgate"))


def loaded(us: float) -> LoadLaunch:
    """Return what two threads, and two processes, measured while they called at once, and what memory did."""
    levels = [
        LoadLevel(threads=threads, processes=processes, throughput_per_s=1e6 / us, p50_us=us, p99_us=2 * us, calls=100)
        for threads, processes in ((1, 1), (2, 1), (1, 2))
    ]
    readings = MemoryReadings(calls=100, host_bytes=[1 << 30] * 40)
    return LoadLaunch(most=2, levels=levels, readings=readings)


def entry(name: str, ours: Mapping[str, Any]) -> dict[str, Any]:
    stats = {"median": 1e-4}
    return {
        "name": name,
        "fullname": f"suite.py::test_latency[{name}]",
        "stats": stats,
        "extra_info": {"trtgate": ours},
    }


def document(accelerator: Accelerator, entries: Sequence[Any]) -> dict[str, Any]:
    return {
        "trtgate": {"schema": baselines.SCHEMA},
        "machine_info": {"accelerator": msgspec.to_builtins(accelerator)},
        "commit_info": {"id": "c" * 40, "dirty": False, "branch": "main"},
        "benchmarks": list(entries),
        "datetime": "2026-01-01T00:00:00+00:00",
        "version": "5.3",
    }
