"""Identity: digests of everything that decides a study's result, by part and name.

    submission   files of the submission's folder, with the search space that is used
    modules      modules that the submission imports
    tuner        the tuner's module, and those that it imports
    workload     modules that define the workload, and those that they import
    data         files that the workload reads
    targets      the workload's targets
    settings     settings of JAX that change numbers

A study keeps its identity in ``identity.json``, and each of its trials has one digest of all of it
in ``run.json``. The digests are made in :mod:`metaopt.bench.contract.digests`.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import pydantic

from metaopt.bench.records.trials import describe_invalid

FILE = "identity.json"
WORKLOAD_PARTS = ("workload", "data", "targets", "settings")  # the same for all that is compared
CODE_PARTS = ("submission", "modules", "tuner")  # a contender's own

Identity = Mapping[str, Mapping[str, str]]

_MODEL = pydantic.TypeAdapter(dict[str, dict[str, str]])
_LISTED = 5  # names in a message


def digest_of(identity: Identity, parts: Iterable[str] = ()) -> str:
    """Return the SHA-256 of all parts together, or of the given parts."""
    content = {part: dict(identity.get(part, {})) for part in parts or identity}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def differences(before: Identity, now: Identity, parts: Iterable[str] = ()) -> list[str]:
    """Return the names that two identities disagree on, sorted.

    Args:
        before: One identity.
        now: The other.
        parts: The parts to compare; by default all.

    Examples:
        >>> differences({"modules": {"a.py": "1", "b.py": "2"}}, {"modules": {"a.py": "3"}})
        ['a.py', 'b.py']
    """
    found: set[str] = set()
    for part in parts or {*before, *now}:
        one, other = before.get(part, {}), now.get(part, {})
        found |= {name for name in {*one, *other} if one.get(name) != other.get(name)}
    return sorted(found)


def listed(names: list[str]) -> str:
    """Return names for a message, the first few of many.

    Examples:
        >>> listed(list("abcdefg"))
        'a, b, c, d, e and 2 more'
    """
    more = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f" and {more} more" if more > 0 else "")


def parse_identity(content: bytes | str) -> Identity:
    """Return the content of ``identity.json``.

    Raises:
        ValueError: The content is not an identity.
    """
    try:
        return _MODEL.validate_json(content)
    except pydantic.ValidationError as error:
        raise ValueError(describe_invalid(error)) from None


def read_identity(folder: Path) -> Identity | None:
    """Return the identity of the study in ``folder``; ``None`` if it has none.

    Raises:
        ValueError: The file is no identity; names it.
    """
    path = folder / FILE
    if not path.exists():
        return None
    try:
        return parse_identity(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
