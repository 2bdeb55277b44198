"""Ways in which a slow, wrong or missing case could pass: each must turn the run red, and say why in one line."""

from __future__ import annotations

import re

import pytest

FAILED, USAGE = pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.USAGE_ERROR
ALPHA, BETA = "alpha-eager-fp32-b1", "beta-eager-fp32-b1"


@pytest.mark.parametrize(
    "statement", ["pytest.skip('no flash_attn')", "pytest.importorskip('flash_attn')", "pytest.xfail('known')"]
)
@pytest.mark.parametrize("where", ["factory", "forward"])
def test_a_model_that_skips_its_own_test_fails(folder, statement, where):
    folder.baseline("alpha", "beta")
    if where == "forward":
        folder.suite("beta", alpha=f"import pytest; {statement}")
    else:
        folder.suite("beta", more=SKIPPING.format(statement=statement))
    result = folder.gate("--benchmark-compare", "--trtgate-launches=1")
    assert result.ret == FAILED
    assert result.parseoutcomes()["failed"] == 2


SKIPPING = """

@trtgate.model(frontends=("eager",), precisions=("fp32",))
def alpha(batch):
    import pytest
    {statement}
"""


@pytest.mark.parametrize("options", [("--trtgate-frontends=eager",), ("-k", "alpha or beta")])
def test_a_filter_excuses_only_the_cases_that_it_leaves_out(folder, options):
    folder.suite("beta")
    folder.baseline("alpha", "beta")
    result = folder.gate("--benchmark-compare", "--trtgate-launches=1", *options)
    assert result.ret == FAILED
    result.stdout.fnmatch_lines([f"MISSING: {ALPHA} is in the baseline*"])


@pytest.mark.parametrize(
    "options", [("--trtgate-models=beta",), ("-k", "beta"), ("--trtgate-frontends=inductor,eager", "-k", "beta")]
)
def test_what_the_filter_leaves_out_is_not_missing(folder, options):
    folder.suite("beta")
    folder.baseline("alpha", "beta")
    result = folder.gate("--benchmark-compare", "--trtgate-launches=1", *options)
    assert result.ret == 0
    result.stdout.fnmatch_lines(["not run, as asked: 1 case of the baseline"])


def test_a_conftest_that_drops_tests_hides_nothing(folder):
    folder.suite("alpha", "beta")
    folder.baseline("alpha", "beta")
    (folder.path / "conftest.py").write_text(
        "def pytest_collection_modifyitems(items):\n"
        "    items[:] = [one for one in items if 'alpha' not in one.nodeid]\n"
    )
    result = folder.gate("--benchmark-compare", "--trtgate-launches=1")
    assert result.ret == FAILED
    result.stdout.fnmatch_lines([f"MISSING: {ALPHA} is in the baseline*"])


SKIPS_ACCURACY = """
import pytest

def pytest_collection_modifyitems(items):
    for item in items:
        if "test_accuracy[alpha" in item.nodeid:
            item.add_marker(pytest.mark.skip(reason="slow"))
"""
DROPS_ACCURACY = """
def pytest_collection_modifyitems(items):
    items[:] = [one for one in items if "test_accuracy[alpha" not in one.nodeid]
"""
FIXTURE_SKIPS_ACCURACY = """
import pytest

@pytest.fixture(autouse=True)
def no_time(request):
    if "test_accuracy[alpha" in request.node.nodeid:
        pytest.skip("slow")
"""
DESELECTS_ACCURACY = """
def pytest_collection_modifyitems(config, items):
    config.hook.pytest_deselected(items=[one for one in items if "test_accuracy[alpha" in one.nodeid])
    items[:] = [one for one in items if "test_accuracy[alpha" not in one.nodeid]
"""
UNCHECKED = f"MISSING: {ALPHA} is in the baseline and its accuracy was not checked: *"


@pytest.mark.parametrize("conftest", [SKIPS_ACCURACY, DROPS_ACCURACY, FIXTURE_SKIPS_ACCURACY])
def test_a_conftest_that_skips_or_drops_accuracy_hides_nothing(folder, conftest):
    folder.suite("alpha", "beta")
    folder.baseline("alpha", "beta")
    (folder.path / "conftest.py").write_text(conftest)
    result = folder.gate("--benchmark-compare")
    assert result.ret == FAILED
    result.stdout.fnmatch_lines([UNCHECKED])
    assert folder.output_of(result).count("MISSING") == 1


def test_a_run_that_is_red_for_what_was_not_run_says_so_last(folder):
    folder.suite("gamma")
    folder.baseline("alpha", "beta")
    result = folder.gate("--benchmark-compare", "-q")
    assert result.ret == FAILED
    why, counts = [line for line in result.outlines if line][-2:]
    assert re.fullmatch("!+ red, though no test failed: 2 lines above say why: missing-case !+", why)
    assert "2 passed" in counts
    folder.suite("gamma", broken="raise ValueError('planted')")
    failed = folder.gate("--benchmark-compare")
    assert failed.ret == FAILED
    assert "though no test failed" not in folder.output_of(failed)  # the short summary names those that did


def test_accuracy_that_a_conftest_deselects_is_missed_by_who_requires_verdicts(folder):
    folder.suite("alpha", "beta")
    folder.baseline("alpha", "beta")
    (folder.path / "conftest.py").write_text(DESELECTS_ACCURACY)
    quiet = folder.gate("--benchmark-compare")
    assert quiet.ret == 0
    quiet.stdout.fnmatch_lines(["accuracy not checked, as asked: 1 case of the baseline"])
    options = ("--benchmark-compare", "--trtgate-require=verdict", "--trtgate-limit=host=5000%")
    assert folder.gate(*options, "-k", "beta").ret == 0
    hidden = folder.gate(*options)
    assert hidden.ret == FAILED
    hidden.stdout.fnmatch_lines(["ERROR: the accuracy of 1 case of the baseline was not checked, and a filter*"])


EXITS = "import pytest\ndef {}:\n    pytest.exit('enough', returncode=0)\n"


@pytest.mark.parametrize("hook", ["pytest_collection_modifyitems()", "pytest_runtest_setup()"])
def test_a_run_that_a_conftest_ends_as_passed_is_red_where_something_is_asked(folder, hook):
    folder.suite("alpha")
    (folder.path / "conftest.py").write_text(EXITS.format(hook))
    for options in (("--benchmark-compare",), ("-m", "trtgate_accuracy", "--trtgate-require=gpu")):
        ended = folder.gate(*options)
        assert ended.ret == FAILED
        ended.stdout.fnmatch_lines(["ERROR: pytest.exit ended the run as if it had passed*: enough (docs: outside-*"])
    assert folder.gate().ret == 0  # as a conftest's own --list does


def test_a_run_that_stops_at_its_first_failure_blames_no_filter(folder):
    folder.suite("alpha", "beta")
    folder.baseline("alpha", "beta")
    stopped = folder.gate(
        "--benchmark-compare", "--trtgate-require=verdict", "-x", "--trtgate-limit=host=100%", ALPHA_MS=50
    )
    assert stopped.ret == FAILED
    stopped.stdout.fnmatch_lines(["not run, as asked: 1 case of the baseline"])
    assert "a filter" not in folder.output_of(stopped)


@pytest.mark.parametrize("options", [("-k", "latency"), ("-m", "trtgate_latency"), ("-k", "beta"), ("-x",)])
def test_accuracy_that_the_user_left_out_is_not_missed(folder, options):
    folder.suite("alpha", "beta")
    folder.baseline("alpha", "beta")
    result = folder.gate("--benchmark-compare", *options)
    assert result.ret == 0
    assert "MISSING" not in folder.output_of(result)


def test_accuracy_of_a_case_that_is_known_to_fail_or_can_not_run_here_is_not_missed(folder):
    known = 'expected_failure=trtgate.expected_failure("no luck")'
    folder.suite(alpha="raise ValueError('no luck')")
    suite = folder.path / "suite.py"
    suite.write_text(suite.read_text().replace('precisions=("fp32",))', f'precisions=("fp32",), {known})'))
    folder.baseline("alpha")
    assert "its accuracy was not checked" not in folder.output_of(folder.gate("--benchmark-compare"))


def test_a_filter_in_addopts_is_no_filter_of_who_wants_a_verdict_of_all(folder):
    folder.suite("alpha", "beta")
    folder.baseline("alpha", "beta")
    options = ("--benchmark-compare", "--trtgate-launches=1", "--trtgate-require=verdict")
    hidden = folder.gate(*options, PYTEST_ADDOPTS="-k beta")
    assert hidden.ret == FAILED
    hidden.stdout.fnmatch_lines(["*this run judged 1 of 2 cases of the baseline*"])
    folder.gate(*options, "-k", "beta").stdout.no_fnmatch_line("*this run judged *")


@pytest.mark.parametrize(
    ("hidden", "named"),
    [
        ("--collect-only", "--collect-only"),
        ("--co", "--collect-only"),
        ("--trtgate-update-baselines --trtgate-accept=*", "--trtgate-accept"),
    ],
)
def test_what_takes_required_verdicts_away_is_to_be_typed(folder, hidden, named):
    """IDEs type --collect-only, and a person who accepts a slow case types that; a CI job sees neither in addopts."""
    folder.suite("alpha")
    folder.baseline("alpha")
    asked = ("--benchmark-compare", "--trtgate-require=verdict", "--trtgate-limit=host=5000%")
    asked = asked[1:] if "update" in hidden else asked
    refused = folder.gate(*asked, PYTEST_ADDOPTS=hidden)
    folder.refused(refused, f"{named} in addopts or PYTEST_ADDOPTS would hide")
    assert folder.gate(*asked, *hidden.split()).ret == 0
    assert folder.gate(*(one for one in asked if "require" not in one), PYTEST_ADDOPTS=hidden).ret == 0


def test_a_slow_case_that_a_wide_limit_lets_pass_is_named(folder):
    folder.suite("alpha", "beta")
    folder.baseline("alpha", "beta")
    slow = folder.gate("--benchmark-compare", "--trtgate-limit=host=5000%", ALPHA_MS=4)
    assert slow.ret == 0
    slow.stdout.fnmatch_lines(
        [f"WARNING: slower than the default*: {ALPHA} (host latency +9*%, limit 5,000 %) (docs: wide-limit)"]
    )
    slow.stdout.no_fnmatch_line(f"WARNING*{BETA}*")


def test_a_fixture_that_takes_the_place_of_the_gate_is_one_line(folder):
    folder.suite("alpha")
    folder.baseline("alpha")
    (folder.path / "conftest.py").write_text(
        "import pytest\n\n@pytest.fixture\ndef latency_gate():\n    return lambda benchmark, built: benchmark(int)\n"
    )
    result = folder.gate("--benchmark-compare")
    assert result.ret == FAILED
    result.stdout.fnmatch_lines(["*replaces the fixture latency_gate*"])
    assert "IndexError" not in folder.output_of(result)


def test_a_fixture_that_takes_the_place_of_the_compiled_module_is_named(folder):
    folder.suite("alpha")
    folder.baseline("alpha")
    (folder.path / "conftest.py").write_text("import pytest\n\n@pytest.fixture\ndef compiled():\n    return 1\n")
    result = folder.gate("--benchmark-compare")
    folder.refused(result, "replaces the fixture `compiled`", "(docs: outside-interference)")


XFAIL = """
import pytest

def pytest_collection_modifyitems(items):
    for item in items:
        item.add_marker(pytest.mark.xfail(reason="flaky"))
"""
REPORTED_PASSED = """
import pytest

@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.when == "call":
        report.outcome = "passed"
    return report
"""


@pytest.mark.parametrize("conftest", [XFAIL, REPORTED_PASSED], ids=["xfail", "makereport"])
def test_a_regression_that_something_else_reports_as_no_failure_turns_the_run_red(folder, conftest):
    folder.suite("beta", alpha="pause(0.02)")
    folder.baseline("alpha", "beta")
    (folder.path / "conftest.py").write_text(conftest)
    result = folder.gate("--benchmark-compare", "--trtgate-launches=1")
    assert result.ret == FAILED
    result.stdout.fnmatch_lines([f"ERROR: suite.py::test_latency?{ALPHA}? failed, and a marker or a hook*"])


def test_a_module_that_is_slow_in_some_calls_is_slower(folder):
    """Two of five calls take four times as long: 2.2 times slower, and the median call is as it was."""
    folder.suite(alpha="pause(0.008 if next(CALLS) % 5 < 2 else 0.002)")
    folder.baseline("alpha")
    result = folder.gate("--benchmark-compare", "-m", "trtgate_latency")
    assert result.ret == FAILED
    (said,) = re.findall(r"is slower: host latency .* ms, \+(\d+)\.\d+%", result.stdout.str())[:1]
    assert 100 < int(said) < 140


def test_what_the_clock_of_an_older_version_timed_is_not_compared(folder):
    """It gave the median call, and this one gives the mean."""
    with folder.edited(folder.baseline("alpha")) as document:
        document["benchmarks"][0]["extra_info"]["trtgate"]["sessions"][0]["clock"] = "host"
    folder.suite("alpha")
    result = folder.gate("--benchmark-compare", "--trtgate-require=baseline")
    assert result.ret == FAILED
    said = f"*NEW: timed with the clock host_mean, of which nothing is stored: {ALPHA}; there is 1 session of host, *"
    result.stdout.fnmatch_lines([said])


def test_verdicts_that_are_required_need_a_comparison(folder):
    folder.suite("alpha")
    result = folder.gate("--trtgate-require=baseline,verdict")
    assert result.ret == USAGE
    result.stderr.fnmatch_lines(["*--trtgate-require=baseline,verdict asks for verdicts*--benchmark-compare*"])


@pytest.mark.parametrize("option", [("--trtgate-limit", "host=50"), ("-o", "trtgate_limits=host=5")])
def test_a_percentage_without_its_sign_is_refused(folder, option):
    folder.suite("alpha")
    result = folder.gate("--benchmark-compare", *option)
    assert result.ret == USAGE
    result.stderr.fnmatch_lines(["*did you mean host=*%?*"])


@pytest.mark.parametrize("when", ["in a worker", "at the end"])
def test_code_that_changes_while_the_run_goes_on_is_not_judged(folder, when):
    """A checkout of another branch: what was measured is of no known revision."""
    change = "open('suite.py', 'a').write('# another branch\\n')"
    folder.suite("alpha", beta=f"if measuring(): {change}")
    if when == "in a worker":
        (folder.path / "conftest.py").write_text(f"def pytest_collection_finish(session):\n    {change}\n")
    result = folder.gate("--trtgate-launches=1", "--trtgate-update-baselines")
    assert result.ret == FAILED
    assert "suite.py changed" in folder.output_of(result)
    assert not list(folder.path.glob("baselines/*/latency.json"))


def test_a_wrong_name_of_the_baselines_folder_is_said(folder):
    folder.suite("alpha")
    file = folder.baseline("alpha")
    result = folder.gate("--benchmark-compare", "--trtgate-launches=1", "-o", "trtgate_baselines=baseline")
    shown = f"*no file baseline/{file.parent.name}/latency.json; there is baselines/{file.parent.name}/latency.json: *"
    result.stdout.fnmatch_lines([shown])


def test_a_misspelt_ini_key_is_refused(folder):
    folder.suite("alpha")
    (folder.path / "pytest.ini").write_text("[pytest]\ntrtgate_suites = suite.py\n")
    (folder.path / "test_own.py").write_text("def test_own():\n    pass\n")
    result = folder.pytest("test_own.py")
    assert result.ret == USAGE
    result.stderr.fnmatch_lines(
        ["*unknown ini key 'trtgate_suites'; did you mean trtgate_suite? (docs: suite-problem)"]
    )


@pytest.mark.parametrize("option", ["--trtgate-require=verdict", "--trtgate-update-baselines"])
def test_what_judges_or_stores_needs_a_suite(folder, option):
    (folder.path / "test_own.py").write_text("def test_own():\n    pass\n")
    result = folder.pytest("test_own.py", option)
    assert result.ret == USAGE
    result.stderr.fnmatch_lines([f"*{option.partition('=')[0]} needs a suite, and none is named*"])


def test_two_factories_of_one_name_are_refused(folder):
    folder.suite("alpha", more=SKIPPING.format(statement="return made(lambda x: x, 1)"))
    folder.refused(folder.gate("--benchmark-compare"), "two factories are named 'alpha'")


def test_factories_of_one_function_name_and_other_names_are_models_in_their_order(folder):
    more = """

for name in ("first", "second"):

    @trtgate.model(name=name, frontends=("eager",), precisions=("fp32",))
    def factory(batch):
        import torch

        return made(lambda x: x + 1, torch.ones(batch, 4))


@trtgate.model(name="third", frontends=("eager",), precisions=("fp32",))
def factory(batch):
    import torch

    return made(lambda x: x + 1, torch.ones(batch, 4))
"""
    folder.suite("alpha", more=more)
    result = folder.pytest("suite.py", "-m", "trtgate_accuracy", "-v")
    result.assert_outcomes(passed=4, deselected=4)
    names = ("alpha", "first", "second", "third")
    result.stdout.fnmatch_lines([f"*[[]{name}-eager-fp32-b1[]] PASSED*" for name in names])
    folder.suite("alpha", more=more.replace('name="third"', 'name="second"'))
    folder.refused(folder.gate("--benchmark-compare"), "two factories are named 'second'", "name=")


def test_one_factory_may_make_several_models(folder):
    more = """

def one(batch):
    import torch

    return made(lambda x: x + 1, torch.ones(batch, 4))


eager = {"frontends": ("eager",), "precisions": ("fp32",)}
first = trtgate.model(name="first", **eager)(one)
others = [trtgate.model(one, name="second", **eager)]
for name in ("third", "fourth"):

    @trtgate.model(name=name, **eager)
    def again(batch):
        return one(batch)

    globals()[name] = again
"""
    folder.suite("alpha", more=more)
    result = folder.pytest("suite.py", "--collect-only", "-q", "-m", "trtgate_accuracy")
    assert result.ret == pytest.ExitCode.OK
    for name in ("first", "second", "third", "fourth"):
        assert f"[{name}-eager-fp32-b1]" in result.stdout.str()


@pytest.mark.parametrize("statement", ["import pytest; pytest.importorskip('flash_attn')", "raise SystemExit(0)"])
def test_a_suite_that_skips_itself_is_refused(folder, statement):
    folder.suite("alpha")
    suite = folder.path / "suite.py"
    suite.write_text(f"{statement}\n{suite.read_text()}")
    folder.refused(folder.gate("--benchmark-compare"), "suite.py", "can't be imported")


def test_a_worker_that_died_is_noticed_while_a_child_that_it_forked_lives(folder):
    forks = "os.fork() or (time.sleep(60), os._exit(0)); os.kill(os.getpid(), 9)"
    folder.suite("beta", alpha=f"if IN_WORKER: {forks}")
    result = folder.gate("--trtgate-launches=1", "-m", "trtgate_accuracy")
    result.assert_outcomes(passed=1, failed=1, deselected=2)
    result.stdout.fnmatch_lines(["*killed by SIGKILL*"])
    assert result.duration < 30


def test_the_last_failed_alone_miss_nothing(folder):
    folder.suite("alpha", "beta")
    folder.baseline("alpha", "beta")
    cache = folder.path / ".pytest_cache/v/cache"
    cache.mkdir(parents=True)
    (cache / "lastfailed").write_text('{"suite.py::test_latency[alpha-eager-fp32-b1]": true}')
    result = folder.gate("--benchmark-compare", "--trtgate-launches=1", "--lf", "-p", "cacheprovider")
    assert "MISSING" not in folder.output_of(result)
