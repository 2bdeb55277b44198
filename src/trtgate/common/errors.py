"""The one exception that users see, and any other as one line: no tracebacks."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from .explanations import Explanation, continued, explained


class TrtgateError(Exception):
    """An error in one or two lines: what was wrong, where (file, case, value), and what to do next."""


class FaultError(TrtgateError):
    """What the machine did not allow another process, as that one says it: no space, no permission."""


PROBLEMS = (TrtgateError, OSError)
"""What is shown as one sentence, wherever a run or a command ends: what is wrong with a file is no mistake of ours."""

ADVICE = {
    errno.ENOSPC: "free some space there",
    errno.EDQUOT: "free some space of this user's there",
    errno.EROFS: "let it lie where this user may write",
    errno.EACCES: "give this user the right to read and write it",
    errno.EPERM: "give this user the right to read and write it",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.EFBIG: "raise the limit of a file's size (ulimit -f)",
}
TORCH_CAN_NOT_WRITE = ("PytorchStreamWriter", "unexpected pos")
"""Words of torch's RuntimeError where it can't write a file; there is no errno."""


def sentence_of(error: TrtgateError | OSError) -> str:
    """Return what was wrong in one line; of an OSError: the path, what the system says, and what to do."""
    return str(error) if isinstance(error, TrtgateError) else explained(_of_system(error), Explanation.FILE_FAULT)


@contextmanager
def explaining(explanation: Explanation) -> Iterator[None]:
    """Within: the sentence of a TrtgateError ends with the name of an explanation, unless it does so already."""
    try:
        yield
    except TrtgateError as error:
        error.args = (explained(str(error), explanation), *error.args[1:])
        raise


def _of_system(error: OSError) -> str:
    names = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
    where = " → ".join(names) or ("the current folder" if _current_folder_is_gone() else type(error).__name__)
    advice = ADVICE.get(error.errno or 0, "see that it is there and can be read and written")
    return f"{where}: {error.strerror or error}: {advice}"


def _current_folder_is_gone() -> bool:
    """Whether every path that begins in it fails, and os.getcwd without naming one."""
    try:
        os.getcwd()
    except OSError:
        return True
    return False


def one_line(error: BaseException) -> str:
    """Return an exception's type and the first line of its message; of what a backend of torch.compile raised, its."""
    inner = getattr(error, "inner_exception", None)
    if isinstance(inner, BaseException):
        return one_line(inner)
    lines = str(error).strip().splitlines()
    name = type(error).__name__
    if isinstance(error, OSError) and error.errno in ADVICE:
        return _of_system(error)
    kind = "out of GPU memory" if name == "OutOfMemoryError" else name  # torch's
    return f"{kind}: {lines[0][:300] if lines else ''}".rstrip(": ")


def fault_in(error: BaseException | None) -> BaseException | None:
    """Return the fault of the machine that an error comes of, whatever it was made into; None if it has none.

    No space and no permission are faults. A file that is not there is none: who asked for it may have misspelt it.
    """
    while error is not None:
        torch_can_not = isinstance(error, RuntimeError) and any(word in str(error) for word in TORCH_CAN_NOT_WRITE)
        denied = isinstance(error, OSError) and error.errno in ADVICE
        if denied or torch_can_not or isinstance(error, FaultError):
            return error
        error = error.__cause__ or error.__context__
    return None


def is_fault(error: BaseException) -> bool:
    """Whether the machine is at fault, and not what was asked of it."""
    return fault_in(error) is not None


def told_with_fault(text: str, error: BaseException) -> str:
    """Return what is said of an error, and the fault of the machine that it comes of, if the text does not say that."""
    fault = fault_in(error)
    why = "" if fault is None else one_line(fault)
    return text if why in text else continued(text, f" ({why})")
