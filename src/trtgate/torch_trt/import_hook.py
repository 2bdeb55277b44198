"""`import torch_tensorrt` in the user's own code, on a machine without a GPU: it works as it does in a dry run.

Upstream asks CUDA for the device when it is imported, and fails without one. So a suite with a converter of its own
could not be imported there, and its coverage not be counted.
"""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from collections.abc import Iterator
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

PACKAGE, OURS = "torch_tensorrt", __name__.partition(".")[0]


class _Finder(MetaPathFinder):
    """Finds torch_tensorrt where Python does, with a loader that lets a GPU be stood in for."""

    def __init__(self) -> None:
        self.everywhere = False
        self.shared_cache = True
        self._searching = False

    def find_spec(self, fullname: str, *_where: object) -> ModuleSpec | None:
        if self._searching or not (_asked_for_by_the_user(fullname) if fullname != PACKAGE else self._stands_in()):
            return None
        self._searching = True
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self._searching = False
        if spec is not None and spec.loader is not None:
            spec.loader = (_StandingIn if fullname == PACKAGE else _Upstream)(spec.loader)
        return spec

    def _stands_in(self) -> bool:
        return self.everywhere or _imported_beside_trtgate()


class _Upstream(Loader):
    """Loads a module of upstream's: what its import changes is none of the user's changes."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        from . import upstream_state

        if module.__spec__ is not None:
            module.__spec__.loader = module.__loader__ = self._loader
        with upstream_state.upstreams_code():
            self._exec(module)

    def _exec(self, module: ModuleType) -> None:
        self._loader.exec_module(module)


class _StandingIn(_Upstream):
    """Loads torch_tensorrt, and lets a GPU be stood in for."""

    def _exec(self, module: ModuleType) -> None:
        import torch

        from . import shared_cache_file
        from .gpu_stand_in import answering
        from .patching import quiet_stderr

        if torch.cuda.is_available():
            self._loader.exec_module(module)
        else:
            with answering(), quiet_stderr():
                self._loader.exec_module(module)
        if not _finder.shared_cache:
            shared_cache_file.forget()


_finder = _Finder()


def install(*, everywhere: bool, shared_cache: bool = True) -> None:
    """Let torch_tensorrt be imported without a GPU: everywhere, or by modules alone that import trtgate too.

    Others that try to import it, to find out whether it can be used, find out what they do without trtgate. Without
    `shared_cache` it uses no runtime cache by default from its import on, whoever imports it: so it is in a process of
    ours, such as a worker. A user's pytest has tests beside, which are left what they had.
    """
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)
    _finder.everywhere = _finder.everywhere or everywhere
    _finder.shared_cache = _finder.shared_cache and shared_cache


@contextlib.contextmanager
def installed() -> Iterator[None]:
    """Within: torch_tensorrt can be imported without a GPU, everywhere."""
    before = _finder.everywhere
    install(everywhere=True)
    try:
        yield
    finally:
        _finder.everywhere = before


def _asked_for_by_the_user(fullname: str) -> bool:
    """Whether a module is upstream's, and code of the user's runs that asks for it."""
    state = sys.modules.get(f"{__package__}.upstream_state")
    of_upstream = fullname.partition(".")[0] in getattr(state, "PACKAGES", ())  # none while it is itself imported
    return of_upstream and state is not None and bool(state.runs_users_code())


def _imported_beside_trtgate() -> bool:
    """Whether a module that is being imported now, from the outermost on, names trtgate among its own imports."""
    frame = sys._getframe()
    while frame is not None:
        code, name = frame.f_code, frame.f_globals.get("__name__", "")
        ours = name == "__main__" or name.partition(".")[0] == OURS
        if code.co_name == "<module>" and not ours and any(each.partition(".")[0] == OURS for each in code.co_names):
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False
