"""Models, settings, ids and selection; nothing of it needs torch."""

from __future__ import annotations

import datetime
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

import trtgate
from trtgate.cases import Model, Selection, Settings, Suite, grid
from trtgate.errors import TrtgateError
from trtgate.suite_source import SuiteSource

ROOT = Path(__file__).resolve().parent.parent


def factory(batch: int) -> tuple[None, int]:
    return None, batch


def bare() -> None: ...


def test_ids_are_readable_and_name_everything_that_changes_the_result() -> None:
    settings = Settings(frontend="dynamo", precision="fp16", batch=1, options={"optimization_level": 3})
    (case,) = Suite([Model("resnet18", factory, [settings])]).cases.values()
    assert case.id == "resnet18-dynamo-fp16-b1-mbs5-optimization_level=3"


def test_where_a_case_runs_is_not_part_of_its_id() -> None:
    anywhere, gpu = (Settings(frontend="eager", batch=8, needs_gpu=needs) for needs in (False, True))
    assert anywhere.suffix == gpu.suffix
    assert gpu.gpu_only
    assert not anywhere.gpu_only


@pytest.mark.parametrize(
    ("keywords", "named"),
    [
        ({"frontend": "dynmo"}, "did you mean 'dynamo'"),
        ({"frontend": "eager", "precision": "fp8"}, "unknown precision 'fp8'"),
        ({"frontend": "eager", "batch": 0}, "positive"),
        ({"frontend": "eager", "min_block_size": 5}, "builds no TensorRT engine"),
        (
            {"frontend": "inductor", "options": {"workspace_size": 1}},
            "takes no min_block_size, torch_executed_ops or options",
        ),
    ],
)
def test_settings_that_make_no_sense_are_refused(keywords: dict, named: str) -> None:
    with pytest.raises(TrtgateError, match=named):
        Settings(**keywords)


def test_limits_and_a_quarantine_are_not_part_of_an_id_and_can_be_stored() -> None:
    known = trtgate.quarantine("issue 12", until="2026-12-31")
    (settings,) = grid(["eager"], limits={"host": "20%", "engines": 0}, quarantine=known)
    assert settings.suffix == grid(["eager"])[0].suffix
    assert settings.limits == {"host": 0.2, "engines": 0.0}
    assert msgspec.json.decode(msgspec.json.encode(settings), type=Settings) == settings
    made = trtgate.model(bare, frontends=("eager",), limits={"host": 0.3}, quarantine=known)
    assert made.limits == {"host": 0.3}
    assert {each.quarantine for each in made.settings} == {known}


def test_limits_that_make_no_sense_are_refused_where_they_stand() -> None:
    with pytest.raises(TrtgateError, match=r"model 'bare', limits: unknown metric 'devise'.* did you mean 'device'"):
        Model("bare", bare, [], limits={"devise": 0.01})
    with pytest.raises(TrtgateError, match=r"limits of a grid: 'host=fast' is no limit"):
        grid(["eager"], limits={"host": "fast"})
    with pytest.raises(TrtgateError, match="limits of settings: 'host=0' is no limit"):
        Settings(frontend="eager", limits={"host": 0})


def test_a_quarantine_ends_after_its_last_day() -> None:
    last = datetime.date(2026, 12, 31)
    known = trtgate.quarantine("flaky\ndriver", until="2026-12-31")
    assert known == trtgate.quarantine("flaky driver", until=last)
    assert not known.expired(last)
    assert known.expired(last + datetime.timedelta(days=1))


@pytest.mark.parametrize(
    ("reason", "until", "named"),
    [(" ", "2026-12-31", "say why"), (None, "2026-12-31", "say why"), ("x", "31.12.2026", "31.12.2026"), ("x", 1, "1")],
)
def test_a_quarantine_without_a_reason_or_a_date_is_refused(reason: str, until: str, named: str) -> None:
    with pytest.raises(TrtgateError, match=named):
        trtgate.quarantine(reason, until=until)
    with pytest.raises(TrtgateError, match=r"write trtgate\.quarantine"):
        Settings(frontend="eager", quarantine="flaky")


def test_the_decorator_makes_a_model_that_can_still_be_called() -> None:
    made = trtgate.model(frontends=("eager",), precisions=("fp32",), batches=(1, 4))(factory)
    assert [case.id for case in Suite([made]).cases.values()] == ["factory-eager-fp32-b1", "factory-eager-fp32-b4"]
    assert made(batch=3) == (None, 3)


def test_a_factory_without_batch_has_none_in_its_ids() -> None:
    made = trtgate.model(bare)
    assert "bare-eager-fp32" in Suite([made]).cases
    with pytest.raises(TrtgateError, match="takes no `batch`"):
        trtgate.model(batches=(2,))(bare)


def test_two_cases_of_one_id_and_names_that_break_ids_are_refused() -> None:
    made = trtgate.model(bare)
    with pytest.raises(TrtgateError, match="defined twice"):
        Suite([made, made])
    with pytest.raises(TrtgateError, match="separates ids"):
        Model("res-net", bare, [])


def test_a_selection_takes_what_all_its_parts_name() -> None:
    suite = Suite([Model(n, factory, grid(["eager", "inductor"], ["fp32", "fp16"], [1, 8])) for n in ("a", "b")])
    chosen = suite.select(Selection(models=("b",), frontends=("eager",), batches=(8,)))
    assert [case.id for case in chosen] == ["b-eager-fp32-b8", "b-eager-fp16-b8"]
    assert len(suite.select(Selection())) == 16
    with pytest.raises(TrtgateError, match="unknown model 'c'"):
        suite.select(Selection(models=("c",)))


def test_this_repository_suite_is_what_its_readme_says() -> None:
    suite = SuiteSource(root=str(ROOT), suite="benchmarks/suite.py").load()
    assert len(suite.cases) == 4 * 3 * 2 * 2
    anywhere = {id_ for id_, case in suite.cases.items() if not case.settings.gpu_only}
    assert anywhere == {f"{m.name}-{f}-fp32-b1" for m in suite.models for f in ("eager", "inductor")}


def test_collecting_imports_neither_torch_nor_scipy() -> None:
    script = (
        "import sys, pytest; code = pytest.main(['benchmarks', '--collect-only', '-q']);"
        "heavy = {'torch', 'torch_tensorrt', 'tensorrt', 'scipy', 'numpy'} & sys.modules.keys();"
        "sys.exit(f'imported {heavy}' if heavy else int(code))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "128 tests collected" in done.stdout


def test_verdicts_import_no_torch_and_clocks_no_pytest() -> None:
    for module, forbidden in (
        ("trtgate.verdict", "torch"),
        ("trtgate.baselines", "torch"),
        ("trtgate.timing.cuda_graph", "pytest"),
    ):
        script = f"import sys, {module}; sys.exit({forbidden!r} in sys.modules)"
        assert subprocess.run([sys.executable, "-c", script], timeout=120).returncode == 0, module


class TestSources:
    def write(self, tmp_path: Path, text: str) -> SuiteSource:
        (tmp_path / "mine.py").write_text(text)
        return SuiteSource(root=str(tmp_path), suite="mine.py")

    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(TrtgateError, match=r"nowhere\.py.*no such file"):
            SuiteSource(root=str(tmp_path), suite="nowhere.py").load()

    def test_an_error_at_import_is_one_line_with_the_file(self, tmp_path: Path) -> None:
        with pytest.raises(TrtgateError, match=r"mine\.py can't be imported: ZeroDivisionError"):
            self.write(tmp_path, "1 / 0").load()

    def test_a_suite_without_models_says_what_to_do(self, tmp_path: Path) -> None:
        with pytest.raises(TrtgateError, match=r"@trtgate\.model"):
            self.write(tmp_path, "x = 1").load()

    def test_models_in_lists_and_neighbour_modules_are_found(self, tmp_path: Path) -> None:
        (tmp_path / "neighbour_of_mine.py").write_text("def make(): ...\n")
        source = self.write(
            tmp_path, "import trtgate\nfrom neighbour_of_mine import make\nALL = [trtgate.model(make, name='m')]\n"
        )
        assert "m-eager-fp32" in source.load().cases

    def test_a_factory_by_name(self, tmp_path: Path) -> None:
        (tmp_path / "pack_of_tests").mkdir()
        (tmp_path / "pack_of_tests" / "nets.py").write_text("def small(batch): ...\n")
        source = SuiteSource(root=str(tmp_path), factories=("pack_of_tests.nets:small",))
        assert "small-eager-fp32-b1" in source.load().cases
        with pytest.raises(TrtgateError, match="did you mean 'small'"):
            SuiteSource(root=str(tmp_path), factories=("pack_of_tests.nets:smal",)).load()
        with pytest.raises(TrtgateError, match=r"package\.module:factory"):
            SuiteSource(root=str(tmp_path), factories=("pack_of_tests.nets",)).load()
