"""Secrets stay inside: text that leaves the process has them replaced by ``***``.

Secrets are passwords in URLs and in ``password=...``, and the same words wherever they stand alone:
those of this process's command line and environment are known. Whatever prints a message, writes an
error into a record or shows a command calls :func:`redact`. Nothing here needs JAX.
"""

import os
import re
import sys
from urllib.parse import unquote

HIDDEN = "***"

_URL = r"://([^\s:/@'\"]*):"
# Up to the last @: a password that was not encoded may have one.
_IN_URL = re.compile(rf"{_URL}([^\s'\"]+)(?=@)")
_IN_WHOLE_URL = re.compile(rf"{_URL}(.+)(?=@)", re.DOTALL)  # spaces and quotes as well
_ASSIGNED = re.compile(
    r"\b(\w*(?:password|passwd)|(?:\w*_)?(?:secret|api_?key|access_?key)|(?:\w*(?:auth|access)_)?token)"
    r"(\s?=\s?|['\"]\s?:\s?)(\"[^\"]*\"|'[^']*'|[^\s'\"&;,)]+)",
    re.IGNORECASE,
)
_SECRET_NAME = re.compile(
    r"password|passwd|secret|(?:^|_)token(?:_|$)|api_?key|access_?key|private_?key|credential",
    re.IGNORECASE,
)
_SHORTEST = 6  # characters of a secret that is looked for where nothing else points to it


def redact(text: str, *sources: str) -> str:
    """Return ``text`` without secrets.

    Args:
        text: What is to be shown or written.
        sources: Texts that may hold further secrets, such as the URL that an error is about.

    Examples:
        >>> redact("postgresql://me:TopSecret1@host/base?sslpassword=x1 does not answer")
        'postgresql://me:***@host/base?sslpassword=*** does not answer'
        >>> redact("driver: TopSecret1 is wrong", "mysql://me:TopSecret1@host/base")
        'driver: *** is wrong'
    """
    for secret in sorted(_known(sources), key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    text = _IN_URL.sub(rf"://\1:{HIDDEN}", text)
    return _ASSIGNED.sub(rf"\1\2{HIDDEN}", text)


def _known(sources: tuple[str, ...]) -> set[str]:
    """Return the secrets of the command line, the environment and ``sources``."""
    written = {value for name, value in os.environ.items() if _SECRET_NAME.search(name)}
    for text in (*sys.argv, *os.environ.values(), *sources):
        written |= {match[2] for match in _IN_URL.finditer(text)}
        written |= {match[2] for match in _IN_WHOLE_URL.finditer(text)}
        written |= {match[3].strip("'\"") for match in _ASSIGNED.finditer(text)}
    known = written | {unquote(secret) for secret in written}
    return {secret for secret in known if len(secret) >= _SHORTEST}
