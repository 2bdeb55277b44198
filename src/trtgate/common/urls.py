"""URLs as they may be shown and stored: without users, passwords and queries, which hold secrets."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from urllib.parse import parse_qsl, unquote

from .escaping import printable

HIDDEN = "…"
SHORTEST_SECRET = 6
"""What is shorter would hide words that have nothing to do with it."""
LONGEST_SAID = 2000
"""Characters of what a library said that are looked at."""
_QUERY = re.compile(r"\?[^?]*=.*$", re.DOTALL)
_USER = re.compile(r"(?<=://)[^/?#\s]*@")
_USER_WITH_SLASH = re.compile(r"(?<=://)[^/?#\s@]*:(?!\d+/)[^/]*/\S*@")
_SECRET_VARIABLE = re.compile("SECRET|TOKEN|PASSW|CREDENTIAL|KEY|SAS|CONNECTION_STRING", re.IGNORECASE)


def is_url(text: str) -> bool:
    """Whether a text names a place by a URL, not by a path."""
    return "://" in text


def without_secrets(text: str) -> str:
    """Return a URL, or an argument that holds one, without user, password and query; any other text as it is."""
    if not is_url(text):
        return text
    return _USER.sub("", _USER_WITH_SLASH.sub("", _QUERY.sub(f"?{HIDDEN}", text)))


def secrets_of(url: str) -> list[str]:
    """Return what a URL holds that nobody else may see, as it stands there and as it is meant."""
    users = [match[0][:-1] for pattern in (_USER_WITH_SLASH, _USER) for match in pattern.finditer(url)]
    found = [part for user in users for part in (user, *user.partition(":")[::2])]
    query = _QUERY.search(url)
    if query:
        found += [query[0][1:], *(value for _, value in parse_qsl(query[0][1:]))]
    return [*found, *map(unquote, found)]


def told_without(text: str, secrets: Iterable[str]) -> str:
    """Return what a library said on one line, without secrets: those given, and those of the environment."""
    of_environment = (value for name, value in os.environ.items() if _SECRET_VARIABLE.search(name))
    for secret in sorted({*secrets, *of_environment}, key=len, reverse=True):
        if len(secret) >= SHORTEST_SECRET:
            text = text.replace(secret, HIDDEN)
    return printable(without_secrets(text[:LONGEST_SAID]))
