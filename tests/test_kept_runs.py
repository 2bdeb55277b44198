"""Runs that outlive their machine: put into a folder, memory or S3 for good, and read from there."""

from __future__ import annotations

import importlib.util
import json
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from tests.in_process import InProcess, ScriptedSession, command
from tests.test_baselines import document, record
from trtgate.common import run_places, run_store
from trtgate.common.errors import TrtgateError
from trtgate.common.run_places import CONFIRMATION, MERGED, OPEN, REPORT, SHARD, STAGES, WHOLE
from trtgate.common.run_store import RunStore, StoreError
from trtgate.common.urls import without_secrets
from trtgate.fleet import kept_evidence
from trtgate.fleet.kept_evidence import RunIdentity
from trtgate.fleet.merged_document import UNCONFIRMED
from trtgate.gate import baselines, history
from trtgate.gate.saved_runs import filesystem
from trtgate.pytest_plugin import kept_runs

ALPHA, BETA = (f"{name}-eager-fp32-b1" for name in ("alpha", "beta"))
COMPARE = ("suite.py", "--trtgate-launches=1", "--benchmark-compare", "--trtgate-limit=host=100%")
COMMIT = "abcdef1234567890"
NAME = "20260102T030405-0a1b2c3d-key.json"
RUN = json.dumps(document(record("net", 64.0))).encode()


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_store, "PAUSES_S", (0.0, 0.0))
    monkeypatch.delenv("TRTGATE_RUNS", raising=False)


@pytest.fixture(scope="module")
def s3() -> Iterator[Any]:
    """S3 in this process, with a bucket `runs`, and the environment that leads to it."""
    if not (importlib.util.find_spec("moto") and importlib.util.find_spec("s3fs")):
        pytest.skip("moto and s3fs are not installed")
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLEEXAMPLE")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret-of-the-environment")
        fsspec.filesystem("s3").mkdir("runs")
        yield server
        fsspec.filesystem("s3").clear_instance_cache()
    server.stop()


@pytest.fixture(params=["folder", "memory", "s3"])
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where runs are kept: nothing is there yet."""
    if request.param == "folder":
        return str(tmp_path / "kept")
    if request.param == "memory":
        return f"memory://{uuid.uuid4().hex}/trtgate"
    request.getfixturevalue("s3")
    return f"s3://runs/{uuid.uuid4().hex}"


def put(kept: str, content: bytes = RUN, name: str = NAME, **named: str) -> str:
    return run_places.put(run_places.at(kept), name, content, **{"key": "key", "commit": COMMIT, **named})


def names(kept: str, *kinds: str, **named: str) -> list[str]:
    return [place.name for place in run_places.runs_in(run_places.at(kept), kinds, **named)]


def sentence(error: pytest.ExceptionInfo[Any]) -> str:
    said = str(error.value)
    assert "\n" not in said
    return said


# One object a run, written once


def test_a_run_is_an_object_by_accelerator_date_and_commit(kept: str) -> None:
    where = put(kept)
    assert where.endswith("/key/2026-01-02/abcdef123456-20260102T030405-0a1b2c3d-run.json")
    (place,) = run_places.runs_in(run_places.at(kept))
    assert run_places.content_of(place) == RUN
    assert baselines.read(place).cases.keys() == {"net"}
    assert str(place).endswith(where.lstrip("./"))
    assert run_places.content_of(run_places.one(str(place))) == RUN


def test_the_first_run_that_resumes_finds_nothing_in_a_new_store_and_nothing_broken(kept: str) -> None:
    identity = RunIdentity(
        trtgate="1", key="key", versions={}, commit=COMMIT, suite="", baseline="", launches=3, streams="one",
        cold_starts=0, load=0, tests=1,
    )  # fmt: skip
    assert kept_evidence.read(run_places.at(kept), identity) == ({}, [])


def test_an_object_is_never_changed_and_putting_the_same_again_is_fine(kept: str) -> None:
    assert put(kept) == put(kept)
    with pytest.raises(StoreError) as error:
        put(kept, b"{}")
    assert sentence(error).endswith("-run.json: another run has that name")
    (place,) = run_places.runs_in(run_places.at(kept))
    assert run_places.content_of(place) == RUN


def test_of_runs_at_once_with_one_name_one_is_kept_whole(kept: str) -> None:
    ready = threading.Barrier(4)

    def write(number: int) -> bool:
        ready.wait()
        try:
            put(kept, json.dumps([number] * 1000).encode())
        except StoreError:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(write, range(4)))
    (place,) = run_places.runs_in(run_places.at(kept))
    (number,) = set(json.loads(run_places.content_of(place)))
    assert done[number] or "memory" in kept  # which does not tell two writers apart
    assert "memory" in kept or done.count(True) == 1


def test_runs_are_found_by_kind_accelerator_and_commit_the_oldest_first(kept: str) -> None:
    parts = {SHARD: "shard-1-of-2-", CONFIRMATION: "confirmation-", WHOLE: ""}
    for number, (kind, part) in enumerate(parts.items()):
        for key in ("key", "other"):
            name = f"2026010{3 - number}T030405-0a1b2c3d-{part}{key}.json"
            put(kept, name=name, key=key, commit=COMMIT if kind == SHARD else "f" * 40)
    for kind in (MERGED, OPEN, REPORT):
        put(kept, name="20260109T030405-0a1b2c3d-merged-key.json", kind=kind)
    assert [name.partition("-")[2] for name in names(kept, *STAGES, key="key")] == [
        "20260102T030405-0a1b2c3d-confirmation.json", "20260103T030405-0a1b2c3d-shard-1-of-2.json",
    ]  # fmt: skip
    assert names(kept, *STAGES, commit=COMMIT) == ["abcdef123456-20260103T030405-0a1b2c3d-shard-1-of-2.json"] * 2
    run, merged = names(kept, WHOLE, MERGED, key="key")
    assert run == "ffffffffffff-20260101T030405-0a1b2c3d-run.json"
    assert merged.startswith("abcdef123456-20260109T030405-0a1b2c3d-merged-")
    assert run_places.keys_in(run_places.at(kept)) == ["key", "other"]


def test_history_names_the_accelerators_that_there_are_runs_of(kept: str) -> None:
    for key in ("h100", "l4"):
        put(kept, name=f"20260101T030405-0a1b2c3d-{key}.json", key=key)
    status, said = command("history", "net", f"--runs={kept}", "--accelerator=a100")
    assert (status, "is of a100; name one with --accelerator: h100, l4" in said) == (4, True)


def test_a_run_that_is_saved_and_kept_in_one_folder_is_one(tmp_path: Path) -> None:
    for part in ("", "shard-1-of-2-"):
        name = NAME.replace("key", f"{part}key")
        (tmp_path / name).write_bytes(RUN)
        put(str(tmp_path), name=name)
    assert [name[:13] for name in names(str(tmp_path), *STAGES)] == ["abcdef123456-"]
    assert [name[:13] for name in names(str(tmp_path), WHOLE)] == ["abcdef123456-"]
    (tmp_path / "copied.json").write_bytes(RUN)  # may be a judged run, and nothing else
    assert names(str(tmp_path), WHOLE, MERGED)[0] == "copied.json"
    assert names(str(tmp_path), OPEN) == []


def test_of_very_many_runs_the_newest_are_read_and_of_shards_all(kept: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_places, "MOST_RUNS", 3)
    for day in range(1, 8):
        put(kept, name=f"2026010{day}T030405-0a1b2c3d-key.json")
        put(kept, name=f"2026010{day}T030405-0a1b2c3d-shard-{day}-of-7-key.json")
    assert len(run_places.several([kept], COMMIT)) == 7
    assert [name[13:21] for name in names(kept, WHOLE)] == ["20260105", "20260106", "20260107"]


def test_what_is_to_be_confirmed_is_the_newest_of_the_commit_and_never_one_of_two(kept: str) -> None:
    def ask() -> str:
        return run_places.to_confirm(kept, Path(), key="key", commit=COMMIT).name

    for day, commit in (("02", COMMIT), ("03", COMMIT), ("04", "f" * 40)):
        put(kept, name=f"202601{day}T030405-0a1b2c3d-merged-key.json", kind=OPEN, commit=commit)
    assert "-20260103T030405-" in ask()
    put(kept, RUN + b" ", name="20260103T030405-0a1b2c3d-merged-key.json", kind=OPEN)
    with pytest.raises(TrtgateError, match=r"has two merges of one run: name \S+ or \S+$"):
        ask()


# What others put there


def test_names_that_are_none_of_ours_are_passed_over(tmp_path: Path) -> None:
    root = f"/{uuid.uuid4().hex}"
    system = fsspec.filesystem("memory")
    good = f"{root}/key/2026-01-02/abcdef123456-20260102T030405-0a1b2c3d-run.json"
    for name in (
        good, f"{root}/key/2026-01-02/../../../etc/passwd.json", f"{root}/key/2026-01-02/\x1b[31m-run.json",
        f"{root}/key/2026-01-02/..json", f"{root}/key/x/{NAME}", f"{root}/\x1b]0;x/2026-01-02/{NAME}",
        f"{root}/key/2026-01-02/{'0' * 5000}.json", f"{root}/key/2026-01-02/{NAME}.exe",
    ):  # fmt: skip
        system.pipe_file(name, RUN)
    (place,) = run_places.runs_in(RunStore(f"memory:/{root}"))
    assert str(place) == f"memory://{good}"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is not valid JSON"), (b"{", "is not valid JSON"), (b"\x80\x04K\x01.", "is not valid JSON"),
        (b"[" * 5000, "is not valid JSON"), (b"{}", "not one of trtgate's files"),
        (b'{"trtgate": {"schema": 99}}', "has schema 99"), (b"[" + b"{}," * 6000 + b"{}]", "more than 10,000 values"),
        (b" " * 20_000, "is larger than"),
    ],
)  # fmt: skip
def test_what_is_no_run_is_one_line_and_costs_no_other(
    kept: str, content: bytes, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_places, "MOST_VALUES", 10_000)
    monkeypatch.setattr(run_places, "MOST_BYTES", 19_000)
    put(kept)
    bad = put(kept, content, name="20260103T000000-0a1b2c3d-key.json")
    runs, skipped = history.read_runs(run_places.at(kept), lambda _case: True)
    assert len(runs) == 1
    (line,) = skipped
    assert words in line
    assert bad.rpartition("/")[2] in line
    assert "\n" not in line
    status, said = command("baseline", "accept", str(run_places.runs_in(run_places.at(kept))[-1]))
    assert (status, said.count("\n")) == (4, 1)


# Stores that do not answer, or refuse


class InPieces:
    """A stream: it gives what has arrived, and does not know how much there will be."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def __enter__(self) -> InPieces:
        return self

    def __exit__(self, *_error: object) -> None: ...

    def read(self, size: int) -> bytes:
        return bytes(self._file.read(min(size, 7)))


class Flaky(MemoryFileSystem):
    """A store whose next calls fail, or do not end."""

    protocol = "flaky"
    in_pieces = False
    errors: list[Any] = []  # noqa: RUF012 - emptied by who fills it
    store: dict[str, Any] = {}  # noqa: RUF012 - as MemoryFileSystem has it
    pseudo_dirs = [""]  # noqa: RUF012

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return MemoryFileSystem._strip_protocol(path.replace("flaky://", "memory://"))

    def _open(self, path: str, mode: str = "rb", **named: Any) -> Any:
        found = super()._open(path, mode, **named)
        return InPieces(found) if mode == "rb" and self.in_pieces else found

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **named: Any) -> None:
        if self.errors:
            error = self.errors.pop(0)
            if isinstance(error, threading.Event):
                error.wait()
            raise error
        super().pipe_file(path, value, mode=mode, **named)


@pytest.fixture
def flaky() -> Iterator[Callable[..., str]]:
    fsspec.register_implementation("flaky", Flaky, clobber=True)
    Flaky.store.clear()

    def failing(*errors: Any) -> str:
        Flaky.errors[:] = errors
        return "flaky://user:hunter2hunter2@x/trtgate"

    yield failing
    Flaky.errors.clear()


def test_a_store_that_fails_twice_is_asked_a_third_time(flaky: Callable[..., str]) -> None:
    put(flaky(ConnectionError("reset"), OSError("503: SlowDown")))
    assert len(Flaky.store) == 1


def test_a_store_that_fails_three_times_is_not_asked_for_ever_and_nothing_secret_is_told(
    flaky: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_API_TOKEN", "token-of-the-environment")
    url = flaky(*[OSError("PUT flaky://user:hunter2hunter2@x/y\nX-Token: token-of-the-environment")] * 9)
    with pytest.raises(StoreError) as error:
        put(url)
    assert sentence(error) == "flaky://x/trtgate: OSError: PUT flaky://x/y X-Token: …"
    assert len(Flaky.errors) == 6


def test_what_another_attempt_would_not_mend_is_not_tried_again(flaky: Callable[..., str]) -> None:
    with pytest.raises(StoreError, match="permission denied"):
        put(flaky(PermissionError("403"), OSError("not asked again")))
    assert len(Flaky.errors) == 1


def test_a_store_that_does_not_answer_is_left(flaky: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_store, "LIMIT_S", 0.05)
    never = threading.Event()
    store = run_places.at(flaky(never, never))
    with pytest.raises(StoreError, match=r"trtgate: no answer within 0\.05 s"):
        run_places.put(store, NAME, RUN, key="key", commit=COMMIT)
    with pytest.raises(StoreError, match="it did not answer before"):
        run_places.put(store, NAME, RUN, key="key", commit=COMMIT)
    assert len(Flaky.errors) == 1  # a gate that keeps a run and a report waits once
    never.set()


def test_a_store_that_can_not_create_is_asked_first_whether_the_name_is_free(flaky: Callable[..., str]) -> None:
    put(flaky(NotImplementedError("mode")))
    with pytest.raises(StoreError, match="another run has that name"):
        put(flaky(OSError(5, "A header you provided implies functionality that is not implemented")), b"{}")
    assert [bytes(file.getvalue()) for file in Flaky.store.values()] == [RUN]


def test_a_stream_is_read_to_its_end_or_to_the_limit(
    flaky: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = flaky()
    put(url)
    monkeypatch.setattr(Flaky, "in_pieces", True)
    (place,) = run_places.runs_in(RunStore(url))
    assert run_places.content_of(place) == RUN
    monkeypatch.setattr(run_places, "MOST_BYTES", len(RUN) - 1)
    with pytest.raises(StoreError, match="is larger than"):
        run_places.content_of(place)


@pytest.mark.usefixtures("s3")
def test_a_bucket_that_does_not_exist_is_told_and_not_made() -> None:
    with pytest.raises(StoreError) as error:
        put("s3://no-such-bucket/trtgate")
    assert "s3://no-such-bucket/trtgate: it does not exist" in sentence(error)
    with pytest.raises(StoreError, match="it does not exist"):
        run_places.runs_in(RunStore("s3://no-such-bucket/trtgate"))
    assert [name for name in fsspec.filesystem("s3").ls("", refresh=True) if "no-such" in str(name)] == []


@pytest.mark.usefixtures("s3")
def test_a_bucket_without_permission_is_told_and_no_key_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    from moto import settings

    monkeypatch.setattr(settings, "INITIAL_NO_AUTH_ACTION_COUNT", 0)  # from now on it looks at who asks
    for ask in (lambda: put("s3://runs/x"), lambda: run_places.runs_in(RunStore("s3://runs/x"))):
        with pytest.raises(StoreError) as error:
            ask()
        assert "s3://runs/x: permission denied" in sentence(error)
        assert "see which credentials this process has" in sentence(error)
        assert "secret" not in sentence(error)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("s3://bucket/trtgate", "s3://bucket/trtgate"),
        ("s3://key:secret@bucket/x", "s3://bucket/x"),
        ("sftp://me:pass/word@host:22/x@y", "sftp://y"),
        ("sftp://me:pass@word@host/x", "sftp://host/x"),
        ("http://host:9000/dir@1/x", "http://host:9000/dir@1/x"),
        ("abfs://box/x?sig=AbC%2F&se=1", "abfs://box/x?…"),
        ("simplecache::s3://k:s@b/x", "simplecache::s3://b/x"),
        ("--trtgate-runs=s3://k:s@b/x", "--trtgate-runs=s3://b/x"),
        ("s3://b/*-shard-?-of-2.json", "s3://b/*-shard-?-of-2.json"),
        ("suite.py::test_latency[a?b=c]", "suite.py::test_latency[a?b=c]"),
    ],
)
def test_what_is_secret_in_a_url_is_not_shown(url: str, shown: str) -> None:
    assert without_secrets(url) == shown


def test_what_can_not_be_a_store_is_refused_before_anything_is_measured(
    here: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsspec.filesystem("memory").pipe_file("/empty/x.txt", b"")
    for option, words in (
        ("--trtgate-confirm=memory://empty", "memory://empty has no run of cpu-"),
        ("--trtgate-runs=foo://k:secretsecret@x/y", "ERROR: trtgate: foo://x/y: Protocol not known: foo"),
        ("--trtgate-confirm=memory://nothing/there.json", "memory://nothing/there.json: it does not exist"),
    ):
        status, said = here.run("suite.py", "--benchmark-compare", option)
        assert (status, words in said, "secretsecret" in said) == (pytest.ExitCode.USAGE_ERROR, True, False)
    monkeypatch.setitem(sys.modules, "fsspec", None)
    status, said = here.run("suite.py", "--trtgate-runs=s3://x/y")
    assert (status, "s3://x/y: runs at a URL need fsspec: pip install 'trtgate[store]'" in said) == (4, True)
    assert not (here.path / ".trtgate" / "runs").exists()


# As a user has it


@pytest.mark.parametrize("kept", ["folder", "s3"], indirect=True)
def test_a_run_its_shards_and_their_merge_go_there_and_are_read_from_there(
    here: InProcess, kept: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here.path / "pytest.ini").write_text(f"[pytest]\ntrtgate_suite = suite.py\ntrtgate_runs = {kept}\n")
    status, said = here.run(*COMPARE[:2], "--trtgate-update-baselines", "--trtgate-report=report.json")
    assert (status, "run kept: " in said, "report kept: " in said) == (0, True, True)
    store = run_places.at(kept)
    (report,) = run_places.runs_in(store, [REPORT])
    assert command("report", str(report))[0] == 0
    monkeypatch.setattr(ScriptedSession, "latency_us", 300.0)
    for number in (1, 2):
        assert here.run(*COMPARE, f"--trtgate-shard={number}/2")[0] == 0
    status, said = command("merge", kept)
    assert (status, "2 suspected and not confirmed" in said) == (UNCONFIRMED, True)
    (pending,) = run_places.runs_in(store, [OPEN])
    assert f"run kept: {pending}" in said or Path(kept).is_dir()
    assert f"--trtgate-confirm={pending}" in said or Path(kept).is_dir()
    assert here.run(*COMPARE, f"--trtgate-confirm={kept}")[0] == 0
    status, said = command("merge", kept)
    assert (status, f"FAILED {ALPHA} is slower" in said) == (1, True)
    (merged,) = run_places.runs_in(store, [MERGED])
    if "://" in kept:  # a shell replaces patterns of files
        assert command("merge", f"{kept}/*/*/*-shard-*.json")[0] == UNCONFIRMED
    command("merge", kept)
    assert names(kept, MERGED) == [merged.name]  # the same again is the same object
    status, said = command("history", ALPHA, "--json=history.json")
    assert status == 0, said
    ((case,),) = json.loads((here.path / "history.json").read_text())["histories"].values()
    (series,) = case["series"]
    points = [(point["verdict"], point["latency_us"] > 200.0) for point in series["points"]]
    assert sorted(points) == [("new", False), ("regressed", True)]  # those of one second come in any order
    before = command("history", "*")
    assert command("runs", "compact")[1].startswith("2 runs compacted: 4 rows")
    assert command("history", "*") == before
    assert "no run of" not in before[1]
    status, said = command("baseline", "accept", str(merged), BETA)
    assert (status, f"stored: {BETA}" in said) == (0, True)
    assert command("baseline", "show", str(merged))[0] == 0
    for path in run_places.named_runs(store, all_dates=True):
        filesystem(store).rm(path)  # what is compacted is all that is left
    monkeypatch.setattr(ScriptedSession, "latency_us", 301.0)  # else it is the merged run again, in the same second
    assert here.run(*COMPARE[:2], "--trtgate-report=after.json")[0] == 0
    history_of = {one["case_id"]: one["history"] for one in json.loads((here.path / "after.json").read_text())["cases"]}
    assert sorted(point["verdict"] for point in history_of[ALPHA]["points"]) == ["measured", "new", "regressed"]


def test_a_store_that_fails_is_a_loud_line_and_fails_no_gate(here: InProcess, flaky: Callable[..., str]) -> None:
    url = flaky(*[OSError("no route to hunter2hunter2")] * 99)
    status, said = here.run(*COMPARE, f"--trtgate-runs={url}", "-q", "--trtgate-report=r.json")
    assert status == 0
    assert "WARNING: the run was not kept: flaky://x/trtgate: OSError: no route to …; .trtgate/runs/" in said
    assert "WARNING: the report was not kept: flaky://x/trtgate: " in said
    for number in (1, 2):
        status, said = here.run(*COMPARE, "--trtgate-shard", f"{number}/2", "--trtgate-runs", url)
        assert (status, "WARNING: the run was not kept" in said) == (0, True)
    files = sorted(here.path.glob(".trtgate/runs/*.json"))
    assert len(files) == 3
    shards = [str(file) for file in files if "-shard-" in file.name]
    status, said = command("merge", *shards, "--report=m.json")
    assert (status, "hunter2" in said) == (0, False)
    written = [*files, here.path / "r.json", here.path / "m.json", *here.path.glob(".trtgate/runs/*merged*")]
    assert [file.name for file in written if "hunter2" in file.read_text()] == []


@pytest.mark.parametrize(
    ("option", "variable", "key", "expected"),
    [
        (None, None, "", None), (None, None, "runs", "/root/runs"), (None, "", "runs", "/root/runs"),
        (None, "/v", "runs", "/v"), ("o", "/v", "runs", "/cwd/o"), ("", "/v", "runs", None),
        (None, None, "/a", "/a"), ("file:///a%20b", None, "", "/a b"), (None, "s3://b/x", "", "s3://b/x"),
    ],
)  # fmt: skip
def test_it_is_off_by_default_and_an_option_wins_over_the_environment_over_the_ini_key(
    option: str | None, variable: str | None, key: str, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trtgate.common.run_store._check_protocol", lambda _url: None)
    if variable is not None:
        monkeypatch.setenv("TRTGATE_RUNS", variable)
    config: Any = SimpleNamespace(
        getoption=lambda _name: option, getini=lambda _name: key, rootpath=Path("/root"),
        invocation_params=SimpleNamespace(dir=Path("/cwd")),
    )  # fmt: skip
    found = kept_runs.folder(config)
    assert (None if found is None else str(found)) == expected


def test_a_folder_of_shards_is_merged_by_its_name(here: InProcess) -> None:
    for number in (1, 2):
        here.run("suite.py", f"--trtgate-shard={number}/2")
    assert "run kept" not in here.run("suite.py")[1]  # a whole run beside them
    status, said = command("merge", ".trtgate/runs")
    assert (status, "2 cases: 2 measured" in said) == (0, True)
    status, said = command("merge", "baselines")
    assert (status, said) == (
        4,
        "trtgate: error: baselines can't be read: No such file or directory (docs: shard-rejected)\n",
    )
    (here.path / "empty").mkdir()
    status, said = command("merge", "empty")
    assert (status, said) == (
        4,
        "trtgate: error: empty has no run of a shard or a confirmation (docs: command-refused)\n",
    )


@pytest.mark.parametrize("kept", ["memory", "s3"], indirect=True)
def test_a_run_that_is_a_folder_or_a_pattern_of_nothing_is_told(kept: str) -> None:
    put(kept)
    with pytest.raises(TrtgateError, match="is a folder, not a run"):
        run_places.one(kept)
    with pytest.raises(TrtgateError, match="has no run of a shard or a confirmation of commit abcdef123456"):
        run_places.several([kept], COMMIT)
    with pytest.raises(TrtgateError, match="has no run of a shard"):
        run_places.several([f"{kept}/*/nothing-*.json"], "")
