"""What `trtgate profile` does: profiles models on this machine's GPU; shows and compares profiles anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from ..common import accelerator
from ..common.accelerator import NEEDS_GPU, Accelerator
from ..common.errors import TrtgateError, one_line
from ..common.explanations import Explanation, explained
from ..common.steps import OnStep
from ..common.text_columns import Line
from ..profiles import difference_text, differences, profile_checks, profile_files, profile_summary
from ..records.profile_record import Profile
from ..suite.cases import Case
from . import model_names
from .shape_options import case_of

LOCK_TIMEOUT_S = 900.0


class ProfileAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The profile of a case, or why it could not be had."""

    case_id: str
    profile: Profile | None = None
    folder: str = ""
    problem: str = ""


def cases(
    names: Sequence[str],
    *,
    frontend: str,
    precisions: Sequence[str],
    batches: Sequence[int],
    min_block_sizes: Sequence[int],
    verbosity: str,
    shape: Sequence[str] = (),
) -> list[Case]:
    """Return the cases to profile. Raises TrtgateError for an unknown model, frontend, precision or verbosity."""
    if not names:
        raise TrtgateError(
            "name models, such as resnet18 or package.module:factory; or say profile diff OLD NEW, or profile show FILE"
        )
    found = []
    for model in map(model_names.find, names):
        for precision in precisions:
            for batch in batches if model.takes_batch else (None,):
                for min_block_size in min_block_sizes:
                    case = case_of(
                        model, shape, batch, frontend=frontend, precision=precision, min_block_size=min_block_size,
                        profiling_verbosity=verbosity,
                    )  # fmt: skip
                    found.append(case)
    return found


def record(wanted: Sequence[Case], folder: Path, step: OnStep) -> list[ProfileAnswer]:
    """Build and profile every case and write its files; what fails is an answer too, and the others go on.

    Raises TrtgateError when nothing can be profiled at all: no GPU, no torch_tensorrt, or a folder that can't be
    written.
    """
    found = accelerator.detect()
    if found.kind != "gpu":
        raise TrtgateError(
            f"a profile {NEEDS_GPU}; of one recorded elsewhere: trtgate profile show FILE, trtgate profile diff A B"
        )
    from ..torch_trt import modelopt_package, releases

    modelopt_package.expect(case.settings.precision for case in wanted)
    reason = releases.unavailable()
    if reason:
        raise TrtgateError(reason)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrtgateError(f"{folder} can't be made ({error.strerror}): name another with -o") from error
    step("importing torch")
    from ..timing import used_gpu

    used_gpu.check(found)
    return [_record(case, found, folder, step) for case in wanted]


def _record(case: Case, found: Accelerator, folder: Path, step: OnStep) -> ProfileAnswer:
    from ..compiling import reference
    from ..profiles import profile_recording
    from ..timing import stream_state
    from ..timing.device_lock import device_turn

    def said(text: str) -> None:
        step(f"{case.id}: {text}")

    try:
        with device_turn(found.lock_name, LOCK_TIMEOUT_S, said, shared=True):
            inference, _ = reference.checked(case, "cuda", said)
        with device_turn(found.lock_name, LOCK_TIMEOUT_S, said), stream_state.alone(found.uuid) as state:
            recorded = profile_recording.record(case.id, inference, found, said, state)
        place = profile_files.folder_of(folder, case.id)
        profile_files.write_folder(place, recorded.profile, recorded.information)
    except TrtgateError as error:
        return ProfileAnswer(case_id=case.id, problem=str(error))
    except Exception as error:
        return ProfileAnswer(case_id=case.id, problem=one_line(error))
    problem = "; ".join(profile_checks.problems(recorded.profile))
    problem = explained(problem, Explanation.PROFILE_UNBELIEVABLE) if problem else ""
    return ProfileAnswer(case_id=case.id, profile=recorded.profile, folder=str(place), problem=problem)


def lines(answers: Sequence[ProfileAnswer]) -> list[Line]:
    """Return what was found, as text."""
    said: list[Line] = []
    for answer in answers:
        if answer.profile is not None:
            said += [*profile_summary.lines(answer.profile), f"written: {answer.folder}", ""]
        if answer.problem:
            said.append(explained(f"ERROR: {answer.case_id}: {answer.problem}", Explanation.BUILD_FAILED))
    return said


def show(paths: Sequence[str]) -> list[Line]:
    """Return stored profiles as text. Raises TrtgateError for one that can't be read."""
    if not paths:
        raise TrtgateError("trtgate profile show takes profiles: files, or folders with a profile.json")
    return [line for path in paths for line in (*profile_summary.lines(_read(path)), "")]


def difference(before: str, after: str) -> list[Line]:
    """Return what changed between two stored profiles. Raises TrtgateError for one that can't be read."""
    found = (profile_files.read_to_compare(_path(name)) for name in (before, after))
    return difference_text.lines(differences.compare(*found))


def _read(name: str) -> Profile:
    return profile_files.read(_path(name))


def _path(name: str) -> Path:
    path = Path(name)
    if path.is_dir():
        path /= profile_files.PROFILE
    if not path.is_file():
        raise TrtgateError(f"no profile {path}: name a file, or a folder with a {profile_files.PROFILE}")
    return path
