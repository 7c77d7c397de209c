"""Write files atomically: a kill at any byte leaves the old file or the new one."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import pydantic

os.umask(_UMASK := os.umask(0o077))  # it is read by setting it


def write_json(path: Path, content: Any) -> None:
    """Write ``content`` as JSON to ``path``, atomically. Pydantic models are welcome."""
    if isinstance(content, pydantic.BaseModel):
        content = content.model_dump(mode="json")
    write_text(path, json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path``, atomically."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` through a temporary file and a rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            os.fchmod(file.fileno(), 0o666 & ~_UMASK)  # a temporary file is its owner's alone
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
