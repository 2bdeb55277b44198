"""Where a suite and the user's code are imported from: pytest, its workers, a base and the command say the same."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from trtgate.common import git

from .forks import real_popen
from .pytest_folder import TIMEOUT_S
from .suites import SCRIPTED_TIME, SUITE_HEAD

NET = """
import torch


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.a = torch.nn.Linear(4, 4)

    def forward(self, x):
        return torch.relu(self.a(x))
"""
MODEL = """

@trtgate.model(frontends=("eager", "dynamo"), precisions=("fp32",))
def {name}():
    {imports}
    import torch

    torch.manual_seed(0)
    return Net().eval(), torch.ones(2, 4)
"""
INSERTS = "import pathlib, sys\nsys.path.insert(0, str(pathlib.Path(__file__).parents[{up}] / {below!r}))\n"
SHOP = {"shop/__init__.py": "", "shop/net.py": NET}
SOURCES = {"src/shop/__init__.py": "", "src/shop/net.py": NET}
BENCH = {"bench/__init__.py": ""}
PYTEST, AS_MODULE = "pytest", "python -m pytest"
PROGRAMS = Path(sys.executable).parent
ONE_LAUNCH = ("-p", "no:cacheprovider", "-p", "no:hypothesispytest", "-p", "no:anyio", "--trtgate-launches=1")


def suite_of(imports: str = "from shop.net import Net", *, name: str = "tiny", top: str = "") -> str:
    return SUITE_HEAD + top + SCRIPTED_TIME + MODEL.format(name=name, imports=imports)


@dataclass
class Layout:
    """A repository, and how pytest is called there."""

    files: Mapping[str, str]
    ini: Sequence[str] = ()
    suite: str = "bench/suite.py"
    named: str = ""
    """What the ini file calls the suite, if not by its file."""
    imports: str = "from shop.net import Net"
    top: str = ""
    arguments: Sequence[str] = ("bench",)
    environment: Mapping[str, str] = field(default_factory=dict)
    program: str = PYTEST

    def write(self, folder: Path) -> None:
        files = {self.suite: suite_of(self.imports, top=self.top), **self.files}
        ini = ["[pytest]", f"trtgate_suite = {self.named or self.suite}", *self.ini]
        for name, text in {**files, "pytest.ini": "\n".join(ini) + "\n"}.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)


LAYOUTS = {
    # as they were found
    "bench is a package at the root": Layout({**SHOP, **BENCH}),
    "python -m pytest": Layout(SHOP, program=AS_MODULE),
    "pythonpath is the root": Layout(SHOP, ini=["pythonpath = ."]),
    "a conftest.py at the root": Layout({**SHOP, "conftest.py": ""}),
    "bench/conftest.py inserts the root": Layout({**SHOP, "bench/conftest.py": INSERTS.format(up=1, below="")}),
    "src and pythonpath": Layout(SOURCES, ini=["pythonpath = src"]),
    "src and a relative PYTHONPATH": Layout(SOURCES, environment={"PYTHONPATH": "src"}),
    # and others of the kind
    "bench/conftest.py configures": Layout(
        {
            "code/shop/net.py": NET,
            "bench/conftest.py": "import pathlib, sys\n\ndef pytest_configure(config):\n"
            "    sys.path.insert(0, str(pathlib.Path(config.rootpath) / 'code'))\n",
        }
    ),
    "relative imports": Layout(
        {"bench/__init__.py": "", "bench/net.py": NET}, imports="pass", top="from .net import Net\n"
    ),
    "relative imports from above": Layout(
        {"__init__.py": "", "bench/__init__.py": "", **SHOP}, imports="from ..shop.net import Net"
    ),
    "a suite in the package that it measures": Layout(
        SOURCES, suite="src/shop/bench/suite.py", imports="from shop.net import Net", ini=["pythonpath = src"],
        arguments=["src/shop/bench"],
    ),
    "a namespace package": Layout(
        {"lib/company/shop/net.py": NET, "lib/company/bench/__init__.py": ""}, suite="lib/company/bench/suite.py",
        imports="from company.shop.net import Net", ini=["pythonpath = lib"], arguments=["lib/company/bench"],
    ),
    "namespace packages are considered": Layout(
        {"lib/company/shop/net.py": NET}, suite="lib/company/bench/suite.py", imports="from ..shop.net import Net",
        ini=["pythonpath = lib", "consider_namespace_packages = true"], arguments=["lib/company/bench"],
    ),
    "import mode importlib": Layout(
        {**SHOP, **BENCH, "bench/net.py": "from shop.net import Net\n"}, imports="from .net import Net",
        ini=["addopts = --import-mode=importlib", "pythonpath = ."],
    ),
    "import mode append": Layout({**SHOP, **BENCH}, ini=["addopts = --import-mode=append"]),
    "a neighbour named as an installed package": Layout({"bench/plotly.py": NET}, imports="from plotly import Net"),
    "a neighbour in a package is not the installed package": Layout(
        {**SHOP, **BENCH, "bench/iniconfig.py": "raise RuntimeError('the wrong one')\n"}, top="import iniconfig\n"
    ),
    "spaces and letters beyond ASCII": Layout(
        {"mein ünit/shop/__init__.py": "", "mein ünit/shop/net.py": NET, "mein ünit/conftest.py": ""},
        suite="mein ünit/suite.py", arguments=["mein ünit"],
    ),
    "two suites' conftests, nested": Layout(
        {"code/shop/net.py": NET, "bench/deep/conftest.py": INSERTS.format(up=2, below="code")},
        suite="bench/deep/suite.py",
    ),
    "a module name": Layout(
        SOURCES, suite="src/shop/suite.py", named="shop.suite", ini=["pythonpath = src"], arguments=["src"]
    ),
    "a dot in the suite's name": Layout(
        {"bench/net.py": NET}, suite="bench/suite.v2.py", imports="from net import Net"
    ),
    "a suite named as a module of the standard library": Layout({**SHOP, "conftest.py": ""}, suite="bench/colorsys.py"),
}  # fmt: skip


def start(layout: Layout, folder: Any, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run pytest as a user does: from the folder, which only `python -m` puts on Python's path."""
    program = [str(PROGRAMS / PYTEST)] if layout.program == PYTEST else [sys.executable, "-m", PYTEST]
    return run([*program, *layout.arguments, *arguments], folder.path, layout.environment)


def run(command: Sequence[str], where: Path, variables: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **variables}
    return subprocess.run(command, cwd=where, env=environment, text=True, capture_output=True, timeout=TIMEOUT_S)


@pytest.mark.parametrize("name", LAYOUTS)
def test_what_pytest_imports_is_measured(folder: Any, name: str) -> None:
    layout = LAYOUTS[name]
    layout.write(folder.path)
    done = start(layout, folder, "-k", "tiny-eager", *ONE_LAUNCH)
    assert "2 passed" in done.stdout, done.stdout + done.stderr
    assert done.returncode == 0


def test_a_neighbour_may_have_the_name_of_a_module_of_the_standard_library(folder: Any) -> None:
    """Pytest has that before it puts the folder of a suite on Python's path. No forks: they have it too."""
    names = ("bench/queue.py", "bench/statistics.py", "bench/timeit.py")
    Layout({"bench/net.py": NET, **dict.fromkeys(names, "")}, imports="from net import Net").write(folder.path)
    started = real_popen(
        [sys.executable, "-m", PYTEST, "bench", "-k", "tiny-eager", *ONE_LAUNCH], cwd=folder.path,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    said, _ = started.communicate(timeout=TIMEOUT_S)
    assert started.returncode == 0, said
    assert "2 passed" in said


ASKED = [
    "bench is a package at the root", "python -m pytest", "bench/conftest.py configures", "src and pythonpath",
    "src and a relative PYTHONPATH", "relative imports from above", "namespace packages are considered",
    "import mode importlib", "spaces and letters beyond ASCII",
]  # fmt: skip


@pytest.mark.parametrize("name", ASKED)
def test_the_command_imports_what_pytest_does(folder: Any, forked_with_tensorrt: None, name: str) -> None:
    layout = LAYOUTS[name]
    layout.write(folder.path)
    program = [str(PROGRAMS / "trtgate")] if layout.program == PYTEST else [sys.executable, "-m", "trtgate"]
    done = run([*program, "coverage", "tiny", "--precision", "fp32"], folder.path, layout.environment)
    assert counted(done, "tiny-dynamo-fp32-mbs5") == "0 of 2"
    assert done.returncode == 0


def counted(done: subprocess.CompletedProcess[str], case_id: str) -> str:
    """Return how many operators of a case's are in TensorRT, as `trtgate coverage` says it."""
    rows = [line.split() for line in done.stdout.splitlines()]
    found = [" ".join(row[1:4]) for row in rows if row[:1] == [case_id]]
    assert found, done.stdout + done.stderr
    return found[0]


def test_what_pytest_can_not_import_is_one_line_everywhere(folder: Any, forked_with_tensorrt: None) -> None:
    layout = Layout(SHOP, top="from shop.net import Net\n")
    layout.write(folder.path)
    refused = start(layout, folder)
    (line,) = [line for line in refused.stderr.splitlines() if line.startswith("ERROR: ")]
    assert refused.returncode == 4
    assert "bench/suite.py can't be imported: ModuleNotFoundError: No module named 'shop'" in line
    assert "pythonpath" in line
    done = run([str(PROGRAMS / "trtgate"), "coverage", "tiny"], folder.path, {})
    assert done.returncode == 4
    assert "No module named 'shop'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("text", ["import no_such_package", "def pytest_configure():\n    import no_such_package"])
def test_a_conftest_that_can_not_be_imported_is_one_line_of_the_command(folder: Any, text: str) -> None:
    Layout({**SHOP, "conftest.py": f"{text}\n"}).write(folder.path)
    done = run([str(PROGRAMS / "trtgate"), "coverage", "tiny"], folder.path, {})
    assert done.returncode == 4
    assert "conftest.py" in done.stderr
    assert "No module named 'no_such_package'" in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_checkout_behind_a_link(folder: Any) -> None:
    layout = LAYOUTS["bench is a package at the root"]
    layout.write(folder.path / "real")
    (folder.path / "link").symlink_to(folder.path / "real")
    done = run([str(PROGRAMS / PYTEST), "link/bench", "-k", "tiny-eager", *ONE_LAUNCH], folder.path, {})
    assert "2 passed" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("named", ["link/suite.py", "real/suite.py", "linked.py"])
def test_a_suite_that_a_link_leads_to_as_well_is_collected_once(folder: Any, named: str) -> None:
    Layout({"real/net.py": NET}, suite="real/suite.py", imports="from net import Net", named=named).write(folder.path)
    (folder.path / "link").symlink_to("real")
    (folder.path / "linked.py").symlink_to("real/suite.py")
    collected = folder.pytest("--collect-only", "-q", "-m", "trtgate_latency", "-k", "eager").outlines
    assert len([line for line in collected if "tiny-eager-fp32" in line]) == 1
    given = folder.pytest("real/suite.py", "--collect-only", "-q", "-m", "trtgate_latency", "-k", "eager").outlines
    assert "real/suite.py::test_latency[tiny-eager-fp32]" in given


@pytest.mark.parametrize("linked", ["bench", "bench/suite.py"])
def test_the_conftest_above_a_link_to_a_suite_elsewhere_counts_in_the_command_too(
    folder: Any, forked_with_tensorrt: None, linked: str
) -> None:
    repository, elsewhere = folder.path / "repository", folder.path / "elsewhere"
    Layout({**SHOP, "conftest.py": ""}).write(repository)
    elsewhere.mkdir()
    (repository / linked).rename(elsewhere / "moved")
    (repository / linked).symlink_to(elsewhere / "moved")
    done = run([str(PROGRAMS / PYTEST), "bench", "-k", "tiny-eager", *ONE_LAUNCH], repository, {})
    assert "2 passed" in done.stdout, done.stdout + done.stderr
    done = run([str(PROGRAMS / "trtgate"), "coverage", "tiny", "--precision", "fp32"], repository, {})
    assert counted(done, "tiny-dynamo-fp32-mbs5") == "0 of 2"


@pytest.mark.parametrize("name", ["bench is a package at the root", "src and pythonpath", "relative imports"])
def test_a_base_imports_its_own_code(folder: Any, name: str) -> None:
    layout, log = LAYOUTS[name], folder.path / ".trtgate-imported"
    layout.write(folder.path)
    (net,) = folder.path.rglob("net.py")
    (folder.path / ".gitignore").write_text(".trtgate*\n__pycache__/\n")
    net.write_text(f"VERSION = 'base'\nopen({str(log)!r}, 'a').write(VERSION + ' ' + __file__ + '\\n')\n" + NET)
    user = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for arguments in (["init", "-q"], ["add", "-A"], [*user, "commit", "-qm", "one"]):
        git.run(folder.path, *arguments).check_returncode()
    net.write_text(net.read_text().replace("'base'", "'candidate'"))
    done = start(layout, folder, "-k", "tiny-eager", "--trtgate-base=HEAD", "-m", "trtgate_latency", *ONE_LAUNCH)
    assert "1 passed" in done.stdout, done.stdout + done.stderr
    imported = [line.split(" ", 1) for line in log.read_text().splitlines()]
    assert {version for version, _ in imported} == {"base", "candidate"}
    assert all((".trtgate" in file) == (version == "base") for version, file in imported)


# Several suites


def two(folder: Path, *, named: str, second: str = "other", **files: str) -> None:
    texts = {
        "pytest.ini": f"[pytest]\ntrtgate_suite ={named}\n",
        "one/bench/suite.py": suite_of("from net import Net"), "one/bench/net.py": NET,
        "two/bench/suite.py": suite_of("from net_of_two import Net", name=second), "two/bench/net_of_two.py": NET,
        **files,
    }  # fmt: skip
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


EACH_ON_A_LINE = "\n  one/bench/suite.py\n  two/bench/suite.py"


@pytest.mark.parametrize("named", [EACH_ON_A_LINE, " one/bench/suite.py two/bench/suite.py"])
def test_two_suites_are_both_judged(folder: Any, named: str) -> None:
    two(folder.path, named=named)
    done = folder.pytest("one/bench", "two/bench", "-k", "eager", "--trtgate-launches=1", "-v")
    done.stdout.fnmatch_lines_random([
        "one/bench/suite.py::test_latency*tiny-eager-fp32* PASSED*",
        "two/bench/suite.py::test_latency*other-eager-fp32* PASSED*",
    ])  # fmt: skip
    done.assert_outcomes(passed=4)


def test_one_of_two_suites_can_be_run_and_the_others_cases_are_not_missing(folder: Any) -> None:
    two(folder.path, named=EACH_ON_A_LINE)
    recorded = folder.pytest("--trtgate-update-baselines", "-k", "eager", "--trtgate-launches=1", "one", "two")
    assert recorded.ret == 0, recorded.stdout.str()
    asked = ("-m", "trtgate_latency", "--benchmark-compare", "--trtgate-launches=1", "--trtgate-require=baseline")
    done = folder.pytest("two/bench", *asked)
    assert "not run, as asked: 1 case of the baseline" in done.stdout.str()
    assert "suite one/bench/suite.py was not collected" in done.stdout.str()
    assert "MISSING" not in done.stdout.str()
    assert done.ret == 0


def test_ids_that_clash_are_one_line_with_both_files(folder: Any) -> None:
    two(folder.path, named=EACH_ON_A_LINE, second="tiny")
    folder.refused(folder.pytest("one", "two"), "tiny-eager-fp32", "one/bench/suite.py", "two/bench/suite.py")


def test_neighbours_of_one_name_are_one_line(folder: Any) -> None:
    """The second suite would measure the first one's module."""
    two(folder.path, named=EACH_ON_A_LINE, **{"two/bench/net.py": NET})
    folder.refused(folder.pytest("one", "two"), "one/bench", "two/bench", "'net'", "__init__.py")


def test_packages_of_one_name_are_one_line(folder: Any) -> None:
    two(folder.path, named=EACH_ON_A_LINE, **{"one/bench/__init__.py": "", "two/bench/__init__.py": ""})
    folder.refused(folder.pytest("one", "two"), "package bench", "one/bench", "two/bench", "rename")


def test_neighbours_of_one_name_are_no_obstacle_where_nobody_imports_them_by_that(folder: Any) -> None:
    relative = {f"{name}/bench/__init__.py": "" for name in ("one", "two")} | {
        "one/__init__.py": "",
        "two/__init__.py": "",
    }
    suites = {
        f"{name}/bench/suite.py": suite_of("pass", name=model, top="from .net import Net\n")
        for name, model in (("one", "tiny"), ("two", "other"))
    }
    two(folder.path, named=EACH_ON_A_LINE, **suites, **relative, **{"two/bench/net.py": NET})
    folder.pytest("one", "two", "-k", "eager", "-m", "trtgate_accuracy").assert_outcomes(passed=2)


def test_the_zoo_is_asked_once_and_gives_way_to_a_later_suite(folder: Any) -> None:
    two(folder.path, named=EACH_ON_A_LINE, second="resnet18")
    listed = folder.pytest("one", "two", "--trtgate-zoo", "--collect-only", "-q", "-m", "trtgate_coverage").outlines
    assert not [line for line in listed if line.startswith("one") and "[resnet18-" in line]
    assert [line for line in listed if line.startswith("two")] == [
        "two/bench/suite.py::test_coverage[resnet18-dynamo-fp32-mbs5]"
    ]
    assert [line for line in listed if line.startswith("one") and "[resnet50-" in line]


def test_a_model_of_any_suite_can_be_selected_and_an_unknown_one_is_named(folder: Any) -> None:
    two(folder.path, named=EACH_ON_A_LINE)
    asked = ("one", "two", "-m", "trtgate_accuracy", "--trtgate-frontends=eager")
    folder.pytest(*asked, "--trtgate-models=other").assert_outcomes(passed=1)
    folder.refused(folder.pytest(*asked, "--trtgate-models=othre"), "othre", "'other'")


def test_a_suite_that_only_another_configuration_names_is_not_passed_over(folder: Any) -> None:
    ini = "[pytest]\ntrtgate_suite = bench/suite.py\n"
    two(folder.path, named=" one/bench/suite.py", **{"one/pytest.ini": ini, "two/pytest.ini": ini})
    (folder.path / "pytest.ini").unlink()
    folder.refused(folder.pytest("one/bench", "two/bench"), "two/bench", "two/pytest.ini", "one/pytest.ini", "alone")


def test_a_suite_that_is_not_there_is_named(folder: Any) -> None:
    two(folder.path, named=" one/bench/suite.py two/bench/suit.py")
    folder.refused(folder.pytest("one"), "'two/bench/suit.py'", "trtgate_suite")


def test_a_list_in_toml(folder: Any) -> None:
    two(folder.path, named="")
    (folder.path / "pytest.ini").unlink()
    (folder.path / "pyproject.toml").write_text(
        '[tool.pytest]\ntrtgate_suite = ["one/bench/suite.py", "two/bench/suite.py"]\n'
    )
    folder.pytest("one", "two", "-k", "eager", "-m", "trtgate_accuracy").assert_outcomes(passed=2)


def test_the_command_knows_the_models_of_all_suites(folder: Any, forked_with_tensorrt: None) -> None:
    two(folder.path, named=EACH_ON_A_LINE)
    command = [str(PROGRAMS / "trtgate"), "coverage", "tiny", "other", "--precision", "fp32"]
    done = run(command, folder.path, {})
    assert counted(done, "tiny-dynamo-fp32-mbs5") == counted(done, "other-dynamo-fp32-mbs5") == "0 of 2"
