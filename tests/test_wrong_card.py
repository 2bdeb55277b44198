"""A card is what NVML and CUDA say of the device that is used, never a label or a number."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pynvml
import pytest
import torch

from tests.in_process import InProcess, command
from tests.scripted_measurer import record
from tests.stage_files import SAME, StagedRun, document, entry
from trtgate.common import accelerator
from trtgate.common.accelerator import Accelerator
from trtgate.common.errors import TrtgateError
from trtgate.gate import baselines
from trtgate.timing import used_gpu

H100 = {
    "nvmlDeviceGetName": "NVIDIA H100", "nvmlDeviceGetUUID": "GPU-a", "nvmlDeviceGetMemoryInfo": 80 << 30,
    "nvmlDeviceGetCudaComputeCapability": (9, 0), "nvmlDeviceGetMaxClockInfo": 1980,
    "nvmlDeviceGetEnforcedPowerLimit": 700_000,
}  # fmt: skip
L4 = {
    "nvmlDeviceGetName": "NVIDIA L4", "nvmlDeviceGetUUID": "GPU-b", "nvmlDeviceGetMemoryInfo": 23 << 30,
    "nvmlDeviceGetCudaComputeCapability": (8, 9), "nvmlDeviceGetMaxClockInfo": 2040,
    "nvmlDeviceGetEnforcedPowerLimit": 72_000,
}  # fmt: skip
INSTANCE = {
    "nvmlDeviceGetName": "NVIDIA H100 MIG 1g.10gb",
    "nvmlDeviceGetUUID": "MIG-c",
    "nvmlDeviceGetMemoryInfo": 9 << 30,
}
"""What NVML knows of an instance: clocks, power and capability are the card's."""


CARDS_OF_INSTANCES = "nvmlDeviceGetDeviceHandleFromMigDeviceHandle"


class PlayedNvml:
    """NVML with some cards, numbered by PCI bus, and instances of the first one; a handle is what is known of it."""

    def __init__(self, cards: Sequence[Mapping[str, Any]], instances: Sequence[Mapping[str, Any]]) -> None:
        self._cards = [dict(card) for card in cards]
        if instances:
            self._cards[0]["nvmlDeviceGetMigMode"] = (pynvml.NVML_DEVICE_MIG_ENABLE,) * 2
        self._instances = [
            {**one, "nvmlDeviceIsMigDeviceHandle": 1, CARDS_OF_INSTANCES: self._cards[0]} for one in instances
        ]

    def asked(self, function: str) -> Callable[..., Any]:
        def answer(handle: Mapping[str, Any], *_: Any) -> Any:
            if function not in handle:
                raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
            found = handle[function]
            return SimpleNamespace(total=found) if function == "nvmlDeviceGetMemoryInfo" else found

        return answer

    def by_number(self, number: int) -> Mapping[str, Any]:
        if number >= len(self._cards):
            raise pynvml.NVMLError(pynvml.NVML_ERROR_INVALID_ARGUMENT)
        return self._cards[number]

    def by_uuid(self, uuid: str) -> Mapping[str, Any]:
        found = [one for one in (*self._cards, *self._instances) if one["nvmlDeviceGetUUID"] == uuid]
        if not found:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return found[0]

    def functions(self) -> dict[str, Callable[..., Any]]:
        of_handles = (*H100, "nvmlDeviceGetMigMode", "nvmlDeviceIsMigDeviceHandle", CARDS_OF_INSTANCES)
        return {name: self.asked(name) for name in of_handles} | {
            "nvmlInit": lambda: None, "nvmlShutdown": lambda: None, "nvmlDeviceGetCount": lambda: len(self._cards),
            "nvmlDeviceGetHandleByIndex": self.by_number, "nvmlDeviceGetHandleByUUID": self.by_uuid,
            "nvmlSystemGetDriverVersion": lambda: "580.1", "nvmlSystemGetCudaDriverVersion_v2": lambda: 13000,
        }  # fmt: skip


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Plays NVML."""

    def play(*cards: Mapping[str, Any], instances: Sequence[Mapping[str, Any]] = ()) -> None:
        for name, function in PlayedNvml(cards, instances).functions().items():
            monkeypatch.setattr(pynvml, name, function)

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return play


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Plays a torch that sees a GPU."""

    def play(name: str = "NVIDIA H100", uuid: str = "a", capability: tuple[int, int] = (9, 0)) -> None:
        properties = SimpleNamespace(name=name, uuid=uuid, major=capability[0], minor=capability[1])
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _number: properties)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda _number: name)
        monkeypatch.setattr(torch.version, "cuda", "13.0")
        monkeypatch.setattr(used_gpu, "DRIVER", "libc.so.6")

    return play


def refused(line: str, check: Callable[[], Any]) -> None:
    with pytest.raises(TrtgateError) as caught:
        check()
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


# What a device is


def test_all_that_a_device_is_comes_from_nvml(nvml: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    nvml(H100, L4)
    for name in ("NVIDIA_PRODUCT_NAME", "GPU_NAME", "CUDA_DEVICE_NAME", "NODE_LABELS"):
        monkeypatch.setenv(name, "NVIDIA B200")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    found = accelerator.detect()
    assert (found.key, found.uuid, found.capability) == ("nvidia-l4-23gib", "GPU-b", (8, 9))
    assert (found.max_sm_clock_mhz, found.power_limit_w, found.mig_profile) == (2040, 72.0, "")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a,GPU-b")
    assert accelerator.detect().key == "nvidia-h100-80gib"


def test_an_instance_has_its_own_memory_and_the_clocks_power_and_capability_of_its_card(
    nvml: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    nvml(H100, instances=[INSTANCE])
    refused("is divided (MIG) and no instance is chosen", accelerator.detect)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-c")
    found = accelerator.detect()
    assert (found.key, found.uuid) == ("nvidia-h100-9gib-mig-1g.10gb", "MIG-c")
    assert (found.capability, found.max_sm_clock_mhz, found.power_limit_w) == ((9, 0), 1980, 700.0)


def test_the_beginning_of_a_uuid_names_a_card_as_it_does_for_cuda(
    nvml: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    nvml({**H100, "nvmlDeviceGetUUID": "GPU-a1"}, {**L4, "nvmlDeviceGetUUID": "GPU-a2"})
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a2")
    assert accelerator.detect().uuid == "GPU-a2"
    nvml({**H100, "nvmlDeviceGetUUID": "GPU-a1"}, {**L4, "nvmlDeviceGetUUID": "GPU-b2"})
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-b")
    assert accelerator.detect().uuid == "GPU-b2"
    for name in ("GPU-", "GPU-c", "MIG-a", "b"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", name)
        refused("names no GPU that NVML knows", accelerator.detect)


def test_a_number_that_names_no_card_is_one_line(nvml: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    nvml(H100)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    refused("CUDA_VISIBLE_DEVICES='3' names no GPU that NVML knows", accelerator.detect)


# The device that is used


def test_torch_must_use_the_card_that_nvml_described(nvml: Callable[..., None], cuda: Callable[..., None]) -> None:
    nvml(L4, H100)
    cuda()  # CUDA counts the fastest first
    seen = accelerator.detect()
    refused("torch's first GPU is GPU-a (NVIDIA H100), NVML's is GPU-b", lambda: used_gpu.check(seen))
    cuda("NVIDIA L4", "b", (8, 9))
    used_gpu.check(seen)


def test_where_uuids_say_nothing_name_and_capability_do(
    nvml: Callable[..., None], cuda: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    nvml(H100, instances=[INSTANCE])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-c")
    seen = accelerator.detect()
    cuda("NVIDIA H100 MIG 1g.10gb", "other")
    used_gpu.check(seen)
    cuda("NVIDIA H100 MIG 1g.10gb", "other", (8, 0))
    refused("(compute capability 8.0), NVML's is NVIDIA H100 (9.0)", lambda: used_gpu.check(seen))
    cuda("NVIDIA A100 MIG 1g.10gb", "other", (8, 0))
    refused("torch's first GPU is NVIDIA A100", lambda: used_gpu.check(seen))


def test_a_gpu_that_nvml_does_not_see_is_no_reason_to_measure_on_the_cpu(cuda: Callable[..., None]) -> None:
    here = Accelerator(kind="cpu", name="CPU")
    used_gpu.check(here)
    cuda()
    refused("torch sees NVIDIA H100, and NVML sees no GPU", lambda: used_gpu.check(here))


def test_without_a_driver_torch_is_not_imported_to_see_that_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(used_gpu, "DRIVER", "libcuda-of-nobody.so")
    monkeypatch.setitem(sys.modules, "torch", None)  # importing it raises
    used_gpu.check(Accelerator(kind="cpu", name="CPU"))
    monkeypatch.setattr(used_gpu, "DRIVER", "libc.so.6")
    with pytest.raises(ImportError):
        used_gpu.check(Accelerator(kind="cpu", name="CPU"))


def test_a_run_on_another_gpu_than_nvml_says_ends_before_its_first_test(
    here: InProcess, cuda: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    cuda()
    for seen, line in (
        (Accelerator(kind="cpu", name="CPU"), "torch sees NVIDIA H100, and NVML sees no GPU"),
        (
            Accelerator(kind="gpu", name="NVIDIA L4", uuid="GPU-b"),
            "torch's first GPU is GPU-a (NVIDIA H100), NVML's is GPU-b",
        ),
    ):
        monkeypatch.setattr(accelerator, "detect", lambda seen=seen: seen)
        status, said = here.run("suite.py")
        assert status == pytest.ExitCode.USAGE_ERROR
        assert said.count("ERROR: ") == 1
        assert line in said
        assert "Traceback" not in said


def test_a_suite_that_moves_a_worker_to_another_gpu_is_told() -> None:
    used = SimpleNamespace(name="NVIDIA L4", uuid="b")
    refused("torch's first GPU is GPU-b (NVIDIA L4), NVML's is GPU-a", lambda: used_gpu.check_uuid("GPU-a", used))
    for uuid, known in (("GPU-b", used), ("", used), ("MIG-c", used), ("GPU-a", SimpleNamespace(name="x"))):
        used_gpu.check_uuid(uuid, known)


# What files claim

CARD = Accelerator(kind="gpu", name="H100", uuid="HERE", capability=(9, 0))


def stored(folder: Path, recorded: Accelerator, us: float = 100.0, **machine: str) -> Path:
    path = baselines.path_of(folder, CARD.key)
    path.parent.mkdir(parents=True, exist_ok=True)
    one = msgspec.structs.replace(record([us, us]), case="m-eager-fp32-b1")
    sessions = [msgspec.structs.replace(session, machine=machine) for session in one.sessions]
    one = msgspec.structs.replace(one, sessions=sessions)
    path.write_text(json.dumps(document(recorded, [entry("m-eager-fp32-b1", msgspec.to_builtins(one))])))
    return path


@pytest.mark.parametrize(
    ("recorded", "line"),
    [
        (msgspec.structs.replace(CARD, name="L4"), "was recorded on l4-0gib, and"),
        (
            msgspec.structs.replace(CARD, capability=(8, 9)),
            "claims to be of h100-0gib, and was recorded on compute capability 8.9, where",
        ),
    ],
)
def test_a_baseline_that_is_of_another_kind_is_told_and_nothing_is_added_to_it(
    tmp_path: Path, recorded: Accelerator, line: str
) -> None:
    path = stored(tmp_path / "baselines", recorded)
    before = path.read_bytes()
    run = stored(tmp_path / "run", CARD, 100.2).rename(tmp_path / "run.json")
    status, said = command("baseline", "accept", str(run), "--baselines", str(tmp_path / "baselines"))
    assert (status, said.count("\n")) == (4, 1)
    assert line in said
    assert path.read_bytes() == before


def test_what_does_not_know_its_capability_is_told_by_its_key_alone(tmp_path: Path) -> None:
    stored(tmp_path / "baselines", msgspec.structs.replace(CARD, capability=None))
    run = stored(tmp_path / "run", CARD, 100.2).rename(tmp_path / "run.json")
    assert command("baseline", "accept", str(run), "--baselines", str(tmp_path / "baselines"))[0] == 0


@pytest.mark.parametrize(
    ("machine", "line"),
    [
        ({"card": "NVIDIA L4", "capability": "8.9"}, "claims to be of H100, and case m-eager-fp32-b1 has a session of"),
        ({"card": "H100", "capability": "8.9"}, "on compute capability 8.9"),
        ({"card": "H100", "capability": "9.0"}, ""),
        ({}, ""),
    ],
)
def test_a_run_whose_name_was_edited_is_told_by_its_sessions(
    tmp_path: Path, machine: Mapping[str, str], line: str
) -> None:
    run = stored(tmp_path / "run", CARD, **machine).rename(tmp_path / "run.json")
    for arguments in (("baseline", "accept", str(run)), ("export", "--to", "csv", str(run))):
        more = ("--baselines", str(tmp_path / "baselines")) if "accept" in arguments else ()
        status, said = command(*arguments, *more)
        if line:
            assert (status, said.count("\n")) == (4, 1)
            assert line in said
        elif "accept" in arguments:
            assert status == 0, said


def test_shards_of_another_kind_than_their_baseline_are_not_judged(tmp_path: Path) -> None:
    """As where the name of a run's accelerator was edited: what else is known of it is another kind's."""
    staged = StagedRun(tmp_path, [SAME, SAME], CARD)
    manifest = staged.manifest([list(staged.cases)])
    staged.merged([staged.shard(manifest, 1)])
    staged.accelerator = msgspec.structs.replace(CARD, capability=(8, 9))
    shard = staged.shard(manifest, 1)
    refused("claims to be of h100-0gib, and was recorded on compute capability 9.0", lambda: staged.merged([shard]))
