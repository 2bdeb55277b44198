"""Ways to hide a slow case for the campaign of `faults.py`: one that is twice as slow must not pass unseen.

Each is tried with `--benchmark-compare` as a CI job asks it, which must end red, and without any more, where a loud
line may be enough. What is asked for on the command line itself may leave the case out, and must say so. Real
processes, scripted clocks.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from typing import NamedTuple

from fault_files import SOCKETS
from fault_runs import ALPHA, BETA, Attempt, Came, Ended, Place, Result, groups, worst

from tests import forks
from tests.pytest_folder import LEAN
from tests.suites import suite_text

FAMILY = "hidden slow cases"
SLOW_MS = "4.2"
STRICT = ("--trtgate-require=baseline,verdict",)


def _nothing(_place: Place) -> None: ...


class Way(NamedTuple):
    """One way: what is changed in the checkout, on the command line, in the environment."""

    prepare: Callable[[Place], None] = _nothing
    arguments: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    asked: bool = False
    """Whether the command line leaves the case out: a line is enough then."""
    declared: bool = False
    """Whether the suite itself says that the case fails nothing: a line is enough then too."""
    launches: int = 1


# What is changed


def _suite(*names: str, more: str = "", **statements: str) -> Callable[[Place], None]:
    return lambda place: _write(place, "suite.py", suite_text(names, statements) + more)


def _write(place: Place, name: str, text: str) -> None:
    (place.checkout / name).write_text(text)


def _conftest(text: str) -> Callable[[Place], None]:
    return lambda place: _write(place, "conftest.py", f"import pytest\n\n\n{text}")


def _ini(*lines: str) -> Callable[[Place], None]:
    return lambda place: _write(place, "pytest.ini", "\n".join(["[pytest]", "trtgate_suite = suite.py", *lines, ""]))


SLEEPING = "return made(lambda x: (sleep('alpha'), x + 1)[1], __import__('torch').ones(batch, 4))"


def _model(decorated: str = "", body: str = SLEEPING, name: str = "alpha", frontends: str = '("eager",)') -> str:
    head = f'@trtgate.model(frontends={frontends}, precisions=("fp32",){decorated})'
    return f"\n\n{head}\ndef {name}(batch):\n    {body}\n"


def _last_failed(place: Place) -> None:
    cache = place.checkout / ".pytest_cache/v/cache"
    cache.mkdir(parents=True)
    (cache / "lastfailed").write_text(json.dumps({f"suite.py::test_latency[{BETA}]": True}))
    _ini("addopts = --lf")(place)


def _accepted(place: Place) -> None:
    """Accept a slow run, and do not name the case."""
    _run(place, "--benchmark-compare", "--trtgate-launches=1", ALPHA_MS=SLOW_MS)
    place.command("baseline", "accept", str(max(set(place.runs()) - set(place.kept_runs))))


def _without_alpha(place: Place) -> None:
    document = json.loads(place.baseline.read_bytes())
    document["benchmarks"] = [one for one in document["benchmarks"] if one["extra_info"]["trtgate"]["case"] != ALPHA]
    place.baseline.write_text(json.dumps(document))


def _of_another_card(place: Place) -> None:
    """Call the baseline's accelerator something else."""
    folder = place.baseline.parent
    text = place.baseline.read_text()
    folder.rename(folder.with_name("cpu-another-2-cpus"))
    (folder.with_name("cpu-another-2-cpus") / place.baseline.name).write_text(
        re.sub(r'"name": "[^"]+"', '"name": "another"', text)
    )


def _moved_baselines(place: Place) -> None:
    shutil.move(place.checkout / "baselines", place.checkout / "stored")


LACKS = "import pytest; pytest.importorskip('flash_attn')"
SKIP = "import pytest; pytest.skip('no flash_attn')"
MODIFY = "def pytest_collection_modifyitems(items):\n    "
REPORT = """@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.failed:
        report.outcome = "{}"{}
    return report
"""
EIGHTY = "pause(0.0021 * (1 + (__import__('zlib').crc32(str(os.getpid()).encode()) % 5 > 0)))"
SLEEPS = "sleep('alpha')"
ADD = "PYTEST_ADDOPTS"

WAYS: dict[str, Way] = {
    # the code under test
    "the factory skips": Way(_suite("beta", more=_model(body=SKIP))),
    "the factory lacks a package": Way(_suite("beta", more=_model(body=LACKS))),
    "the factory expects to fail": Way(_suite("beta", more=_model(body="import pytest; pytest.xfail('known')"))),
    "the factory exits": Way(_suite("beta", more=_model(body="raise SystemExit(0)"))),
    "forward skips": Way(_suite("beta", alpha=SKIP)),
    "the suite skips itself": Way(lambda place: _write(
        place, "suite.py", f"{LACKS.replace('; ', chr(10))}\n" + suite_text(("alpha", "beta"), {}))),
    "the model is renamed": Way(_suite("beta", more=_model(name="alpha2"))),
    "the model is gone": Way(_suite("beta")),
    "another frontend": Way(_suite("beta", more=_model(frontends='("aot_eager",)'))),
    "two factories of a name": Way(_suite("alpha", "beta", more=_model(body="return made(lambda x: x, None)"))),
    "slow in four of five processes": Way(_suite("beta", alpha=EIGHTY), launches=5),
    "slow but for the first calls": Way(_suite("beta", alpha="pause(0.0021 * (1 + measuring()))")),
    "the source changes meanwhile": Way(
        _suite("beta", alpha=f"{SLEEPS}; measuring() and open('suite.py', 'a').write('# another branch\\n')")),
    "a limit of 5 in the suite": Way(_suite("beta", more=_model(', limits={"host": 5}'))),
    "a limit of 500 % in the suite": Way(_suite("beta", more=_model(', limits={"host": "500%"}')), declared=True),
    "quarantine": Way(_suite("beta", more=_model(
        ', quarantine=trtgate.quarantine("driver bug", until="2999-01-01")')), declared=True),
    "quarantine that ended": Way(_suite("beta", more=_model(
        ', quarantine=trtgate.quarantine("driver bug", until="2020-01-01")'))),
    "an expected failure": Way(_suite("beta", more=_model(', expected_failure=trtgate.expected_failure("slow")'))),
    # conftest.py
    "conftest expects failures": Way(_conftest(
        f"{MODIFY}for item in items:\n        item.add_marker(pytest.mark.xfail(reason='flaky'))\n")),
    "conftest skips": Way(_conftest(
        f"{MODIFY}for item in items:\n        'alpha' in item.name and item.add_marker(pytest.mark.skip)\n")),
    "conftest drops items": Way(_conftest(f"{MODIFY}items[:] = [one for one in items if 'alpha' not in one.name]\n")),
    "conftest deselects": Way(_conftest(
        "def pytest_collection_modifyitems(items, config):\n    gone = [one for one in items if 'alpha' in one.name]\n"
        "    items[:] = [one for one in items if one not in gone]\n    config.hook.pytest_deselected(items=gone)\n")),
    "conftest ignores the suite": Way(_conftest("collect_ignore = ['suite.py']\n")),
    "a hook reports passed": Way(_conftest(REPORT.format("passed", ""))),
    "a hook reports skipped": Way(_conftest(REPORT.format(
        "skipped", "\n        report.longrepr = ('suite.py', 1, 'Skipped: flaky')"))),
    "a hook reports an expected failure": Way(_conftest(REPORT.format(
        "skipped", "\n        report.wasxfail = 'flaky'"))),
    "a hook runs no test": Way(_conftest(
        "def pytest_runtest_protocol(item):\n    return True if 'alpha' in item.name else None\n")),
    "a hook calls no test": Way(_conftest(
        "@pytest.hookimpl(tryfirst=True)\ndef pytest_pyfunc_call(pyfuncitem):\n"
        "    return True if 'alpha' in pyfuncitem.name else None\n")),
    "a fixture skips": Way(_conftest(
        "@pytest.fixture(autouse=True)\ndef flaky(request):\n"
        "    if 'alpha' in request.node.name:\n        pytest.skip('flaky')\n")),
    "a fixture in the gate's place": Way(_conftest(
        "@pytest.fixture\ndef latency_gate():\n    return lambda benchmark, built: benchmark(int)\n")),
    # settings and environment
    "a filter in addopts": Way(_ini("addopts = -k beta")),
    "a filter in PYTEST_ADDOPTS": Way(environment=((ADD, "-k beta"),)),
    "another filter in PYTEST_ADDOPTS": Way(environment=((ADD, "--trtgate-models=beta"),)),
    "a mark in addopts": Way(_ini("addopts = -m 'not trtgate_latency'")),
    "deselected in addopts": Way(_ini(f"addopts = --deselect suite.py::test_latency[{ALPHA}]")),
    "ignored in PYTEST_ADDOPTS": Way(environment=((ADD, "--ignore=suite.py"),)),
    "the last failed alone, in addopts": Way(_last_failed, arguments=("-p", "cacheprovider")),
    "only collected, by PYTEST_ADDOPTS": Way(environment=((ADD, "--collect-only"),)),
    "only planned, by PYTEST_ADDOPTS": Way(environment=((ADD, "--setup-plan"),)),
    "not timed, by PYTEST_ADDOPTS": Way(environment=((ADD, "--benchmark-disable"),)),
    "a limit in PYTEST_ADDOPTS": Way(environment=((ADD, "--trtgate-limit=host=900%"),), declared=True),
    "accepted by PYTEST_ADDOPTS": Way(environment=((ADD, "--trtgate-update-baselines --trtgate-accept=*"),)),
    "no plugin, by PYTEST_ADDOPTS": Way(environment=((ADD, "-p no:trtgate.plugin"),)),
    "no plugins, by the environment": Way(environment=(("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1"),)),
    "another ini file, by PYTEST_ADDOPTS": Way(environment=((ADD, "-c /dev/null"),)),
    "nothing shown, by PYTEST_ADDOPTS": Way(environment=((ADD, "-p no:terminal"),)),
    "many processes, by PYTEST_ADDOPTS": Way(environment=((ADD, "-n 2"),)),
    "a limit of 5 in the settings": Way(_ini("trtgate_limits = host=5")),
    "a renamed key": Way(lambda place: _write(
        place, "pytest.ini", "[pytest]\ntrtgate_suite = suite.py\ntrtgate_baseline = baselines\n")),
    "another folder of baselines": Way(_ini("trtgate_baselines = other")),
    # what is stored
    "the baselines are moved": Way(_moved_baselines), "the baseline lacks the case": Way(_without_alpha),
    "the baseline is another machine's": Way(_of_another_card), "a slow run is accepted": Way(_accepted),
    # the command line
    "a filter on the command line": Way(arguments=("-k", "beta"), asked=True),
    "a test on the command line": Way(arguments=(f"suite.py::test_latency[{BETA}]",), asked=True),
    "a limit of 5 on the command line": Way(arguments=("--trtgate-limit=host=5",)),
}  # fmt: skip


# Attempts


def pairs() -> list[tuple[str, str]]:
    """Return where something is hidden, and how."""
    begin = {
        "the factory skips": "code", "conftest expects failures": "conftest.py", "a filter in addopts": "settings",
        "the baselines are moved": "stored files", "a filter on the command line": "command line",
    }  # fmt: skip
    return groups(list(WAYS), begin)


def tried(place: Place, attempt: Attempt) -> Result:
    """Hide the case, with and without what a CI job asks for."""
    way, found = WAYS[attempt.how], []
    for strict in (STRICT, ()):
        place.restore()
        way.prepare(place)
        named = () if any("::" in word for word in way.arguments) else ("suite.py",)
        asked = ("--benchmark-compare", f"--trtgate-launches={way.launches}", *strict, *way.arguments)
        ended = _run(place, *named, *asked, ALPHA_MS=SLOW_MS, **dict(way.environment))
        found.append(_judged(ended, red=bool(strict) and not way.asked and not way.declared))
    return Result(attempt, *worst(found))


def _run(place: Place, *arguments: str, **environment: str) -> Ended:
    shutil.rmtree(place.checkout / "__pycache__", ignore_errors=True)
    named = arguments if any("suite.py" in word for word in arguments) else ("suite.py", *arguments)
    with forks.forked(SOCKETS):
        return place.ended(place.start("-m", "pytest", *LEAN[2:], *named, **environment))


def _judged(ended: Ended, *, red: bool) -> tuple[Came, str]:
    bad = ended.broken("trtgate/")
    if bad is not None:
        return bad, ended.output
    if ended.status != 0:
        return Came.HELD, ended.output
    loud = any(LOUD.search(line) for line in ended.lines)
    if red or not loud:
        return Came.SILENT, f"exit code 0{' where a verdict is required' * red}\n{ended.output}"
    return Came.LINE, ended.output


LOUD = re.compile(
    r"MISSING|WARNING|NEW|not run, as asked|quarantined|underpowered|incomparable|accepted: "
    r"|this run judged|tests collected in"
)
"""A line that tells a reader that the case was not found good."""
