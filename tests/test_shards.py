"""Shards as a user runs them: pytest in parts, `trtgate merge`, and the same as one run says."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.in_process import InProcess, command
from tests.suites import suite_text
from tests.test_ab import Repository
from trtgate.fleet.merged_document import UNCONFIRMED
from trtgate.fleet.stage_record import KEY
from trtgate.gate import history

ALPHA, BETA, GAMMA = (f"{name}-eager-fp32-b1" for name in ("alpha", "beta", "gamma"))
LIMIT = "--trtgate-limit=host=100%"
COMPARE = ("--benchmark-compare", LIMIT)
BROKEN = "raise ValueError('planted')"


class Shards:
    """Runs shards of the suite of a folder, and merges what they left."""

    def __init__(self, folder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        monkeypatch.chdir(folder.path)

    def run(self, *arguments: str, expected: int = 0, **environment: object) -> Path:
        """Run pytest; returns the run that it left."""
        before = set(self.files())
        done = self.folder.gate(*arguments, **environment)
        assert done.ret == expected, done.stdout.str()
        (made,) = set(self.files()) - before
        return made

    def files(self) -> list[Path]:
        return sorted(self.folder.path.glob(".trtgate/runs/*.json"))

    def merge(self, *files: Path, expected: int = 0) -> str:
        status, said = command(
            "merge", *map(str, files), "--output=merged.json", "--report=report.json", "--junit-xml=merged.xml"
        )
        assert status == expected, said
        return said

    @property
    def merged(self) -> Any:
        return json.loads((self.folder.path / "merged.json").read_text())


@pytest.fixture
def sharded(folder: Any, monkeypatch: pytest.MonkeyPatch) -> Shards:
    return Shards(folder, monkeypatch)


def comparable(document: Any) -> Any:
    """Return a run without times and the shard's own; scripted time is the same in all of them but for its looks."""
    found = {}
    for entry in document["benchmarks"]:
        ours = entry["extra_info"]["trtgate"]
        (session,) = ours["sessions"]
        judged = [
            {name: one[name] for name in ("metric", "verdict", "limit", "evidence")} for one in ours["judgements"]
        ]
        found[entry["fullname"]] = {
            "fields": sorted(entry), "stats": sorted(entry["stats"]), "rounds": entry["stats"]["rounds"],
            "median_ms": round(entry["stats"]["median"] * 1e3), "ours": sorted(ours), "verdict": ours["verdict"],
            "settings": ours["settings"], "clock": session["clock"], "judged": judged,
        }  # fmt: skip
    return found, sorted(set(document) - {KEY}), document["machine_info"]


def junit_of(file: Path) -> dict[tuple[str, str], list[str]]:
    """Return the tests of a JUnit XML file by class and name, with what became of each."""
    return {
        (test.get("classname", ""), test.get("name", "")): [
            one.tag for one in test if one.tag in ("failure", "skipped")
        ]
        for test in ElementTree.parse(file).iter("testcase")
    }


def test_two_shards_merged_say_what_one_run_says(sharded: Shards) -> None:
    sharded.folder.baseline("alpha", "beta")
    sharded.folder.suite("alpha", "beta", "gamma", broken=BROKEN)
    slow = {"ALPHA_MS": 20}
    whole = sharded.run(*COMPARE, "--trtgate-report=whole.json", "--junit-xml=whole.xml", expected=1, **slow)
    parts = [
        sharded.run(*COMPARE, f"--trtgate-shard={number}/2", expected=code, **slow) for number, code in ((1, 0), (2, 1))
    ]
    said = sharded.merge(*parts, expected=1)
    assert "1 suspected and not confirmed; on such an accelerator: pytest " in said
    assert (
        "suite.py --trtgate-launches=1 --benchmark-compare --trtgate-limit=host=100% --trtgate-confirm=merged.json"
        in said
    )
    confirmed = sharded.run(*COMPARE, "--trtgate-confirm=merged.json", **slow)
    said = sharded.merge(*parts[::-1], confirmed, expected=1)
    assert comparable(sharded.merged) == comparable(json.loads(whole.read_text()))
    assert f"FAILED {ALPHA} is slower" in said
    assert f": {GAMMA}; add --trtgate-update-baselines to record them" in said
    assert "what is gone for good" not in said
    reports = [json.loads((sharded.folder.path / f"{name}.json").read_text()) for name in ("whole", "report")]
    of_whole, of_merged = (
        {one["case_id"]: (one["said"], one["outcome"]) for one in found["cases"]} for found in reports
    )
    assert of_merged == of_whole
    loud = [{one["text"] for one in found["notices"] if one["severity"] != "info"} for found in reports]
    assert loud[0] == loud[1]
    for name in ("outcome", "exit_status", "against", "commit", "environment", "accelerator"):
        assert reports[0][name] == reports[1][name]
    assert of_merged["broken-eager-fp32-b1"] == ("failed", "failed")
    assert sorted(one["test"] for one in reports[0]["failures"]) == sorted(
        one["test"] for one in reports[1]["failures"]
    )
    of_one, of_all = (junit_of(sharded.folder.path / f"{name}.xml") for name in ("whole", "merged"))
    assert of_one == {name: found for name, found in of_all.items() if not name[1].startswith("run[")}
    assert of_one["suite", f"test_latency[{ALPHA}]"] == ["failure"]
    status, said = command("baseline", "accept", "merged.json", BETA)
    assert (status, f"stored: {BETA}" in said) == (0, True)
    runs, skipped = history.read_runs(whole.parent, lambda _case: True)
    assert (len(runs), skipped) == (1, [])  # a shard counts once, as part of what was merged


def test_accuracy_that_all_shards_leave_out_is_told_once(sharded: Shards) -> None:
    sharded.folder.baseline("alpha", "beta")
    sharded.folder.suite("alpha", "beta")
    parts = [sharded.run(*COMPARE, "-m", "trtgate_latency", f"--trtgate-shard={number}/2") for number in (1, 2)]
    told = [line for line in sharded.merge(*parts).splitlines() if "accuracy" in line]
    assert told == ["accuracy not checked, as asked: 2 cases of the baseline"]


def test_what_is_missing_doubled_foreign_or_cut_short_is_named(sharded: Shards) -> None:
    sharded.folder.baseline("alpha", "beta")
    sharded.folder.suite("alpha", "beta")
    one, two = (sharded.run(*COMPARE, f"--trtgate-shard={number}/2") for number in (1, 2))
    assert "2 cases: 2 unchanged" in sharded.merge(one, two)
    assert "MISSING: shard 2/2 of " in sharded.merge(one, expected=1)
    copy = two.with_name("copy.json")
    shutil.copy(two, copy)
    assert f"is doubled: it is the run of {two} again" in sharded.merge(one, two, copy, expected=1)
    again = sharded.run(*COMPARE, "--trtgate-shard=2/2")
    said = sharded.merge(one, again, two, expected=1)
    assert f"({again}) is doubled: the first complete attempt counts, {two}" in said
    with sharded.folder.edited(copy) as document:
        document[KEY]["manifest"]["commit"] = "f" * 40
    assert f"({copy}) is foreign: commit ffffffffffff, the others have " in sharded.merge(one, copy, expected=1)
    copy.write_text(two.read_text()[:-500])
    assert f"{copy} is no run: it is cut short" in sharded.merge(one, copy, expected=4)


def test_a_confirmation_is_of_the_same_code_or_refused(sharded: Shards) -> None:
    sharded.folder.baseline("alpha", "beta")
    sharded.folder.suite("alpha", "beta")
    parts = [sharded.run(*COMPARE, f"--trtgate-shard={number}/2", ALPHA_MS=20) for number in (1, 2)]
    sharded.merge(*parts, expected=UNCONFIRMED)
    sharded.folder.suite("alpha", "beta", "gamma")
    sharded.folder.refused(
        sharded.folder.gate(*COMPARE, "--trtgate-confirm=merged.json"), "this run is not the one of it", "suite"
    )


def test_beside_a_base_suspects_are_confirmed_in_fresh_pairs(
    folder: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    repository = Repository(folder)
    helped = "import helper; pause(helper.MILLISECONDS / 1000)"
    folder.suite("beta", "removed", alpha=helped)
    repository.sleeps(2)
    repository.commit()
    folder.suite("beta", "gamma", alpha=helped)
    repository.sleeps(20)
    sharded = Shards(folder, monkeypatch)
    asked = ("-m", "trtgate_latency", "--trtgate-base=HEAD", LIMIT)
    parts = [sharded.run(*asked, f"--trtgate-shard={number}/2") for number in (1, 2)]
    said = sharded.merge(*parts, expected=1)
    assert f"{ALPHA}: suspected, not checked: host latency" in said
    assert f"NEW: the base HEAD does not have {GAMMA}" in said
    assert "MISSING: removed-eager-fp32-b1 is in the base HEAD and was not measured" in said
    confirmed = sharded.run(*asked, "--trtgate-confirm=merged.json")
    said = sharded.merge(*parts, confirmed, expected=1)
    assert f"FAILED {ALPHA} is slower" in said
    verdicts = {
        one["extra_info"]["trtgate"]["case"]: one["extra_info"]["trtgate"]["verdict"]
        for one in sharded.merged["benchmarks"]
    }
    assert verdicts == {ALPHA: "regressed", BETA: "unchanged"}
    assert {one["extra_info"]["trtgate"]["base"] for one in sharded.merged["benchmarks"]} == {"HEAD"}


# In one process, its workers scripted


def record_of(here: InProcess) -> Any:
    """Return what the newest shard left."""
    newest = max(here.path.glob(".trtgate/runs/*-shard-*.json"), key=lambda file: file.stat().st_mtime_ns)
    return json.loads(newest.read_text())[KEY]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--trtgate-shard=0/2"], "shards of 2 are 1/2 to 2/2"),
        (["--trtgate-shard=\x1b[31m"], "write NUMBER/COUNT, such as 2/8"),
        (["--trtgate-shard=1/2", "--trtgate-update-baselines"], "a merge judges first"),
        (["--trtgate-shard=1/2", "--benchmark-disable"], "--benchmark-disable switches it off"),
        (["--trtgate-shard=1/2", "--trtgate-build-only"], "--trtgate-build-only times nothing"),
        (["--trtgate-shard=1/2", "--trtgate-gpus=all"], "let each card take a shard of its own"),
        (["--trtgate-shard=1/2", "--trtgate-confirm=x.json"], "drop one of them"),
        (["--trtgate-shard=1/2", "--benchmark-compare=pytest.ini"], "write --benchmark-compare without a file"),
        (["--trtgate-shard=1/2", "--benchmark-compare", "--trtgate-changed"], "--trtgate-changed-seed N, the same for"),
        (["--trtgate-shard-by=model"], "add that option"),
        (["--trtgate-confirm=x.json"], "x.json can't be read: No such file"),
        (["--trtgate-confirm=pytest.ini"], "is no run"),
        (["--trtgate-shard=1/2", "-k", "nothing"], "no test of a case was collected"),
    ],
)
def test_what_contradicts_a_shard_is_refused_in_a_line(here: InProcess, arguments: list[str], words: str) -> None:
    status, said = here.run("suite.py", *arguments)
    assert (status, words in said, "Traceback" in said) == (pytest.ExitCode.USAGE_ERROR, True, False)
    assert not (here.path / ".trtgate" / "runs").exists()


def test_shards_divide_the_selected_cases_and_an_empty_one_is_green(here: InProcess) -> None:
    taken = []
    for number in (1, 2, 3):
        assert here.run("suite.py", f"--trtgate-shard={number}/3")[0] == 0
        taken.append(list(record_of(here)["evidence"]))
        assert record_of(here)["complete"]
    assert sorted(case for cases in taken for case in cases) == [ALPHA, BETA]
    assert sorted(map(len, taken)) == [0, 1, 1]
    here.run("suite.py", "--trtgate-shard=1/1", "-k", "beta")
    assert record_of(here)["manifest"]["shards"] == [[BETA]]


def test_a_shard_that_was_stopped_says_so(here: InProcess) -> None:
    (here.path / "suite.py").write_text(suite_text(("alpha",), {"broken": BROKEN}))
    status, said = here.run("suite.py", "--trtgate-shard=1/1", "-x", "-q")
    assert (status, "NOTICE: shard 1/1: not run to its end" in said) == (1, True)
    assert not record_of(here)["complete"]


def test_a_shard_that_was_killed_is_named_and_does_not_count(sharded: Shards) -> None:
    sharded.folder.suite("alpha", "beta")
    hook = "import os\n\n\ndef pytest_runtest_logfinish(nodeid):\n"
    kill = f"{hook}    if 'test_latency[beta' in nodeid and 'KILL' in os.environ:\n        os._exit(9)\n"
    (sharded.folder.path / "conftest.py").write_text(kill)
    killed = sharded.run("--trtgate-shard=1/1", expected=9, KILL=1)
    assert f"({killed}) was not run to its end, and does not count" in sharded.merge(killed, expected=1)
    whole = sharded.run("--trtgate-shard=1/1")
    assert "2 cases: 2 measured" in sharded.merge(killed, whole)


def test_the_order_of_tests_does_not_make_a_shard_foreign(here: InProcess) -> None:
    manifests = []
    for reverse in ("False", "True"):
        sort = f"items.sort(key=lambda item: item.name, reverse={reverse})"
        turn = f"def pytest_collection_modifyitems(items):\n    {sort}\n"
        (here.path / "conftest.py").write_text(turn)
        here.run("suite.py", "--trtgate-shard=1/2", "-p", "no:cacheprovider")
        manifests.append({**record_of(here)["manifest"], "suite": ""})
    assert manifests[0] == manifests[1]


def test_a_shard_that_nobody_typed_is_refused_where_verdicts_are_required(here: InProcess) -> None:
    (here.path / "pytest.ini").write_text("[pytest]\ntrtgate_suite = suite.py\naddopts = --trtgate-shard=1/2\n")
    status, said = here.run("suite.py", "--benchmark-compare", "--trtgate-require=verdict")
    assert (status, "--trtgate-shard in addopts" in said) == (pytest.ExitCode.USAGE_ERROR, True)


def test_tests_of_no_case_run_in_the_first_shard(here: InProcess) -> None:
    (here.path / "test_other.py").write_text("def test_other():\n    pass\n")
    said = [here.run("suite.py", "test_other.py", f"--trtgate-shard={number}/2", "-v")[1] for number in (1, 2)]
    assert ["test_other.py::test_other PASSED" in one for one in said] == [True, False]
