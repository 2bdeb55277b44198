"""The one exception that users see, and any other as one line: no tracebacks."""

from __future__ import annotations

import errno
import os


class TrtgateError(Exception):
    """What was wrong, where (file, case, value), and what to do next, in one or two lines."""


PROBLEMS = (TrtgateError, OSError)
"""What is shown as one sentence, wherever a run or a command ends: what is wrong with a file is no mistake of ours."""

ADVICE = {
    errno.ENOSPC: "free some space there",
    errno.EDQUOT: "free some space of this user's there",
    errno.EROFS: "let it lie where this user may write",
    errno.EACCES: "give this user the right to read and write it",
    errno.EPERM: "give this user the right to read and write it",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
}


def sentence_of(error: TrtgateError | OSError) -> str:
    """Return what was wrong in one line; of an OSError: the path, what the system says, and what to do."""
    if isinstance(error, TrtgateError):
        return str(error)
    names = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
    where = " → ".join(names) or type(error).__name__
    advice = ADVICE.get(error.errno or 0, "see that it is there and can be read and written")
    return f"{where}: {error.strerror or error}: {advice}"


def one_line(error: BaseException) -> str:
    """Return an exception's type and the first line of its message."""
    lines = str(error).strip().splitlines()
    name = type(error).__name__
    kind = "out of GPU memory" if name == "OutOfMemoryError" else name  # torch's
    return f"{kind}: {lines[0][:300] if lines else ''}".rstrip(": ")
