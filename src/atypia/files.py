"""Atomic writing: a file or folder is there whole, or not at all."""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from atypia.errors import InputError, OutputError


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; when the block ends well it takes the place of `path`.

    Works for a file and for a folder (which then replaces a folder of the same name). The suffix
    is kept, because writers choose their format by it.

    Raises
    ------
    OutputError
        The parent folder cannot be made or written.
    """
    path = Path(path)
    name = path.name
    temporary = path.with_name(f".{secrets.token_hex(4)}.partial.{name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _replace(temporary, path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(
            path, f"cannot be written ({reason})", "Choose another output or free the place"
        ) from error
    finally:
        _remove(temporary)


def _replace(temporary: Path, path: Path) -> None:
    if temporary.is_dir() and path.is_dir():
        old = path.with_name(f".{secrets.token_hex(4)}.old.{path.name}")
        path.rename(old)
        try:
            temporary.rename(path)
        except OSError:
            old.rename(path)
            raise
        shutil.rmtree(old, ignore_errors=True)
    elif temporary.exists():
        temporary.replace(path)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        # Nothing is there, or nothing can be there because a parent is a file.
        with suppress(FileNotFoundError, NotADirectoryError):
            path.unlink()


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON atomically; not-a-number is refused."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Read JSON.

    Raises
    ------
    InputError
        The file is missing or is not JSON.
    """
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(path, "no such file", "Check the path") from error
    except (ValueError, OSError) as error:
        raise InputError(path, f"cannot be read as JSON ({error})", "Write it anew") from error


def digest(*parts: bytes | str) -> str:
    """Sixteen hexadecimal digits that change when any part changes."""
    hasher = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        hasher.update(len(data).to_bytes(8, "little"))
        hasher.update(data)
    return hasher.hexdigest()[:16]


def sha256(path: str | Path) -> str:
    """Give the SHA-256 of a file's content, 64 hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
