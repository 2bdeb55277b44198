"""`--trtgate-build-only`: cases are built, alone or by several processes; nothing is timed or stored."""

from __future__ import annotations

from typing import Any

import pytest

OTHERS = {"broken": "raise ValueError('broken')"}


@pytest.mark.parametrize("processes", [(), ("-n2",)])
def test_every_case_is_built_once_and_nothing_is_timed(folder: Any, processes: tuple[str, ...]) -> None:
    folder.suite("alpha", "beta", **OTHERS)
    done = folder.gate("--trtgate-build-only", *processes)
    output = folder.output_of(done)
    assert done.ret == pytest.ExitCode.TESTS_FAILED
    done.assert_outcomes(passed=2, failed=1, deselected=0 if processes else 3)
    assert "ready: 2 cases, 0 of them from the cache" in output
    assert "nothing: every launch makes the module anew" in output
    assert output.count("alpha-eager-fp32-b1") >= 1
    assert "broken" in output
    assert "benchmark '" not in output
    assert folder.saved_cases() == set()


def test_what_another_process_could_not_cache_is_said_once(folder: Any) -> None:
    folder.suite("alpha")
    suite = folder.path / "suite.py"
    suite.write_text(  # its builder imports it
        suite.read_text() + "\nfrom trtgate.compiling import build_or_load\n"
        "taken = build_or_load.build_or_load\n"
        "def obtain(*arguments, **more):\n"
        "    found = taken(*arguments, **more)\n"
        "    found.notes.append('could not be cached: the disk is full')\n"
        "    return found\n"
        "build_or_load.build_or_load = obtain\n"
    )
    for processes in ((), ("-n1",)):
        output = folder.output_of(folder.gate("--trtgate-build-only", *processes))
        assert output.count("could not be cached: the disk is full") == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--benchmark-compare",), ("--benchmark-compare", "--trtgate-build-only times nothing", "drop one")),
        (("--trtgate-update-baselines",), ("--trtgate-update-baselines", "drop one")),
        (("--trtgate-base=HEAD",), ("--trtgate-build-only times nothing", "drop one")),
        (("--trtgate-no-cache",), ("--trtgate-no-cache", "drop one")),
    ],
)
def test_what_contradicts_it_is_refused(folder: Any, options: tuple[str, ...], words: tuple[str, ...]) -> None:
    folder.suite("alpha")
    folder.refused(folder.gate("--trtgate-build-only", *options), *words)
