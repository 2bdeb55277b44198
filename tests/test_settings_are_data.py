"""Settings are data: making some changes nothing in the process."""

from __future__ import annotations

import pytest

from trtgate import Settings
from trtgate.torch_trt import modelopt_package


@pytest.fixture(autouse=True)
def nothing_expected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modelopt_package, "_expected", set())


def test_making_settings_does_not_announce_their_precision() -> None:
    Settings(frontend="dynamo", precision="int8", batch=1)
    assert not modelopt_package.is_expected()


def test_whoever_has_cases_announces_what_is_quantized() -> None:
    modelopt_package.expect(["fp32", "fp16"])
    assert not modelopt_package.is_expected()
    modelopt_package.expect(settings.precision for settings in [Settings(frontend="dynamo", precision="fp8", batch=1)])
    assert modelopt_package.is_expected()
