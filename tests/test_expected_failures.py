"""Cases that are known to fail: an xfail where that is so, a failure where it is not any more."""

from __future__ import annotations

from typing import Any

import pytest

import trtgate
from trtgate.common.errors import TrtgateError
from trtgate.report.run_report import read
from trtgate.suite.expected_failures import expected_failure
from trtgate.torch_trt import releases

SUITE = """
@trtgate.model(frontends=("eager",), precisions=("fp32",), expected_failure=trtgate.expected_failure("NaN" {where}))
def odd(batch):
    return made(lambda x: x * float({factor!r}), __import__("torch").ones(batch, 4))
"""


@pytest.mark.parametrize(
    ("flavour", "versions", "applies"),
    [
        ("", (), True), ("rtx", (), True), ("standard", (), False), ("", "2.11", True), ("", "2.1", False),
        ("rtx", ("2.10", "2.11.0"), True), ("rtx", "2.11.1", False),
    ],
)  # fmt: skip
def test_it_is_about_a_flavour_and_versions(flavour: str, versions: Any, applies: bool) -> None:
    assert expected_failure("NaN", flavour=flavour, versions=versions).applies("rtx", "2.11.0") is applies


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"reason": " "}, "say how"),
        ({"reason": "NaN", "flavour": "trt"}, "there are rtx, standard"),
        ({"reason": "NaN", "versions": "2.x"}, "write a version"),
    ],
)
def test_what_says_nothing_is_refused(arguments: Any, words: str) -> None:
    with pytest.raises(TrtgateError, match=words):
        expected_failure(**arguments)
    with pytest.raises(TrtgateError, match=r"write trtgate\.expected_failure"):
        trtgate.Settings(frontend="eager", expected_failure="NaN")  # type: ignore[arg-type]


def test_a_case_that_fails_as_expected_fails_nothing(folder: Any) -> None:
    folder.suite("alpha", more=SUITE.format(where="", factor="nan"))
    done = folder.gate("--trtgate-update-baselines", "-rx", "--trtgate-report=report.json")
    assert done.ret == 0
    done.assert_outcomes(passed=2, xfailed=2)
    done.stdout.fnmatch_lines(["XFAIL *odd-eager-fp32-b1* - known to fail (NaN): *eager's own output has NaN*"])
    assert folder.saved_cases() == {"alpha-eager-fp32-b1"}
    (odd,) = (case for case in read(folder.path / "report.json").cases if case.case_id.startswith("odd"))
    assert odd.sentence.startswith("known to fail (NaN): ")


def test_a_case_that_passes_although_it_should_not_fails(folder: Any) -> None:
    folder.suite("alpha", more=SUITE.format(where="", factor="2"))
    done = folder.gate()
    assert done.ret == 1
    done.assert_outcomes(passed=2, failed=2)
    assert "odd-eager-fp32-b1 passed, and is known to fail (NaN): take that out of the suite" in folder.output_of(done)


def test_of_another_version_it_says_nothing(folder: Any) -> None:
    assert releases.version() != "1.0"
    folder.suite(more=SUITE.format(where=", versions='1.0'", factor="2"))
    done = folder.gate()
    assert done.ret == 0
    done.assert_outcomes(passed=2)
