"""Names and sentences of others as text, whatever is in them: for terminals, Markdown and GitHub's commands."""

from __future__ import annotations

import re

from .explanations import shortened

MOST_CHARACTERS, MOST_LINE = 300, 4000
_COMMAND = re.compile(r"##(\[|vso\[)", re.IGNORECASE)
ASCII = str.maketrans(dict(zip("▁▂▃▄▅▆▇█", "_.-~=+*#", strict=True)) | {"→": "->", "µ": "u", "…": "...", "±": "+-"})
"""What our own lines have beyond ASCII, for terminals that can't show it."""
_FORMULA = tuple("=+-@\uff1d\uff0b\uff0d\uff20")
_PLAIN = re.compile(r"[^A-Za-z0-9 ,+%/()=;'µ±→…²-]")
_DECIMAL_POINT = re.compile(r"(?<=\d)\.(?=\d)|\.(?=$| )")


def printable(text: str, most: int = MOST_CHARACTERS) -> str:
    """Return a text on one line without control characters or ones that turn its direction; shortened if very long."""
    one_line = "".join(char if char.isprintable() else " " for char in text)
    return shortened(one_line, most)


def terminal(text: str, most: int = MOST_LINE) -> str:
    """Return a text as one line of output: no terminal obeys it, and no CI system takes it for a command of its own.

    GitHub's runner reads `::command::` at the beginning of a line and `##[command]` anywhere, Azure's `##vso[`.
    """
    shown = printable(text, most)
    if shown.lstrip().startswith("::"):
        shown = shown.replace("::", ": :", 1)
    return _COMMAND.sub(r"# #\1", shown)


def plain(text: str) -> str:
    """Return a text on one line, however long: what can't be printed is an escape such as `\\n` or `\\x1b`.

    No CI system takes a part of it for a command of its own.
    """
    shown = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
    return _COMMAND.sub(r"# #\1", shown)


def csv_cell(text: str) -> str:
    """Return a text as a cell of CSV that no spreadsheet takes for a formula (OWASP, CSV Injection), as `plain` has it.

    What would be one begins with `'`. The cell must be quoted, too: spreadsheets may split lines at other characters.
    """
    shown = plain(text)
    return f"'{shown}" if shown.lstrip().startswith(_FORMULA) else shown


def terminal_lines(text: str) -> str:
    """Return a text of ours that has several lines, each as `terminal` shows it."""
    return "\n".join(terminal(line) for line in text.split("\n"))


def encodable(text: str, encoding: str) -> str:
    """Return a text that can be written in an encoding: what it lacks in ASCII where we have that, else escaped."""
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.translate(ASCII).encode(encoding, "backslashreplace").decode(encoding)
    return text


def markdown(text: str, most: int = MOST_CHARACTERS) -> str:
    """Return a text that GitHub's and GitLab's Markdown show as it is: no markup, link, mention or cell ends in it.

    Everything but letters, digits and what has no meaning is a character reference (CommonMark 2.5).
    """
    shown = printable(text, most)
    kept = {match.start() for match in _DECIMAL_POINT.finditer(shown)}
    return "".join(
        char if number in kept or not _PLAIN.match(char) or char.isalpha() else f"&#{ord(char)};"
        for number, char in enumerate(shown)
    )


def workflow_data(text: str) -> str:
    """Return a text as the message of a GitHub workflow command: it ends no line, so begins no other command."""
    return printable(text, 4000).replace("%", "%25")


def workflow_property(text: str) -> str:
    """Return a text as a property of a GitHub workflow command."""
    return workflow_data(text).replace(":", "%3A").replace(",", "%2C")
