"""A failure of a case is its sentence: what torch logs meanwhile is for -v."""

from __future__ import annotations

from typing import Any

import pytest

from trtgate.pytest_plugin.upstream_logs import without_upstream

TESTS = """
import logging
import sys


def says():
    logging.getLogger("torch_tensorrt.dynamo").warning("upstream's%s", " record")
    logging.getLogger("mine").warning("my record")
    print("W1129 09:07:51.121000 13768 torch/_opaque_base.py:6] upstream's" + " line", file=sys.stderr)
    print("my line", file=sys.stderr)
    raise AssertionError


def test_of_a_case(trtgate_case):
    says()


def test_of_nothing():
    says()
"""


@pytest.mark.parametrize(("verbosity", "expected"), [("-q", False), ("-v", True)])
def test_upstreams_records_follow_a_cases_failure_only_with_v(folder: Any, verbosity: str, *, expected: bool) -> None:
    folder.suite("alpha")
    (folder.path / "test_mine.py").write_text(TESTS)
    of_case = folder.gate("test_mine.py", verbosity, "-k", "of_a_case").stdout.str()
    assert ("upstream's record" in of_case, "upstream's line" in of_case) == (expected, expected)
    assert "my record" in of_case
    assert "my line" in of_case
    of_nothing = folder.gate("test_mine.py", "-q", "-k", "of_nothing").stdout.str()
    assert "upstream's record" in of_nothing
    assert "upstream's line" in of_nothing


def test_a_section_of_which_nothing_is_left_is_none() -> None:
    torchs = "W1129 09:07:51.121000 13768 torch/_opaque_base.py:6] deprecated\n"
    sections = [("Captured stderr call", torchs), ("Captured stdout call", torchs), ("Captured log call", "mine")]
    assert without_upstream(sections) == sections[1:]
