"""What `trtgate verify` says of what its workers gave: a sentence, or TrtgateError for what is wrong with it."""

from __future__ import annotations

import math

from .. import verdict
from ..common.errors import TrtgateError
from ..common.text_columns import number_of
from ..coverage import coverage_comparison
from ..gate import measurement_summary
from ..gate.sentences import duration, percent
from ..profiles import profile_checks
from ..records.coverage_record import Coverage
from ..records.measurement import CaseMeasurement
from ..records.profile_record import Profile
from .verify_suite import IN_PYTORCH

LAUNCHES = 2
GPU_APART, CPU_APART = 0.03, 0.25
"""How far the means of two launches of one module may lie apart. On an H100 one load of an engine in twenty lies 1 to
3 % off (docs/gpu-states.md). On a CPU it is a hint, as others may be at work: a host's latency moved by 7 to 25 %
between launches (docs/decisions/0051-tenth-of-a-second.md)."""


def layers_named(profile: Profile) -> str:
    """Return what a profile has. Raises TrtgateError where a layer has no name, or anything else is wrong with it."""
    problems = profile_checks.problems(profile)
    if problems:
        raise TrtgateError(f"the profile of {profile.case_id}: {'; '.join(problems)}")
    layers = sum(1 for _ in profile.layers())
    parts, known = number_of(len(profile.parts), "part"), percent(profile.attributed)
    return f"{number_of(layers, 'layer')} of {parts}, all named; modules known of {known} of their time"


def cut_in_two(coverage: Coverage) -> str:
    """Return the coverage of the block. Raises TrtgateError where it is not two engines around its sigmoid."""
    left = {entry.operator.removesuffix(".default") for entry in coverage.left}
    said = f"{coverage.in_tensorrt} of {coverage.total} operators in {number_of(len(coverage.engines), 'engine')}"
    if len(coverage.engines) != 2 or left != {IN_PYTORCH}:
        names = ", ".join(sorted(left)) or "nothing"
        raise TrtgateError(
            f"two engines around {IN_PYTORCH} were expected, and it is {said} with {names} left to PyTorch: "
            "Torch-TensorRT of this release takes other operators than those that trtgate knows"
        )
    return f"{said}, {IN_PYTORCH} in PyTorch"


def same_coverage(dry: Coverage, built: Coverage) -> str:
    """Say that a build took what a dry run said. Raises TrtgateError where it did not."""
    difference = coverage_comparison.compare(dry, built)
    if difference:
        phrases = "; ".join((*difference.lost, *difference.gained, *difference.other))
        raise TrtgateError(
            f"the build is not what the dry run said: {phrases}: coverage without a GPU can't be trusted"
        )
    return f"{number_of(len(built.engines), 'engine')} with {built.in_tensorrt} operators, as the dry run said"


def repeated(measurement: CaseMeasurement) -> str:
    """Return how far launches lie apart. Raises TrtgateError on a GPU beyond GPU_APART; a CPU is called noisy."""
    samples = measurement.samples(measurement.primary)
    means = [math.exp(float(one)) for one in verdict.log_launch_means(samples)] if samples else []
    problem = measurement_summary.void_problem(measurement)
    said = f"{' and '.join(map(duration, means))} by the clock {measurement.clock}"
    if len(means) < LAUNCHES:
        said, problem = f"{len(means)} of {LAUNCHES} launches could be timed", problem or "no block counts"
    else:
        apart, most = max(means) / min(means) - 1, GPU_APART if measurement.on_gpu else CPU_APART
        said = f"two launches took {said}, {percent(apart)} apart"
        problem = problem or (f"more than {percent(most)}" if apart > most else "")
    if not problem:
        return said
    if not measurement.on_gpu:
        return f"noisy: {said} ({problem}): others are at work here, and limits must allow for it (trtgate selfcheck)"
    raise TrtgateError(f"{said} ({problem}): see that nothing else uses the GPU, and try again; docs/gpu-states.md")
