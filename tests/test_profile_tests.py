"""Profile tests in a pytest run, without a GPU: what is collected, skipped and refused, and what the gate decides."""

from __future__ import annotations

import contextlib
import copy
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from trtgate.commands import baseline_files, profile_answers
from trtgate.common.errors import TrtgateError
from trtgate.launches.pair import BASE, CANDIDATE, Artifacts
from trtgate.profiles import profile_files
from trtgate.profiles.profile_gate import ProfileResult
from trtgate.pytest_plugin import profile_tests
from trtgate.pytest_plugin.collected_suites import CollectedSuites, Elsewhere
from trtgate.pytest_plugin.profile_tests import PROPERTY, ProfileEnding, ProfileGate, profiles_of
from trtgate.records.profile_record import PYTORCH, Part, Profile
from trtgate.suite.suite_source import SuiteSource
from trtgate.torch_trt import engines, own_runtime

from .profile_data import H100, resnet18_information, resnet18_profile

TRTGATE = Path(sys.executable).parent / "trtgate"
SUITE = """
import trtgate

@trtgate.model(frontends=("eager", "dynamo"), precisions=("fp16",))
def net(batch):
    raise AssertionError("not to be built here")
"""


def test_only_cases_with_engines_are_profiled_and_a_cpu_says_why_not(pytester: pytest.Pytester, forked: None) -> None:
    pytester.makepyfile(suite=SUITE)
    pytester.makeini("[pytest]\ntrtgate_suite = suite.py\n")
    result = pytester.runpytest_subprocess("-m", "trtgate_profile", "suite.py", "-rs", "-v")
    result.stdout.fnmatch_lines(["*test_profile?net-dynamo-fp16-b1-mbs5? SKIPPED*", "*needs a GPU*"])
    result.stdout.no_fnmatch_line("*test_profile?net-eager*")


def test_without_a_gpu_a_profile_is_one_line_and_exit_4(pytester: pytest.Pytester, forked: None) -> None:
    result = pytester.run(TRTGATE, "profile", "resnet18")
    assert result.ret == 4
    (line,) = result.stderr.lines
    assert line.startswith("trtgate: error: a profile needs a GPU")
    assert "trtgate profile diff A B" in line
    wrong = pytester.run(TRTGATE, "profile", "diff", "a")
    assert wrong.ret == 4
    wrong.stderr.fnmatch_lines(["*takes two profiles*"])


class Bench:
    """A run on an H100, as far as the profile gate knows one; what `recording` would record is given."""

    def __init__(self, folder: Path) -> None:
        self.options: Any = SimpleNamespace(
            baselines=folder / "baselines",
            update=False,
            accepted=(),
            strict_layers=False,
            require=frozenset(),
            base=None,
        )
        self.run: Any = SimpleNamespace(
            options=self.options, accelerator=H100, folder=folder / ".trtgate",
            config=SimpleNamespace(invocation_params=SimpleNamespace(dir=folder), stash=pytest.Stash()),
        )  # fmt: skip
        self.run.profiles = profiles_of(self.run)
        settings = SimpleNamespace(partitions=True)
        self.built: Any = SimpleNamespace(case=SimpleNamespace(id=resnet18_profile().case_id, settings=settings))
        self.item: Any = SimpleNamespace(user_properties=[])
        self.use(resnet18_profile())

    def use(self, profile: Profile) -> None:
        information = {profile.parts[0].name: resnet18_information()}
        recorded: Any = SimpleNamespace(profile=profile, information=information)
        self.run.profiles._recorded[profile.case_id] = recorded

    def test(self, **options: Any) -> None:
        for name, value in options.items():
            setattr(self.options, name, value)
        ProfileGate(self.run, self.item)(self.built)

    @property
    def results(self) -> list[ProfileResult]:
        return [
            msgspec.json.decode(value, type=ProfileResult)
            for name, value in self.item.user_properties
            if name == PROPERTY
        ]

    @property
    def stored(self) -> Path:
        return profile_files.baseline_path(self.options.baselines, H100.key, self.built.case.id)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def other_tactic() -> Profile:
    profile = resnet18_profile()
    profile.parts[0].layers[0].tactic = "another_kernel"
    return profile


def test_a_new_profile_passes_and_is_stored_when_asked(bench: Bench, tmp_path: Path) -> None:
    bench.test()
    assert not bench.stored.exists()
    assert (tmp_path / ".trtgate/profiles" / bench.built.case.id / "profile.json").is_file()
    bench.test(update=True)
    assert bench.stored.is_file()


def test_a_new_profile_fails_where_baselines_are_required(bench: Bench) -> None:
    with pytest.raises(TrtgateError, match=r"no profile of it is stored .*require=baseline"):
        bench.test(require=frozenset(("baseline",)))


def test_other_layers_are_a_notice_and_under_strict_layers_a_failure(bench: Bench) -> None:
    bench.test(update=True)
    before = bench.stored.read_bytes()
    bench.use(other_tactic())
    bench.test(update=False)
    assert bench.results[-1].verdict == "changed"
    with pytest.raises(TrtgateError, match=r"other tactic: .*--trtgate-accept"):
        bench.test(strict_layers=True)
    with pytest.raises(TrtgateError, match="its layers changed"):
        bench.test(strict_layers=True, update=True)
    assert bench.stored.read_bytes() == before
    bench.test(strict_layers=True, update=True, accepted=("resnet18-*",))
    assert b"another_kernel" in bench.stored.read_bytes()


def test_an_unbelievable_profile_fails_and_is_not_stored(bench: Bench) -> None:
    broken = resnet18_profile()
    broken.parts.append(copy.copy(broken.parts[0]))
    broken.parts[1].layers, broken.parts[1].problem = [], "can't be deserialized"
    bench.use(broken)
    with pytest.raises(TrtgateError, match="can't be deserialized"):
        bench.test(update=True)
    assert not bench.stored.exists()


def without_layers() -> Profile:
    """Return a profile of a graph that stays in PyTorch, of which nothing was seen, nor how long it takes."""
    profile = resnet18_profile()
    profile.parts = [Part(name="", kind=PYTORCH, layers=[])]
    profile.device_us = None
    return profile


def test_a_profile_without_any_layer_fails_and_is_not_stored(bench: Bench) -> None:
    bench.use(without_layers())
    with pytest.raises(TrtgateError, match="no layer was seen in any part"):
        bench.test(update=True)
    assert not bench.stored.exists()


def test_a_stored_profile_without_any_layer_is_no_baseline(bench: Bench) -> None:
    profile_files.store_baseline(bench.options.baselines, H100.key, without_layers())
    with pytest.raises(TrtgateError, match=r"holds no layer: delete it and record it anew"):
        bench.test()
    assert "holds no layer" in bench.run.profiles.where(bench.built).sentence


def test_profiles_without_layers_are_not_called_the_same(tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    profile_files.write(path, without_layers())
    with pytest.raises(TrtgateError, match=r"profile\.json holds no layer"):
        profile_answers.difference(str(path), str(path))


def test_a_broken_stored_profile_is_named_and_stays(bench: Bench) -> None:
    bench.stored.parent.mkdir(parents=True)
    bench.stored.write_text("{")
    with pytest.raises(TrtgateError, match="is broken"):
        bench.test(update=True)
    assert bench.stored.read_text() == "{"


def test_a_stored_profile_below_a_link_to_nothing_is_not_new(bench: Bench) -> None:
    bench.stored.parents[1].parent.mkdir()
    bench.stored.parents[1].symlink_to("not mounted")
    with pytest.raises(OSError, match="a link to nothing"):
        bench.test()
    assert bench.results == []


def test_a_regression_says_where_or_why_it_can_not(bench: Bench) -> None:
    assert "no profile is stored" in bench.run.profiles.where(bench.built).sentence
    bench.test(update=True)
    bench.use(other_tactic())
    where = bench.run.profiles.where(bench.built)
    said = where.sentence
    assert said.startswith("where: resnet18-dynamo-fp16-b1-mbs5: ")
    assert "tactics changed" in said
    assert [change.cause for change in where.changes] == ["tactics changed"]
    bench.stored.write_text("{")
    assert bench.run.profiles.where(bench.built).sentence.startswith("where: profile ")
    bench.options.base = "main"
    bench.run.progress = lambda _case_id: contextlib.nullcontext(lambda _text: None)
    profiled: list[Artifacts] = []

    def profiles(_case_id: str, artifacts: Artifacts, _step: Any) -> tuple[Profile, Profile]:
        profiled.append(artifacts)
        return resnet18_profile(), other_tactic()

    bench.run.workers_beside_base = lambda: SimpleNamespace(profiles_beside_base=profiles)
    ahead = {name: SimpleNamespace(artifact=Path(name)) for name in (BASE, CANDIDATE)}
    for built_ahead in (ahead, {}):
        bench.built.ahead_beside_base = lambda built_ahead=built_ahead: built_ahead
        assert "tactics changed" in bench.run.profiles.where(bench.built).sentence
    assert profiled == [
        Artifacts(base=Path(BASE), candidate=Path(CANDIDATE)), Artifacts(base=None, candidate=None),
    ]  # fmt: skip
    bench.run.workers_beside_base = None  # whatever goes wrong, the regression must be told
    assert bench.run.profiles.where(bench.built).sentence.startswith("where: ")
    bench.run.accelerator = SimpleNamespace(kind="cpu")
    assert bench.run.profiles.where(bench.built).sentence == ""


@pytest.mark.parametrize(
    ("collected", "elsewhere", "gone"),
    [
        (["one", "two"], None, True),
        (["one"], None, False),
        ([], Elsewhere(suites=["one", "two"], known_cases=["other"]), True),
        ([], Elsewhere(suites=["one", "two"], known_cases=[resnet18_profile().case_id]), False),
        ([], Elsewhere(suites=["one"], known_cases=["other"]), False),
    ],
    ids=["all suites", "one of two", "gone from all of -n", "in one of -n", "one of two of -n"],
)
def test_a_stored_profile_is_called_gone_once_all_suites_were_collected(
    bench: Bench, collected: list[str], elsewhere: Elsewhere | None, gone: bool
) -> None:
    bench.test(update=True)
    suites = CollectedSuites(SuiteSource(root="", suites=("one", "two")))
    suites.source = SuiteSource(root="", suites=tuple(collected))
    suites.elsewhere = elsewhere
    bench.run.suites, bench.run.suite = suites, SimpleNamespace(cases={} if elsewhere is None else None)
    ending, lines = ProfileEnding(bench.run), list[str]()
    ending.pytest_runtest_logreport(SimpleNamespace(user_properties=bench.item.user_properties, when="call"))  # type: ignore[arg-type]
    told = SimpleNamespace(write_line=lambda line, **_: lines.append(line), section=lines.append)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(profile_tests, "write_table", lambda *_: None)
        ending.pytest_terminal_summary(told)
    assert any("the suite has no such case" in line for line in lines) == gone


def test_a_profile_of_a_case_that_is_gone_is_removed_by_hand(bench: Bench) -> None:
    bench.test(update=True)
    name = bench.built.case.id
    assert list(profile_files.stored_baselines(bench.options.baselines).values()) == [name]
    assert baseline_files.remove(bench.options.baselines, [name]) == [f"removed from {bench.stored.parent}: {name}"]
    assert not bench.stored.exists()


def test_one_case_that_cannot_be_built_keeps_no_other_from_being_profiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def recorded(case: Any, *_: Any) -> profile_answers.ProfileAnswer:
        return profile_answers.ProfileAnswer(case_id=case.id, profile=resnet18_profile(), folder="there")

    def fails(case: Any, *_: Any) -> Any:
        raise TrtgateError(f"case {case.id}: dynamo could not build it: no memory")

    monkeypatch.setattr("trtgate.common.accelerator.detect", lambda: H100)
    monkeypatch.setattr("trtgate.timing.used_gpu.check", lambda _seen: None)
    monkeypatch.setattr("trtgate.compiling.reference.checked", fails)
    wanted = profile_answers.cases(
        ["resnet18", "vit_b_16"], frontend="dynamo", precisions=["fp16"], batches=[1], min_block_sizes=[5],
        verbosity="detailed",
    )  # fmt: skip
    answers = profile_answers.record(wanted, tmp_path / "out", lambda _text: None)
    assert [answer.problem.partition(": ")[2] for answer in answers] == ["dynamo could not build it: no memory"] * 2
    said = profile_answers.lines([*answers, recorded(wanted[0])])
    assert sum(str(line).startswith("ERROR: ") for line in said) == 2
    assert "written: there" in said
    (tmp_path / "file").write_text("")
    with pytest.raises(TrtgateError, match="can't be made"):
        profile_answers.record(wanted, tmp_path / "file" / "out", lambda _text: None)


def test_an_engine_that_cannot_be_deserialized_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refuses:
        Logger = type("Logger", (), {"ERROR": 1, "__init__": lambda self, _level: None})
        Runtime = type(
            "Runtime", (), {"__init__": lambda self, _log: None, "deserialize_cuda_engine": lambda self, _bytes: None}
        )
        __version__ = "1.0"

    monkeypatch.setattr(engines, "tensorrt", Refuses)
    engine = engines.BuiltEngine(SimpleNamespace(serialized_engine=b"nothing"))
    with pytest.raises(TrtgateError, match=r"TensorRT 1.0 can't deserialize the engine: build it again"):
        own_runtime.OwnRuntime(engine, [])
