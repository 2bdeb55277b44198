"""Statistics only: arrays in, verdict out. Imports neither torch nor pytest.

The unit of evidence is the session or the launch, then the capture, then the block, never raw iterations. Everything is
computed on logarithms of medians: latencies are positive and skewed, and a change is a factor. Where a function takes
arrays, leading dimensions are cases, judged independently of each other.
"""

from .error_rates import FAMILY_ALPHA, POWER, PROOF_ALPHA, adjusted, quantile
from .exact_counts import judge_exact, more_of
from .judgement import OTHER_CARD, Judgement, Verdict, case_verdict
from .machine_state import another_state
from .memory_growth import LEAST_READINGS, Growth, grows_late, growth, judge_growth
from .paired_launches import (
    FIRST_LOOK,
    LOOKS,
    MOST_QUADRUPLES,
    QUADRUPLES_A_PAIR,
    QUEUED_SD,
    SCREEN_ALPHA,
    SCREENING_LOOKS,
    Confirmation,
    Screening,
    confirm,
    differences,
    judge_confirmed,
    judge_screened,
    may_exceed,
    pair_tells,
    screen,
)
from .session_order import LEAST_RISING, ordered_spread, rises, successive_spread
from .stored_sessions import (
    ENOUGH_SESSIONS,
    PRIORS,
    Comparison,
    Prior,
    compare_stored,
    confirm_stored,
    judge_stored,
    launch_mean,
    log_launch_means,
    prior,
)

__all__ = [
    "ENOUGH_SESSIONS",
    "FAMILY_ALPHA",
    "FIRST_LOOK",
    "LEAST_READINGS",
    "LEAST_RISING",
    "LOOKS",
    "MOST_QUADRUPLES",
    "OTHER_CARD",
    "POWER",
    "PRIORS",
    "PROOF_ALPHA",
    "QUADRUPLES_A_PAIR",
    "QUEUED_SD",
    "SCREENING_LOOKS",
    "SCREEN_ALPHA",
    "Comparison",
    "Confirmation",
    "Growth",
    "Judgement",
    "Prior",
    "Screening",
    "Verdict",
    "adjusted",
    "another_state",
    "case_verdict",
    "compare_stored",
    "confirm",
    "confirm_stored",
    "differences",
    "grows_late",
    "growth",
    "judge_confirmed",
    "judge_exact",
    "judge_growth",
    "judge_screened",
    "judge_stored",
    "launch_mean",
    "log_launch_means",
    "may_exceed",
    "more_of",
    "ordered_spread",
    "pair_tells",
    "prior",
    "quantile",
    "rises",
    "screen",
    "successive_spread",
]
