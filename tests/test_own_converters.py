"""A user's own converters and operators on a machine without a GPU: they can be imported, and coverage counts them."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import enum
import functools
import importlib.util
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from trtgate import Case, Model, Settings
from trtgate.compiling.fingerprinting import Fingerprinter
from trtgate.torch_trt import (
    code_values,
    function_code,
    import_hook,
    imported_files,
    operator_files,
    own_conversions,
    releases,
    upstream_state,
)  # fmt: skip

from .pytest_folder import PytestFolder as Folder

pytestmark = pytest.mark.skipif(bool(releases.unavailable()), reason="torch_tensorrt is not installed")

OPERATOR = """
import torch

@torch.library.custom_op("trtgate_test::twice", mutates_args=())
def twice(x: torch.Tensor) -> torch.Tensor:
    return x * 2

@twice.register_fake
def _(x):
    return torch.empty_like(x)
"""
CONVERTERS = """
import torch
import torch_tensorrt

@torch_tensorrt.dynamo.conversion.dynamo_tensorrt_converter(torch.ops.trtgate_test.twice.default)
def twice_converter(ctx, target, args, kwargs, name):
    return torch_tensorrt.dynamo.conversion.impl.elementwise.add(ctx, target, None, name, args[0], args[0])

@torch_tensorrt.dynamo.conversion.dynamo_tensorrt_converter(
    torch.ops.aten.special_bessel_j0.default, capability_validator=lambda node, settings: len(node.args) == 1
)
def bessel_converter(ctx, target, args, kwargs, name):
    return args[0]
"""
NET = """
import trtgate
import torch
import operators

class Net(torch.nn.Module):
    def forward(self, x):
        return torch.special.bessel_j0(torch.ops.trtgate_test.twice(x)) + 1

@trtgate.model(frontends=("dynamo",), precisions=("fp32",), min_block_size=1)
def net():
    {within}
    return Net().eval(), torch.ones(2, 4)
"""
SUITES = {
    "no converter": NET.format(within="pass"),
    "at the top": CONVERTERS.replace("import torch\n", "import torch\nimport operators\n", 1)
    + NET.format(within="pass"),
    "in a module": "import operators\nimport converters\n" + NET.format(within="pass"),
    "in the factory": NET.format(within="import converters"),
}
ENTRIES = ("gate", "command", "assertion")


def write(folder: Path, suite: str) -> None:
    (folder / "pytest.ini").write_text("[pytest]\ntrtgate_suite = suite.py\n")
    (folder / "operators.py").write_text(OPERATOR)
    (folder / "converters.py").write_text(CONVERTERS)
    (folder / "suite.py").write_text(suite)
    (folder / "test_net.py").write_text(
        "import trtgate\nimport suite\n\ndef test_net():\n"
        "    print('counted', trtgate.assert_supported(suite.net, min_block_size=1, left=ALL).in_tensorrt, 'of 3')\n\n"
        "ALL = ('trtgate_test.twice.default', 'aten.special_bessel_j0.default')\n"
    )


def output_of(folder: Folder, entry: str) -> str:
    if entry == "gate":
        return folder.output_of(folder.pytest("suite.py", "-m", "trtgate_coverage"))
    if entry == "assertion":
        return folder.output_of(folder.pytest("test_net.py", "-s", "-o", "trtgate_suite="))
    command = [
        str(Path(sys.executable).parent / "trtgate"),
        "coverage",
        "net",
        "--min-block-size=1",
        "--precision=fp32",
    ]
    done = subprocess.run(command, cwd=folder.path, text=True, capture_output=True, timeout=120)
    return done.stdout + done.stderr


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("where", SUITES)
def test_operators_with_a_converter_of_the_users_are_in_tensorrt(
    folder: Folder, forked_with_tensorrt: None, entry: str, where: str
) -> None:
    write(folder.path, SUITES[where])
    assert ("1 of 3" if where == "no converter" else "3 of 3") in output_of(folder, entry), output_of(folder, entry)


def test_a_suite_that_imports_torch_tensorrt_first_is_collected_and_counted(folder: Folder) -> None:
    """In processes that have not imported it: its import asks for a GPU."""
    write(folder.path, SUITES["at the top"])
    done = folder.pytest("suite.py", "test_net.py", "-s")
    assert "3 of 3" in done.stdout.str()
    assert "counted 3 of 3" in done.stdout.str()
    done.assert_outcomes(passed=2, skipped=3)


KEYS = """
import importlib, pathlib
from trtgate.torch_trt import import_hook, own_conversions, upstream_state

import_hook.install(everywhere=True)
import torch_tensorrt

print("none:", own_conversions.fingerprint())
for name in ("converters", "passes", "decompositions"):
    importlib.import_module(name)
    print("first:", own_conversions.fingerprint())
    print("again:", own_conversions.fingerprint())
    print("without", name, own_conversions.fingerprint(of_custom=False) == own_conversions.fingerprint())
    for file in (f"{name}.py", f"helping_{name}.py"):
        for change in ("\\n# a comment", "\\nCHANGED = 1"):
            with pathlib.Path(file).open("a") as text:
                text.write(change)
            print(f"{file}:", own_conversions.fingerprint())
"""
REGISTERED = {
    "converters": CONVERTERS.replace(
        "import torch\n", "import torch\nimport operators\nimport helping_converters\n", 1
    ),
    "passes": (
        "from torch_tensorrt.dynamo.lowering.passes._aten_lowering_pass import _aten_lowering_pass\n"
        "from helping_passes import same\n\n@_aten_lowering_pass\ndef own(gm, settings):\n    return same(gm)\n"
    ),
    "decompositions": (
        "import torch\nfrom torch_tensorrt.dynamo.lowering import _decompositions as registry\n"
        "import helping_decompositions\n\n"
        "@registry.register_torch_trt_decomposition(\n"
        "    torch.ops.aten.special_bessel_j1.default, registry=registry.TORCH_TRT_DECOMPOSITIONS\n)\n"
        "def own(x):\n    return helping_decompositions.same(x * torch.sigmoid(x))\n"
    ),
}


def test_what_decides_an_engine_beside_the_program_is_part_of_its_artifacts_key(
    folder: Folder, forked_with_tensorrt: None
) -> None:
    (folder.path / "operators.py").write_text(OPERATOR)
    for name, text in REGISTERED.items():
        (folder.path / f"{name}.py").write_text(text)
        (folder.path / f"helping_{name}.py").write_text("def same(value):\n    return value\n")
    done = subprocess.run(
        [sys.executable, "-c", KEYS], cwd=folder.path, text=True, capture_output=True, timeout=120, check=False
    )
    # those of custom operators are nothing to a program without any; beside a pass they may be
    others = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("without")]
    assert others == [["converters", "False"], ["passes", "True"], ["decompositions", "True"]]
    keys = [line.split(":") for line in done.stdout.splitlines() if ": " in line]
    assert len(keys) == 1 + 6 * len(REGISTERED), done.stderr
    assert keys[0][1].strip() == ""
    assert len({key for _, key in keys}) == 1 + 3 * len(REGISTERED), (
        keys
    )  # "again" and a comment are as what was before


UNSEEN = """
from trtgate.torch_trt import import_hook, own_conversions, upstream_state

import_hook.install(everywhere=True)
import torch_tensorrt
import unseen
import outside

print(own_conversions.fingerprint())
"""
UNSEEN_MODULE = """
import functools
import json
import os
from pathlib import Path

import torch
import torch_tensorrt
from numbers_of_mine import FACTOR

SCALE = json.loads(Path("scale.json").read_text())["scale"]
TABLE = torch.tensor(json.loads(Path("table.json").read_text()))
ARRAY = TABLE.numpy() * SCALE
KIND = getattr(torch, Path("kind.txt").read_text())
LEVEL = 1
CALLS = 0
_found = None

def convert(ctx, target, args, kwargs, name, *, times):
    global CALLS, _found
    CALLS, _found = CALLS + 1, 1
    CALLS += 1
    from within_a_function import helper
    open("data.bin")
    return helper(args[0], FACTOR, SCALE, TABLE, ARRAY, KIND, LEVEL, os.environ.get("OWN_CONVERTER_LEVEL"))

def made(factor):
    def convert(ctx, target, args, kwargs, name):
        return args[0], factor
    return convert

register = torch_tensorrt.dynamo.conversion.dynamo_tensorrt_converter
if {converters}:
    read = lambda: json.loads(Path("times.json").read_text())
    register(torch.ops.aten.special_bessel_j0.default)(functools.partial(convert, times=read()))
    register(torch.ops.aten.special_bessel_j1.default)(made(json.loads(Path("closed.json").read_text())))
if {patched}:
    from torch_tensorrt.dynamo.conversion import impl
    impl.activation.relu = made(1)
"""

LOADING = """
import mmap

file = open("plugin.so", "rb")
mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
"""
RAN = """
import unseen

noted = vars(unseen)
noted.update(CALLS=3, _found=4)
"""
DYNAMIC = """
import dataclasses

import torch
from torch_tensorrt.dynamo.conversion._ConverterRegistry import DYNAMO_ATEN_CONVERTERS

entries = DYNAMO_ATEN_CONVERTERS[torch.ops.aten.special_bessel_j1.default]
entries[0] = dataclasses.replace(entries[0], supports_dynamic_shapes=True)
"""


def test_what_a_converter_imports_reads_or_is_given_and_what_replaces_upstreams_functions(
    folder: Folder, forked_with_tensorrt: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Constants of helpers, imports within functions, files that were read, arguments given in advance, patches."""
    monkeypatch.delenv("OWN_CONVERTER_LEVEL", raising=False)
    files = {
        "numbers_of_mine.py": "FACTOR = 2\n", "within_a_function.py": "from deeper import helper\n",
        "deeper.py": "def helper(*values):\n    return 1\n", "scale.json": '{"scale": 2}', "closed.json": "[1]",
        "times.json": "1", "table.json": "[1, 2]", "kind.txt": "float16", "outside.py": "",
        "data.bin": "1", "plugin.so": "1",
    }  # fmt: skip

    def key(converters: bool = True, patched: bool = False, **changed: str) -> str:
        for name, text in (files | {name.replace("__", "."): text for name, text in changed.items()}).items():
            (folder.path / name).write_text(text)
        text = UNSEEN_MODULE
        for name, value in (("converters", converters), ("patched", patched)):
            text = text.replace(f"{{{name}}}", str(value))
        (folder.path / "unseen.py").write_text(text)
        done = subprocess.run(
            [sys.executable, "-c", UNSEEN], cwd=folder.path, text=True, capture_output=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    first = key()
    assert first == key(deeper__py='"""A text."""\n\ndef helper(*values):\n    "Another."\n    return 1  # one\n')
    assert first == key()
    assert first == key(outside__py=RAN)
    monkeypatch.setenv("OTHER_CONVERTER_LEVEL", "3")
    assert first == key()
    others = {
        "a constant of a helper": key(numbers_of_mine__py="FACTOR = 3\n"),
        "what is imported within a function": key(within_a_function__py="from deeper import helper\nMORE = 1\n"),
        "what that imports": key(deeper__py="def helper(*values):\n    return 2\n"),
        "what a module read": key(scale__json='{"scale": 3}'), "what a function closes over": key(closed__json="[2]"),
        "what a function was given": key(times__json="2"), "what replaces a function": key(patched=True),
        "numbers in bulk": key(table__json="[1, 3]"), "a dtype": key(kind__txt="float32"),
        "a file that is read when it runs": key(data__bin="2"),
        "a library with plugins": key(outside__py=LOADING),
        "another of these": key(outside__py=LOADING, plugin__so="2"),
        "that it takes dynamic shapes": key(outside__py=DYNAMIC),
        "what a conftest file sets": key(outside__py="import unseen\nunseen.LEVEL = 3\n"),
    }  # fmt: skip
    monkeypatch.setenv("OWN_CONVERTER_LEVEL", "3")
    others["a variable that is read when it runs"] = key()
    assert len(set(others.values()) - {first}) == len(others), [one for one, key in others.items() if key == first]
    assert key(converters=False) == ""
    assert key(converters=False, patched=True)


REPLACING = """
import contextlib
import functools
import sys
from unittest import mock

from trtgate.torch_trt import import_hook, own_conversions, upstream_state

import_hook.install(everywhere=True)
import torch
import torch_tensorrt
import torch_tensorrt.runtime
from torch_tensorrt.dynamo import _compiler, _defaults, utils
from torch_tensorrt.dynamo.conversion import _ConverterRegistry as registry, impl
from torch_tensorrt.dynamo.lowering import _decompositions as decompositions
from torch_tensorrt.dynamo.lowering.passes import _aten_lowering_pass as passes
import replacing

activation, relu = impl.activation, impl.activation.relu
table, last = decompositions.TORCH_TRT_DECOMPOSITIONS, passes.ATEN_POST_LOWERING_PASSES
several, entries = next((key, held) for key, held in registry.DYNAMO_ATEN_CONVERTERS.items() if len(held) > 1)
like_upstream = functools.wraps(relu)(replacing.plain)

@contextlib.contextmanager
def without(table, key):
    value = table.pop(key)
    yield
    table[key] = value

@contextlib.contextmanager
def other_code(function):
    before, function.__code__ = function.__code__, replacing.plain.__code__
    yield
    function.__code__ = before

@contextlib.contextmanager
def disabled(operator):
    decompositions.torch_disabled_decompositions.add(operator)
    yield
    decompositions.torch_disabled_decompositions.remove(operator)

@contextlib.contextmanager
def safe_for_several_gpus():
    torch_tensorrt.runtime.set_multi_device_safe_mode(True)
    yield
    torch_tensorrt.runtime.set_multi_device_safe_mode(False)

in_use = vars(decompositions)["ENABLED_TORCH_DECOMPOSITIONS"]  # what compiling takes; others say how it was made
CHANGES = {
    "a function in a table": mock.patch.dict(in_use, {torch.ops.aten.special_bessel_j0.default: replacing.plain}),
    "a decomposition in use less": without(in_use, next(iter(in_use))),
    "a number in a table": mock.patch.dict(utils.COMPLEX_TO_REAL_DTYPE, {torch.complex64: torch.float64}),
    "a setting of the runtime": safe_for_several_gpus(),
    "a constant of an enumeration": mock.patch.object(_defaults, "ENGINE_CAPABILITY", None),
    "a function": mock.patch.object(activation, "relu", replacing.plain),
    "a function that is called like upstream's": mock.patch.object(activation, "relu", like_upstream),
    "a function that remembers": mock.patch.object(activation, "relu", functools.lru_cache(replacing.plain)),
    "an object": mock.patch.object(activation, "relu", replacing.Called()),
    "a method": mock.patch.object(activation, "relu", replacing.Called().method),
    "another function of upstream's": mock.patch.object(activation, "relu", activation.sigmoid),
    "upstream's function with an argument": mock.patch.object(activation, "relu", functools.partial(relu, name="own")),
    "a class": mock.patch.object(_compiler, "CompilationSettings", replacing.Settings),
    "a property of a class": mock.patch.object(_compiler.CompilationSettings, "__eq__", property(replacing.plain)),
    "a method of an object": mock.patch.object(registry.DYNAMO_CONVERTERS, "get", replacing.plain, create=True),
    "code": other_code(relu),
    "a default": mock.patch.dict(_compiler.compile.__kwdefaults__, min_block_size=1),
    "a constant": mock.patch.object(_defaults, "MIN_BLOCK_SIZE", 1),
    "a converter less": without(registry.DYNAMO_ATEN_CONVERTERS, torch.ops.aten.gelu.default),
    "another place": mock.patch.dict(registry.DYNAMO_ATEN_CONVERTERS, {several: entries[::-1]}),
    "upstream's converter for another operator": mock.patch.dict(
        registry.DYNAMO_ATEN_CONVERTERS, {torch.ops.aten.special_bessel_j0.default: entries}
    ),
    "a decomposition that is disabled": disabled(torch.ops.aten.special_bessel_j0.default),
    "a decomposition less": without(table, next(iter(table))),
    "a pass less": mock.patch.object(last, "passes", last.passes[1:]),
    "a function of torch's partitioner": mock.patch.object(
        torch.fx.passes.splitter_base._SplitterBase, "put_nodes_into_subgraphs", replacing.plain
    ),
}
for name in sys.argv[1:] or CHANGES:
    with contextlib.ExitStack() as changed:
        with upstream_state.users_code():  # what the change before left was put back
            changed.enter_context(CHANGES[name])
        print(f"{name}: {own_conversions.fingerprint()}")
with upstream_state.users_code():
    pass
assert own_conversions.fingerprint() == ""
"""
REPLACING_MODULE = """
from torch_tensorrt.dynamo import _compiler

def plain(*args, **kwargs):
    return 1

class Called:
    def __call__(self, *args, **kwargs):
        return 1

    def method(self, *args, **kwargs):
        return 1

class Settings(_compiler.CompilationSettings):
    pass
"""


def test_whatever_stands_for_something_of_upstreams_and_what_is_taken_away(
    folder: Folder, forked_with_tensorrt: None
) -> None:
    """In either way a suite or conftest file of one side alone makes another engine of the same program."""

    def keys(text: str, *names: str) -> dict[str, str]:
        (folder.path / "replacing.py").write_text(text)
        command = [sys.executable, "-c", REPLACING, *names]
        done = subprocess.run(command, cwd=folder.path, text=True, capture_output=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        return dict(line.split(": ") for line in done.stdout.splitlines())

    first = keys(REPLACING_MODULE)
    assert all(first.values()), [name for name, key in first.items() if not key]
    of_upstream = {"another function of upstream's", "a constant", "a converter less"}
    of_user = {
        "a function in a table", "a function", "a function that is called like upstream's", "a function that remembers",
        "an object", "a method", "a class", "a property of a class", "a method of an object", "code",
        "a function of torch's partitioner",
    }  # fmt: skip
    edited = keys("# a comment\n" + REPLACING_MODULE.replace("return 1", "return 2"), *of_user, *of_upstream)
    assert {name for name, key in edited.items() if key == first[name]} == of_upstream


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> dict[str, upstream_state._Held]:
    """What upstream holds, to be changed by a test; nothing of it was changed before."""
    state = {name: upstream_state._Held(None, "as it was") for name in ("LIMIT", "TABLE", "goes")}
    monkeypatch.setattr(upstream_state, "_state", lambda: iter(state.items()))
    for name in ("_since", "_changed"):
        monkeypatch.setattr(upstream_state, name, {})
    return state


def changed() -> list[tuple[str, str]]:
    return [(one.where, one.text) for one in upstream_state.changes()]


def test_what_changes_while_no_code_of_the_user_runs_is_upstreams_doing(held: dict[str, upstream_state._Held]) -> None:
    """A build registers things, and so may a module that is loaded: keys would follow from the cases before."""
    with upstream_state.users_code():
        held["LIMIT"] = upstream_state._Held(None, "a user's")
    held["TABLE"] = upstream_state._Held(None, "a build's")
    held[f"{upstream_state.CONVERTERS_OF}0 aten.sin"] = upstream_state._Held(None, "registered when it is needed")
    del held["goes"]
    assert changed() == [("LIMIT", "a user's")]
    with upstream_state.users_code(), upstream_state.users_code():  # a factory that asks for another
        held["TABLE"] = upstream_state._Held(None, "a user's too")
    assert changed() == [("LIMIT", "a user's"), ("TABLE", "a user's too")]


def test_what_was_put_back_is_no_change(held: dict[str, upstream_state._Held]) -> None:
    """By the user's code itself, or by trtgate after the case whose factory changed it."""
    before = held["LIMIT"]
    for by_the_user in (True, False):
        with upstream_state.users_code():
            held["LIMIT"] = upstream_state._Held(None, "a user's")
        assert changed() == [("LIMIT", "a user's")]
        with upstream_state.users_code() if by_the_user else contextlib.nullcontext():
            held["LIMIT"] = before
        with upstream_state.users_code():
            pass
        assert changed() == []


def test_what_an_import_brings_is_no_change(held: dict[str, upstream_state._Held]) -> None:
    """A suite imports torch_tensorrt, and changes it then."""
    with upstream_state.users_code():
        held["LIMIT"] = upstream_state._Held(None, "a user's before")
        with upstream_state.upstreams_code(), upstream_state.upstreams_code():  # a module that imports another
            held["imported"] = upstream_state._Held(None, "as it is")
            held["TABLE"] = upstream_state._Held(None, "filled")
            held[f"{upstream_state.CONVERTERS_OF}0 aten.cos"] = upstream_state._Held(None, "upstream's")
        held["imported"] = upstream_state._Held(None, "a user's")
    assert changed() == [("LIMIT", "a user's before"), ("imported", "a user's")]


@pytest.mark.parametrize("when", ["it is exported", "its lazy part is made"])
def test_what_a_forward_changes_of_upstream_is_the_users(held: dict[str, upstream_state._Held], when: str) -> None:
    """Also where it does so neither in the factory nor in the first run."""

    class Changing(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.LazyLinear(4) if when == "its lazy part is made" else torch.nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if torch.compiler.is_exporting() == (when == "it is exported"):
                held["LIMIT"] = upstream_state._Held(None, "a user's")
            return self.layer(x)

    case = Case(Model("net", lambda: (Changing(), torch.ones(2, 4)), ()), Settings(frontend="dynamo"))
    found = Fingerprinter().of(case)
    assert (changed(), found.problem) == ([("LIMIT", "a user's")], "")


NAMES = """
import os

HALF, TEXT = "\\ud800 no character", "\\ud800.txt"

def convert(network):
    return os.environ.get(HALF), open(TEXT)
"""


def test_code_may_name_what_is_no_variable_and_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a surrogate pair can be neither."""
    (tmp_path / "names_nothing.py").write_text(NAMES)
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("names_nothing")
    assert function_code.digest([module.convert]) == function_code.digest([module.convert])


@pytest.fixture
def users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module of a user's with two functions."""
    text = "def one(value):\n    return value\n\ndef other(value):\n    return [value]\n"
    (tmp_path / "of_the_user.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "of_the_user", raising=False)
    return importlib.import_module("of_the_user")


def test_the_order_in_which_cases_registered_their_functions_decides_no_key(
    users: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Factories register what they need, and a process has its cases in any order."""
    registered = [("decomposition of aten.sin.default", users.one), ("decomposition of aten.cos.default", users.other)]
    monkeypatch.setattr(own_conversions, "_registered", lambda: iter(registered))
    first = own_conversions.fingerprint()
    registered.reverse()
    assert own_conversions.fingerprint() == first != ""
    registered[0] = (registered[0][0], users.one)
    assert own_conversions.fingerprint() != first


def test_what_a_suite_puts_into_torch_is_seen_before_anything_imports_torch_tensorrt(
    users: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a CPU a process imports it for some cases, or for none: what the others are does not follow from that."""
    seen = []
    with monkeypatch.context() as patched:
        patched.setattr(torch.fx.passes.splitter_base._SplitterBase, "put_nodes_into_subgraphs", users.one)
        seen.append(own_conversions.fingerprint())
        for name in [name for name in sys.modules if name.partition(".")[0] in upstream_state.PACKAGES]:
            patched.delitem(sys.modules, name)
        seen.append(own_conversions.fingerprint())
    assert seen[0] == seen[1] != ""


IMPORTING = """
import sys
from trtgate.torch_trt import import_hook, upstream_state

import_hook.install(everywhere=True)
with upstream_state.users_code():
    import tensorrt_rtx

    tensorrt_rtx.volume = tensorrt_rtx.nptype
    import torch_tensorrt

    assert "torch_tensorrt.ts._utils" not in sys.modules
    import torch_tensorrt.ts._utils as late

    late.set_device = late.get_build_info
print(*(one.where for one in upstream_state.changes()), sep="\\n")
"""


def test_what_a_suite_changes_before_it_imports_torch_tensorrt_and_of_what_it_imports_later(folder: Folder) -> None:
    command = [sys.executable, "-c", IMPORTING]
    done = subprocess.run(command, cwd=folder.path, text=True, capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    code_and_defaults = ("code of", "defaults of")
    assert [line for line in done.stdout.splitlines() if not line.startswith(code_and_defaults)] == [
        "tensorrt_rtx.volume", "torch_tensorrt.ts._utils.set_device",
    ]  # fmt: skip


def test_what_trtgate_puts_in_the_place_of_a_function_is_no_change_of_the_users(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import_hook.install(everywhere=True)
    from torch_tensorrt.dynamo.conversion import _ConverterRegistry as registries

    name = "torch_tensorrt.dynamo.conversion._ConverterRegistry.ConverterRegistry.validate_invariants"
    for ours, places in ((function_code.name_of, []), (lambda self, other=1: None, ["", "code of ", "defaults of "])):
        with monkeypatch.context() as patched:
            with upstream_state.users_code():
                patched.setattr(registries.ConverterRegistry, "validate_invariants", ours)
            assert [one.where for one in upstream_state.changes()] == [f"{place}{name}" for place in places]
        with upstream_state.users_code():  # it was put back
            pass
        assert upstream_state.changes() == []


def test_code_of_a_package_is_not_the_users_wherever_it_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the environment, in that of the system, or in a folder of sources, as an editable torch_tensorrt."""
    sources = ModuleType("torch_tensorrt")
    sources.__file__ = "/sources/py/torch_tensorrt/__init__.py"
    monkeypatch.setitem(sys.modules, "torch_tensorrt", sources)
    classes = ModuleType("tensorrt_rtx_bindings")  # TensorRT's own, which tensorrt_rtx hands on
    classes.__file__ = "/put/here/tensorrt_rtx_bindings/__init__.py"
    monkeypatch.setitem(sys.modules, "tensorrt_rtx_bindings", classes)
    of_packages = (
        imported_files.__file__, pytest.__file__, subprocess.__file__, "<string>",
        "/usr/lib/python3/dist-packages/sympy/core.py", "/sources/py/torch_tensorrt/dynamo/_compiler.py",
        "/put/here/tensorrt_rtx_bindings/tensorrt_rtx.so",
    )  # fmt: skip
    assert not any(map(imported_files.is_users, of_packages))
    assert all(map(imported_files.is_users, (__file__, "/work/suite.py", "/sources/py/tools.py")))


def test_a_module_named_as_upstreams_is_no_folder_of_it_and_one_whose_file_is_no_text_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    alone = ModuleType("triton")
    monkeypatch.setitem(sys.modules, "triton", alone)
    none = (Path("/work/triton/__init__.py"), 3, b"/work/triton.py", None)
    for file in ("/work/triton.py", "triton.py", "__init__.py", *none):
        monkeypatch.setattr(alone, "__file__", file, raising=False)
        assert all(map(imported_files.is_users, ("/work/suite.py", "/work/triton_ops.py", "/other/suite.py")))
    monkeypatch.setattr(alone, "__file__", "/put/here/tensorrt.so")
    assert not imported_files.is_users("/put/here/tensorrt.so")


def test_a_file_that_is_imported_again_under_another_name_still_has_the_values_of_the_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "scaled_once.py"
    file.write_text("SCALE = 1\n\ndef scaled(x):\n    return x * SCALE\n")

    def imported(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(name, file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        return module

    first = imported("scaled_once")
    monkeypatch.setattr(first, "SCALE", 2)
    before = function_code.digest([first.scaled])
    imported("scaled_twice")
    assert function_code.digest([first.scaled]) == before
    monkeypatch.setattr(first, "SCALE", 3)
    assert function_code.digest([first.scaled]) != before


def test_a_lazy_module_that_can_not_be_loaded_has_no_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As six.moves and TensorFlow have them: whatever is asked of one imports it."""

    class Lazy(ModuleType):
        def __getattr__(self, name: str) -> Any:
            raise ImportError(f"No module named 'tkinter' for {name}")

    for name in ("lazy_one", "tensorrt"):
        monkeypatch.setitem(sys.modules, name, Lazy(name))
    assert imported_files.file_of("lazy_one") is None
    assert imported_files.is_users("/work/suite.py")
    assert __file__ in imported_files.users_modules()
    (tmp_path / "mine_beside_lazy.py").write_text("import lazy_one\n\ndef twice(x):\n    return 2 * x\n")
    monkeypatch.syspath_prepend(tmp_path)
    mine = importlib.import_module("mine_beside_lazy")
    assert function_code.digest([mine.twice]) == function_code.digest([mine.twice])
    del sys.modules["mine_beside_lazy"]


# What is imported: a package that asks for a GPU as upstream's does

ASKS = "import torch\nCAPABILITY = torch.cuda.get_device_capability(torch.cuda.current_device())\n"


@pytest.fixture
def package(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> Folder:
    """Something named torch_tensorrt comes first on Python's path."""
    (folder.path / "fake" / "torch_tensorrt").mkdir(parents=True)
    (folder.path / "fake" / "torch_tensorrt" / "__init__.py").write_text(ASKS)
    monkeypatch.setenv("PYTHONPATH", str(folder.path / "fake"), prepend=":")
    return folder


IMPORTS = "import torch_tensorrt\nimport trtgate\n\n"
TEST = "def test_it():\n    assert torch_tensorrt.CAPABILITY == (9, 0)\n    assert not torch.cuda.is_available()\n"


def test_a_test_that_uses_trtgate_needs_no_suite(package: Folder) -> None:
    (package.path / "test_it.py").write_text("import torch\n" + IMPORTS + TEST)
    package.pytest("test_it.py").assert_outcomes(passed=1)


def test_whoever_finds_out_whether_torch_tensorrt_works_here_finds_that_it_does_not(package: Folder) -> None:
    """Without a suite trtgate changes nothing in a run."""
    (package.path / "test_it.py").write_text(
        "import pytest\ntry:\n    import torch_tensorrt\nexcept Exception:\n    torch_tensorrt = None\n\n"
        "def test_it():\n    assert torch_tensorrt is None\n"
    )
    package.pytest("test_it.py").assert_outcomes(passed=1)


@pytest.mark.parametrize("file", ["suite.py", "conftest.py", "neighbour.py"])
def test_where_there_is_a_suite_whatever_it_loads_may_import_it(package: Folder, file: str) -> None:
    package.suite("alpha")
    (package.path / "neighbour.py").touch()
    for name, line in (("suite.py", "import neighbour\n"), (file, "import torch_tensorrt\n")):
        text = (package.path / name).read_text() if (package.path / name).exists() else ""
        (package.path / name).write_text(line + text)
    done = package.gate("-m", "trtgate_accuracy or trtgate_latency")
    assert done.ret == 0, package.output_of(done)


def test_cuda_at_import_is_one_line(folder: Folder) -> None:
    folder.suite("alpha", more="\nimport torch\n\ntorch.zeros(1).cuda()\n")
    folder.refused(folder.gate(), "suite.py can't be imported", "NVIDIA", "this machine has no GPU", "factory")


def test_with_a_gpu_it_is_imported_plainly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torch_tensorrt.py").write_text("import torch\nSEEN = torch.cuda.current_device()\n")
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: "the real one")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "torch_tensorrt", raising=False)
    with import_hook.installed():
        import torch_tensorrt

        seen: Any = torch_tensorrt.SEEN
    del sys.modules["torch_tensorrt"]  # not by monkeypatch, which would put it back
    assert seen == "the real one"


BY_DATA = {
    "code that is no file's": "exec(text.replace('VALUE', text[:1]))",
    "a function that is chosen": "def one(): ...\ndef two(): ...\nchosen = one if text[0] == '1' else two",
    "a class that is chosen": "class One: ...\nclass Two: ...\nchosen = {'it': One if text[0] == '1' else Two}",
    "what a class holds": "class Held:\n    value = int(text[:1])",
}


@pytest.mark.parametrize("what", BY_DATA)
def test_what_a_module_makes_of_what_it_reads_is_its_code_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Data that no code names: a folder's files, or what a command says."""

    def digest(data: str) -> str:
        (tmp_path / "made.py").write_text(f"def own(): ...\n{BY_DATA[what]}\n")
        module = ModuleType("made")
        module.__file__ = str(tmp_path / "made.py")
        vars(module)["text"] = f"{data}\ndef own(): return {data}\n"
        monkeypatch.setitem(sys.modules, "made", module)
        exec(compile((tmp_path / "made.py").read_text(), module.__file__, "exec"), vars(module))
        return function_code.digest([module.own])

    assert digest("1") == digest("1") != digest("2")


SET_ELSEWHERE = {
    "a number below zero": ("OFFSET = -1", "made.OFFSET = 1"),
    "a number that is computed": ("SIZE = 2 ** 4", "made.SIZE = 8"),
    "a number that an attribute is called like": (
        "scale = 1\nclass Net:\n    def __init__(self): self.scale = 0",
        "made.scale = 2",
    ),
    "several at once": ("ROWS, COLUMNS = 1, 2", "made.ROWS = 3"),
    "a tuple": ("SIZES = (1, 2)", "made.SIZES = (1, 3)"),
    "a list": ("SIZES = [1, 2]", "made.SIZES.append(3)"),
    "a mapping": ("CONFIG = {'scale': 1}", "made.CONFIG['scale'] = 2"),
    "a class's": ("class Config:\n    scale = 1", "made.Config.scale = 2"),
    "a class's below zero": ("class Config:\n    scale: int = -1", "made.Config.scale = 2"),
    "an object's": ("class Config: ...\nCONFIG = Config()", "made.CONFIG.scale = 2"),
    "an object's with slots": ("class Config: __slots__ = 'scale'\nCONFIG = Config()", "made.CONFIG.scale = 2"),
    "options of a command": (
        "import argparse\nCONFIG = argparse.Namespace(scale=1)",
        "made.CONFIG.scale = 2",
    ),
    "an object of a method": (
        "class Config:\n    def get(self): return self.scale\nGET = None",
        "made.GET = made.Config().get; made.GET.__self__.scale = 2",
    ),
}
KEPT_BY_ITSELF = {
    "a list that is filled": ("SEEN = ['first']\ndef see(x): SEEN.append(x)", "made.see(1)"),
    "a table that is filled": ("SEEN = {0: 0}\ndef see(x): SEEN[x] = x", "made.see(1)"),
    "a table that starts empty": ("SEEN = {}\ndef see(seen, x): seen[x] = x", "made.see(made.SEEN, 1)"),
    "what is counted in a table": ("CALLS = {'see': 0}\ndef see(): CALLS['see'] += 1", "made.see()"),
    "what a class counts": ("class Seen:\n    calls = 0\n    def see(self): Seen.calls += 1", "made.Seen().see()"),
    "what an object notes": (
        "class Seen:\n    def see(self):\n        self.last = 1\nSEEN = Seen()", "made.SEEN.see()",
    ),
    "the state of a module": ("import torch\nNET = torch.nn.ReLU()", "made.NET.eval()"),
    "what a class keeps": ("class Seen:\n    last = None\n    def see(self): Seen.last = 1", "made.Seen().see()"),
    "what a class fills": (
        "class Seen:\n    all = [1]\n    def see(self): self.all.append(2)", "made.Seen().see()",
    ),
}  # fmt: skip


@pytest.fixture
def digest_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Import a module, run something with it, and return the digest of a function of it."""

    def digest(code: str, then: str = "") -> str:
        file = tmp_path / "made.py"
        file.write_text(f"def own(): ...\n{code}\n")
        module = ModuleType("made")
        module.__file__ = str(file)
        monkeypatch.setitem(sys.modules, "made", module)
        exec(compile(file.read_text(), file, "exec"), vars(module))
        exec(then, {"made": module})
        return function_code.digest([module.own])

    return digest


@pytest.mark.parametrize(("code", "then"), SET_ELSEWHERE.values(), ids=SET_ELSEWHERE)
def test_what_another_file_sets_in_a_module_is_its_code_too(digest_of: Any, code: str, then: str) -> None:
    """As a suite does with a module that it imports."""
    assert digest_of(code) == digest_of(code) != digest_of(code, then)


@pytest.mark.parametrize(("code", "then"), KEPT_BY_ITSELF.values(), ids=KEPT_BY_ITSELF)
def test_what_a_module_notes_as_it_runs_is_not(digest_of: Any, code: str, then: str) -> None:
    assert digest_of(code) == digest_of(code, then)


@pytest.mark.parametrize(
    "reads",
    ["Path(__file__).parent / 'tables' / 'v2' / 'table.json'", "os.path.join('tables', 'v2', 'table.json')",
     "Path(__file__).parent / 'tables/v2' / 'table.json'", "ctypes.CDLL(Path(__file__).parent / 'kernels.so')",
     "importlib.import_module('numbers_by_name')"],
)  # fmt: skip
def test_what_code_names_part_by_part_or_loads_itself_is_its_code_too(
    digest_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reads: str
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    named = [tmp_path / one for one in ("tables/v2/table.json", "kernels.so", "numbers_by_name.py")]
    named[0].parent.mkdir(parents=True)

    def digest(text: str) -> str:
        for one in named:
            one.write_text(text)
        return str(digest_of(f"def read(): return {reads}"))

    assert digest("SCALE = 1") == digest("SCALE = 1") != digest("SCALE = 20")


@pytest.mark.parametrize("folder", ["", "package"])
def test_a_file_may_lie_above_the_code_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    """Within the working folder, as a package's data often do; what lies beyond is the machine's."""
    (tmp_path / "package" / "operators").mkdir(parents=True)
    (tmp_path / "package" / "table.json").write_text("1")
    monkeypatch.chdir(tmp_path / folder / ("operators" if folder else ""))
    tree = ast.parse("def read(): return open(resources.files('package') / 'table.json')")
    assert bool(code_values.told(tree, None, tmp_path / "package" / "operators")) == (not folder)


HOLDING = """
import functools

class Scaling:
    offset = 1

    def __init__(self, one, other=0.0):
        self.one, self.other, self.calls, self.seen = one, other, 0, {0: 0}

    def convert(self, number):
        self.calls += 1
        self.seen[number] = number

    @classmethod
    def by_class(cls):
        return cls.offset

def closing_over(one, other):
    return lambda: (one, other)

def given(one=None, other=None): ...

def by_text(code):
    held = {}
    exec(f"{code}\\ndef convert(x): return helper(x) * SCALE", held)
    return held["convert"]
"""
HELD = {
    "a method's object": "Scaling({0}, {1}).convert",
    "an object that a function closes over": "closing_over(Scaling({0}, {1}), None)",
    "an object that an object holds": "Scaling({0}, Scaling({1})).convert",
    "what a function closes over": "closing_over({0}, {1})",
    "arguments in advance": "functools.partial(given, {0}, {1})",
    "arguments in advance by name": "functools.partial(given, one={0}, other={1})",
    "code without a file": "by_text('SCALE = {0}\\ndef helper(x): return x + {1}')",
}


@pytest.fixture
def holding(digest_of: Any) -> Callable[[str], Any]:
    """Return what an expression is in a module whose functions and objects hold something."""
    digest_of(HOLDING)
    return lambda expression: eval(expression, vars(sys.modules["made"]))


@pytest.mark.parametrize("made", HELD.values(), ids=HELD)
def test_what_a_function_holds_is_told_in_its_place(holding: Callable[[str], Any], made: str) -> None:
    def digest(*numbers: float) -> str:
        return function_code.digest([holding(made.format(*numbers))])

    assert digest(1, 2) == digest(1, 2)
    assert len({digest(*pair) for pair in ((1, 2), (2, 1), (1, 3), (3, 2))}) == 4


@pytest.mark.parametrize("within", ["{}", "closing_over({}, None)"])
def test_the_order_of_arguments_by_name_decides_nothing(holding: Callable[[str], Any], within: str) -> None:
    one, other = (f"functools.partial(given, {named})" for named in ("one=1, other=2", "other=2, one=1"))
    digests = {function_code.digest([holding(within.format(made))]) for made in (one, other)}
    assert len(digests) == 1


def test_what_an_object_counts_decides_nothing(holding: Callable[[str], Any]) -> None:
    used = holding("Scaling(1)")
    before = function_code.digest([used.convert])
    used.convert(2)
    assert function_code.digest([used.convert]) == before


def test_objects_that_hold_each_other_are_looked_into_once(holding: Callable[[str], Any]) -> None:
    one = holding("Scaling(1)")
    one.other = holding("Scaling")(2, one)
    assert function_code.within(one)[1:] == [one.other]


def test_a_method_of_a_class_is_of_the_class_that_it_is_taken_from(
    holding: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    file = tmp_path / "subclass_of_made.py"
    file.write_text("import made\nclass Sub(made.Scaling): offset = 2\n")
    method = importlib.import_module(file.stem).Sub.by_class
    first = function_code.digest([method])
    file.write_text("import made\nclass Sub(made.Scaling): offset = 300\n")
    now = function_code.digest([method])
    monkeypatch.delitem(sys.modules, file.stem)
    assert now != first


def test_converters_that_change_places_are_others(
    holding: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fingerprint(*numbers: int) -> str:
        made = [holding(f"functools.partial(given, {one})") for one in numbers]
        own = [(f"converter of aten.{place}", one) for place, one in enumerate(made)]
        monkeypatch.setattr(own_conversions, "_registered", lambda: own)
        return own_conversions.fingerprint()

    assert fingerprint(1, 2) == fingerprint(1, 2) != fingerprint(2, 1)


def test_where_the_function_lies_that_a_converter_is_registered_for_decides_nothing(
    holding: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As torch.sym_min: each process has it at another address, and would build each engine again."""

    def fingerprint(target: Any) -> str:
        own = [(f"{own_conversions.CONVERTER}{target} 0", holding("given"))]
        monkeypatch.setattr(own_conversions, "_registered", lambda: own)
        return own_conversions.fingerprint()

    def target_of(made: dict[str, Any]) -> Any:
        exec("def target(): ...", made)
        return made["target"]

    one, same = target_of({}), target_of({})
    assert fingerprint(one) == fingerprint(same) != fingerprint(torch.sym_min)


def test_what_an_object_of_upstreams_has_may_have_any_key(
    holding: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    module: Any = ModuleType("tensorrt_rtx.made_here")
    table = type("Table", (), {"__module__": module.__name__})()
    vars(table)[1] = holding("given")
    module.TABLE = table
    monkeypatch.setitem(sys.modules, module.__name__, module)
    assert f"{module.__name__}.TABLE.1" in dict(own_conversions._patched())


def test_an_operator_that_a_converter_is_registered_for_is_not_called_by_its_code() -> None:
    """Else an edit of that operator would touch the cases that do not have it."""
    registering = "@register(torch.ops.mine.target.default)\ndef convert(): torch.ops.mine.called(1)\n"
    assert list(operator_files._named(ast.parse(registering))) == ["mine::called"]


VALUES: dict[str, Callable[[int], Any]] = {
    "a dataclass with slots": lambda number: Slotted(number),
    "an array back to front": lambda number: np.arange(number)[::-1],
    "an array of the other byte order": lambda number: np.arange(number).astype(">i4"),
    "an array that can only be read": lambda number: np.broadcast_to(np.arange(number), (2, number)),
    "an empty array": lambda number: np.zeros((0, number)),
    "a conjugate tensor": lambda number: torch.full((1,), number * 1j).conj(),
    "a range": range,
    "a slice": slice,
    "a function with an argument": lambda number: functools.partial(int, number),
    "a queue": lambda number: deque([number]),
    "a constant of Triton": lambda number: pytest.importorskip("triton.language").constexpr(number),
    "an enumeration": lambda number: enum.Enum("Level", {"HIGH": number}).HIGH,  # type: ignore[attr-defined]
}


@dataclasses.dataclass(frozen=True, slots=True)
class Slotted:
    number: int


@pytest.mark.parametrize("kind", VALUES)
@pytest.mark.filterwarnings("error")
def test_values_that_code_holds_are_told_apart(kind: str) -> None:
    made = VALUES[kind]
    assert code_values.plain(made(3)) == code_values.plain(made(3)) != code_values.plain(made(4))


def test_texts_in_bulk_may_be_paths_and_are_nothing() -> None:
    assert code_values.plain(np.array(["a"])) == code_values.plain(np.array([object()])) == ""


def test_a_function_that_has_neither_a_file_nor_a_module_is_the_users() -> None:
    made: dict[str, Any] = {}
    exec("def own(): ...", made)
    assert function_code.is_own(made["own"])
    assert not function_code.is_own(torch.sin)
