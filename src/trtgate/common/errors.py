"""The one exception that users see, and any other as one line: no tracebacks."""


class TrtgateError(Exception):
    """What was wrong, where (file, case, value), and what to do next, in one or two lines."""


def one_line(error: BaseException) -> str:
    """Return an exception's type and the first line of its message."""
    lines = str(error).strip().splitlines()
    name = type(error).__name__
    kind = "out of GPU memory" if name == "OutOfMemoryError" else name  # torch's
    return f"{kind}: {lines[0][:300] if lines else ''}".rstrip(": ")
