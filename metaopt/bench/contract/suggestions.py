"""The known name that a misspelt one is closest to."""

import difflib
from collections.abc import Iterable


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """Return a question in brackets for an error message; empty if no name is close.

    Examples:
        >>> did_you_mean("digit_mlp", ["digits_mlp", "digits_conv"])
        " (did you mean 'digits_mlp'?)"
        >>> did_you_mean("nothing", ["digits_mlp"])
        ''
    """
    found = difflib.get_close_matches(str(name), list(known), n=1)
    return f" (did you mean {found[0]!r}?)" if found else ""
