"""Text files as they come (with or without a byte order mark, perhaps empty, perhaps no text), and files as we leave
them: whole or not at all.
"""

from __future__ import annotations

import os
from pathlib import Path

from boxcycle.data.check import Report


def read_text(file: Path, report: Report, *, empty: bool = False) -> str:
    """The content of a UTF-8 file.

    Raises ``DataError`` (recorded in ``report``) if it cannot be read, or has none and ``empty`` is False.
    """
    try:
        text = file.read_bytes().decode("utf-8-sig")  # read_text takes half a byte order mark for an empty file
    except UnicodeDecodeError as error:
        raise report.fatal("file-unreadable", file, "", f"is not UTF-8 text (byte {error.start})") from None
    except OSError as error:
        raise report.fatal("file-unreadable", file, "", f"cannot be read: {error.strerror or error}") from None
    if not empty and not text.strip():
        raise report.fatal("file-empty", file, "", "is empty")
    return text


def read_lines(file: Path, report: Report) -> list[str]:
    """The lines of a UTF-8 file, stripped, without empty ones. Raises as :func:`read_text`."""
    return [line.strip() for line in read_text(file, report).splitlines() if line.strip()]


def write_whole(file: Path, content: str | bytes) -> None:
    """Write a file beside its place, bring it to the disk, then rename it; several processes may write the same."""
    unfinished = file.with_name(f"{file.name}.{os.getpid()}.partial")
    with unfinished.open("wb") as stream:
        stream.write(content.encode() if isinstance(content, str) else content)
        stream.flush()
        os.fsync(stream.fileno())
    unfinished.replace(file)
