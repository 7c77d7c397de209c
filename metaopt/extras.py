"""A module that is missing because an extra of this package is not installed."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

_OWN = ("metaopt", "tuning", "analysis")
_REMEDY = "pip install -e '.[bench]' in the checkout"


def hint_for(error: ModuleNotFoundError) -> str | None:
    """Return the line that names the missing module and the extra; ``None`` for one of our own."""
    module = (error.name or "").partition(".")[0]
    if not module or module in _OWN:
        return None
    return f"{module} is not installed. The extra `bench` installs it: {_REMEDY}."


@contextmanager
def one_line_hint(program: str) -> Iterator[None]:
    """Turn a missing module into one line on stderr and exit code 2.

    Raises:
        SystemExit: A module of an extra is missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        hint = hint_for(error)
        if hint is None:
            raise
        print(f"{program}: {hint}", file=sys.stderr)
        raise SystemExit(2) from None
