"""The ready files for schedulers: valid, counting as each scheduler does; Slurm's run for real, but for sbatch."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import typer.main

from tests.pytest_folder import LEAN
from tests.test_documents import ROOT
from trtgate.cli import app
from trtgate.fleet.merged_document import UNCONFIRMED

CI = ROOT / "docs" / "ci"
DOCUMENT = (ROOT / "docs" / "schedulers.md").read_text()
GITHUB, BUILDKITE = "github-shards.yml", "buildkite.yml"
KUBERNETES = ("kubernetes-shards.yml", "kubernetes-judge.yml")
SCRIPTS = sorted(path.name for path in CI.iterdir() if path.suffix in (".sh", ".sbatch"))


def parsed(name: str) -> Any:
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    return yaml.safe_load((CI / name).read_text())


def container(name: str) -> Any:
    (found,) = parsed(name)["spec"]["template"]["spec"]["containers"]
    return found


def commands(name: str) -> list[str]:
    """Return what a shell is given, as it gets it."""
    if name in KUBERNETES:
        return list(container(name)["args"])
    if name == BUILDKITE:
        return [line.replace("$$", "$") for step in parsed(name)["steps"] for line in step["command"]]
    if name == GITHUB:
        return [step["run"] for job in parsed(name)["jobs"].values() for step in job["steps"] if "run" in step]
    return [(CI / name).read_text()]


FILES = [*SCRIPTS, *KUBERNETES, BUILDKITE, GITHUB]


# Valid


@pytest.mark.parametrize(
    ("schema", "names"),
    [
        ("github-workflows", ["github-actions.yml", GITHUB]),
        ("buildkite", [BUILDKITE]),
        ("gitlab-ci", ["gitlab-ci.yml"]),
    ],
)
def test_the_schedulers_own_schemas_take_them(schema: str, names: list[str]) -> None:
    pytest.importorskip("check_jsonschema", reason="check-jsonschema is not installed")
    files = [str(CI / name) for name in names]
    done = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", *files],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", KUBERNETES)
def test_kubernetes_takes_the_jobs(name: str) -> None:
    kubernetes = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    kubernetes.validate(parsed(name), "1.33", strict=True)


@pytest.mark.parametrize("name", FILES)
def test_bash_reads_every_script(name: str) -> None:
    for text in commands(name):
        plain = re.sub(r"\$\{\{.*?\}\}", "1", text)
        done = subprocess.run(["bash", "-n"], input=plain, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def options_of(command: str) -> set[str]:
    found = typer.main.get_command(app).commands[command]  # type: ignore[attr-defined]
    return {option for parameter in found.params for option in parameter.opts}


@pytest.mark.parametrize("name", FILES)
def test_options_of_the_command_exist(name: str) -> None:
    for line in "\n".join(commands(name)).replace("\\\n", " ").splitlines():
        for command, rest in re.findall(r"(?:^|\s)trtgate ([a-z]+)\b([^|&;#]*)", line.split(" # ")[0]):
            assert set(re.findall(r"(?<=\s)--[a-z-]+", rest)) <= options_of(command), line


def test_every_file_is_named_in_the_document_and_every_link_leads_to_one() -> None:
    linked = set(re.findall(r"\]\((?!http)([^)#]+)\)", DOCUMENT))
    assert [path for path in linked if not (ROOT / "docs" / path).exists()] == []
    assert {path.name for path in CI.iterdir()} <= {path.removeprefix("ci/") for path in linked}


def test_exit_codes_are_those_that_a_merge_has() -> None:
    assert UNCONFIRMED == 6
    assert [int(code) for code in re.findall(r"^\| (\d) \|", DOCUMENT, re.MULTILINE)] == [0, 1, UNCONFIRMED, 4]
    assert f'"$status" != {UNCONFIRMED}' in (CI / "judge.sh").read_text()


# GitHub


def test_the_matrix_of_shards_is_a_workflow_whose_jobs_hand_on_what_they_left() -> None:
    jobs = parsed(GITHUB)["jobs"]
    numbers = jobs["shard"]["strategy"]["matrix"]["shard"]
    assert numbers == list(range(1, len(numbers) + 1))
    assert jobs["shard"]["strategy"]["fail-fast"] is False
    runs = {name: [step["run"] for step in job["steps"] if "run" in step] for name, job in jobs.items()}
    assert runs["shard"][-1] == f"pytest $GATE --trtgate-shard=${{{{ matrix.shard }}}}/{len(numbers)}"
    assert f'test "$status" = {UNCONFIRMED}' in runs["merge"][-1]
    assert all(f"== '{UNCONFIRMED}'" in jobs[name]["if"] for name in ("confirm", "verdict"))
    needs = [job.get("needs", []) for job in jobs.values()]
    assert {one for need in needs for one in ([need] if isinstance(need, str) else need)} <= set(jobs)
    steps = [step for job in jobs.values() for step in job["steps"]]
    uploads = [step["with"] for step in steps if "upload-artifact" in step.get("uses", "")]
    assert all("github.run_attempt" in one["name"] for one in uploads if one["path"].startswith(".trtgate"))
    assert all(one.get("include-hidden-files") for one in uploads if one["path"].startswith(".trtgate"))


# As a scheduler runs them, with stand-ins for what they call


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], None]]:
    """Makes commands that note how they were called, before they do what a test says."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def make(name: str, script: str) -> None:
        path = folder / name
        path.write_text(f'#!/usr/bin/env bash\necho "{name} $*" >> "{tmp_path}/calls"\n{script}\n')
        path.chmod(0o755)

    return make


def called(tmp_path: Path) -> list[str]:
    path = tmp_path / "calls"
    return path.read_text().splitlines() if path.exists() else []


def bash(folder: Path, text: str, **environment: str) -> subprocess.CompletedProcess[str]:
    folder.mkdir(exist_ok=True)
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text],
        cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


def shards_called(tmp_path: Path) -> list[str]:
    return [match[1] for line in called(tmp_path) if (match := re.search(r"--trtgate-shard=(\S+)", line))]


def test_a_pod_of_kubernetes_takes_the_shard_after_its_index(
    tmp_path: Path, stand_in: Callable[[str, str], None]
) -> None:
    spec, pod = parsed(KUBERNETES[0])["spec"], container(KUBERNETES[0])
    environment = {one["name"]: one["value"] for one in pod["env"]} | {"RUN": "run"}
    assert spec["completions"] == spec["parallelism"] == int(environment["SHARDS"])
    (text,) = commands(KUBERNETES[0])
    text = text.replace("/tmp/checkout", str(tmp_path / "checkout")).replace("/runs", str(tmp_path / "runs"), 1)
    text = re.sub(r'"/runs/', f'"{tmp_path}/runs/', text).replace(f"{tmp_path}/runs{tmp_path}", f"{tmp_path}")
    stand_in("git", '[ "$1" != clone ] || mkdir -p "$4"')
    stand_in("pytest", "mkdir -p .trtgate/runs; touch .trtgate/runs/0-shard-x.json; exit 1")
    for index in range(spec["completions"]):
        done = bash(tmp_path, text, JOB_COMPLETION_INDEX=str(index), **environment)
        assert done.returncode == 0, done.stderr  # what failed is for the merge to tell
    assert shards_called(tmp_path) == ["1/4", "2/4", "3/4", "4/4"]
    stand_in("pytest", "rm -rf .trtgate; exit 4")
    assert bash(tmp_path, text, JOB_COMPLETION_INDEX="0", **environment).returncode == 1


def test_a_job_of_buildkite_takes_the_shard_after_its_number(
    tmp_path: Path, stand_in: Callable[[str, str], None]
) -> None:
    pipeline = parsed(BUILDKITE)
    shards = pipeline["steps"][0]
    text = "\n".join(line.replace("$$", "$") for line in shards["command"])
    stand_in("pytest", "")
    stand_in("python", "")
    for number in range(shards["parallelism"]):
        environment = {"BUILDKITE_PARALLEL_JOB": str(number), "BUILDKITE_PARALLEL_JOB_COUNT": "4"}
        assert bash(tmp_path, text, **environment, **pipeline["env"]).returncode == 0
    assert shards_called(tmp_path) == ["1/4", "2/4", "3/4", "4/4"]
    assert [line for line in called(tmp_path) if line.startswith("pytest benchmarks --benchmark-compare")]


MERGES = 'n=$(grep -c "^trtgate merge" "{calls}"); set -- {statuses}; exit "${{!n}}"'
CONFIRMS = "mkdir -p .trtgate/runs; touch .trtgate/runs/0-confirmation-x.json"


@pytest.mark.parametrize(
    ("statuses", "confirmation", "status", "steps"),
    [
        ("0", CONFIRMS, 0, ["trtgate"]),
        ("1", CONFIRMS, 1, ["trtgate"]),
        ("4", CONFIRMS, 4, ["trtgate"]),
        ("6 0", CONFIRMS, 0, ["trtgate", "pytest", "trtgate"]),
        ("6 1", f"{CONFIRMS}; exit 1", 1, ["trtgate", "pytest", "trtgate"]),
        ("6 6", "exit 3", 6, ["trtgate", "pytest", "trtgate"]),
    ],
)
def test_the_judge_confirms_what_is_suspected_and_nothing_else(
    tmp_path: Path,
    stand_in: Callable[[str, str], None],
    statuses: str,
    confirmation: str,
    status: int,
    steps: list[str],
) -> None:
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "1.json").touch()
    stand_in("trtgate", MERGES.format(calls=tmp_path / "calls", statuses=statuses))
    stand_in("pytest", confirmation)
    done = bash(tmp_path, f"bash {CI / 'judge.sh'} shards suite.py --benchmark-compare")
    assert done.returncode == status, done.stderr
    assert [line.split()[0] for line in called(tmp_path)] == steps
    if len(steps) > 1:
        assert called(tmp_path)[1] == "pytest suite.py --benchmark-compare --trtgate-confirm=merged.json"
        given = called(tmp_path)[2]
        assert ("shards/0-confirmation-x.json" in given) == ("confirmation" in confirmation)


KUBECTL = """
case "$*" in
    "apply -f -") cat >> "{folder}/applied.yml"; echo --- >> "{folder}/applied.yml" ;;
    "get job"*) echo {ends} ;;
    "get pods"*) printf '{code}' ;;
esac
"""


@pytest.mark.parametrize(("code", "status"), [("0", 0), ("1", 1), ("6", 6), ("", 1)])
def test_the_jobs_of_kubernetes_run_one_after_the_other_and_the_last_ones_exit_code_counts(
    tmp_path: Path, stand_in: Callable[[str, str], None], code: str, status: int
) -> None:
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    shutil.copytree(CI, tmp_path / "repository" / "ci")
    stand_in("git", f"echo {'c' * 40}")
    stand_in("envsubst", 'sed -e "s/\\${RUN}/$RUN/g" -e "s/\\${COMMIT}/$COMMIT/g"')
    stand_in("kubectl", KUBECTL.format(folder=tmp_path, ends="Failed" if code else "Complete", code=code))
    done = bash(tmp_path / "repository", "bash ci/kubernetes.sh")
    assert done.returncode == status, done.stderr
    shards, judge = (one for one in yaml.safe_load_all((tmp_path / "applied.yml").read_text()) if one)
    names = [one["metadata"]["name"] for one in (shards, judge)]
    assert [re.sub(r"\d+$", "N", name) for name in names] == [
        f"trtgate-{what}-cccccccccccc-N" for what in ("shards", "judge")
    ]
    assert {one["name"]: one.get("value") for one in judge["spec"]["template"]["spec"]["containers"][0]["env"]}[
        "COMMIT"
    ] == "c" * 40


SBATCH = """
script="${@: -1}"
export SLURM_SUBMIT_DIR=$PWD
case "$*" in
    *--array=1-*)
        for ((SLURM_ARRAY_TASK_ID = 1; SLURM_ARRAY_TASK_ID <= SHARDS; SLURM_ARRAY_TASK_ID++)); do
            export SLURM_ARRAY_TASK_ID
            bash "$script" >&2 || echo "task $SLURM_ARRAY_TASK_ID ended with $?" >&2
        done
        echo "17;cluster" ;;
    *--wait*--dependency=afterany:17*) bash "$script" ;;
    *) exit 99 ;;
esac
"""
"""As sbatch runs an array, and a job after it; but one after the other."""


FORKED = """#!{python} -P
import subprocess, sys
sys.path.insert(0, {root!r})
from tests import forks
with forks.forked({{forks.TORCH: {socket!r}}}):
    sys.exit(subprocess.run([sys.executable, "-m", {module!r}, *{options!r}, *sys.argv[1:]]).returncode)
"""
"""A command that is a fork of a process that has imported torch: pytest and trtgate themselves, begun sooner."""


def test_an_array_of_slurm_measures_two_shards_and_a_job_judges_them(
    folder: Any, fork_server: str, tmp_path: Path, stand_in: Callable[[str, str], None]
) -> None:
    for command, module, options in (("pytest", "pytest", LEAN), ("trtgate", "trtgate", ())):
        stand_in(command, "")
        text = FORKED.format(python=sys.executable, root=str(ROOT), socket=fork_server, module=module, options=options)
        (tmp_path / "bin" / command).write_text(text)
    folder.suite("alpha", "beta")
    folder.baseline("alpha", "beta")
    shutil.copytree(CI, folder.path / "ci")
    git: Mapping[str, str] = dict.fromkeys(("GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME"), "a") | dict.fromkeys(
        ("GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL"), "a@b"
    )
    committed = bash(
        folder.path, "git init -q && git add suite.py pytest.ini baselines ci && git commit -qm suite", **git
    )
    assert committed.returncode == 0, committed.stderr
    stand_in("sbatch", SBATCH)
    gate = "suite.py --benchmark-compare --trtgate-launches=1 --trtgate-limit=host=100%"
    done = subprocess.run(
        ["bash", "ci/slurm.sh", "2"], cwd=folder.path, env={**os.environ, "GATE": gate},
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    (runs,) = (folder.path / "trtgate-runs").iterdir()
    names = [path.name for path in sorted(runs.glob("*.json"))]
    assert sorted(re.search(r"shard-(\d-of-\d)", name)[1] for name in names) == ["1-of-2", "2-of-2"]  # type: ignore[index]
    assert (runs / "judged" / "merged.json").is_file()
    assert "2 cases: 2 unchanged" in done.stdout, done.stdout
