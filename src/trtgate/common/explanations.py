"""Explanations of failures: the name that a sentence ends with, and the text behind each name.

The texts are `explanations/NAME.md` in this package. `trtgate explain NAME` prints them; `docs/failures.md` has all.
"""

from __future__ import annotations

import enum
import re

PARTS = ("How it is decided.", "What to look at.", "What to do.")
"""How the paragraphs of a text begin, in bold and in this order, after its title and what the failure means."""
_LINK = re.compile(r" \(docs: ([a-z-]+)\)$")


class Explanation(enum.StrEnum):
    """What a sentence refers to, by what its reader must do; the value is the name that is shown."""

    # Verdicts on latency, memory and counts
    REGRESSED_DEVICE = "regressed-device"
    REGRESSED_HOST = "regressed-host"
    REGRESSED_BUILD = "regressed-build"
    REGRESSED_SIZE = "regressed-size"
    REGRESSED_COLD_START = "regressed-cold-start"
    REGRESSED_LOAD = "regressed-load"
    REGRESSED_CALLS = "regressed-calls"
    REGRESSED_PARTITION = "regressed-partition"
    REGRESSED_ACCURACY = "regressed-accuracy"
    MEMORY_GROWTH = "memory-growth"
    CAPTURE_LOST = "capture-lost"
    SAME_MOVED = "same-moved"
    # What could not be told
    UNCONFIRMED = "unconfirmed"
    SUSPECTED = "suspected"
    UNDERPOWERED = "underpowered"
    VOID_BLOCKS = "void-blocks"
    INCOMPARABLE = "incomparable"
    BASE_FAILED = "base-failed"
    # What is not there, not run or not stored
    NEW_CASE = "new-case"
    MISSING_CASE = "missing-case"
    FILTER_HIDES = "filter-hides"
    OUTSIDE_INTERFERENCE = "outside-interference"
    NOT_STORED = "not-stored"
    STORED_UNPROVEN = "stored-unproven"
    WIDE_LIMIT = "wide-limit"
    METRIC_UNKNOWN = "metric-unknown"
    QUARANTINE_ENDED = "quarantine-ended"
    FAILURE_GONE = "failure-gone"
    # A case that can't be judged
    WRONG_OUTPUT = "wrong-output"
    MODEL_UNUSABLE = "model-unusable"
    BUILD_FAILED = "build-failed"
    EXPORT_REFUSED = "export-refused"
    LOAD_FAILED = "load-failed"
    WORKER_FAILED = "worker-failed"
    UNAVAILABLE = "unavailable"
    # Coverage and layers
    COVERAGE_LOST = "coverage-lost"
    COVERAGE_INCOMPLETE = "coverage-incomplete"
    OPERATORS_LEFT = "operators-left"
    LAYERS_CHANGED = "layers-changed"
    PROFILE_UNBELIEVABLE = "profile-unbelievable"
    # The machine, its files and the run
    GPU_MISMATCH = "gpu-mismatch"
    WRONG_ACCELERATOR = "wrong-accelerator"
    DEVICE_BUSY = "device-busy"
    BASELINE_BROKEN = "baseline-broken"
    FILE_FAULT = "file-fault"
    CODE_CHANGED = "code-changed"
    CLUSTER_PROBLEM = "cluster-problem"
    NOT_RESUMED = "not-resumed"
    SHARD_MISSING = "shard-missing"
    SHARD_REJECTED = "shard-rejected"
    OPTION_CONFLICT = "option-conflict"
    SUITE_PROBLEM = "suite-problem"
    NOTHING_COMPARED = "nothing-compared"
    COMMAND_REFUSED = "command-refused"

    @property
    def text(self) -> str:
        """The whole text, as Markdown: its name as a title, then what the failure means, and PARTS."""
        from importlib.resources import files  # takes as long to import as the rest of a command

        return (files("trtgate") / "explanations" / f"{self}.md").read_text(encoding="utf-8")

    @property
    def summary(self) -> str:
        """The first sentence of the text: what the failure means."""
        meaning = " ".join(self.text.split("\n\n")[1].split())
        return meaning.partition(". ")[0].removesuffix(".") + "."


def explained(text: str, explanation: Explanation) -> str:
    """Return a sentence that ends with the name of its explanation; one that has a name already stays as it is."""
    return text if _LINK.search(text) else f"{text} (docs: {explanation})"


def continued(text: str, more: str) -> str:
    """Return a sentence with `more` at its end, before the name of its explanation where it has one."""
    link = _LINK.search(text)
    return f"{text}{more}" if link is None else f"{text[: link.start()]}{more}{link[0]}"


def bare(text: str) -> str:
    """Return a sentence without the name of its explanation: another sentence quotes it."""
    return _LINK.sub("", text)


def explanation_in(text: str) -> str:
    """Return the name that a line of a text ends with, of several the first; empty where there is none."""
    return next((link[1] for line in text.splitlines() if (link := _LINK.search(line))), "")


def shortened(text: str, most: int) -> str:
    """Return a sentence of at most `most` characters; the name of its explanation stays."""
    if len(text) <= most:
        return text
    link = _LINK.search(text)
    end = "" if link is None else link[0]
    return f"{text[: most - len(end) - 1]}…{end}"
