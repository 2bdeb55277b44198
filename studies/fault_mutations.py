"""How the campaign of `faults.py` damages a stored file: its bytes, its JSON, or what it is."""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

Damage = Callable[[Path, random.Random], None]

ABSURD = [
    "1e308", "1e-320", "1e999", "-1", "0", "-0.0", "9223372036854775808", "18446744073709551616", "1" + "0" * 400,
    "NaN", "Infinity", "-Infinity",
]  # fmt: skip
WRONG: list[Any] = [None, True, 0, -1.5, "", "text", [], {}, [[]], {"a": 1}, [None]]
HOSTILE = [
    "\x1b[2J\x1b[31mred",
    "a\nb\r\nc",
    "::stop-commands::x",
    "##[error]x",
    "\u202egnp.exe",
    "x" * 100_000,
    "\0",
    "\ud800",
]
PLACEHOLDER = "@absurd@"


# Bytes


def truncated(path: Path, rng: random.Random) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: rng.randrange(len(content))])


def emptied(path: Path, _rng: random.Random) -> None:
    path.write_bytes(b"")


def flipped(path: Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    for _ in range(rng.choice((1, 1, 1, 3))):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def blank_lines(path: Path, rng: random.Random) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    for _ in range(rng.randrange(1, 4)):
        lines.insert(rng.randrange(len(lines) + 1), rng.choice((b"\n", b"  \n", b"\r\n", b"\t\n")))
    path.write_bytes(b"".join(lines))


def blanks_alone(path: Path, _rng: random.Random) -> None:
    path.write_bytes(b" \n\n\t\n")


def nul_bytes(path: Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    start = rng.randrange(len(content))
    content[start : start + rng.randrange(1, 64)] = b"\0" * rng.randrange(1, 64)
    path.write_bytes(content)


def zeros(path: Path, _rng: random.Random) -> None:
    path.write_bytes(b"\0" * path.stat().st_size)


def encoded(path: Path, rng: random.Random) -> None:
    name = rng.choice(("utf-16", "utf-32", "utf-8-sig", "utf-7", "latin-1", "cp037"))
    text = path.read_bytes().decode("latin-1")
    path.write_bytes((text.replace("e", "é", 1) if name == "latin-1" else text).encode(name))


def doubled_line(path: Path, rng: random.Random) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    number = rng.randrange(len(lines))
    path.write_bytes(b"".join([*lines[: number + 1], *lines[number:]]))


def doubled(path: Path, _rng: random.Random) -> None:
    path.write_bytes(path.read_bytes() * 2)


def conflict(path: Path, rng: random.Random) -> None:
    """Leave what a merge leaves that nobody resolved."""
    lines = path.read_bytes().splitlines(keepends=True)
    number = rng.randrange(len(lines))
    marked = [b"<<<<<<< HEAD\n", lines[number], b"=======\n", lines[number], b">>>>>>> branch\n"]
    path.write_bytes(b"".join([*lines[:number], *marked, *lines[number + 1 :]]))


# JSON


def _changed(path: Path, change: Callable[[Any], Any]) -> None:
    """Change the JSON of a file, or of one line where each line is a document."""
    if path.suffix != ".jsonl":
        path.write_bytes(_dumped(change(json.loads(path.read_bytes())), indent=1))
        return
    lines = path.read_bytes().splitlines()
    lines[-1] = _dumped(change(json.loads(lines[-1])))
    path.write_bytes(b"\n".join(lines) + b"\n")


def _dumped(document: Any, indent: int | None = None) -> bytes:
    return json.dumps(document, indent=indent).encode()  # ASCII, so lone surrogates too


def _nodes(value: Any, where: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [where, *(found for key, child in items for found in _nodes(child, (*where, key)))]


def _chosen(document: Any, rng: random.Random, suits: Callable[[Any], bool] = lambda _value: True) -> tuple[Any, ...]:
    """Return the way to a part of a document, as often one near its top as any other."""
    found = [where for where in _nodes(document) if where and suits(_at(document, where))]
    near = [where for where in found if len(where) <= min(map(len, found)) + 2]
    return rng.choice(near if rng.random() < 0.5 else found)


def _at(document: Any, where: tuple[Any, ...]) -> Any:
    for key in where:
        document = document[key]
    return document


def _replaced(path: Path, rng: random.Random, value: Any, suits: Callable[[Any], bool] = lambda _value: True) -> None:
    def change(document: Any) -> Any:
        where = _chosen(document, rng, suits)
        _at(document, where[:-1])[where[-1]] = value
        return document

    _changed(path, change)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def wrong_type(path: Path, rng: random.Random) -> None:
    _replaced(path, rng, rng.choice(WRONG))


def wrong_document(path: Path, rng: random.Random) -> None:
    _changed(path, lambda _document: rng.choice(WRONG))


def absurd_number(path: Path, rng: random.Random) -> None:
    _replaced(path, rng, PLACEHOLDER, _is_number)
    path.write_bytes(path.read_bytes().replace(f'"{PLACEHOLDER}"'.encode(), rng.choice(ABSURD).encode()))


def hostile_text(path: Path, rng: random.Random) -> None:
    _replaced(path, rng, rng.choice(HOSTILE), lambda value: isinstance(value, str))


def key_gone(path: Path, rng: random.Random) -> None:
    def change(document: Any) -> Any:
        where = _chosen(document, rng)
        del _at(document, where[:-1])[where[-1]]
        return document

    _changed(path, change)


def key_renamed(path: Path, rng: random.Random) -> None:
    def change(document: Any) -> Any:
        where = rng.choice([where for where in _nodes(document) if where and isinstance(where[-1], str)])
        parent = _at(document, where[:-1])
        parent[f"{where[-1][:-1]}~"] = parent.pop(where[-1])
        return document

    _changed(path, change)


def key_twice(path: Path, rng: random.Random) -> None:
    """Write a key of an object twice, as a bad merge does; the last value is another."""

    def change(document: Any) -> Any:
        where = rng.choice([where for where in _nodes(document) if where and isinstance(where[-1], str)])
        _at(document, where[:-1])[f"{where[-1]}{PLACEHOLDER}"] = rng.choice(WRONG)
        return document

    _changed(path, change)
    path.write_bytes(path.read_bytes().replace(PLACEHOLDER.encode(), b""))


def entry_twice(path: Path, rng: random.Random) -> None:
    def change(document: Any) -> Any:
        found = [where for where in _nodes(document) if isinstance(_at(document, where), list) and _at(document, where)]
        if found:
            entries = _at(document, rng.choice(found))
            entries.append(rng.choice(entries))
        return document

    _changed(path, change)


def nested(path: Path, rng: random.Random) -> None:
    depth = rng.choice((500, 100_000))
    _replaced(path, rng, PLACEHOLDER)
    path.write_bytes(path.read_bytes().replace(f'"{PLACEHOLDER}"'.encode(), b"[" * depth + b"]" * depth))


# What it is


def _instead(path: Path) -> Path:
    """Move a file away; returns where it is now."""
    away = path.with_name(f"{path.name}.away")
    path.rename(away)
    away.rename(path.parents[1] / "away")
    return path.parents[1] / "away"


def link_to_it(path: Path, _rng: random.Random) -> None:
    path.symlink_to(_instead(path))


def link_to_nothing(path: Path, _rng: random.Random) -> None:
    path.unlink()
    path.symlink_to(path.parent / "nothing" / "there")


def link_to_itself(path: Path, _rng: random.Random) -> None:
    path.unlink()
    path.symlink_to(path)


def link_to_a_device(path: Path, rng: random.Random) -> None:
    path.unlink()
    path.symlink_to(rng.choice(("/dev/zero", "/dev/null", "/dev/tty", "/proc/self/mem")))


def pipe(path: Path, _rng: random.Random) -> None:
    path.unlink()
    os.mkfifo(path)


def folder(path: Path, rng: random.Random) -> None:
    path.unlink()
    path.mkdir()
    if rng.random() < 0.5:
        (path / "file").write_text("mine\n")


def local_socket(path: Path, _rng: random.Random) -> None:
    path.unlink()
    here = os.getcwd()
    os.chdir(path.parent)  # the name of a socket may have 107 bytes
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path.name[-100:])
    os.chdir(here)


def file_for_folder(path: Path, _rng: random.Random) -> None:
    above = path.parent
    shutil.rmtree(above)
    above.write_text("mine\n")


OF_BYTES: dict[str, Damage] = {
    "cut short": truncated, "empty": emptied, "bits flipped": flipped, "blank lines": blank_lines,
    "blanks alone": blanks_alone, "NUL bytes": nul_bytes, "all zeros": zeros, "another encoding": encoded,
    "a line twice": doubled_line, "all of it twice": doubled, "marks of a merge": conflict,
}  # fmt: skip
OF_JSON: dict[str, Damage] = {
    "a wrong type": wrong_type, "another document": wrong_document, "an absurd number": absurd_number,
    "hostile text": hostile_text, "a key gone": key_gone, "a key renamed": key_renamed, "a key twice": key_twice,
    "an entry twice": entry_twice, "nested deeply": nested,
}  # fmt: skip
OF_KIND: dict[str, Damage] = {
    "a link to it": link_to_it, "a link to nothing": link_to_nothing, "a link to itself": link_to_itself,
    "a link to a device": link_to_a_device, "a pipe": pipe, "a folder": folder, "a socket": local_socket,
    "its folder a file": file_for_folder,
}  # fmt: skip
ALL = OF_BYTES | OF_JSON | OF_KIND
