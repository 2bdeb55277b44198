"""Cases that are known to fail with some versions: they fail nothing, and passing does."""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

from ..common.errors import TrtgateError

FLAVOURS = ("rtx", "standard")


class ExpectedFailure(msgspec.Struct, frozen=True):
    """Why a case fails, and with which Torch-TensorRT: its flavour (any if empty), its versions (any if none)."""

    reason: str
    flavour: str = ""
    versions: tuple[str, ...] = ()

    def __str__(self) -> str:
        where = " ".join(part for part in (self.flavour, " or ".join(self.versions)) if part)
        return f"known to fail{f' on {where}' if where else ''} ({self.reason})"

    def applies(self, flavour: str | None, version: str) -> bool:
        """Whether it is about this flavour and version; `2.11` means all of 2.11."""
        if self.flavour and self.flavour != flavour:
            return False
        return not self.versions or any(version == one or version.startswith(f"{one}.") for one in self.versions)


def expected_failure(reason: str, *, flavour: str = "", versions: str | Iterable[str] = ()) -> ExpectedFailure:
    """Declare a known failure: `trtgate.expected_failure("returns NaN", flavour="rtx", versions="2.11")`.

    With this flavour and version a failing test of the case is an xfail, and a passing test fails, so that the
    declaration is removed when it is no longer true. Raises TrtgateError if the reason is empty, the flavour is
    unknown, or a version is invalid.
    """
    said = " ".join(reason.split()) if isinstance(reason, str) else ""
    if not said:
        raise TrtgateError(f"expected_failure({reason!r}, …): say how it fails")
    if flavour not in ("", *FLAVOURS):
        raise TrtgateError(f"expected_failure(…, flavour={flavour!r}): there are {', '.join(FLAVOURS)}")
    listed = (versions,) if isinstance(versions, str) else tuple(versions)
    for version in listed:
        if not re.fullmatch(r"\d+(\.\d+)*", version):
            raise TrtgateError(f"expected_failure(…, versions={version!r}): write a version such as 2.11 or 2.11.0")
    return ExpectedFailure(said, flavour, listed)
