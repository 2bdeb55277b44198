"""Models, settings, ids and selection; nothing of it needs torch."""

from __future__ import annotations

import datetime
import functools
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

import trtgate
from trtgate.common.errors import TrtgateError
from trtgate.suite.cases import Model, Suite
from trtgate.suite.declaring import grid
from trtgate.suite.selection import Selection
from trtgate.suite.settings import Settings
from trtgate.suite.suite_source import SuiteSource

ROOT = Path(__file__).resolve().parent.parent


def factory(batch: int) -> tuple[None, int]:
    return None, batch


def bare() -> None: ...


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({3: 1}, "options must map names to values: 3 is no name"),
        ({"optimization_level": 3, None: 1}, "options must map names to values: None is no name"),
        ("optimization_level=3", "options must map names to values, as a dict does, not 'optimization_level=3'"),
        (
            [("optimization_level", 3)],
            "options must map names to values, as a dict does, not [('optimization_level', 3)]",
        ),
    ],
)
def test_options_are_a_mapping_of_names(options: Any, said: str) -> None:
    for make in (grid, Settings):
        given = {"frontends": ("dynamo",)} if make is grid else {"frontend": "dynamo"}
        with pytest.raises(TrtgateError) as caught:
            make(**given, options=options)
        assert str(caught.value).startswith(said)


def test_ids_are_readable_and_name_everything_that_changes_the_result() -> None:
    settings = Settings(frontend="dynamo", precision="fp16", batch=1, options={"optimization_level": 3})
    (case,) = Suite([Model("resnet18", factory, [settings])]).cases.values()
    assert case.id == "resnet18-dynamo-fp16-b1-mbs5-optimization_level=3"


@pytest.mark.parametrize(
    ("keywords", "suffix"),
    [
        ({"frontend": "inductor", "precision": "bf16", "mode": "reduce-overhead"}, "inductor-bf16-reduce-overhead"),
        ({"frontend": "dynamo", "precision": "int8_weights"}, "dynamo-int8_weights-mbs5"),
        ({"frontend": "dynamo", "batch": 2, "dynamic_batch": (1, 4, 8)}, "dynamo-fp32-b2-dyn1..4..8-mbs5"),
        ({"frontend": "dynamo", "runtime": "python", "cudagraphs": True}, "dynamo-fp32-mbs5-runtime=python-cudagraphs"),
        ({"frontend": "ts_script", "min_block_size": 3}, "ts_script-fp32-mbs3"),
        ({"frontend": "aot_eager", "precision": "tf32"}, "aot_eager-tf32"),
    ],
)
def test_every_way_of_compiling_has_an_id_of_its_own(keywords: dict, suffix: str) -> None:
    assert Settings(**keywords).suffix == suffix


def test_a_grid_leaves_out_what_a_frontend_does_not_take() -> None:
    found = grid(
        ["eager", "inductor", "dynamo"], ["fp16", "int8"], [2], modes=["default", "max-autotune"],
        runtimes=["cpp", "python"], dynamic_batch=(1, 2, 4),
    )  # fmt: skip
    assert [settings.suffix for settings in found] == [
        "eager-fp16-b2",
        "inductor-fp16-b2",
        "inductor-fp16-b2-max-autotune",
        *(
            f"dynamo-{name}-b2-dyn1..2..4-mbs5-runtime={runtime}"
            for name in ("fp16", "int8")
            for runtime in ("cpp", "python")
        ),
    ]
    with pytest.raises(TrtgateError, match="frontend 'eager' takes no precision int8"):
        grid(["eager"], ["int8"])


def test_where_a_case_runs_is_not_part_of_its_id() -> None:
    anywhere, gpu = (Settings(frontend="eager", batch=8, needs_gpu=needs) for needs in (False, True))
    assert anywhere.suffix == gpu.suffix
    assert gpu.gpu_only
    assert not anywhere.gpu_only


@pytest.mark.parametrize(
    ("keywords", "named"),
    [
        ({"frontend": "dynmo"}, "did you mean 'dynamo'"),
        ({"frontend": "eager", "precision": "fp4"}, "unknown precision 'fp4'; did you mean 'fp"),
        ({"frontend": "eager", "precision": "fp8"}, "takes no precision fp8; that is for dynamo"),
        ({"frontend": "dynamo", "mode": "max-autotune"}, "takes no mode; that is for inductor"),
        ({"frontend": "inductor", "mode": "fast"}, "unknown mode 'fast'"),
        ({"frontend": "ts_trace", "runtime": "python"}, "takes no runtime; that is for dynamo, torch_compile"),
        ({"frontend": "eager", "cudagraphs": True}, "takes no cudagraphs"),
        ({"frontend": "fx", "torch_executed_ops": ("aten.relu",)}, "takes no torch_executed_ops"),
        ({"frontend": "fx", "options": {"workspace_size": 1}}, "takes no options"),
        ({"frontend": "ts_trace", "profiling_verbosity": "none"}, "takes no profiling_verbosity"),
        ({"frontend": "dynamo", "batch": 9, "dynamic_batch": (1, 4, 8)}, "does not hold the batch 9"),
        ({"frontend": "dynamo", "batch": 1, "dynamic_batch": (4, 1, 8)}, "from small to large"),
        ({"frontend": "dynamo", "batch": 1, "dynamic_batch": (1, 1, 1)}, "more than one size"),
        ({"frontend": "eager", "batch": 1, "dynamic_batch": (1, 4, 8)}, "takes no dynamic; that is for aot"),
        ({"frontend": "dynamo", "options": {"optimization_level": 6}}, "must be 0 to 5, not 6"),
        ({"frontend": "dynamo", "options": {"min_block_size": 3}}, "say min_block_size=… of the settings"),
        ({"frontend": "dynamo", "options": {"dryrun": True}}, "trtgate sets it itself"),
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


def test_a_model_takes_one_smallest_block_or_several() -> None:
    several = trtgate.model(lambda: None, name="m", frontends=("dynamo",), precisions=("fp32",), min_block_sizes=(1, 5))
    assert [settings.min_block_size for settings in several.settings] == [1, 5]
    with pytest.raises(TrtgateError, match="min_block_size and min_block_sizes are both given"):
        trtgate.model(lambda: None, name="m", min_block_size=3, min_block_sizes=(1, 5))


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
    chosen = Selection(models=("b",), frontends=("eager",), batches=(8,)).select(suite)
    assert [case.id for case in chosen] == ["b-eager-fp32-b8", "b-eager-fp16-b8"]
    assert len(Selection().select(suite)) == 16
    with pytest.raises(TrtgateError, match=r"unknown model 'other'; there are: a, b$"):
        Selection(models=("other",)).select(suite)


def test_this_repository_suite_is_what_its_readme_says() -> None:
    suite = SuiteSource(root=str(ROOT), suites=("benchmarks/suite.py",)).load()
    assert len(suite.cases) == 4 * 3 * 2 * 2 + 2 + 5  # TorchScript of one model, the digits
    anywhere = {id_ for id_, case in suite.cases.items() if not case.settings.gpu_only}
    classifiers = [model.name for model in suite.models if model.name != "digits"]
    assert anywhere == {
        *(f"{name}-{f}-fp32-b1" for name in classifiers for f in ("eager", "inductor")), "digits-eager-fp32-b8"
    }  # fmt: skip


def test_collecting_imports_neither_torch_nor_scipy() -> None:
    script = (
        "import sys, pytest; code = pytest.main(['benchmarks', '--collect-only', '-q']);"
        "heavy = {'torch', 'torch_tensorrt', 'tensorrt', 'scipy', 'numpy'} & sys.modules.keys();"
        "sys.exit(f'imported {heavy}' if heavy else int(code))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "150 tests collected" in done.stdout


CLOCK = (("trtgate.timing.cuda_graph_clock", "pytest"),)
REST = (
    ("trtgate.commands.coverage_answers", "scipy"),
    ("trtgate.gate.gate", "scipy.stats"),
    ("trtgate.profiles.layer_times", "scipy.stats"),
    ("trtgate.pytest_plugin.run_end", "scipy.stats"),
    ("trtgate.report.run_report", "scipy.stats"),
    ("trtgate.gate.baselines", "torch"),
    ("trtgate.verdict", "torch"),
)


@pytest.mark.parametrize("imports", [CLOCK, REST], ids=["clock", "rest"])
def test_verdicts_import_no_torch_the_gate_not_all_of_scipy_coverage_none_of_it_and_clocks_no_pytest(
    imports: Sequence[tuple[str, str]],
) -> None:
    """One after the other: what the first import, the next have too."""
    script = "import importlib, sys\n" + "".join(
        f"importlib.import_module({module!r})\nassert {forbidden!r} not in sys.modules, {module!r}\n"
        for module, forbidden in imports
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


class TestSources:
    def write(self, tmp_path: Path, text: str) -> SuiteSource:
        (tmp_path / "mine.py").write_text(text)
        return SuiteSource(root=str(tmp_path), suites=("mine.py",))

    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(TrtgateError, match=r"nowhere\.py.*no such file"):
            SuiteSource(root=str(tmp_path), suites=("nowhere.py",)).load()

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


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"frontends": "eager"}, "frontends='eager': write a tuple, ('eager',)"),
        ({"precisions": "fp32"}, "precisions='fp32': write a tuple, ('fp32',)"),
        ({"precisions": None}, "precisions=None: write a tuple"),
        ({"batches": 3}, "batches=3: write a tuple, (3,)"),
        ({"batches": ()}, "batches=(): with none there would be no case"),
        ({"frontends": ()}, "frontends=(): with none there would be no case"),
        ({"torch_executed_ops": [("aten", "relu")]}, "torch_executed_ops: ('aten', 'relu') is no name; write a text"),
        ({"torch_executed_ops": [None]}, "torch_executed_ops: None is no name; write a text, such as 'aten.relu'"),
        ({"torch_executed_ops": "aten.relu"}, "torch_executed_ops='aten.relu': write a tuple, ('aten.relu',)"),
        ({"parts": "prefill"}, "parts='prefill': write a tuple, ('prefill',)"),
        ({"parts": 3}, "parts=3: write a tuple, (3,)"),
        ({"precison": ("fp16",)}, "trtgate.model takes no precison=; did you mean precisions=?"),
        ({"toleranses": {}}, "trtgate.model takes no toleranses=; did you mean tolerances=?"),
        ({"samples": 3}, "model 'factory': samples= must be a function, not 3"),
        ({"frontends": ("own",), "save": 1, "load": 2}, "model 'factory': save= must be a function, not 1"),
        ({"name": 3}, "model name 3: use letters"),
        ({"min_block_size": "5"}, "min_block_size must be a positive integer, not '5'"),
    ],
)
def test_what_a_suite_gives_of_another_kind_is_refused_in_one_line(given: Any, said: str) -> None:
    with pytest.raises(TrtgateError) as caught:
        trtgate.model(**given)(factory)
    assert said in str(caught.value)


def test_a_factory_without_a_name_is_given_one() -> None:
    nameless = functools.partial(factory, batch=3)
    with pytest.raises(TrtgateError, match="the factory is a partial, which has no name: give name="):
        trtgate.model(nameless)
    assert trtgate.model(nameless, name="three").name == "three"
    with pytest.raises(TrtgateError, match="the factory must be a function, not 3"):
        trtgate.model(3)
