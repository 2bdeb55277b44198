"""Where a suite comes from, and how it is imported: the same in pytest's process and in every worker."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec

from ..common.errors import TrtgateError, one_line
from . import dimensions, pinned_files
from .cases import Model, Suite
from .declaring import decorated, model
from .settings import Settings
from .suite_import import IMPORTLIB, ImportRule, file_of, import_file, import_name, is_path


class Added(msgspec.Struct, frozen=True):
    """Settings that a model gets beside its own."""

    model: str
    settings: Settings


class SuiteSource(msgspec.Struct, frozen=True, kw_only=True):
    """Where a suite comes from, so that another process can load the same: plain data.

    Each of `suites` is a path to a file or a dotted module name; `factories` are `package.module:factory`; `zoo` are
    names of the zoo, with weights that are seeded and compute something; `weights` are files, by model.
    """

    root: str
    suites: tuple[str, ...] = ()
    factories: tuple[str, ...] = ()
    zoo: tuple[str, ...] = ()
    conditioned: bool = True
    """Whether the zoo's weights compute something; for a dry run they need not."""
    added: tuple[Added, ...] = ()
    weights: dict[str, str] = {}
    rule: ImportRule = ImportRule()
    sha256: dict[str, str] = {}
    """File → its digest, of what the suite was imported from when the run began; `load` refuses another content."""

    def pinned(self) -> SuiteSource:
        """Return the source with the digests of all modules under `root` that this process has imported."""
        return msgspec.structs.replace(self, sha256=pinned_files.digests(self.root))

    def changed(self) -> list[str]:
        """Return the pinned files that have another content now."""
        return pinned_files.changed(self.sha256)

    def suite_files(self) -> dict[str, Path]:
        """Return suite → its file, without importing it; a suite that can't be found is left out."""
        return _files(self.suites, Path(self.root))

    def places(self) -> list[Path]:
        """Return the suites' files as they are named, links not followed: conftest files above these belong to them."""
        return [file for name in self.suites if (file := file_of(name, Path(self.root))) is not None]

    def factory_files(self) -> dict[str, Path]:
        """Return factory → the file in which it lives, without importing it."""
        modules = {name: name.partition(":")[0] for name in self.factories}
        found = _files(list(modules.values()), Path(self.root))
        return {name: found[module] for name, module in modules.items() if module in found}

    def load(self) -> Suite:
        """Import the suites and the named factories.

        Raises TrtgateError when one can't be found or imported or holds no model, and when two suites can't be told
        apart: by the ids of their cases, or by the modules beside them.
        """
        self.check_neighbours()
        models: dict[str, list[Model]] = {name: self._models_of(name) for name in self.suites}
        models |= {name: [self._named(name)] for name in self.factories}
        changed = pinned_files.changed(self.sha256)
        if changed:
            raise TrtgateError(f"{changed[0]} changed since the run began: nothing can be said of code that moves")
        if self.zoo:
            from . import zoo

            models["zoo"] = [model for model in zoo.models(conditioned=self.conditioned) if model.name in self.zoo]
        completed = {
            name: Suite(self._completed(part) for model in given for part in model.each)
            for name, given in models.items()
        }
        return merged(completed)

    def check_neighbours(self) -> None:
        """Check that no two suites would import one another's neighbours: one process has one module of a name.

        Raises TrtgateError, naming both folders and the module.
        """
        files = self.suite_files().values() if self.rule.mode != IMPORTLIB else ()
        folders = sorted({file.parent for file in files if not (file.parent / "__init__.py").is_file()})
        own = {file.stem for file in files}
        for one, other in combinations(folders, 2):
            for name in sorted((_importable_from(one) & _importable_from(other)) - own):
                raise TrtgateError(
                    f"the suites in {one} and {other} both lie beside a module {name!r}, and a process can import only "
                    "one of the two: rename one, or put an __init__.py into each folder and import it from its package"
                )

    def _models_of(self, suite: str) -> list[Model]:
        models = _models_in(_import(suite, Path(self.root), self.rule))
        if not models:
            raise TrtgateError(f"suite {suite!r} defines no model: put @trtgate.model on a factory")
        return models

    def _completed(self, model: Model) -> Model:
        own = {settings.suffix for settings in model.settings}
        added = [one.settings for one in self.added if one.model == model.name and one.settings.suffix not in own]
        weights = self.weights.get(model.name, model.weights)
        if not added and weights == model.weights:
            return model
        return model.having([*model.settings, *added], weights)

    def _named(self, name: str) -> Model:
        module_name, colon, path = name.partition(":")
        attribute, dot, part = path.partition(".")
        if not colon or not attribute:
            raise TrtgateError(f"--trtgate-model {name!r}: write package.module:factory")
        module = _import(module_name, Path(self.root), self.rule)
        found = getattr(module, attribute, None)
        if found is None:
            close = difflib.get_close_matches(attribute, vars(module), n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise TrtgateError(f"--trtgate-model {name!r}: {module_name} has no {attribute!r}{hint}")
        if dot:
            return _part_of(found, part, f"--trtgate-model {name!r}")
        if isinstance(found, Model):
            return found
        if not callable(found):
            raise TrtgateError(f"--trtgate-model {name!r}: {attribute!r} can't be called")
        if dimensions.of(found).required - {dimensions.BATCH}:  # whoever asks says of which size
            return Model(attribute, found, [])
        wrapped = model(found, name=attribute)
        assert isinstance(wrapped, Model)
        return wrapped


def _part_of(model_: Any, part: str, what: str) -> Model:
    if not isinstance(model_, Model) or part not in model_.parts:
        there = ", ".join(getattr(model_, "parts", ())) or "none"
        raise TrtgateError(f"{what}: it has no part {part!r}; there are: {there}")
    return model_.each[model_.parts.index(part)]


def _models_in(module: ModuleType) -> list[Model]:
    found: list[Model] = []
    for value in vars(module).values():
        for item in value if isinstance(value, list | tuple) else (value,):
            if isinstance(item, Model) and not any(item is known for known in found):
                found.append(item)
    for one in reversed(_replaced(vars(module), found)):
        if any(one.name == other.name for other in found):
            raise TrtgateError(f"{module.__file__}: two factories are named {one.name!r}: rename one, or give it name=")
        names = [getattr(other.factory, "__qualname__", "") for other in found]
        name = one.factory.__qualname__
        found.insert(names.index(name) if name in names else len(found), one)
    return found


def _replaced(namespace: Mapping[str, Any], kept: Iterable[Model]) -> list[Model]:
    """Return the models of factories at a module's top that a later factory of the same function name replaced.

    `kept` are the models that the module still has.
    """
    there = set(map(id, kept))
    ours = [one for one in decorated if getattr(one.factory, "__globals__", None) is namespace]
    at_top = [one for one in ours if "<locals>" not in one.factory.__qualname__]
    names = Counter(one.factory.__qualname__ for one in at_top)
    return [one for one in at_top if id(one) not in there and names[one.factory.__qualname__] > 1]


def merged(parts: Mapping[str, Suite]) -> Suite:
    """Return the models of all parts, by what each part is called, as one suite; a model in two of them counts once.

    Raises TrtgateError for an id that two parts have, naming both.
    """
    owners: dict[str, str] = {}
    models: dict[int, Model] = {}
    for name, part in parts.items():
        for case in part.cases.values():
            if owners.setdefault(case.id, name) != name and id(case.model) not in models:
                raise TrtgateError(
                    f"case {case.id!r} is in {owners[case.id]} and in {name}: give one of the two models another name"
                )
        models |= {id(model): model for model in part.models}
    return Suite(models.values())


def suites_named(value: str | Sequence[str], root: Path) -> tuple[str, ...]:
    """Return the suites that an ini key names: a list, one a line, or several in a line where no path has that name."""
    lines = value.splitlines() if isinstance(value, str) else value
    found: list[str] = []
    for line in filter(None, map(str.strip, lines)):
        parts = line.split()
        several = file_of(line, root) is None and any(file_of(part, root) for part in parts)
        found += parts if several else [line]
    return tuple(dict.fromkeys(found))


def _files(names: Sequence[str], root: Path) -> dict[str, Path]:
    return {name: file.resolve() for name in names if (file := file_of(name, root)) is not None}


NO_NEIGHBOURS = ("conftest", "setup", "__main__")
"""Files that no suite imports."""


def _importable_from(folder: Path) -> set[str]:
    names = {file.stem for file in folder.glob("*.py")} | {file.parent.name for file in folder.glob("*/__init__.py")}
    return {name for name in names if name not in NO_NEIGHBOURS and not name.startswith("test_")}


def _import(name: str, root: Path, rule: ImportRule) -> ModuleType:
    file = file_of(name, root)
    if file is None:
        raise TrtgateError(
            f"suite {name!r}: no such {'file' if is_path(name) else 'module'} under {root} or on Python's path"
        )
    try:
        return import_file(file, root, rule) if is_path(name) else import_name(name, root)
    except TrtgateError as error:
        raise TrtgateError(f"{file}: {error}") from error
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:  # pytest.skip, importorskip and sys.exit are no Exceptions
        raise TrtgateError(f"{file} can't be imported: {_why(error)}") from error


def _why(error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError):
        return (
            f"{one_line(error)}; Python's path is pytest's: name the folder that holds it in the ini key pythonpath, "
            "or put a conftest.py into that folder"
        )
    if any(word in str(error) for word in NO_GPU):
        return f"{one_line(error)}; this machine has no GPU: call CUDA within a factory"
    return one_line(error)


NO_GPU = ("NVIDIA driver", "No CUDA GPUs", "not compiled with CUDA", "CUDA unknown error")
"""Words of torch where there is no GPU."""
