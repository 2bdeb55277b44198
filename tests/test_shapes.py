"""Cases of other shapes, built on a CPU: static ones, and one compiled module that takes many."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from torch import nn

import trtgate
from trtgate import Case, Model, Settings
from trtgate.common.errors import TrtgateError
from trtgate.compiling import building, reference
from trtgate.compiling.artifact_cache import ArtifactCache
from trtgate.compiling.build_or_load import CheckedModule, build_or_load
from trtgate.compiling.reference import Reference
from trtgate.coverage import dry_run
from trtgate.suite import samples
from trtgate.suite.model_inputs import Inputs
from trtgate.torch_trt import dynamic_tracing, exporting, releases

from .storing_frontend import Storing

SEQ = {"seq": (4, 16, 64)}
SMALL = {"height": 2, "width": 2}
WIDTH = 8
needs_torch_tensorrt = pytest.mark.skipif(bool(releases.unavailable()), reason=releases.unavailable() or "installed")


class Encoder(nn.Module):
    """Ids, a mask of two sequence axes and, by name, positions one longer: what a language model takes."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(32, WIDTH)
        self.linear = nn.Linear(WIDTH, WIDTH)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor | None = None) -> torch.Tensor:
        hidden = self.embedding(ids)
        if positions is not None:
            hidden = hidden + positions[:, 1:]
        weights = (hidden @ hidden.transpose(1, 2) + mask).softmax(-1)
        return self.linear(weights @ hidden)


def encoder(batch: int, seq: int) -> Any:
    torch.manual_seed(0)
    module = Encoder().eval()
    return module, (torch.randint(0, 32, (batch, seq)), torch.zeros(batch, seq, seq))


def with_positions(batch: int, seq: int) -> Any:
    module, (ids, mask) = encoder(batch, seq)
    return module, (ids,), {"mask": mask, "positions": torch.randn(batch, seq + 1, WIDTH)}


def module_alone() -> nn.Module:
    torch.manual_seed(0)
    return Encoder().eval()


def tokens(batch: int, seq: int) -> Any:
    torch.manual_seed(1)
    return {"ids": torch.randint(0, 32, (batch, seq)), "mask": torch.zeros(batch, seq, seq)}


def case_of(factory: Any, seq: int = 16, batch: int | None = 2, **settings: Any) -> Case:
    given = Settings(**{"frontend": "aot_eager", "batch": batch, "shape": {"seq": seq}, "dynamic": SEQ, **settings})
    model = factory if isinstance(factory, Model) else Model("net", factory, [given])
    return Case(model, given)


def of_seq(module: nn.Module, shape: Callable[[int], tuple[int, ...]]) -> Callable[..., Any]:
    return lambda seq: (module.eval(), torch.ones(shape(seq)))


@pytest.mark.parametrize("factory", [with_positions, Model("net", module_alone, [], inputs=tokens)])
def test_one_module_of_torch_compile_is_right_at_each_shape_and_compiles_once(factory: Any) -> None:
    inference, build = reference.checked(case_of(factory, 4), "cpu", lambda _step: None)
    assert inference().shape == (2, 4, WIDTH)
    assert build.leaf_error is not None
    with torch._dynamo.config.patch(error_on_recompile=True):
        for other in (5, 16, 64):  # what was measured is not all that it takes
            inputs = building.make(case_of(factory, other), "cpu")[1]
            with torch.no_grad():
                assert inputs.call(inference.compiled.run).shape == (2, other, WIDTH)


def test_eager_and_inductor_run_at_the_shape_that_is_measured() -> None:
    for frontend, dynamic in (("eager", {}), ("inductor", SEQ)):
        inference, _ = reference.checked(
            case_of(encoder, 64, frontend=frontend, dynamic=dynamic), "cpu", lambda _: None
        )
        assert inference().shape == (2, 64, WIDTH)


@pytest.mark.parametrize(("batches", "more"), [((2,), [(3, 64)]), ((1, 2), [])])
def test_a_static_shape_is_made_by_one_call_of_the_factory(
    batches: tuple[int, ...], more: list[tuple[int, int]]
) -> None:
    """A batch that stands alone is asked at another: inputs may lead with it by chance."""
    calls: list[tuple[int, int]] = []

    def counted(batch: int, seq: int) -> Any:
        calls.append((batch, seq))
        return encoder(batch, seq)

    one = case_of(counted, 64, dynamic={})
    settings = [msgspec.structs.replace(one.settings, batch=batch) for batch in batches]
    _, inputs = building.make(Case(one.model.having(settings), one.settings), "cpu")
    assert calls == [(2, 64), *more]
    assert inputs.shapes == "(2, 64), (2, 64, 64)"


def test_the_module_is_that_of_the_optimum_at_every_shape() -> None:
    def sized(seq: int) -> Any:
        torch.manual_seed(0)
        return nn.Linear(seq, 2).eval(), torch.ones(3, seq)

    with pytest.raises(TrtgateError, match="eager can't run its own example inputs of shape"):
        reference.checked(case_of(sized, 64, batch=None), "cpu", lambda _: None)
    module, _ = building.make(case_of(sized, 64, batch=None), "cpu")
    assert module.in_features == 16


def test_with_inputs_the_module_is_made_once_and_random_numbers_go_on() -> None:
    made: list[str] = []

    def once() -> nn.Module:
        made.append("module")
        return module_alone()

    case = case_of(Model("net", once, [], inputs=tokens))
    building.make(case, "cpu")
    state = torch.get_rng_state()
    dynamic = building.dynamic_inputs(case, "cpu")
    assert made == ["module"]
    assert torch.equal(torch.get_rng_state(), state)
    assert dynamic is not None
    assert list(dynamic.example.kwargs) == ["ids", "mask"]


def test_a_program_is_exported_for_all_its_shapes_with_keyword_arguments_and_derived_sizes() -> None:
    case = case_of(with_positions, frontend="dynamo")
    module, inputs = building.make(case, "cpu")
    program = exporting.export(module, inputs, case.settings, building.dynamic_inputs(case, "cpu"))
    for seq in (4, 17, 64):
        _, other = building.make(case_of(with_positions, seq, frontend="dynamo"), "cpu")
        torch.testing.assert_close(other.call(program.module()), other.call(module))
    _, longer = building.make(case_of(with_positions, 65, frontend="dynamo", dynamic={}), "cpu")
    with pytest.raises(Exception, match="64"):
        longer.call(program.module())


def test_what_a_model_says_of_its_dynamic_shapes_is_told_torch_export() -> None:
    def flat(height: int, width: int) -> Any:
        return nn.Linear(4, 4).eval(), torch.ones(height * width, 4)

    own = Settings(frontend="dynamo", dynamic={"height": ((2, 3, 4),), "width": ((2, 4, 16),)}, shape=SMALL)
    with pytest.raises(TrtgateError, match=r"model 'net': axis 0 of input .*\[0\] changes with height and with width"):
        building.dynamic_inputs(Case(Model("net", flat, [own]), own), "cpu")
    given = lambda: ({0: torch.export.Dim("rows", min=4, max=64)},)  # noqa: E731
    case = Case(Model("net", flat, [own], dynamic_shapes=given), own)
    module, inputs = building.make(case, "cpu")
    program = exporting.export(module, inputs, own, building.dynamic_inputs(case, "cpu"))
    assert program.module()(torch.ones(64, 4)).shape == (64, 4)


class Both(nn.Module):
    def forward(self, x: torch.Tensor, more: dict[str, torch.Tensor]) -> torch.Tensor:
        return x * 2 + more["bias"]


ROWS = torch.export.Dim("rows", min=2, max=64)


@pytest.mark.parametrize("frontend", ["aot_eager", "dynamo"])
@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"x": {0: ROWS}, "more": {"bias": {0: ROWS}}}, ""),
        (({0: ROWS}, {"bias": (ROWS, None)}), ""),
        ({"x": {0: torch.export.Dim.AUTO}, "more": {"bias": {0: torch.export.Dim.DYNAMIC}}}, ""),
        ({"x": {0: ROWS}, "more": {"bias": {1: torch.export.Dim.AUTO}}}, "leaves out axis 0 of input more['bias'],"),
        ({"x": {0: ROWS}, "more": {"bias": None}}, "leaves out axis 0 of input more['bias'], which"),
        ({"x": {0: ROWS}, "more": None}, "leaves out axis 0 of input more['bias'], which"),
        ({"x": None, "more": {"bias": {0: ROWS}}}, "leaves out axis 0 of input x, which the inputs make 2 to 64"),
        (({0: torch.export.Dim.STATIC}, {"bias": {0: ROWS}}), "leaves out axis 0 of input x, which the inputs make"),
        ({"more": {"bias": {0: ROWS}}}, "leaves out axis 0 of input x, which the inputs make 2 to 64: torch.export"),
        (
            {"x": {0: torch.export.Dim("rows", min=2, max=32)}, "more": {"bias": {0: ROWS}}},
            "lets 2 to 32 be axis 0 of input x, which the inputs make 2 to 64: give both the same bounds",
        ),
        ({"x": "rows", "more": {"bias": {0: ROWS}}}, "has 'rows' for the input x: write what torch.export takes"),
        (torch.export.Dim.AUTO, "DimHint(AUTO): write what torch.export takes"),
    ],
)
def test_an_axis_that_dynamic_shapes_leaves_out_is_named(given: Any, said: str, frontend: str) -> None:
    def inputs(rows: int) -> Any:
        return torch.ones(rows, 4), {"bias": torch.ones(rows, 4)}

    own = Settings(frontend=frontend, dynamic={"rows": ((2, 8, 64),)}, shape={"rows": 8})
    case = Case(Model("net", Both, [own], inputs=inputs, dynamic_shapes=given), own)
    made = Reference(case, "cpu", lambda _: None)

    def compiled() -> None:
        if frontend == "dynamo":
            exporting.export(made.module, made.inputs, own, made.dynamic_inputs())
        else:
            made.build(*made.prepare(lambda _: None), lambda _: None)

    if not said:
        compiled()
        return
    with pytest.raises(TrtgateError) as failed:
        compiled()
    assert f"dynamic_shapes= {said}" in str(failed.value).replace("=Dim", "= Dim")


class Fixed(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(16, -1)


class Longer(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2 if x.shape[0] > 7 else x * 3


@pytest.mark.parametrize(
    ("factory", "said"),
    [
        (of_seq(Fixed(), lambda seq: (seq, 1)), "can't let seq vary: the model is made for the size 16 alone; "),
        (of_seq(Longer(), lambda seq: (seq, 1)), "can't let seq vary over seq 4 to 64: the model needs .*8 <= .*; "),
        (of_seq(nn.Identity(), lambda seq: (4,)), "model 'net': dynamic dimension 'seq' changes no input"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("frontend", ["dynamo", "aot_eager"])
def test_a_dimension_that_can_not_vary_is_one_line_that_names_it(factory: Any, said: str, frontend: str) -> None:
    case = case_of(factory, batch=None, frontend=frontend)
    module, inputs = building.make(case, "cpu")

    def attempt() -> None:
        dynamic = building.dynamic_inputs(case, "cpu")
        if frontend == "dynamo":
            exporting.export(module, inputs, case.settings, dynamic)
        else:
            building.build(case, module, inputs, lambda _step: None)

    with pytest.raises(TrtgateError, match=said) as caught:
        attempt()
    assert "\n" not in str(caught.value)


def test_torch_compile_takes_a_size_of_one_for_a_constant() -> None:
    case = case_of(encoder, 1, dynamic={"seq": (1, 16, 64)})
    with pytest.raises(
        TrtgateError, match=r"torch.compile takes a size of 1 for a constant, .*: measure from 2 on, or use"
    ):
        reference.checked(case, "cpu", lambda _step: None)


def test_a_shape_that_would_be_compiled_again_is_refused() -> None:
    class Sometimes(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + 1

    case = case_of(of_seq(Sometimes(), lambda seq: (seq, 2)), batch=None)
    dynamic = building.dynamic_inputs(case, "cpu")
    assert dynamic is not None
    compiled = torch.compile(Sometimes(), backend="eager")
    with pytest.raises(TrtgateError, match=r"torch.compile would compile again for inputs of shape \(16, 3\)"):
        dynamic_tracing.first_call(compiled, dynamic, Inputs((torch.ones(16, 3),)))


@pytest.mark.parametrize(
    ("factory", "said"),
    [
        (lambda seq: nn.Linear(4, 4), "its factory must return"),
        (Model("net", lambda: [nn.Linear(4, 4), 3], [], inputs=lambda seq: torch.ones(4)), "module alone, not "),
        (Model("net", module_alone, [], inputs=lambda seq: 1 / 0), "its inputs= raised ZeroDivisionError.* at seq=16"),
        (Model("net", module_alone, [], inputs=lambda seq: {"x": torch.ones(4)}), "forward takes no 'x'"),
    ],
)  # fmt: skip
def test_what_functions_return_is_checked(factory: Any, said: str) -> None:
    with pytest.raises(TrtgateError, match=f"model '(net|.lambda.)': .*{said}"):
        building.make(case_of(factory, batch=None), "cpu")


# One build for all shapes of a compiled module


@pytest.fixture
def got(tmp_path: Path) -> Callable[..., CheckedModule]:
    def get(seq: int, factory: Any = encoder, **caches: Any) -> CheckedModule:
        folder = tmp_path / f"{seq}-{threading.get_ident()}-{len(list(tmp_path.iterdir()))}"
        folder.mkdir(mode=0o700)
        case = case_of(factory, seq, frontend="dynamo", batch=2 if factory is encoder else None)
        return build_or_load(case, "cpu", folder, caches.pop("cache", None), lambda _step: None, **caches)

    return get


def test_shapes_of_one_module_share_its_build_without_a_cache_of_the_user(
    got: Callable[..., CheckedModule], storing: Storing, tmp_path: Path
) -> None:
    shared = ArtifactCache(tmp_path / "shared")
    found = [got(seq, shared=shared) for seq in (4, 16, 64)]
    assert storing.built == ["dynamo-fp32-b2-seq4..16..64@4-mbs5"]
    assert [one.build.cached for one in found] == [False, True, True]
    assert [one.inference().shape[1] for one in found] == [4, 16, 64]
    assert all(one.stored for one in found)


def test_a_shape_is_found_in_the_users_cache_also_by_a_later_run(
    got: Callable[..., CheckedModule], storing: Storing, tmp_path: Path
) -> None:
    cache = ArtifactCache(tmp_path / "cache")
    got(4, cache=cache, shared=ArtifactCache(tmp_path / "first"))
    assert got(64, cache=cache, shared=ArtifactCache(tmp_path / "second")).build.cached
    rebuilding = ArtifactCache(tmp_path / "cache", rebuild=True)
    shared = ArtifactCache(tmp_path / "third")
    again = [got(seq, cache=rebuilding, shared=shared).build.cached for seq in (4, 16)]
    assert again == [False, True]
    assert len(storing.built) == 2


def test_another_size_at_the_optimum_is_another_build(
    got: Callable[..., CheckedModule], storing: Storing, tmp_path: Path
) -> None:
    cache = ArtifactCache(tmp_path / "cache")
    for at_optimum in (20, 24):
        sizes = {4: 4, 16: at_optimum, 64: 64}
        assert not got(4, of_seq(nn.ReLU(), lambda seq, sizes=sizes: (sizes[seq], 2)), cache=cache).build.cached


def test_who_builds_the_same_at_once_waits_and_other_modules_do_not(tmp_path: Path) -> None:
    order: list[str] = []
    arrived = threading.Event()

    def another() -> None:
        cache = ArtifactCache(tmp_path / "shared")
        with cache.building("other"):
            arrived.set()
        with cache.building("same"):
            order.append("second")

    with ArtifactCache(tmp_path / "shared").building("same"):
        waiting = threading.Thread(target=another)
        waiting.start()
        assert arrived.wait(60)
        order.append("first")
    waiting.join(60)
    assert order == ["first", "second"]
    assert not list((tmp_path / "shared" / "building").iterdir())


def test_a_build_that_fails_lets_the_next_begin(tmp_path: Path) -> None:
    cache = ArtifactCache(tmp_path / "shared")
    with pytest.raises(ZeroDivisionError), cache.building("same"):
        raise ZeroDivisionError
    with cache.building("same"):
        pass


# Without a GPU: what TensorRT takes


@needs_torch_tensorrt
@pytest.mark.parametrize("frontend", ["dynamo", "torch_compile"])
def test_engines_take_all_shapes_of_a_dry_run(frontend: str) -> None:
    dynamic = {"seq": (1, 16, 64)}
    found = dry_run.ask(case_of(with_positions, 1, frontend=frontend, min_block_size=1, dynamic=dynamic))
    assert found.in_pytorch == 0
    assert not any(name.endswith((f"[2,1,{WIDTH}]", f"[2,16,{WIDTH}]")) for name in found.engines[0].outputs)


@needs_torch_tensorrt
def test_several_optimization_profiles_reach_the_compiler() -> None:
    dynamic = {"seq": ((2, 4, 16), (17, 32, 64))}
    found = dry_run.ask(case_of(encoder, 32, frontend="dynamo", min_block_size=1, dynamic=dynamic))
    assert found.in_pytorch == 0


@needs_torch_tensorrt
@pytest.mark.parametrize("frontend", ["dynamo", "torch_compile"])
def test_support_is_asserted_of_shapes(frontend: str) -> None:
    asked: dict[str, Any] = {"min_block_size": 1, "frontend": frontend}

    def linear(batch: int, seq: int) -> Any:
        return nn.Linear(8, 8), torch.ones(batch, seq, 8)

    static = trtgate.assert_supported(linear, batch=2, shapes=[{"seq": 4}, {"seq": 8}], **asked)
    assert "float32[2,8,8]" in static.engines[0].inputs
    dynamic = trtgate.assert_supported(linear, dynamic=SEQ, **asked)
    assert not any(name.endswith("[1,16,8]") for name in dynamic.engines[0].outputs)
    function = trtgate.assert_supported(nn.Linear(8, 8), lambda seq: torch.ones(seq, 8), dynamic=SEQ, **asked)
    assert len(function.engines) == 1


@needs_torch_tensorrt
def test_shapes_that_can_not_be_asked_for_are_refused() -> None:
    with pytest.raises(TrtgateError, match="a size of 'sek' is given, and nothing takes it: did you mean 'seq'"):
        trtgate.assert_supported(encoder, shapes=[{"sek": 4}])
    with pytest.raises(AssertionError, match="at dynamo-fp32-b1-seq4-mbs1000: nothing reaches TensorRT"):
        trtgate.assert_supported(encoder, shapes=[{"seq": 4}], min_block_size=1000)


def test_samples_are_of_the_shape_that_they_are_asked_for() -> None:
    def drawn(count: int, seed: int, seq: int) -> Any:
        generator = torch.Generator().manual_seed(seed)
        return (torch.rand(1, seq, generator=generator) for _ in range(count))

    model = Model("net", lambda batch, seq: (nn.Identity(), torch.ones(batch, seq)), [], samples=drawn)
    case = case_of(model, 64)
    _, inputs = building.make(case, "cpu")
    assert [one.shapes for one in samples.of(case, inputs, 2, seed=1)] == ["(2, 64)", "(2, 64)"]
    at_optimum = Case(model, case.settings.at_optimum)
    dynamic = building.dynamic_inputs(case, "cpu")
    assert dynamic is not None
    assert [one.shapes for one in samples.of(at_optimum, dynamic.example, 1, seed=1)] == ["(2, 16)"]
