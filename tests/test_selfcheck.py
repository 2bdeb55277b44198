"""What `trtgate selfcheck` makes of its comparisons, and one short check for real."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from trtgate.commands import selfcheck_file, selfcheck_findings, selfcheck_rounds
from trtgate.commands.console import cache_request
from trtgate.commands.selfcheck_file import SelfcheckFile
from trtgate.commands.selfcheck_findings import Rate, Selfcheck, SelfComparison
from trtgate.common.accelerator import GIB, Accelerator
from trtgate.common.errors import TrtgateError
from trtgate.common.files import write_json
from trtgate.compiling.artifact_cache import CacheRequest

from .in_process import InProcess, command

TRTGATE = str(Path(sys.executable).parent / "trtgate")
CPU = Accelerator(kind="cpu", name="test", cpus=2)


def comparison(mean: float, *, delay: float = 0.0, regressed: bool = False, case: str = "net") -> SelfComparison:
    return SelfComparison(
        case_id=case,
        delay=delay,
        seconds=1.0,
        primary="host",
        suspected=["host"] if regressed else [],
        regressed=["host"] if regressed else [],
        change=mean,
        d_mean={"host": mean},
        d_sd={"host": 0.01},
    )


def check(*comparisons: SelfComparison) -> Selfcheck:
    return Selfcheck(
        accelerator=CPU,
        limits={"host": 0.1},
        wanted_delay=0.2,
        comparisons=list(comparisons),
        tests=4,
        cases=["net"],
        streams="one",
    )


def test_a_rate_has_its_interval() -> None:
    assert str(Rate(happened=0, of=50)).startswith("0 of 50 (0; 0 to 0.07")
    assert str(Rate(happened=0, of=0)) == "0 of 0"


def test_false_alarms_and_finds_are_counted_apart() -> None:
    found = check(
        *(comparison(mean) for mean in (0.001, -0.001, 0.002)),
        comparison(0.19, delay=0.2, regressed=True),
        comparison(0.05, delay=0.2),
    )
    said = "\n".join(map(str, selfcheck_findings.lines(found)))
    assert "false alarms: 0 of 3" in said
    assert "found when 20 % slower: 1 of 2" in said


def test_noise_between_pairs_decides_what_is_seen_and_which_limit_is_proposed() -> None:
    quiet = check(*(comparison(mean) for mean in (0.001, -0.001, 0.0005)))
    noisy = check(*(comparison(mean) for mean in (0.10, -0.10, 0.05)))
    seen = [selfcheck_findings.detectable(found, "net", "host", 0.1) for found in (quiet, noisy)]
    assert seen[0] is not None
    assert seen[1] is not None
    assert 0.1 < seen[0] < seen[1]
    limits = [selfcheck_findings.proposed_limit(found, "host") for found in (quiet, noisy)]
    assert limits[0] is not None
    assert limits[1] is not None
    assert 0 < limits[0] < limits[1]


def test_two_pairs_are_too_few_to_say() -> None:
    assert selfcheck_findings.detectable(check(comparison(0.0), comparison(0.1)), "net", "host", 0.1) is None
    assert "limits that" not in "\n".join(map(str, selfcheck_findings.lines(check(comparison(0.0)))))


# Rounds that are added to a file

LATER = check(comparison(0.1))


def test_rounds_are_added_to_those_of_an_earlier_check_of_the_same(tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    assert selfcheck_file.with_earlier(LATER, path) == LATER
    earlier = msgspec.structs.replace(check(comparison(0.0)), problems=["net: no"], too_short=["net"], failed=True)
    write_json(path, msgspec.to_builtins(earlier))
    assert selfcheck_file.with_earlier(check(), path) == earlier


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"accelerator": msgspec.structs.replace(CPU, uuid="GPU-2")}, "another card"),
        ({"accelerator": msgspec.structs.replace(CPU, libraries={"torch": "2.14.0"})}, "other versions"),
        ({"cases": ["net", "other"]}, "other cases"),
        ({"limits": {"host": 0.2}}, "other limits"),
        ({"wanted_delay": 0.1}, "another delay"),
        ({"streams": "many"}, "another --streams"),
    ],
)
def test_rounds_are_not_added_to_those_of_something_else(changed: dict[str, Any], said: str, tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    write_json(path, msgspec.to_builtins(msgspec.structs.replace(LATER, **changed)))
    with pytest.raises(TrtgateError, match=f"found.json has rounds of {said}: name another file, or leave out --add$"):
        selfcheck_file.with_earlier(LATER, path)


def test_rounds_are_not_added_to_a_file_of_something_else(tmp_path: Path) -> None:
    path = tmp_path / "latency.json"
    path.write_text("{}")
    with pytest.raises(TrtgateError, match=r"latency\.json holds no selfcheck that rounds can be added to"):
        selfcheck_file.with_earlier(LATER, path)
    with pytest.raises(TrtgateError, match="can't be read"):
        selfcheck_file.with_earlier(LATER, tmp_path)


@pytest.mark.parametrize(
    "wrong",
    [{"case_id": "other"}, {"d_sd": {}}, {"d_mean": {"host": 1e300}}, {"d_sd": {"host": -1e300}}, {"d_mean": {}}],
)
def test_a_comparison_that_no_check_measures_is_named(wrong: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    write_json(path, msgspec.to_builtins(check(msgspec.structs.replace(comparison(0.0), **wrong))))
    with pytest.raises(TrtgateError, match=r"found\.json has a comparison of (net|other) that no check measures"):
        selfcheck_file.with_earlier(LATER, path)


def stored(path: Path) -> Selfcheck:
    return selfcheck_file.with_earlier(check(), path)


def test_two_checks_that_add_to_one_file_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    write_json(path, msgspec.to_builtins(check(comparison(0.0))))
    one, other = SelfcheckFile(path, add=True), SelfcheckFile(path, add=True)
    mine, theirs = one.begin(check()), other.begin(check())
    for number in range(1, 3):
        mine.comparisons.append(comparison(number / 10))
        assert one.save(mine)
        theirs.comparisons.append(comparison(-number / 10))
        theirs.problems.append(f"net: {number}")
        assert other.save(theirs)
    assert [one.change for one in stored(path).comparisons] == [0.0, 0.1, -0.1, 0.2, -0.2]
    assert stored(path).problems == ["net: 1", "net: 2"]
    assert [one.change for one in mine.comparisons] == [0.0, 0.1, 0.2]


def test_a_round_that_was_written_when_ctrl_c_came_is_there_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "found.json"
    file = SelfcheckFile(path, add=True)
    mine = file.begin(check())
    mine.comparisons.append(comparison(0.1))

    def interrupted(*what: Any) -> None:
        write_json(*what)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(selfcheck_file, "write_json", interrupted)
        with pytest.raises(KeyboardInterrupt):
            file.save(mine)
    file.save(mine)
    assert stored(path).comparisons == mine.comparisons


def test_rounds_are_not_added_to_what_became_of_the_file_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    file = SelfcheckFile(path, add=True)
    mine = file.begin(check())
    write_json(path, msgspec.to_builtins(msgspec.structs.replace(LATER, streams="many")))
    mine.comparisons.append(comparison(0.0))
    before = path.read_bytes()
    with pytest.raises(TrtgateError, match="has rounds of another --streams"):
        file.save(mine)
    assert path.read_bytes() == before


@pytest.mark.parametrize("add", [True, False])
def test_a_check_that_measured_nothing_leaves_the_file_as_it_was(add: bool, tmp_path: Path) -> None:
    """As one that Ctrl-C ended while it built."""
    path = tmp_path / "found.json"
    file = SelfcheckFile(path, add=add)
    assert not file.save(file.begin(check()))
    assert not path.exists()
    if not add:
        write_json(path, msgspec.to_builtins(LATER))
        assert not file.save(file.begin(check()))
        assert stored(path) == LATER


@pytest.mark.parametrize("content", [b'{"benchmarks": []}', b"[pytest]\n", b"{"])
def test_a_file_of_something_else_is_not_replaced(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "latency.json"
    path.write_bytes(content)
    with pytest.raises(TrtgateError, match=r"latency\.json holds something else than a selfcheck, which would be lost"):
        SelfcheckFile(path, add=False).begin(check())
    assert path.read_bytes() == content


def test_a_selfcheck_and_an_empty_file_are_replaced_without_add(tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    path.touch()
    for number in (1, 2):
        file = SelfcheckFile(path, add=False)
        mine = file.begin(check())
        mine.comparisons.append(comparison(number / 10))
        assert file.save(mine)
        assert [one.change for one in stored(path).comparisons] == [number / 10]


def test_a_file_that_can_not_be_written_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for add in (True, False):
        with pytest.raises(TrtgateError, match=f"^--json {tmp_path} is a folder: name a file$"):
            SelfcheckFile(tmp_path, add=add).begin(check())
        with pytest.raises(TrtgateError, match=r"found\.json could not be written \((Not a directory|File exists)\)"):
            SelfcheckFile(tmp_path / "file" / "found.json", add=add).begin(check())


# The command


@pytest.mark.parametrize(("options", "cached"), [((), True), (("--no-cache",), False)])
@pytest.mark.parametrize(("failed", "status"), [(False, 0), (True, 1)])
def test_the_command_uses_the_artifact_cache_and_what_failed_is_its_exit_code(
    options: tuple[str, ...], cached: bool, failed: bool, status: int, here: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    caches: list[CacheRequest | None] = []

    def run(*_arguments: Any, cache: CacheRequest | None, **_others: Any) -> Selfcheck:
        caches.append(cache)
        return msgspec.structs.replace(check(comparison(0.0)), failed=failed, problems=["net: no"] * failed)

    monkeypatch.setenv("TRTGATE_CACHE_DIR", str(here.path / "cache"))
    monkeypatch.setattr(selfcheck_rounds, "run", run)
    ended, said = command("selfcheck", *options)
    assert caches == [CacheRequest(folder=str(here.path / "cache")) if cached else None]
    assert (ended, "left out: net: no" in said) == (status, failed), said


def test_a_command_leaves_as_much_in_the_artifact_cache_as_the_ini_key_allows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\ntrtgate_cache_size = 100GiB\n")
    request = cache_request(no_cache=False)
    assert request is not None
    assert request.limit_bytes == 100 * GIB
    (tmp_path / "pytest.ini").write_text("[pytest]\ntrtgate_cache_size = much\n")
    with pytest.raises(TrtgateError, match=r"^ini key trtgate_cache_size: .*'much'"):
        cache_request(no_cache=False)


@pytest.mark.alone
@pytest.mark.end_to_end
def test_a_short_check_for_real(folder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a checkout where no `.trtgate` can be made, too."""
    folder.suite("alpha")
    monkeypatch.setenv("XDG_STATE_HOME", str(folder.path / "state"))
    (folder.path / ".trtgate").write_text("in the way")
    done = folder.pytester.run(
        TRTGATE,
        "selfcheck",
        "alpha-eager-fp32-b1",
        "--rounds=1",
        "--unchanged-only",
        "--json=found.json",
        timeout=100,
    )
    assert done.ret == 0
    done.stdout.re_match_lines([r"alpha-eager-fp32-b1 +host ", r"false alarms: 0 of 1 "])
    (found,) = json.loads((folder.path / "found.json").read_text())["comparisons"]
    assert found["case_id"] == "alpha-eager-fp32-b1"
    done.stderr.re_match_lines([r".*\.trtgate can't be written .*the files of this run go to .*"])
    assert not list((folder.path / "state").glob("trtgate/runs/*/artifacts-*"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nothing",), "the suite has no case 'nothing'"),
        (("--limit=host=x",), "--limit"),
        (("--delay=-3%",), "--delay"),
        (("--add",), "--add adds rounds to those of a file: name it with --json"),
    ],
)
def test_bad_input_is_one_line(folder: Any, arguments: tuple[str, ...], said: str) -> None:
    folder.suite("alpha")
    done = folder.pytester.run(TRTGATE, "selfcheck", *arguments, timeout=100)
    assert done.ret == 4
    assert said in done.stderr.str()
    assert "Traceback" not in done.stderr.str()
