"""Rounds of `trtgate selfcheck`: what fails, or is too short for the delay, is left out, and the rest goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from trtgate.commands import selfcheck_builds, selfcheck_findings, selfcheck_rounds
from trtgate.commands.selfcheck_file import SelfcheckFile
from trtgate.commands.selfcheck_findings import Selfcheck
from trtgate.common.accelerator import GIB, Accelerator
from trtgate.common.errors import TrtgateError
from trtgate.common.run_folder import RunFolder
from trtgate.compiling.artifact_cache import CacheRequest
from trtgate.frontends import aot_eager
from trtgate.gate.paired_gate import PairedGate, Suspicion
from trtgate.launches.comparison_side import Side
from trtgate.launches.pair import CANDIDATE, DelayRefusedError, DisturbedError, Pair, SideError
from trtgate.launches.pair_session import PairSession
from trtgate.launches.prebuild import Prebuild, Prebuilt
from trtgate.suite.suite_source import SuiteSource

from .suites import STORING, suite_text

CPU = Accelerator(kind="cpu", name="test", cpus=1)
NOWHERE = SelfcheckFile(None, add=False)
ALPHA, BETA, SHORT = (f"{name}-eager-fp32-b1" for name in ("alpha", "beta", "short"))
SENTENCE = "a delay of 100.00% is too little here: take a longer case, or a larger delay"
NO_DELAY_BELOW_1_MS = f"""

if IN_WORKER:
    as_it_is = added_delay.delayed

    def delayed(inference, share, state):
        if added_delay._host_latency_s(inference) < 1e-3:
            raise added_delay.TooShortError({SENTENCE!r})
        return as_it_is(inference, share, state)

    added_delay.delayed = delayed
"""
"""Ends a suite: a model that takes less has no delay, as a GPU refuses one that is shorter than a kernel."""
DIES_ON_DEMAND = "sleep('beta'); os.path.exists('die') and measuring() and os.remove('die') is None and os._exit(7)"
"""A model's statement: the first of the workers that measure it, once there is a file, ends."""

pytestmark = pytest.mark.usefixtures("forked")
Check = Callable[..., Selfcheck]


@pytest.fixture
def saved() -> list[int]:
    """How many comparisons were saved after each round."""
    return []


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, saved: list[int]) -> Check:
    """Checks cases of a suite on a CPU in scripted time; a difference of 50 % is suspected."""
    monkeypatch.setenv("TRTGATE_LOCK_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)

    def run(
        names: Sequence[str], statements: dict[str, str], *, rounds: int = 1, delay: float = 0.0,
        save: Callable[[Selfcheck], None] = lambda _found: None, more: str = "", cache: CacheRequest | None = None,
        file: SelfcheckFile = NOWHERE,
    ) -> Selfcheck:  # fmt: skip
        (tmp_path / "suite.py").write_text(suite_text(names, statements) + NO_DELAY_BELOW_1_MS + more)
        source = SuiteSource(root=str(tmp_path), suites=("suite.py",))

        def note(found: Selfcheck) -> None:
            saved.append(len(found.comparisons))
            file.save(found)
            save(found)

        return selfcheck_rounds.run(
            source, selfcheck_rounds.cases_of(source, [], CPU), CPU, lambda _metric: 0.5, rounds=rounds, delay=delay,
            folder=tmp_path / "files", cache=cache, timeout_s=60, streams="one", step=lambda _text: None, save=note,
            begin=file.begin,
        )  # fmt: skip

    return run


def counts(found: Selfcheck) -> dict[tuple[str, bool], int]:
    """Return how often each case was compared, unchanged and delayed."""
    kinds = [(one.case_id, one.delay > 0) for one in found.comparisons]
    return {kind: kinds.count(kind) for kind in kinds}


def said(found: Selfcheck) -> str:
    return "\n".join(map(str, selfcheck_findings.lines(found)))


@pytest.fixture
def unconfirmed(monkeypatch: pytest.MonkeyPatch) -> list[list[Suspicion]]:
    """Confirmation says nothing of the suspicions that it is asked of, which are these."""
    asked: list[list[Suspicion]] = []

    def confirm(_gate: PairedGate, suspicions: Sequence[Suspicion], *_others: Any) -> list[list[Any]]:
        asked.append(list(suspicions))
        return [[] for _ in suspicions]

    monkeypatch.setattr(PairedGate, "confirm", confirm)
    return asked


# A delay that a case is too short for


def test_a_case_that_is_too_short_for_the_delay_is_compared_unchanged_alone_and_named_once(
    check: Check, unconfirmed: list[list[Suspicion]]
) -> None:
    found = check(["alpha"], {"short": "pass"}, rounds=2, delay=1.0)
    assert counts(found) == {(SHORT, False): 2, (ALPHA, False): 2, (ALPHA, True): 2}
    assert found.problems == [f"delayed comparisons of {SHORT}: {SENTENCE} (docs: command-refused)"]
    assert (found.too_short, found.failed) == ([SHORT], False)
    assert said(found).count(SENTENCE) == 1
    assert "false alarms: 0 of 4" in said(found)
    assert [[(one.case_id, one.delay) for one in asked] for asked in unconfirmed] == [[(ALPHA, 1.0)]] * 2


def test_a_delay_that_no_case_takes_is_an_error_after_one_round_whose_comparisons_are_saved(
    check: Check, saved: list[int]
) -> None:
    with pytest.raises(TrtgateError, match=f"^delayed comparisons of {SHORT}: {SENTENCE}") as caught:
        check([], {"short": "pass", "shorter": "pass"}, rounds=3, delay=1.0)
    assert str(caught.value).endswith("; and 1 more problem (docs: command-refused)")
    assert saved == [2]


def test_a_pair_that_refuses_a_delay_measures_the_next_case(
    check: Check, monkeypatch: pytest.MonkeyPatch, unconfirmed: list[list[Suspicion]]
) -> None:
    ended: list[str] = []
    end = PairSession.end

    def note(session: PairSession, pair: Pair) -> None:
        ended.append(pair.holds)
        end(session, pair)

    monkeypatch.setattr(PairSession, "end", note)
    check(["alpha"], {"short": "pass"}, delay=1.0)
    assert ended.count(ALPHA) == 1  # the pair of the round, which held `short` before
    assert SHORT not in ended


# Rounds that are added to earlier ones


def test_added_rounds_count_with_earlier_ones_from_the_first_save_on(
    check: Check, saved: list[int], tmp_path: Path, unconfirmed: list[list[Suspicion]]
) -> None:
    """What was too short for the delay is so, and is named once."""
    path = tmp_path / "found.json"
    for _ in range(2):
        found = check(["alpha"], {"short": "pass"}, delay=1.0, file=SelfcheckFile(path, add=True))
    assert counts(found) == {(SHORT, False): 2, (ALPHA, False): 2, (ALPHA, True): 2}
    assert saved == [3, 6]
    assert said(found).count(SENTENCE) == 1


# What is built


STORED = (
    STORING
    + """

def times(factor):
    import torch

    class Times(torch.nn.Module):
        def forward(self, x):
            return x * factor

    return Times(), torch.ones(1, 4)


MODELS = [trtgate.Model("first", lambda: times(2.0), trtgate.grid(["aot_eager"]))]
"""
)


@pytest.mark.usefixtures("forked_with_tensorrt")
def test_a_case_is_built_once_and_later_checks_take_it_from_the_artifact_cache(
    check: Check, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its processes export: those that have imported torch_tensorrt have imported torch.export with it."""
    builds = tmp_path / "builds"
    monkeypatch.setattr(aot_eager, "FRONTEND", aot_eager.FRONTEND)  # the suite, imported here too, puts another there
    monkeypatch.setenv("BUILDS", str(builds))
    cache = CacheRequest(folder=str(tmp_path / "cache"))
    for count, used in ((1, cache), (1, cache), (2, None)):
        found = check([], {}, more=STORED, cache=used)
        assert counts(found) == {("first-aot_eager-fp32", False): 1}
        assert len(builds.read_text().split()) == count
    assert not list((tmp_path / "files").glob("artifacts-*"))


@pytest.mark.parametrize(("kind", "builders", "in_turn"), [("gpu", 3, True), ("cpu", 1, False)])
def test_on_a_gpu_one_case_is_built_while_others_are_exported(
    kind: str, builders: int, in_turn: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What goes into the cache has the build time of building alone."""
    asked: list[Prebuild] = []
    source = SuiteSource(root=str(tmp_path), zoo=("resnet18", "resnet34"))
    cases = list(source.load().cases.values())[:3]

    def run(work: Prebuild, case_ids: Sequence[str]) -> Iterator[Prebuilt]:
        asked.append(work)
        work.imported()
        yield from (Prebuilt(case_id=case_id, problem=f"case {case_id}: no") for case_id in reversed(case_ids))

    monkeypatch.setattr(Prebuild, "run", run)
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: set(range(16)))
    monkeypatch.setattr("trtgate.common.machine.memory_bytes", lambda: 1 << 40)
    imported: list[str] = []
    built = selfcheck_builds.built(
        Side(name=CANDIDATE, source=source), cases, Accelerator(kind=kind, name="test", memory_bytes=80 * GIB),
        RunFolder(tmp_path), cache=None, timeout_s=1, imported=lambda: imported.append("imported"),
        step=lambda _text: None,
    )  # fmt: skip
    (work,) = asked
    assert (work.builders, work.in_turn, len(imported)) == (builders, in_turn, in_turn)
    assert list(built) == [case.id for case in cases]
    assert selfcheck_builds.problem_of(built[cases[0].id]) == f"{cases[0].id}: no (docs: build-failed)"


# What fails


def test_a_worker_that_dies_in_one_round_costs_that_comparison_alone(check: Check, saved: list[int]) -> None:
    def from_the_second_round(_found: Selfcheck) -> None:
        if len(saved) == 1:
            Path("die").touch()

    found = check(["alpha"], {"beta": DIES_ON_DEMAND}, rounds=3, save=from_the_second_round)
    assert counts(found) == {(ALPHA, False): 3, (BETA, False): 2}
    (problem,) = found.problems
    assert problem.startswith(f"{BETA}: measuring: the worker ended with exit code 7")
    assert problem.endswith("(docs: worker-failed)")
    assert found.failed


def test_a_case_that_cannot_be_built_is_left_out(check: Check) -> None:
    found = check(["alpha"], {"beta": "raise ValueError('no such weights')"})
    assert counts(found) == {(ALPHA, False): 1}
    (problem,) = found.problems
    assert BETA in problem
    assert "no such weights" in problem
    assert found.failed


def test_where_no_case_can_be_built_the_error_says_why(check: Check) -> None:
    with pytest.raises(TrtgateError, match=r"^nothing could be built: .*no such weights.* \(docs: [a-z-]+\)$"):
        check([], {"beta": "raise ValueError('no such weights')"})


def test_what_ends_the_check_does_not_lose_the_rounds_that_were_complete(
    check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As others who keep the device for longer than the time limit do."""
    load = PairSession.load_resident
    calls: list[str] = []

    def load_once(session: PairSession, case_id: str, *others: Any) -> Any:
        calls.append(case_id)
        if len(calls) > 1:
            raise TrtgateError("others keep the device")
        return load(session, case_id, *others)

    monkeypatch.setattr(PairSession, "load_resident", load_once)
    found = check(["alpha"], {}, rounds=3)
    assert counts(found) == {(ALPHA, False): 1}
    assert found.problems == [
        "the round that failed, and those that would have followed: others keep the device (docs: worker-failed)"
    ]
    assert found.failed


def test_where_nothing_at_all_could_be_compared_the_error_says_why(
    check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    def disturbed(*_arguments: Any) -> None:
        raise DisturbedError("blocks of the base do not count: throttled")

    monkeypatch.setattr(PairSession, "load_resident", disturbed)
    with pytest.raises(TrtgateError, match=r"^nothing could be compared: alpha.*throttled \(docs: void-blocks\)$"):
        check(["alpha"], {}, rounds=2)


@pytest.mark.parametrize(
    ("error", "failed", "too_short"),
    [
        (SideError(CANDIDATE, "the worker died"), True, []),
        (DisturbedError("throttled"), False, []),
        (DelayRefusedError("too short"), False, [BETA]),
    ],
)
def test_a_confirmation_that_fails_costs_the_comparison_that_it_fails_for(
    check: Check, monkeypatch: pytest.MonkeyPatch, error: Exception, failed: bool, too_short: list[str]
) -> None:
    """Suspicions are confirmed in the same processes; where these fail, each in its own."""

    def confirm(_gate: PairedGate, suspicions: Sequence[Suspicion], *_others: Any) -> list[list[Any]]:
        if any(one.case_id == BETA for one in suspicions):
            raise error
        return [[] for _ in suspicions]

    monkeypatch.setattr(PairedGate, "confirm", confirm)
    found = check(["alpha", "beta"], {}, delay=1.0)
    assert counts(found) == {(ALPHA, False): 1, (ALPHA, True): 1, (BETA, False): 1}
    assert (len(found.problems), found.failed, found.too_short) == (1, failed, too_short)


def test_what_was_left_out_for_one_reason_is_one_line() -> None:
    found = Selfcheck(
        accelerator=CPU, cases=[], streams="one", limits={}, wanted_delay=0.0, comparisons=[], tests=1,
        problems=["a", "b", "a"],
    )  # fmt: skip
    assert said(found).endswith("left out 2 times: a\nleft out: b")
    assert msgspec.to_builtins(found)["problems"] == ["a", "b", "a"]
