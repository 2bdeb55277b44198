"""The command line: what it prints and writes, on a machine without a GPU, and one line for every mistake."""

from __future__ import annotations

import importlib.metadata
import os
import py_compile
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pynvml
import pytest
from typer.testing import CliRunner

from trtgate.cli import app
from trtgate.commands import doctor_facts, doctor_findings, doctor_probes, doctor_subprocess
from trtgate.common import files
from trtgate.common.accelerator import Accelerator
from trtgate.common.explanations import Explanation, bare, explained, explanation_in
from trtgate.gate import baselines
from trtgate.gate.baseline_record import CaseRecord

from .test_baselines import CARD, document, record

OTHER_CARD = msgspec.structs.replace(CARD, name="NVIDIA Other")
ERROR = 4
CALL = "from trtgate.cli import main; main()"


class Shell:
    """The command in a folder of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def run(self, *arguments: str, exit_code: int = 0) -> str:
        """Run a command that must end with an exit code; returns what it wrote to stdout."""
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == exit_code, result.output
        return result.stdout

    def refused(self, *arguments: str) -> str:
        """Run a command that must end with one readable, explained line; returns it without the explanation's name."""
        result = CliRunner().invoke(app, arguments)
        (line,) = result.stderr.splitlines()
        assert (result.exit_code, result.stdout) == (ERROR, "")
        assert explanation_in(line) in set(Explanation)
        return bare(line.removeprefix("trtgate: error: "))

    def write(self, name: str, text: str) -> Path:
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text.encode())
        return file

    def run_file(self, *records: CaseRecord, name: str = "run.json", card: Accelerator = CARD) -> str:
        files.write_json(self.path / name, document(*records, card=card))
        return name

    def baseline(self, *records: CaseRecord, card: Accelerator = CARD, folder: str = "baselines") -> Path:
        file = baselines.path_of(self.path / folder, card.key)
        files.write_json(file, document(*records, card=card))
        return file

    def files(self) -> dict[str, bytes]:
        """Return path → content of everything here."""
        found = (file for file in self.path.rglob("*") if file.is_file() and ".git" not in file.parent.parts)
        return {file.relative_to(self.path).as_posix(): file.read_bytes() for file in found}


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    (tmp_path / "repository").mkdir()
    monkeypatch.chdir(tmp_path / "repository")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    return Shell(tmp_path / "repository")


@pytest.fixture
def repository(shell: Shell) -> Shell:
    (shell.path / ".git").mkdir()
    return shell


def session_at(recorded: str, of: CaseRecord) -> CaseRecord:
    sessions = [msgspec.structs.replace(session, recorded=recorded) for session in of.sessions]
    return msgspec.structs.replace(of, sessions=sessions)


def now(case: str, us: float, verdict: str = "unchanged") -> CaseRecord:
    """Return what a later run measured."""
    return session_at("2026-02-02T12:30:00+00:00", record(case, us, verdict))


# The command itself


def test_the_installed_command_ends_with_one_line_and_exit_code_4(tmp_path: Path) -> None:
    (script,) = importlib.metadata.entry_points(group="console_scripts", name="trtgate")
    assert script.value == "trtgate.cli:main"
    done = subprocess.run(
        [sys.executable, "-c", CALL, "baseline", "show", "absent"], cwd=tmp_path, capture_output=True, text=True
    )
    said = "trtgate: error: 'absent' is no file, and no accelerator key under baselines; there are: none"
    said = f"{explained(said, Explanation.COMMAND_REFUSED)}\n"
    assert (done.returncode, done.stderr, done.stdout) == (ERROR, said, "")


def test_importing_the_command_imports_nothing_slow() -> None:
    check = "import sys, trtgate.cli; print(sorted({'torch', 'numpy', 'scipy', 'pytest'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", check], capture_output=True, text=True).stdout == "[]\n"


@pytest.mark.parametrize("arguments", [(), ("baseline",), ("--help",), ("baseline", "accept", "--help")])
def test_help(shell: Shell, arguments: tuple[str, ...]) -> None:
    assert "Usage: " in CliRunner().invoke(app, arguments).output


# init


def test_init_writes_a_suite_its_configuration_and_a_workflow(repository: Shell) -> None:
    said = repository.run("init")
    files = repository.files()
    assert sorted(files) == [
        ".github/workflows/trtgate.yml", ".gitignore", "benchmarks/trtgate_suite.py", "pytest.ini",
    ]  # fmt: skip
    assert all(f"{name}: " in said for name in files)
    assert "pytest benchmarks --trtgate-update-baselines" in said
    gate = "pytest benchmarks --benchmark-compare --trtgate-require=gpu,baseline,verdict"
    assert gate in files[".github/workflows/trtgate.yml"].decode()
    assert files[".gitignore"] == b".trtgate/\n"


@pytest.mark.parametrize("more", [(), ("--force",)])
def test_a_second_init_changes_nothing(repository: Shell, more: tuple[str, ...]) -> None:
    repository.run("init")
    before = {file: file.stat().st_mtime_ns for file in repository.path.rglob("*")}
    said = repository.run("init", *more)
    assert {file: file.stat().st_mtime_ns for file in repository.path.rglob("*")} == before
    assert said.count(": is there") == 4


def test_a_suite_of_ones_own_is_kept_unless_force_is_given(repository: Shell) -> None:
    suite = repository.write("benchmarks/trtgate_suite.py", "# mine\n")
    assert "trtgate_suite.py: is there with other content, kept" in repository.run("init")
    assert suite.read_text() == "# mine\n"
    assert "trtgate_suite.py: overwritten" in repository.run("init", "--force")
    assert "@trtgate.model" in suite.read_text()


def test_another_path(repository: Shell) -> None:
    repository.run("init", "--path", "./perf tests/../perf tests/cases.py")
    assert b"\ntrtgate_suite = perf tests/cases.py\n" in repository.files()["pytest.ini"]
    assert b"run: pytest 'perf tests' --benchmark-compare" in repository.files()[".github/workflows/trtgate.yml"]


def test_without_git_nothing_is_ignored(shell: Shell) -> None:
    shell.run("init")
    assert ".gitignore" not in shell.files()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("*.pyc", "*.pyc\n.trtgate/\n"),
        ("*.pyc\r\n", "*.pyc\r\n.trtgate/\r\n"),
        ("/.trtgate/\n", "/.trtgate/\n"),
        (".trtgate", ".trtgate"),
    ],
)
def test_gitignore(repository: Shell, before: str, after: str) -> None:
    repository.write(".gitignore", before)
    repository.run("init")
    assert repository.files()[".gitignore"] == after.encode()


def test_in_a_part_of_a_repository_the_workflow_lies_at_its_top(
    repository: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    (repository.path / "part").mkdir()
    monkeypatch.chdir(repository.path / "part")
    said = repository.run("init")
    files = repository.files()
    assert "../.github/workflows/trtgate.yml: written" in said
    assert sorted(files) == [
        ".github/workflows/trtgate.yml", "part/.gitignore", "part/benchmarks/trtgate_suite.py", "part/pytest.ini",
    ]  # fmt: skip
    workflow = files[".github/workflows/trtgate.yml"].decode()
    assert "working-directory: part\n" in workflow
    assert "path: part/.trtgate/runs\n" in workflow


INI = "trtgate_suite = benchmarks/trtgate_suite.py\ntrtgate_baselines = baselines\n"
TOML = 'trtgate_suite = "benchmarks/trtgate_suite.py"\ntrtgate_baselines = "baselines"\n'
HAND_WRITTEN = [
    ("pytest.ini", "# first\n[pytest]  # ours\n", INI, "addopts =\n  -ra\n  --strict-markers\n\n[other]\na = 1\n"),
    ("pytest.ini", "[pytest]\r\n", INI.replace("\n", "\r\n"), "addopts = -ra\r\n"),
    ("pytest.ini", "", "[pytest]\n" + INI, ""),
    ("pytest.ini", "# empty", "\n[pytest]\n" + INI, ""),
    (".pytest.ini", "[pytest]\n", INI, ""),
    ("tox.ini", "[tox]\nenvlist = py\n[pytest]\n", INI, "addopts = -ra\n"),
    ("setup.cfg", "[metadata]\nname = a\n\n[tool:pytest]", "\n" + INI, ""),
    ("pyproject.toml", "[tool.pytest.ini_options]\n", TOML, "addopts = [\n  '-ra',\n]\n[tool.ruff]\nx = 1\n"),
    ("pyproject.toml", "[ tool . pytest.ini_options ] # ours\n", TOML, "# of pytest\n"),
    ("pyproject.toml", "a = '''\n[tool.black]\n'''\n[tool.pytest.ini_options]\n", TOML, "addopts = '-ra'"),
]


@pytest.mark.parametrize(("name", "head", "added", "tail"), HAND_WRITTEN)
def test_the_rest_of_a_configuration_stays_byte_for_byte(
    repository: Shell, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch,
    name: str, head: str, added: str, tail: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(repository.path)
    file = repository.write(name, head + tail)
    file.chmod(0o640)
    assert f"{name}: " in repository.run("init")
    assert file.read_bytes() == (head + added + tail).encode()
    assert file.stat().st_mode & 0o777 == 0o640
    assert_pytest_reads(file, pytester)


@pytest.mark.skipif(int(pytest.__version__.split(".")[0]) < 9, reason="pytest 9 reads these")
@pytest.mark.parametrize(
    ("name", "head", "tail"),
    [
        ("pyproject.toml", "[tool.pytest]\n", 'addopts = ["-ra"]\n'),
        ("pytest.toml", "[pytest]\n", 'addopts = ["-ra"]\n'),
    ],
)
def test_native_toml(
    repository: Shell, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, name: str, head: str, tail: str
) -> None:
    monkeypatch.chdir(repository.path)
    file = repository.write(name, head + tail)
    repository.run("init")
    assert file.read_text() == head + TOML + tail
    assert_pytest_reads(file, pytester)


def assert_pytest_reads(file: Path, pytester: pytest.Pytester) -> None:
    config = pytester.parseconfig("-p", "no:cacheprovider", "--rootdir", str(file.parent), "benchmarks")
    assert config.inipath == file
    assert config.getini("trtgate_suite") == "benchmarks/trtgate_suite.py"
    assert config.getini("trtgate_baselines") == "baselines"


def test_only_the_file_that_pytest_reads_is_edited(repository: Shell) -> None:
    others = {
        "pyproject.toml": b"[tool.pytest.ini_options]\naddopts = '-ra'\n",
        "setup.cfg": b"[metadata]\nname = a\n",
        "tox.ini": b"[pytest]\n",
    }
    for name, content in others.items():
        repository.write(name, content.decode())
    repository.write("pytest.ini", "[pytest]\n")
    repository.run("init")
    files = repository.files()
    assert {name: files[name] for name in others} == others
    assert files["pytest.ini"] == b"[pytest]\n" + INI.encode()


def test_a_pyproject_without_pytest_in_it_gets_a_pytest_ini_beside_it(repository: Shell) -> None:
    repository.write("pyproject.toml", '[project]\nname = "a"\n')
    repository.run("init")
    assert repository.files()["pyproject.toml"] == b'[project]\nname = "a"\n'
    assert repository.files()["pytest.ini"] == b"[pytest]\n" + INI.encode()


@pytest.mark.parametrize(
    ("files", "arguments", "words"),
    [
        ({"pytest.ini": "[pytest]\ntrtgate_suite = mine.py\n"}, "", "pytest.ini trtgate_suite 'mine.py'"),
        ({"pytest.ini": "[pytest]\ntrtgate_baselines = base\n"}, "", "pytest.ini trtgate_baselines 'base'"),
        ({"pyproject.toml": "[tool.pytest\n"}, "", "pyproject.toml can't read line 1"),
        ({"pytest.ini": "no section\n"}, "", "pytest.ini:1"),
        ({"pyproject.toml": "[tool]\npytest.ini_options.a = 1\n"}, "", "pyproject.toml [tool.pytest.ini_options]"),
        ({"pyproject.toml": "[tool.pytest]\nini_options = {a = 1}\n"}, "", "pyproject.toml [tool.pytest.ini_options]"),
        ({"benchmarks/pytest.ini": "[pytest]\n"}, "", "benchmarks/pytest.ini run trtgate init in"),
        ({"benchmarks": "a file\n"}, "", "benchmarks/trtgate_suite.py not be written"),
        ({}, "--path suite.txt", "suite.txt .py"),
        ({}, "--path ../suite.py", "../suite.py inside"),
    ],
)
def test_init_refuses_before_it_writes(repository: Shell, files: dict[str, str], arguments: str, words: str) -> None:
    for name, text in files.items():
        repository.write(name, text)
    line = repository.refused("init", *arguments.split())
    assert [word for word in words.split() if word not in line] == []
    assert repository.files() == {name: text.encode() for name, text in files.items()}


def test_configuration_above_in_the_same_repository(repository: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    repository.write("pytest.ini", "[pytest]\n")
    (repository.path / "part").mkdir()
    monkeypatch.chdir(repository.path / "part")
    assert f"run trtgate init in {repository.path}" in repository.refused("init")


def test_text_that_is_not_utf8(repository: Shell) -> None:
    (repository.path / "pytest.ini").write_bytes(b"[pytest]\n# \xff\n")
    assert "pytest.ini can't be read: it is not UTF-8" in repository.refused("init")


# baseline show


def test_show_lists_the_cases_of_all_keys(shell: Shell) -> None:
    shell.baseline(now("b-eager-fp32", 2500.0), record("a-dynamo-fp16-b1", 100.0))
    shell.baseline(record("a-dynamo-fp16-b1", 90.0), card=OTHER_CARD)
    lines = shell.run("baseline", "show").splitlines()
    assert lines == [
        "baselines/nvidia-other-80gib/latency.json",
        "NVIDIA Other (nvidia-other-80gib): torch 2.14.0",
        "case              latency  sessions  cards     recorded last       clock",
        "a-dynamo-fp16-b1    90 µs         1      1  2026-01-01 00:00  cuda_graph",
        "",
        "baselines/nvidia-test-80gib/latency.json",
        "NVIDIA Test (nvidia-test-80gib): torch 2.14.0",
        "case              latency  sessions  cards     recorded last       clock",
        "a-dynamo-fp16-b1   100 µs         1      1  2026-01-01 00:00  cuda_graph",
        "b-eager-fp32       2.5 ms         1      1  2026-02-02 12:30  cuda_graph",
    ]


@pytest.mark.parametrize("name", [CARD.key, f"baselines/{CARD.key}", f"baselines/{CARD.key}/latency.json"])
def test_show_one(shell: Shell, name: str) -> None:
    shell.baseline(record("a", 100.0))
    shell.baseline(record("b", 100.0), card=OTHER_CARD)
    said = shell.run("baseline", "show", name)
    assert "NVIDIA Test" in said
    assert "NVIDIA Other" not in said


@pytest.mark.parametrize(
    ("files", "arguments"),
    [
        ({"pytest.ini": "[pytest]\ntrtgate_baselines = kept\n"}, ""),
        ({"pyproject.toml": "[tool.pytest.ini_options]\ntrtgate_baselines = 'kept'\n"}, ""),
        ({"pytest.ini": "[pytest]\ntrtgate_baselines = elsewhere\n"}, "--baselines kept"),
    ],
)
def test_where_the_baselines_are(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], arguments: str
) -> None:
    for name, text in files.items():
        shell.write(name, text)
    shell.baseline(record("a", 100.0), folder="kept")
    assert "100 µs" in shell.run("baseline", "show", *arguments.split())
    if not arguments:
        (shell.path / "below").mkdir()
        monkeypatch.chdir(shell.path / "below")
        assert shell.run("baseline", "show").startswith("../kept/")


def test_nothing_to_show(shell: Shell) -> None:
    assert "no baseline under baselines" in shell.refused("baseline", "show")
    shell.baseline(record("a", 100.0))
    assert f"did you mean {CARD.key!r}?" in shell.refused("baseline", "show", "nvidia-tst-80gib")


WITHOUT_LATENCY = msgspec.structs.replace(
    record("a", 1.0), sessions=[msgspec.structs.replace(record("a", 1.0).sessions[0], metrics={})]
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"trtgate": {"schema": 1}', "not valid JSON"),
        ('{"benchmarks": []}', "not one of trtgate's files"),
        ('{"trtgate": {"schema": 9}}', "schema 9"),
        (files.pretty(document()), "holds no case"),
        (files.pretty(document(record("a", 1.0))).replace("1.0", "-1.0"), "case a: device must be positive"),
        (files.pretty(document(WITHOUT_LATENCY)), "case a has a session without latencies"),
    ],
)
@pytest.mark.parametrize("command", ["show", "diff", "accept"])
def test_broken_files(shell: Shell, command: str, text: str, words: str) -> None:
    shell.write("run.json", text)
    shell.run_file(record("a", 100.0), name="good.json")
    more = ["good.json"] if command == "diff" else []
    line = shell.refused("baseline", command, "run.json", *more)
    assert "run.json" in line
    assert words in line
    assert not (shell.path / "baselines").exists()


# baseline diff


def test_diff_of_a_baseline_and_a_run(shell: Shell) -> None:
    shell.baseline(record("slower", 100.0), record("faster", 100.0), record("gone", 100.0))
    newer = msgspec.structs.replace(CARD, driver="580.1", libraries={"torch": "2.15.0"})
    run = shell.run_file(now("slower", 102.5), now("faster", 90.0), now("new", 1.0), card=newer)
    assert shell.run("baseline", "diff", CARD.key, run).splitlines() == [
        "old: baselines/nvidia-test-80gib/latency.json",
        "new: run.json",
        "case       old       new   change",
        "slower  100 µs  102.5 µs   +2.50%",
        "faster  100 µs     90 µs  -10.00%",
        "new                 1 µs      new",
        "gone    100 µs               gone",
        "between them: driver  → 580.1, torch 2.14.0 → 2.15.0",
        "These are differences of means, no verdicts: pytest --benchmark-compare judges.",
    ]


def test_latencies_of_different_clocks_are_not_compared(shell: Shell) -> None:
    (session,) = record("a", 50.0).sessions
    on_host = msgspec.structs.replace(session, clock="host", metrics={"host": [[50.0]]})
    shell.run_file(record("a", 100.0), name="old.json")
    shell.run_file(msgspec.structs.replace(record("a", 50.0), sessions=[on_host]), name="new.json")
    said = shell.run("baseline", "diff", "old.json", "new.json")
    assert "clock cuda_graph → host" in said
    assert "%" not in said


def test_diff_of_different_accelerators(shell: Shell) -> None:
    shell.run_file(record("a", 100.0), name="old.json")
    shell.run_file(record("a", 100.0), name="new.json", card=OTHER_CARD)
    line = shell.refused("baseline", "diff", "old.json", "new.json")
    assert f"old.json was recorded on {CARD.key}, and new.json on {OTHER_CARD.key}" in line
    shell.run_file(record("b", 100.0), name="new.json", card=OTHER_CARD)  # nothing in common: nothing to compare
    assert "gone" in shell.run("baseline", "diff", "old.json", "new.json")


# baseline accept


def test_accept_stores_what_did_not_regress_and_leaves_the_rest_byte_for_byte(shell: Shell) -> None:
    stored = shell.baseline(record("a", 100.0), record("b", 200.5), record("c", 300.0), record("d", 400.0))
    before = entries(stored)
    run = shell.run_file(now("a", 101.0), now("b", 250.0, "regressed"), now("c", 1.0, "incomparable"), now("e", 5.0))
    assert shell.run("baseline", "accept", run).splitlines() == [
        "stored: a: 100 → 101 µs, 2 sessions (+1.00%)",
        "stored: e: 5 µs, 1 session (new)",
        "left out: b is regressed; name it to store it",
        "left out: c is incomparable; name it to store it",
        f"written: baselines/{CARD.key}/latency.json",
    ]
    after = entries(stored)
    assert sorted(after) == ["a", "b", "c", "d", "e"]
    assert {case: after[case] for case in "bcd"} == {case: before[case] for case in "bcd"}
    assert after["a"] != before["a"]


def entries(file: Path) -> dict[str, str]:
    """Return case → its text in a file, byte for byte."""
    parts = file.read_text().split('\n  {\n   "fullname": "t.py::test[')[1:]
    return {part[0]: part.partition("\n  }")[0] for part in parts}


def test_named_cases_are_stored_although_they_regressed(shell: Shell) -> None:
    stored = shell.baseline(record("a", 100.0), record("b-eager", 200.0), record("b-dynamo", 300.0))
    run = shell.run_file(now("a", 101.0), now("b-eager", 250.0, "regressed"), now("b-dynamo", 301.0))
    said = shell.run("baseline", "accept", run, "b-*").splitlines()
    assert said[:2] == [
        "stored: b-eager: 200 → 250 µs, 1 session (+25.00%), older sessions dropped",
        "stored: b-dynamo: 300 → 301 µs, 2 sessions (+0.33%)",  # it did not regress: one more session of the same code
    ]
    assert baselines.read(stored).cases["a"] == record("a", 100.0)


def test_accepting_twice_counts_a_session_once(shell: Shell) -> None:
    stored = shell.baseline(record("a", 100.0))
    run = shell.run_file(now("a", 101.0))
    shell.run("baseline", "accept", run)
    before = stored.read_bytes()
    assert shell.run("baseline", "accept", run) == "is stored already: a\n"
    assert stored.read_bytes() == before


def test_accept_begins_a_baseline(shell: Shell) -> None:
    run = shell.run_file(record("a", 100.0, "new"), card=OTHER_CARD)
    assert "stored: a: 100 µs, 1 session (new)" in shell.run("baseline", "accept", run, "--baselines", "kept")
    assert baselines.read(shell.path / "kept" / OTHER_CARD.key / "latency.json").cases.keys() == {"a"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run.json", "resnet-eagr"], "run.json has no case 'resnet-eagr'; did you mean 'resnet-eager'?"),
        (["run.json"], "nothing to store, resnet-eager is regressed; name the cases"),
        (["absent.json"], "absent.json can't be read: No such file"),
        (["."], "can't be read"),
    ],
)
def test_accept_refuses(shell: Shell, arguments: list[str], words: str) -> None:
    stored = shell.baseline(record("resnet-eager", 100.0))
    before = stored.read_bytes()
    shell.run_file(now("resnet-eager", 200.0, "regressed"))
    assert words in shell.refused("baseline", "accept", *arguments)
    assert stored.read_bytes() == before


def test_a_broken_baseline_stays_as_it_is(shell: Shell) -> None:
    shell.write(f"baselines/{CARD.key}/latency.json", "{")
    run = shell.run_file(record("a", 100.0))
    assert "latency.json is not valid JSON" in shell.refused("baseline", "accept", run)
    assert shell.files()[f"baselines/{CARD.key}/latency.json"] == b"{"


def test_accept_needs_no_torch(shell: Shell) -> None:
    run = shell.run_file(record("a", 100.0))
    call = "import atexit, sys; atexit.register(lambda: print('torch' in sys.modules)); " + CALL
    done = subprocess.run([sys.executable, "-c", call, "baseline", "accept", run], capture_output=True, text=True)
    assert (done.returncode, done.stdout.splitlines()[-1], done.stderr) == (0, "False", "")
    assert baselines.keys(shell.path / "baselines") == [CARD.key]


# doctor


def test_doctor_here_without_a_gpu(shell: Shell, forked: None) -> None:
    """The real thing: asks torch in a process of its own."""
    shell.baseline(record("a", 100.0))
    result = CliRunner().invoke(app, ["doctor", "--json"])
    assert result.exit_code == 0, result.output
    assert "importing torch" in result.stderr
    report = msgspec.json.decode(result.stdout, type=doctor_findings.DoctorReport)
    assert report.facts.packages["torch"] == importlib.metadata.version("torch")
    assert report.facts.torch.version.startswith(report.facts.packages["torch"])
    assert report.key.startswith("cpu-")
    assert [stored.key for stored in report.facts.baselines] == [CARD.key]
    runs = {state.name: state.runs for state in report.frontends}
    assert (runs["eager"], runs["dynamo"]) == (True, False)


def test_what_doctor_prints(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        doctor_probes,
        "probe",
        lambda folder, step: facts(baselines=[doctor_facts.StoredBaseline(key=CARD.key, cases=3)]),
    )
    said = shell.run("doctor")
    assert "NVIDIA Test 80 GiB GPU-1; driver 580.95 (up to CUDA 13.0)" in said
    assert "2.14.0+cu130, built for CUDA 13.0, uses NVIDIA Test, compute capability 9.0" in said
    assert "dynamo_frontend, no fx_frontend" in said
    assert f"{CARD.key} (this machine)" in said
    assert "runtime cache  stored with each compiled module" in said
    assert "an NVIDIA driver of 580 or newer" in said
    assert said.endswith("Nothing is broken.\n")


def test_doctor_with_something_broken(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = facts(torch=torch(device="", device_error="RuntimeError: no luck"))
    monkeypatch.setattr(doctor_probes, "probe", lambda folder, step: broken)
    said = shell.run("doctor", exit_code=1)
    assert "BROKEN: NVML sees NVIDIA Test, and torch can't use it: RuntimeError: no luck" in said
    assert "torch can't use the GPU" in said


def test_doctor_says_that_an_older_release_has_no_runtime_cache(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_probes, "probe", lambda folder, step: facts(runtime_cache="none"))
    assert "runtime cache  none: only TensorRT-RTX with torch_tensorrt 2.13 or newer" in shell.run("doctor")


def test_doctor_notes_packages_without_bytecode_and_breaks_nothing(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor_probes, "probe", lambda folder, step: facts(bytecode=[bytecode()]))
    said = shell.run("doctor").splitlines()
    (note,) = doctor_findings.notes(facts(bytecode=[bytecode()]))
    assert said[-3:] == [f"note: {note}", "", "Nothing is broken."]
    assert msgspec.json.decode(shell.run("doctor", "--json"))["notes"] == [note]


def torch(**fields: Any) -> doctor_facts.Torch:
    usual = {"version": "2.14.0+cu130", "cuda": "13.0", "device": "NVIDIA Test", "capability": "9.0"}
    return doctor_facts.Torch(**usual | fields)


def nvml(**fields: Any) -> doctor_facts.Nvml:
    card = doctor_facts.Card(name="NVIDIA Test", uuid="GPU-1", memory_bytes=80 << 30, mig=fields.pop("mig", False))
    return doctor_facts.Nvml(**{"driver": "580.95", "cuda": "13.0", "cards": [card]} | fields)


def facts(**fields: Any) -> doctor_facts.Facts:
    """Return what is found on a machine with a GPU where all is well, but for some fields."""
    usual = {
        "python": "3.12",
        "system": "Linux",
        "packages": {"torch": "2.14.0", "torch-tensorrt-rtx": "2.14.0"},
        "mismatches": [],
        "visible_devices": None,
        "device": CARD,
        "device_error": "",
        "nvml": nvml(),
        "torch": torch(),
        "features": doctor_facts.Features(enabled={"dynamo_frontend": True, "fx_frontend": False}),
        "runtime_cache": "artifact",
        "compiler": "/usr/bin/g++",
        "bytecode": [bytecode(compiled=2352)],
        "free_disk_bytes": 1 << 40,
        "baselines_folder": "baselines",
        "baselines": [],
    }
    return doctor_facts.Facts(**usual | fields)


def bytecode(**fields: Any) -> doctor_facts.Bytecode:
    """Return what is found of torch where nothing is compiled, and imports compile nothing."""
    usual = {"folder": "/site/torch", "files": 2352, "compiled": 0, "unwritten": "it is switched off"}
    return doctor_facts.Bytecode(**usual | fields)


def test_a_note_says_once_what_every_process_compiles_and_how_to_end_that() -> None:
    vision = bytecode(folder="/a b/torchvision", files=185, compiled=7, unwritten="/a b is not writable")
    (note,) = doctor_findings.notes(facts(bytecode=[bytecode(), vision, bytecode(folder="/site/torch_tensorrt")]))
    assert "(it is switched off; /a b is not writable)" in note
    assert "torch (0 of 2352 files), torchvision (7 of 185 files), torch_tensorrt (0 of 2352 files)" in note
    assert "`uv pip install --compile-bytecode`" in note
    assert note.endswith(f": {sys.executable} -m compileall -q -j 0 /site '/a b'")


@pytest.mark.parametrize(
    "fine",
    [
        pytest.param({"unwritten": ""}, id="the first process that imports it compiles it for all"),
        pytest.param({"compiled": 2351}, id="a file has syntax of a newer Python"),
        pytest.param({"files": 0}, id="installed as bytecode alone"),
    ],
)
def test_no_note_where_processes_compile_nothing_anew(fine: dict[str, Any]) -> None:
    assert doctor_findings.notes(facts(bytecode=[bytecode(**fine)])) == []


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of two files; nothing is compiled."""
    folder = tmp_path / "site" / "half_compiled"
    folder.joinpath("sub").mkdir(parents=True)
    for name in ("__init__.py", "sub/part.py"):
        (folder / name).touch()
    monkeypatch.syspath_prepend(folder.parent)
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    monkeypatch.setattr(sys, "pycache_prefix", None)
    return folder


def test_doctor_counts_the_bytecode_of_packages(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    py_compile.compile(str(package / "sub" / "part.py"))
    counted = doctor_facts.Bytecode(folder=str(package), files=2, compiled=1)
    assert doctor_probes.bytecode([package.name, "absent"]) == [counted]
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (found,) = doctor_probes.bytecode([package.name])
    assert found.unwritten == "PYTHONDONTWRITEBYTECODE is set, or -B"


def test_bytecode_of_another_place_counts_there(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PYTHONPYCACHEPREFIX: neither what lies beside the sources nor whether that can be written says anything."""
    writable = {tmp_path / "cache"}
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) in writable)  # root may write everywhere
    py_compile.compile(str(package / "__init__.py"))
    (found,) = doctor_probes.bytecode([package.name])
    assert (found.compiled, found.unwritten) == (1, f"{package / '__pycache__'} is not writable")
    (tmp_path / "cache").mkdir()
    monkeypatch.setattr(sys, "pycache_prefix", str(tmp_path / "cache"))
    (found,) = doctor_probes.bytecode([package.name])
    assert (found.compiled, found.unwritten) == (0, "")


CPU = Accelerator(kind="cpu", name="Test CPU", cpus=2)
NO_DRIVER = doctor_facts.Nvml(absent="NVML Shared Library Not Found")
NO_GPU = {"device": CPU, "nvml": NO_DRIVER, "torch": torch(device="", device_error="RuntimeError: no driver")}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"nvml": nvml(driver="535.1"), "torch": torch(device="", device_error="x")}, "driver is 535.1 580 CUDA 13.0"),
        (
            {"nvml": nvml(driver="470.1"), "torch": torch(cuda="12.8", device="", device_error="x")},
            "driver is 470.1 525 CUDA 12.8",
        ),
        ({"torch": torch(cuda="", device="", device_error="x")}, "NVIDIA Test built without CUDA"),
        ({"torch": torch(device_error="no kernel image is available")}, "torch can't use it no kernel image"),
        ({"torch": doctor_facts.Torch(error="ImportError: libcudart.so")}, "torch can't be imported libcudart.so"),
        ({"torch": torch(torchvision_error="RuntimeError: nms")}, "torchvision can't be imported nms"),
        (
            {"features": doctor_facts.Features(error="ImportError: libnvinfer.so")},
            "torch_tensorrt installed libnvinfer.so",
        ),
        ({"packages": {"torch-tensorrt": "2.14.0", "torch-tensorrt-rtx": "2.14.0"}}, "overwrite each other"),
        ({"mismatches": ["torch-tensorrt-rtx 2.11.0 needs torch<2.12"]}, "needs torch<2.12"),
        ({"nvml": nvml(mig=True)}, "MIG CUDA_VISIBLE_DEVICES"),
        ({"device": None, "device_error": "CUDA_VISIBLE_DEVICES='7' names no GPU"}, "'7' names no GPU"),
        (NO_GPU | {"nvml": doctor_facts.Nvml(error="Driver/library version mismatch")}, "NVML version mismatch"),
        (NO_GPU | {"torch": torch()}, "torch sees NVIDIA Test CPU"),
        (
            {"baselines": [doctor_facts.StoredBaseline(key="k", error="k/latency.json is broken")]},
            "k/latency.json is broken",
        ),
    ],
)  # fmt: skip
def test_each_broken_thing_is_one_problem(fields: dict[str, Any], words: str) -> None:
    (problem,) = doctor_findings.problems(facts(**fields))
    assert [word for word in words.split() if word not in problem] == []


@pytest.mark.parametrize(
    "fields",
    [
        {},
        NO_GPU,
        {"packages": {"torch": "2.14.0"}, "features": doctor_facts.Features(guessed=True)},
        {"nvml": nvml(mig=True), "device": msgspec.structs.replace(CARD, mig_profile="1g.10gb")},
        {"compiler": ""},
    ],
    ids=["gpu", "no-gpu", "no-torch_tensorrt", "mig", "no-compiler"],
)
def test_what_a_machine_merely_lacks_is_no_problem(fields: dict[str, Any]) -> None:
    assert doctor_findings.problems(facts(**fields)) == []


@pytest.mark.parametrize(
    ("name", "fields", "words"),
    [
        ("eager", {}, ""),
        ("dynamo", {}, ""),
        ("eager", NO_GPU, ""),
        ("dynamo", NO_GPU, "needs a GPU"),
        ("dynamo", {"features": doctor_facts.Features(error="ImportError: x")}, "torch_tensorrt can't be imported"),
        ("eager", {"torch": doctor_facts.Torch(error="ImportError: x")}, "ImportError: x"),
        ("eager", {"torch": torch(device_error="x")}, "torch can't use the GPU"),
    ],
)
def test_which_frontends_run(monkeypatch: pytest.MonkeyPatch, name: str, fields: dict[str, Any], words: str) -> None:
    monkeypatch.setattr("trtgate.torch_trt.releases.unavailable", lambda: "")
    state = doctor_findings.frontend_state(name, facts(**fields))
    assert state.runs == (words == "")
    assert words in state.said


@pytest.fixture
def python_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    def replace(does: str) -> None:
        script = tmp_path / "python"
        script.write_text(f"#!/bin/sh\n{does}\n")
        script.chmod(0o755)
        monkeypatch.setattr(doctor_subprocess.sys, "executable", str(script))

    return replace


@pytest.mark.parametrize(
    ("does", "error"),
    [
        ("kill -SEGV $$", "its process was killed by SIGSEGV"),
        ("echo first; echo last >&2; exit 3", "its process ended with exit code 3: last"),
        ("exec sleep 60", "no answer within 0 s"),
        ("", "its process ended with exit code 0"),
    ],
)
def test_whatever_becomes_of_a_probe_is_an_answer(
    monkeypatch: pytest.MonkeyPatch, python_that: Callable[[str], None], does: str, error: str
) -> None:
    monkeypatch.setattr(doctor_subprocess, "PROBE_TIMEOUT_S", 0.3)
    python_that(does)
    assert doctor_subprocess.ask("torch", doctor_facts.Torch) == doctor_facts.Torch(error=error)


def test_a_probe_may_print_before_it_answers(python_that: Callable[[str], None]) -> None:
    python_that("""echo 'loading plugins'; echo '{"version": "2.14.0"}'""")
    assert doctor_subprocess.ask("torch", doctor_facts.Torch) == doctor_facts.Torch(version="2.14.0")


def test_what_nvml_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """With functions of nvidia-ml-py replaced, as there may be no GPU."""
    answers = {
        "nvmlInit": None,
        "nvmlShutdown": None,
        "nvmlDeviceGetCount": 1,
        "nvmlDeviceGetHandleByIndex": "handle",
        "nvmlSystemGetDriverVersion": "580.95",
        "nvmlSystemGetCudaDriverVersion_v2": 13010,
        "nvmlDeviceGetName": "NVIDIA Test",
        "nvmlDeviceGetUUID": "GPU-1",
        "nvmlDeviceGetMemoryInfo": SimpleNamespace(total=80 << 30),
        "nvmlDeviceGetMigMode": [pynvml.NVML_DEVICE_MIG_ENABLE, pynvml.NVML_DEVICE_MIG_ENABLE],
    }
    for name, answer in answers.items():
        monkeypatch.setattr(pynvml, name, lambda *_, answer=answer: answer)
    assert doctor_probes.probe_nvml() == nvml(cuda="13.1", mig=True)

    def refuse(*_: object) -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    monkeypatch.setattr(pynvml, "nvmlDeviceGetMigMode", refuse)  # most cards have no such mode
    assert doctor_probes.probe_nvml() == nvml(cuda="13.1")
    monkeypatch.setattr(pynvml, "nvmlDeviceGetCount", lambda: 0)
    assert doctor_probes.probe_nvml().absent == "NVML knows no GPU"


@pytest.mark.parametrize(
    ("code", "broken"),
    [
        (pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, False),
        (pynvml.NVML_ERROR_DRIVER_NOT_LOADED, False),
        (pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH, True),
    ],
)
def test_no_nvml_is_no_gpu_and_a_broken_nvml_is_a_problem(
    monkeypatch: pytest.MonkeyPatch, code: int, broken: bool
) -> None:
    def refuse() -> None:
        raise pynvml.NVMLError(code)

    monkeypatch.setattr(pynvml, "nvmlInit", refuse)
    found = doctor_probes.probe_nvml()
    assert (bool(found.error), bool(found.absent)) == (broken, not broken)
    assert len(doctor_findings.problems(facts(**NO_GPU | {"nvml": found}))) == broken


def test_requirements_of_torch_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"torch-tensorrt-rtx": "2.11.0", "torch": "2.14.0+cu130", "tensorrt_rtx": "1.4.0.76"}
    wanted = ["torch<2.12.0,>=2.11.0", "tensorrt_rtx<1.5,>=1.4", "numpy>=99", "torchao>=1; extra == 'all'"]

    def version(name: str) -> str:
        if name not in versions:
            raise importlib.metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr("trtgate.commands.doctor_probes.metadata.version", version)
    monkeypatch.setattr("trtgate.commands.doctor_probes.metadata.requires", lambda name: wanted)
    assert doctor_probes.unmet("torch-tensorrt-rtx") == [
        "torch-tensorrt-rtx 2.11.0 needs torch<2.12.0,>=2.11.0, and 2.14.0+cu130 is installed"
    ]
    versions["torch"] = "2.11.0+cu130"
    assert doctor_probes.unmet("torch-tensorrt-rtx") == []


def test_a_requirement_without_metadata_that_can_be_imported_is_no_mismatch(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def version(name: str) -> str:
        if name != "torch-tensorrt-rtx":
            raise importlib.metadata.PackageNotFoundError(name)
        return "2.11.0"

    monkeypatch.setattr("trtgate.commands.doctor_probes.metadata.version", version)
    monkeypatch.setattr("trtgate.commands.doctor_probes.metadata.requires", lambda name: ["tensorrt-unpacked>=1.4"])
    assert len(doctor_probes.unmet("torch-tensorrt-rtx")) == 1
    (tmp_path / "tensorrt_unpacked.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    assert doctor_probes.unmet("torch-tensorrt-rtx") == []
