"""Where a suite comes from, and how it is imported: the same in pytest's process and in every worker."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import msgspec

from ..common.errors import TrtgateError
from . import dimensions, pinned_files
from .cases import Model, Suite, made_twice, model
from .settings import Settings


class Added(msgspec.Struct, frozen=True):
    """Settings that a model gets beside its own."""

    model: str
    settings: Settings


class SuiteSource(msgspec.Struct, frozen=True, kw_only=True):
    """Where a suite comes from, so that another process can load the same: plain data.

    `suite` is a path to a file or a dotted module name; `factories` are `package.module:factory`; `zoo` are names of
    the zoo, with weights that are seeded and compute something; `weights` are files, by model.
    """

    root: str
    suite: str | None = None
    factories: tuple[str, ...] = ()
    zoo: tuple[str, ...] = ()
    added: tuple[Added, ...] = ()
    weights: dict[str, str] = {}
    sha256: dict[str, str] = {}
    """File → its digest, of what the suite was imported from when the run began; `load` refuses another content."""

    def pinned(self) -> SuiteSource:
        """Return the source with the digests of all modules under `root` that this process has imported."""
        return msgspec.structs.replace(self, sha256=pinned_files.digests(self.root))

    def changed(self) -> list[str]:
        """Return the pinned files that have another content now."""
        return pinned_files.changed(self.sha256)

    def suite_file(self) -> Path | None:
        """Return the file of the suite, without importing it; None when there is none or it can't be found."""
        return None if self.suite is None else _module_file(self.suite, Path(self.root))

    def factory_files(self) -> list[Path]:
        """Return the files in which the named factories live, without importing them."""
        found = (_module_file(name.partition(":")[0], Path(self.root)) for name in self.factories)
        return [file for file in found if file is not None]

    def load(self) -> Suite:
        """Import the suite module and the named factories.

        Raises TrtgateError when one can't be found or imported, or holds no model.
        """
        models: list[Model] = []
        if self.suite is not None:
            module = _import(self.suite, Path(self.root))
            models += _models_in(module)
            if not models:
                raise TrtgateError(f"suite {self.suite!r} defines no model: put @trtgate.model on a factory")
        models += [self._named(name) for name in self.factories]
        changed = pinned_files.changed(self.sha256)
        if changed:
            raise TrtgateError(f"{changed[0]} changed since the run began: nothing can be said of code that moves")
        if self.zoo:
            from . import zoo

            models += [model for model in zoo.models(conditioned=True) if model.name in self.zoo]
        return Suite([self._completed(model) for model in models])

    def _completed(self, model: Model) -> Model:
        own = {settings.suffix for settings in model.settings}
        added = [one.settings for one in self.added if one.model == model.name and one.settings.suffix not in own]
        weights = self.weights.get(model.name, model.weights)
        if not added and weights == model.weights:
            return model
        return model.having([*model.settings, *added], weights)

    def _named(self, name: str) -> Model:
        module_name, colon, attribute = name.partition(":")
        if not colon or not attribute:
            raise TrtgateError(f"--trtgate-model {name!r}: write package.module:factory")
        module = _import(module_name, Path(self.root))
        found = getattr(module, attribute, None)
        if found is None:
            close = difflib.get_close_matches(attribute, vars(module), n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise TrtgateError(f"--trtgate-model {name!r}: {module_name} has no {attribute!r}{hint}")
        if isinstance(found, Model):
            return found
        if not callable(found):
            raise TrtgateError(f"--trtgate-model {name!r}: {attribute!r} can't be called")
        if dimensions.of(found).required - {dimensions.BATCH}:  # whoever asks says of which size
            return Model(attribute, found, [])
        wrapped = model(found, name=attribute)
        assert isinstance(wrapped, Model)
        return wrapped


def _models_in(module: ModuleType) -> list[Model]:
    found: list[Model] = []
    for name in made_twice(vars(module)):
        raise TrtgateError(f"{module.__file__}: two factories are named {name!r}: the first would be lost")
    for value in vars(module).values():
        for item in value if isinstance(value, list | tuple) else (value,):
            if isinstance(item, Model) and not any(item is known for known in found):
                found.append(item)
    return found


def _module_file(name: str, root: Path) -> Path | None:
    if _is_path(name):
        file = root / name
        return file.resolve() if file.is_file() else None
    for folder in (root, *map(Path, sys.path)):
        base = folder.joinpath(*name.split("."))
        for file in (base.with_suffix(".py"), base / "__init__.py"):
            if file.is_file():
                return file.resolve()
    return None


def _is_path(name: str) -> bool:
    return name.endswith(".py") or "/" in name


def _import(name: str, root: Path) -> ModuleType:
    file = _module_file(name, root)
    if file is None:
        raise TrtgateError(
            f"suite {name!r}: no such {'file' if _is_path(name) else 'module'} under {root} or on Python's path"
        )
    try:
        return _import_file(file) if _is_path(name) else _import_name(name, root)
    except TrtgateError as error:
        raise TrtgateError(f"{file}: {error}") from error
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:  # pytest.skip, importorskip and sys.exit are no Exceptions
        raise TrtgateError(f"{file} can't be imported: {type(error).__name__}: {error}") from error


def _import_name(name: str, root: Path) -> ModuleType:
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    return importlib.import_module(name)


def _import_file(file: Path) -> ModuleType:
    name = "trtgate_suite_" + re.sub(r"\W", "_", str(file))
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    if str(file.parent) not in sys.path:  # its neighbours are importable, as for a script
        sys.path.insert(0, str(file.parent))
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
