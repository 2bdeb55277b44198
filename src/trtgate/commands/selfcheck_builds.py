"""The modules that `trtgate selfcheck` measures: each is built once, or taken from the artifact cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..common.accelerator import Accelerator
from ..common.explanations import Explanation, explained
from ..common.run_folder import RunFolder
from ..common.steps import OnStep
from ..common.text_columns import number_of
from ..compiling.artifact_cache import CacheRequest
from ..launches import prebuild
from ..launches.comparison_side import Side
from ..launches.prebuild import Prebuild, Prebuilt
from ..suite.cases import Case


def built(
    side: Side, cases: Sequence[Case], accelerator: Accelerator, folder: RunFolder, *, cache: CacheRequest | None,
    timeout_s: float, imported: Callable[[], None], step: OnStep,
) -> dict[str, Prebuilt]:  # fmt: skip
    """Build cases, or take them from the cache, in processes that end with it; returns what came of each, in order.

    On a GPU one builds at a time, while the others export or load, so that what goes into the cache has the build time
    and the engines of building alone. `imported` is called there when these processes have imported: others may start.
    """
    if not cases:
        return {}
    gpu = accelerator.kind == "gpu"
    work = Prebuild(
        side=side,
        accelerators=[accelerator],
        builders=min(len(cases), prebuild.builders_here([accelerator], in_turn=True)) if gpu else 1,
        cache=cache,
        folder_for=lambda _case_id: folder.private("case"),
        logs=folder.logs,
        timeout_s=timeout_s,
        tensorrt={case.id for case in cases if case.settings.uses_tensorrt},
        imported=imported if gpu else lambda: None,  # a CPU has the builds to do
        in_turn=gpu,
    )
    step(f"building {number_of(len(cases), 'case')} in {number_of(work.builders, 'process', 'processes')}")
    found = {}
    for number, one in enumerate(work.run(prebuild.order(cases, lambda _case_id: None)), 1):
        found[one.case_id] = one
        cached = one.build is not None and one.build.cached
        came = "failed" if one.problem else "from the artifact cache" if cached else "built"
        step(f"{number} of {number_of(len(cases), 'case')}: {one.case_id}, {came}")
        for note in one.notes:
            step(note)
    return {case.id: found[case.id] for case in cases}


def problem_of(one: Prebuilt) -> str:
    """Return why a case could not be built, as a sentence that begins with its id; empty when it was."""
    said = one.problem.removeprefix("case ").removeprefix(f"{one.case_id}: ")
    return explained(f"{one.case_id}: {said}", Explanation.BUILD_FAILED) if said else ""
