"""What a run and a cluster's nodes say to each other, without a cluster."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import msgspec
import pytest

from trtgate import Case, Model, Settings
from trtgate.common.errors import FaultError, TrtgateError, is_fault
from trtgate.fleet import ray_messages
from trtgate.fleet.card_handle import CardHandle
from trtgate.fleet.ray_messages import Reply, Suite, answered
from trtgate.fleet.ray_workers import RayWorkers
from trtgate.gate.card_jobs import CardLostError
from trtgate.launches.prebuild import Prebuilt
from trtgate.launches.worker_handle import LaunchError
from trtgate.records.measurement import Build, ColdStart
from trtgate.suite.suite_source import SuiteSource


def given(work: Any) -> Reply:
    return msgspec.json.decode(answered(work), type=Reply)


def raises(error: BaseException) -> Any:
    def work() -> None:
        raise error

    return work


def test_a_suite_is_below_the_folder_that_ray_unpacked(tmp_path: Path) -> None:
    root, other, there = tmp_path / "root", tmp_path / "other", tmp_path / "node"
    for folder in (root / "src", other):
        folder.mkdir(parents=True)
    source = SuiteSource(
        root=str(root), suites=("suite.py", "package.module", str(root / "more.py")), factories=("m:f",),
        weights={"net": str(root / "net.pt"), "big": str(other / "big.pt")}, sha256={str(root / "suite.py"): "1"},
    )  # fmt: skip
    path = [str(root / "src"), str(other), "", str(root / ".venv" / "site-packages")]
    found = Suite(source=source, folder=str(root / "src"), path=path).here(there)
    assert found.source.root == str(there)
    assert found.source.suites == ("suite.py", "package.module", str(there / "more.py"))
    assert found.source.weights == {"net": str(there / "net.pt"), "big": str(other / "big.pt")}
    assert found.source.sha256 == {str(there / "suite.py"): "1"}
    assert found.folder == str(there / "src")
    assert found.path == [str(there / "src")]


def test_values_come_back_as_they_were() -> None:
    cold = ColdStart(seconds=1.5, host_bytes=7)
    raw = given(lambda: ([cold], [])).checked()
    assert msgspec.json.decode(raw, type=tuple[list[ColdStart], list[ColdStart]]) == ([cold], [])
    made = Prebuilt(case_id="net", build=Build(build_s=2.0, remarks=("a",)), artifact=Path("/node/a"), notes=["n"])
    sent = msgspec.json.decode(given(lambda: ray_messages.BuiltCase.of(made)).checked(), type=ray_messages.BuiltCase)
    assert sent.made == made


def test_a_case_is_sent_as_data_and_a_factory_never() -> None:
    case = Case(Model("net", lambda: None, ()), Settings(frontend="dynamo", batch=8, options={"x": 1}))
    sent = msgspec.json.decode(msgspec.json.encode(ray_messages.case_of(case)), type=ray_messages.ManifestCase)
    assert (sent.case.id, sent.case.settings, sent.case.model.name) == (case.id, case.settings, "net")


@pytest.mark.parametrize(
    ("error", "kind", "fault"),
    [
        (TrtgateError("no"), TrtgateError, False),
        (LaunchError("gone"), LaunchError, False),
        (OSError(errno.ENOSPC, "No space left", "/x"), FaultError, True),
        (KeyError("k"), TrtgateError, False),
    ],
)
def test_what_a_node_raises_is_raised_here_in_a_line(error: BaseException, kind: type, fault: bool) -> None:
    with pytest.raises(kind) as raised:
        given(raises(error)).checked()
    assert type(raised.value) is kind
    assert is_fault(raised.value) is fault
    assert "\n" not in str(raised.value)


class FakeRay:
    """Stands for Ray: a reference is what it gives, or raises."""

    def __init__(self) -> None:
        self.killed: list[Any] = []

    def wait(self, references: list[Any], *, timeout: float) -> tuple[list[Any], list[Any]]:
        never = [one for one in references if one is NEVER]
        return [one for one in references if one is not NEVER], never

    def get(self, reference: Any, *, timeout: float) -> Any:
        if isinstance(reference, Exception):
            raise reference
        return reference

    def kill(self, actor: Any, *, no_restart: bool) -> None:
        self.killed.append(actor)


NEVER = object()


class ActorDiedError(Exception):
    """As Ray's is called."""


def handle(ray: FakeRay) -> CardHandle:
    accelerator = ray_messages.Accelerator(kind="gpu", name="test", uuid="GPU-1")
    return CardHandle(ray, "actor", ray_messages.Facts(host="h", node="0123456789", accelerator=accelerator))


def test_a_node_that_is_gone_is_a_lost_card_and_its_actor_is_ended() -> None:
    ray = FakeRay()
    with pytest.raises(CardLostError, match=r"h \(GPU-1, node 01234567\) is lost: its actor died, or its node"):
        handle(ray).answer(ActorDiedError("it died\nbecause"), lambda _text: None)
    assert ray.killed == ["actor"]


def test_a_node_that_says_nothing_is_lost_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    from trtgate.fleet import card_handle

    card = handle(FakeRay())
    monkeypatch.setattr(card_handle, "ANSWER_S", -1.0)
    with pytest.raises(CardLostError, match="no answer for 0 s"):
        card.answer(NEVER, lambda _text: None)


class Closing:
    """An actor that counts how often it is asked to clean up."""

    asked = 0

    @property
    def close(self) -> Any:
        return self

    def remote(self) -> str:
        self.asked += 1
        return "closed"


def test_devices_at_rest_begin_to_clean_up_together_and_each_once() -> None:
    ray, actors = FakeRay(), [Closing(), Closing()]
    facts = ray_messages.Facts(host="h", node="0", accelerator=ray_messages.Accelerator(kind="cpu", name="test"))
    cards = [CardHandle(ray, actor, facts) for actor in actors]
    workers = [RayWorkers(card, opened()) for card in cards]
    for one in workers:
        one.stop()
    assert ([actor.asked for actor in actors], ray.killed) == ([1, 1], [])
    for one in workers:
        one.close()
    assert ([actor.asked for actor in actors], ray.killed) == ([1, 1], actors)


def opened() -> ray_messages.Open:
    return ray_messages.Open(
        source=SuiteSource(root="/"), folder="/", path=[], streams="one", cold_starts=0, load=0, launches=3,
        timeout_s=1.0, tensorrt=False,
    )  # fmt: skip


def test_a_cluster_keeps_no_module_of_a_baseline() -> None:
    kept, why = RayWorkers(handle(FakeRay()), opened()).kept("net", "2026-01-01")
    assert kept is None
    assert "a cluster keeps no compiled module" in why
