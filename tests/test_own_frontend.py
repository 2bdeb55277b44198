"""What was made elsewhere is a case: callables that the user compiled, exported programs, and saved files."""

from __future__ import annotations

import functools
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

import trtgate
from trtgate import Case, Compiled, Model, Settings, TrtgateError, frontends
from trtgate.compiling import build_or_load
from trtgate.compiling.reference import Reference, load_checked
from trtgate.torch_trt import engine_sizes

from .test_lifecycle import Running


def quiet(_step: str) -> None: ...


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = torch.nn.Linear(8, 8), torch.nn.Linear(8, 4)

    def forward(self, x: torch.Tensor, scale: float = 1.0) -> dict[str, torch.Tensor]:
        return {"scores": self.b(torch.relu(self.a(x))) * scale}


def net() -> tuple[Net, torch.Tensor]:
    torch.manual_seed(0)
    return Net().eval(), torch.randn(2, 8)


def case_of(factory: Any, frontend: str = "own", precision: str = "as_is", **model: Any) -> Case:
    return Case(Model("mine", factory, (), **model), Settings(frontend=frontend, precision=precision))


def built(case: Case, folder: Path) -> build_or_load.CheckedModule:
    return build_or_load.build_or_load(case, "cpu", folder, None, quiet)


# A callable of the user's own


def scripted() -> Any:
    module, x = net()
    return Compiled(torch.jit.trace(module, x, strict=False), reference=module), x


def function() -> Any:
    module, x = net()
    return Compiled(lambda x, **more: module(x, **more), reference=module), (x,), {"scale": 0.5}


def without_reference() -> Any:
    module, x = net()
    return torch.jit.trace(module, x, strict=False), x


@pytest.mark.parametrize("factory", [scripted, function, without_reference])
def test_a_callable_is_built_by_its_factory_and_compared_with_its_reference(factory: Any, tmp_path: Path) -> None:
    found = built(case_of(factory), tmp_path)
    assert found.build.leaf_error < 1e-6
    assert found.build.build_s > 0
    assert not found.stored  # each process calls the factory


def test_the_reference_decides_whether_it_is_right(tmp_path: Path) -> None:
    def wrong() -> Any:
        module, x = net()
        return Compiled(lambda x: {"scores": module(x)["scores"] * 1.1}, reference=module), x

    with pytest.raises(TrtgateError, match=r'output\["scores"\] differs from eager') as caught:
        built(case_of(wrong), tmp_path)
    assert "first wrong" not in str(caught.value)  # trtgate can compile no part of it alone


def step(written: float) -> Any:
    """A step of a decoder that writes into its cache, `written` times too much."""

    def run(x: torch.Tensor, past: Any) -> torch.Tensor:
        (past["keys"] if isinstance(past, dict) else past)[:, 1] = x * written
        return x * 2

    return run


def put(*values: Any) -> Any:
    return lambda x, past: (past.extend(x * value for value in values), x * 2)[1]


CACHES = [lambda: torch.zeros(2, 3, 8), lambda: {"keys": torch.zeros(2, 3, 8)}]


@pytest.mark.parametrize("cache", CACHES, ids=["tensor", "dict"])
def test_what_a_callable_writes_into_its_inputs_is_compared_with_its_reference(cache: Any, tmp_path: Path) -> None:
    """No output shows the cache: only the next step of the decoder would."""

    def case(run: Any, **tolerances: float) -> Case:
        found = case_of(lambda: (Compiled(run, reference=step(1.0)), (torch.ones(2, 8), cache())))
        return msgspec.structs.replace(found, settings=msgspec.structs.replace(found.settings, tolerances=tolerances))

    assert built(case(step(1.0)), tmp_path / "right").build.leaf_error == 0.0
    for number, wrong in enumerate((step(2.0), step(0.0), lambda x, past: x * 2)):
        with pytest.raises(TrtgateError, match="after the call input 1 differs from eager"):
            built(case(wrong), tmp_path / str(number))
    with pytest.raises(TrtgateError, match="after the call input 1 differs from eager"):
        built(case(step(1.004)), tmp_path / "rounds")
    built(case(step(1.004), output=1e-2), tmp_path / "may round")


@pytest.mark.parametrize("wrong", [put(), put(2), put(1, 1)])
def test_what_a_callable_puts_into_a_list_of_its_inputs_is_compared_too(wrong: Any, tmp_path: Path) -> None:
    def case(run: Any) -> Case:
        return case_of(lambda: (Compiled(run, reference=put(1)), (torch.ones(2, 8), [])))

    built(case(put(1)), tmp_path / "right")
    with pytest.raises(TrtgateError, match=r"after the call input args\[1\]\[.\] differs from eager"):
        built(case(wrong), tmp_path / "wrong")


@pytest.mark.parametrize("call", [2, 3])
def test_a_callable_that_writes_at_a_later_call_only_is_wrong(call: int, tmp_path: Path) -> None:
    """The first call is the build's; a replayed graph, made by then, may write to what it was captured with."""
    calls = []

    def run(x: torch.Tensor) -> torch.Tensor:
        calls.append(x)
        y = x * 2
        if len(calls) == call:
            x.zero_()
        return y

    with pytest.raises(TrtgateError, match=r"after the call input 0 differs from eager.*eager leaves it as it is"):
        built(case_of(lambda: (Compiled(run, reference=lambda x: x * 2), torch.ones(2, 8))), tmp_path)


def test_without_a_reference_it_is_not_eager_that_fails(tmp_path: Path) -> None:
    def no_good(_x: Any) -> Any:
        raise ValueError("no engine")

    with pytest.raises(TrtgateError, match="'mine': its callable can't run its own example inputs"):
        built(case_of(lambda: (no_good, torch.ones(2))), tmp_path)
    with pytest.raises(TrtgateError, match="'mine': its callable's own output: output: a set can't be taken apart"):
        built(case_of(lambda: (lambda _x: {1}, torch.ones(2))), tmp_path)


def test_a_callable_that_raises_is_named_with_its_inputs(tmp_path: Path) -> None:
    case = case_of(lambda: (Compiled(lambda x: x / "a", reference=net()[0]), net()[1]))
    with pytest.raises(TrtgateError, match=r"callable can't run its own example inputs of shape \(2, 8\): TypeError"):
        built(case, tmp_path)


def test_a_program_is_called_as_its_module_wherever_it_stands(tmp_path: Path) -> None:
    case = case_of(lambda: (Compiled(program(), reference=program()), net()[1]))
    assert built(case, tmp_path).build.leaf_error == 0


def test_nothing_of_it_is_cast_moved_copied_or_put_into_eval_mode() -> None:
    module, x = net()
    module.train().bfloat16()
    case = case_of(lambda: (Compiled(module, reference=module), x.bfloat16()))
    reference = Reference(case, "cpu", quiet)
    inference = reference.build(*reference.prepare(quiet), quiet)
    assert inference.compiled.run is module
    assert module.training
    assert {value.dtype for value in module.parameters()} == {torch.bfloat16}


def test_with_a_function_of_inputs_the_factory_returns_the_callable_alone(tmp_path: Path) -> None:
    module, _ = net()
    case = Case(
        Model("mine", lambda: Compiled(module), (), inputs=lambda batch: torch.randn(batch, 8)),
        Settings(frontend="own", precision="as_is", batch=3),
    )
    assert built(case, tmp_path).build.leaf_error == 0


def save(run: Any, folder: Path) -> None:
    torch.jit.save(run, folder / "mine.ts")


def load(folder: Path) -> Any:
    return torch.jit.load(folder / "mine.ts")


def test_with_save_and_load_other_processes_load_what_one_built(tmp_path: Path) -> None:
    case = case_of(scripted, save=save, load=load)
    assert frontends.stores(case)
    assert built(case, tmp_path).stored
    inference = load_checked(case, tmp_path, "cpu")
    assert isinstance(inference.compiled.run, torch.jit.ScriptModule)
    assert inference()["scores"].shape == (2, 4)


@pytest.mark.parametrize(
    ("factory", "model", "said"),
    [
        (
            lambda: (3, torch.ones(2)),
            {},
            "with frontend 'own' its factory must return (callable, inputs), not int",
        ),
        (
            lambda: Compiled(net()[0]),
            {},
            "its factory must return (callable, inputs) or (callable, args, kwargs), not a Compiled alone; inputs= of",
        ),
        (lambda: (net()[0],), {}, "must return (callable, inputs) or (callable, args, kwargs), not 1 values"),
        (lambda: (Net, net()[1]), {}, "must return (callable, inputs), not the class Net: make an object of it"),
        (lambda: (Compiled(Net), net()[1]), {}, "takes a callable, not the class Net: make an object of it"),
        (
            lambda: (Compiled(net()[0], reference=Net), net()[1]),
            {},
            "must be the module that was compiled, not the class Net: make an object of it",
        ),
        (
            scripted,
            {"save": save, "load": lambda _folder: None},
            "its load= must return what save= was given, not None",
        ),
        (scripted, {"save": save, "load": lambda folder: folder.no_such}, "its load= raised AttributeError"),
    ],
)
def test_what_is_no_callable_is_said_in_one_line(factory: Any, model: Any, said: str, tmp_path: Path) -> None:
    case = case_of(factory, **model)

    def built_and_loaded() -> None:
        built(case, tmp_path)
        load_checked(case, tmp_path, "cpu")

    with pytest.raises(TrtgateError) as failed:
        built_and_loaded()
    assert "model 'mine'" in str(failed.value)
    assert said in str(failed.value)
    assert "\n" not in str(failed.value)


def test_one_that_can_not_be_saved_is_built_by_every_launch_and_says_so(tmp_path: Path) -> None:
    def no_script(run: Any, _folder: Path) -> None:
        raise TypeError("can't pickle it")

    found = built(case_of(function, save=no_script, load=load), tmp_path)
    assert not found.stored
    assert "can't be stored, so that every launch builds it: " in found.notes[0]
    assert "its save= raised TypeError: can't pickle it" in found.notes[0]


def test_save_and_load_go_together_and_with_the_frontend_own() -> None:
    with pytest.raises(TrtgateError, match="save= and load= go together"):
        case_of(scripted, save=save)
    with pytest.raises(TrtgateError, match="save= and load= are for the frontend 'own'"):
        Model("mine", net, [Settings(frontend="eager")], save=save, load=load)


def test_a_compiled_callable_with_another_frontend_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrtgateError, match="returns what it compiled itself: take the frontend 'own'"):
        built(case_of(scripted, frontend="eager"), tmp_path)


def test_its_id_says_that_nothing_is_cast_whatever_the_precisions() -> None:
    mine = trtgate.model(name="mine", frontends=("eager", "own"), precisions=("fp32", "fp16"))(scripted)
    assert [Case(mine, one).id for one in mine.settings] == ["mine-eager-fp32", "mine-eager-fp16", "mine-own-as_is"]


class Segment(torch.nn.Module):
    serialized_engine = b"12345678"


def test_engines_are_found_in_what_a_function_holds() -> None:
    holder = torch.nn.Sequential(Segment(), torch.nn.ReLU())

    class Service:
        def __init__(self) -> None:
            self.module = holder

        def __call__(self, x: torch.Tensor) -> torch.Tensor:
            return self.module(x)

        def answer(self, x: torch.Tensor) -> torch.Tensor:
            return self.module(x)

    def closure(x: torch.Tensor) -> torch.Tensor:
        return holder(x)

    assert engine_sizes.of(holder) == engine_sizes.of(closure) == engine_sizes.of(Service()) == [8]
    assert engine_sizes.of(holder.forward) == [8]
    assert engine_sizes.of(Service().answer) == []  # a service's fields are seen, those behind its methods are not
    assert engine_sizes.of(torch.relu) == []


# State that a callable keeps outside of modules


def in_a_tensor() -> Any:
    total = torch.zeros(4)
    return lambda x: total.add_(x) * 2


def in_a_dict() -> Any:
    cache: dict[str, torch.Tensor] = {}

    def run(x: torch.Tensor) -> torch.Tensor:
        cache["total"] = cache.get("total", 0) + x
        return cache["total"] * 2

    return run


def in_a_list() -> Any:
    seen: list[torch.Tensor] = []

    @torch.no_grad()
    def run(x: torch.Tensor) -> torch.Tensor:
        seen.append(x)
        return 2 * torch.stack(seen).sum(0)

    return run


def in_a_name() -> Any:
    total = None

    def step(x: torch.Tensor) -> torch.Tensor:
        nonlocal total
        total = x if total is None else total + x
        return total

    return lambda x: step(x) * 2


def in_a_default() -> Any:
    def run(x: torch.Tensor, total: list[Any] = [0]) -> torch.Tensor:  # noqa: B006
        total[0] = total[0] + x
        return total[0] * 2

    return run


def in_a_default_by_name() -> Any:
    def run(x: torch.Tensor, *, total: list[Any] = [0]) -> torch.Tensor:  # noqa: B006
        total[0] = total[0] + x
        return total[0] * 2

    return run


def in_an_attribute_of_a_function() -> Any:
    def run(x: torch.Tensor) -> torch.Tensor:
        run.total = getattr(run, "total", 0) + x  # type: ignore[attr-defined]
        return run.total * 2  # type: ignore[attr-defined]

    return run


def in_a_partial() -> Any:
    def run(total: list[Any], x: torch.Tensor) -> torch.Tensor:
        total[0] = total[0] + x
        return total[0] * 2

    return functools.partial(run, [0])


class Service:
    def __init__(self) -> None:
        self.total: Any = 0

    def answer(self, x: torch.Tensor) -> torch.Tensor:
        self.total = self.total + x
        return self.total * 2

    __call__ = answer


def in_a_module_that_it_holds() -> Any:
    module = Running()
    return lambda x: module(x)


KEPT = [
    in_a_tensor, in_a_dict, in_a_list, in_a_name, in_a_default, in_a_default_by_name, in_an_attribute_of_a_function,
    in_a_partial, Service, lambda: Service().answer, in_a_module_that_it_holds, Running,
]  # fmt: skip


@pytest.mark.parametrize("make", KEPT)
@pytest.mark.parametrize("reference", [Running, in_a_dict, None])
def test_state_of_a_callable_is_put_back_wherever_it_is_kept(make: Any, reference: Any, tmp_path: Path) -> None:
    def factory() -> Any:
        return Compiled(make(), reference=reference and reference()), torch.ones(4)

    inference = built(case_of(factory), tmp_path).inference
    for _ in range(2):
        assert inference().tolist() == [2.0] * 4
        assert inference().tolist() == [4.0] * 4
        inference.restore()


def test_state_that_its_reference_has_not_is_named(tmp_path: Path) -> None:
    def factory() -> Any:
        calls = [0]

        def run(x: torch.Tensor) -> torch.Tensor:
            calls[0] += 1
            return x * calls[0]

        return Compiled(run, reference=torch.nn.Identity()), torch.ones(4)

    with pytest.raises(TrtgateError, match=r"output differs .*its callable keeps state in calls, and its reference"):
        built(case_of(factory), tmp_path)


@pytest.mark.parametrize("has_reference", [True, False])
def test_what_the_first_call_makes_is_kept_where_no_output_shows_it(has_reference: bool, tmp_path: Path) -> None:
    """An engine, or a graph for each shape."""
    made = []

    def factory() -> Any:
        module, x = net()
        engines: dict[Any, Any] = {}
        calls = 0

        def run(x: torch.Tensor) -> Any:
            nonlocal calls
            calls += 1
            if x.shape not in engines:
                made.append(x.shape)
                engines[x.shape] = module.eval()
            return engines[x.shape](x)

        return Compiled(run, reference=module if has_reference else None), x

    inference = built(case_of(factory), tmp_path).inference
    inference.restore()
    inference()
    assert len(made) == 1


def test_the_first_call_belongs_to_the_build_time_without_a_reference_too(monkeypatch: Any, tmp_path: Path) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def factory() -> Any:
        engines: list[str] = []

        def run(x: torch.Tensor) -> torch.Tensor:
            now[0] += 0.001 if engines else 5.0
            engines[:] = ["made"]
            return x * 2

        now[0] += 2.0
        return run, torch.ones(4)

    assert built(case_of(factory), tmp_path).build.build_s == pytest.approx(7.0, abs=0.1)


# Exported programs


def program(**more: Any) -> torch.export.ExportedProgram:
    module, x = net()
    return torch.export.export(module, (x,), more)


@pytest.mark.parametrize("frontend", ["eager", "aot_eager", "own"])
@pytest.mark.parametrize("alone", [True, False])
def test_an_exported_program_is_a_model(frontend: str, alone: bool, tmp_path: Path) -> None:
    def factory() -> Any:
        return program() if alone else (program(), net()[1])

    precision = "as_is" if frontend == "own" else "fp32"
    assert built(case_of(factory, frontend, precision), tmp_path).build.leaf_error < 1e-6


def test_a_program_brings_the_keyword_arguments_that_it_was_exported_with(tmp_path: Path) -> None:
    case = case_of(lambda: program(scale=0.5), "eager", "fp32")
    assert Reference(case, "cpu", quiet).inputs.kwargs == {"scale": 0.5}
    assert built(case, tmp_path).build.leaf_error == 0


def test_a_program_without_example_inputs_asks_for_them(tmp_path: Path) -> None:
    made = program()
    made.example_inputs = None
    with pytest.raises(TrtgateError, match=r"has no example inputs: return \(program, inputs\)"):
        built(case_of(lambda: made, "eager", "fp32"), tmp_path)


# Files


def test_a_file_of_an_exported_program_is_loaded(tmp_path: Path) -> None:
    file = tmp_path / "net.pt2"
    torch.export.save(program(), file)
    assert isinstance(trtgate.load(file), torch.export.ExportedProgram)
    (tmp_path / "built").mkdir()
    assert built(case_of(lambda: trtgate.load(str(file)), "eager", "fp32"), tmp_path / "built").build.leaf_error == 0


def test_a_file_of_torchscript_is_loaded(tmp_path: Path) -> None:
    module, x = net()
    torch.jit.save(torch.jit.trace(module, x, strict=False), tmp_path / "net.ts")
    case = case_of(lambda: (Compiled(trtgate.load(tmp_path / "net.ts"), reference=module), x))
    (tmp_path / "built").mkdir()
    assert built(case, tmp_path / "built").build.leaf_error < 1e-6


def test_an_aotinductor_package_is_loaded(tmp_path: Path) -> None:
    if frontends.get("inductor").unavailable():
        pytest.skip("needs a C++ compiler")
    module, x = net()
    file = tmp_path / "net.pt2"
    quickly = {"aot_inductor.precompile_headers": False, "aot_inductor.compile_wrapper_opt_level": "O0"}
    program = torch.export.export(module, (x,))
    torch._inductor.aoti_compile_and_package(program, package_path=str(file), inductor_configs=quickly)
    case = case_of(lambda: (Compiled(trtgate.load(file), reference=module), x))
    (tmp_path / "built").mkdir()
    assert built(case, tmp_path / "built").build.leaf_error < 1e-5


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "there is no such file"),
        (b"", "this is no file that torch saved"),
        (b"hello", "this is no file that torch saved"),
        ("weights", "this is neither an exported program, an AOTInductor package nor a TorchScript module"),
    ],
)
def test_another_file_is_said_in_one_line(content: Any, said: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.pt2"
    if content == "weights":
        torch.save(net()[0].state_dict(), file)
    elif content is not None:
        file.write_bytes(content)
    with pytest.raises(TrtgateError) as failed:
        trtgate.load(file)
    assert str(failed.value).startswith(f"{file}: {said}")


def test_a_damaged_file_names_itself_and_the_release(tmp_path: Path) -> None:
    import zipfile

    file = tmp_path / "mine.pt2"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("mine/models/model.json", "{}")
    with pytest.raises(TrtgateError, match=rf"{file}: torch .* can't load an exported program that is in it"):
        trtgate.load(file)


# In the gate

SUITE = """

@trtgate.model(frontends=("own",), needs_gpu=False)
def mine():
    import torch

    def compile_for_prod(module):
        def run(x):
            sleep("mine")
            return module(x)

        return run

    torch.manual_seed(0)
    module = torch.nn.Linear(4, 4).eval()
    return trtgate.Compiled(compile_for_prod(module), reference=module), torch.ones(2, 4)
"""


def test_the_gate_records_judges_and_checks_it(folder):
    folder.suite(more=SUITE)
    recorded = folder.gate("--trtgate-update-baselines")
    assert recorded.ret == 0
    assert folder.saved_cases() == {"mine-own-as_is"}
    same = folder.gate("--benchmark-compare")
    assert same.ret == 0
    slower = folder.gate("--benchmark-compare", MINE_MS="4")
    assert slower.ret == pytest.ExitCode.TESTS_FAILED
    slower.stdout.fnmatch_lines(["*mine-own-as_is is slower*"])
