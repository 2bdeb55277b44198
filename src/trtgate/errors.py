"""The one exception that users see: a readable line, no traceback."""


class TrtgateError(Exception):
    """What was wrong, where (file, case, value), and what to do next, in one or two lines."""
