"""A run that is started again takes what it measured before it was ended, of the same code and nothing else."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from trtgate.common import git

COMMIT = ("-c", "user.name=n", "-c", "user.email=e@e", "commit", "-qm", "x")


def commit(folder: Any) -> None:
    (folder.path / ".gitignore").write_text("*\n!suite.py\n!pytest.ini\n!.gitignore\n")
    for command in (("init", "-q"), ("add", "-A"), COMMIT):
        git.run(folder.path, *command).check_returncode()


def test_a_run_that_is_killed_goes_on_where_it_was(folder: Any, tmp_path: Path) -> None:
    counts, hang = tmp_path / "counts", tmp_path / "hang"
    counted = f"(open({str(counts)!r}, 'a').write('{{}} '), None) if IN_WORKER and next(CALLS) == 11 else None"
    waits = f"exec({f'while os.path.exists({str(hang)!r}): time.sleep(0.05)'!r}) if measuring() else None"
    folder.suite(alpha=counted.format("alpha"), beta=counted.format("beta") + f" or ({waits})")
    folder.baseline("alpha")
    commit(folder)
    options = ("--benchmark-compare", "--trtgate-launches=1", "-m", "trtgate_latency", "-p", "no:randomly",
               "--trtgate-resume", f"--trtgate-runs={tmp_path / 'store'}")  # fmt: skip
    hang.touch()
    run = folder.start(*options, forked=True)
    folder.wait_until(lambda: len(list((tmp_path / "store").rglob("*-evidence-*.json"))) == 1)
    run.send_signal(signal.SIGKILL)
    run.communicate()
    hang.unlink()

    again = folder.gate(*options)
    output = folder.output_of(again)
    assert again.ret == 0, output
    assert "not-resumed" not in output
    assert "resumed: a run that was ended measured 1 case: alpha-eager-fp32-b1" in output
    assert counts.read_text().split().count("alpha") == 1  # not measured again
    assert len(list((tmp_path / "store").rglob("*-evidence-*.json"))) == 2
    assert folder.saved_cases() >= {"alpha-eager-fp32-b1", "beta-eager-fp32-b1"}

    first = next(path for path in (tmp_path / "store").rglob("*-evidence-*.json") if "alpha" in path.read_text())
    stored = json.loads(first.read_text())
    first.write_text(json.dumps({**stored, "run": {**stored["run"], "versions": {"torch": "0"}}}))
    (first.parent / first.name.replace("evidence-", "evidence-0")).write_text("{")
    other = folder.gate(*options)
    assert "resumed: a run that was ended measured 1 case: beta-eager-fp32-b1" in folder.output_of(other)
    assert "is not taken: it is no evidence of a case" in folder.output_of(other)
    assert counts.read_text().split().count("alpha") == 2  # of other versions, so it is measured again


def test_nothing_is_resumed_of_code_that_no_commit_has(folder: Any, tmp_path: Path) -> None:
    folder.suite("alpha")
    run = folder.gate("-m", "trtgate_latency", "--trtgate-resume", f"--trtgate-runs={tmp_path / 'store'}")
    assert run.ret == 0
    assert "nothing is resumed or kept for that: the code is in no git repository" in folder.output_of(run)
    assert not list(tmp_path.rglob("*-evidence-*.json"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--trtgate-resume",), ("--trtgate-resume", "--trtgate-runs")),
        (("--trtgate-resume", "--trtgate-runs=x", "--trtgate-base=HEAD"), ("a base is measured anew",)),
        (("--trtgate-resume", "--trtgate-runs=x", "--trtgate-update-baselines"), ("--trtgate-update-baselines",)),
    ],
)
def test_what_can_not_be_resumed_is_refused(folder: Any, options: tuple[str, ...], words: tuple[str, ...]) -> None:
    folder.suite("alpha")
    folder.refused(folder.gate(*options), *words)
