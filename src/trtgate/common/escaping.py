"""Names and sentences of others as text, whatever is in them: for Markdown, and for GitHub's workflow commands."""

from __future__ import annotations

import re

MOST_CHARACTERS = 300
_PLAIN = re.compile(r"[^A-Za-z0-9 ,+%/()=;'µ±→…²-]")
_DECIMAL_POINT = re.compile(r"(?<=\d)\.(?=\d)|\.(?=$| )")


def printable(text: str, most: int = MOST_CHARACTERS) -> str:
    """Return a text on one line without control characters or ones that turn its direction; cut if very long."""
    one_line = "".join(char if char.isprintable() else " " for char in text)
    return one_line if len(one_line) <= most else f"{one_line[: most - 1]}…"


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
