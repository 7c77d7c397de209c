"""Workloads, submissions and tuners of installed packages, through Python entry points.

Three groups: ``metaopt.workloads``, ``metaopt.submissions`` and ``metaopt.tuners``. A package is
imported only when one of its names is used, so a broken package breaks nothing else. These
functions resolve names in every process, including those of a campaign's studies.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Collection
from importlib import metadata
from typing import Any

WORKLOADS = "metaopt.workloads"
SUBMISSIONS = "metaopt.submissions"
TUNERS = "metaopt.tuners"

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")  # as part of contenders and folders


@dataclasses.dataclass(frozen=True)
class Plugin:
    """One entry point."""

    group: str
    name: str
    origin: str  # its distribution, "lamb-pkg 1.2"
    entry: metadata.EntryPoint = dataclasses.field(repr=False)
    refused: str | None = None  # why its name cannot be used

    def load(self) -> Any:
        """Return the object.

        Raises:
            ValueError: The name is refused, or the import fails; the message is one line.
        """
        if self.refused is not None:
            raise ValueError(self.refused)
        try:
            return self.entry.load()
        except Exception as error:  # a package's module may raise anything
            raise self.broken(error) from error

    def broken(self, why: object) -> ValueError:
        """Return the error for this unusable entry point, with the reason."""
        kind = f"{type(why).__name__}: " if isinstance(why, Exception) else ""
        reason = " ".join(f"{kind}{why}".split())
        return ValueError(f"{self.group} {self.name!r} of {self.origin} is unavailable: {reason}")


def find_plugins(group: str, ours: Collection[str]) -> list[Plugin]:
    """Return the entry points of ``group``, refused ones included, by name and origin.

    A name is refused if it is in ``ours``, if two distributions have it, or if it has a character
    that a contender's name must not have.
    """
    entries = _entries(group)
    return [_judge(entry, ours, entries) for entry in entries]


def find_plugin(group: str, name: str, ours: Collection[str]) -> Plugin | None:
    """Return the entry point ``name`` without importing it, also a refused one; else ``None``."""
    return next((plugin for plugin in find_plugins(group, ours) if plugin.name == name), None)


def plugin_names(group: str, ours: Collection[str]) -> list[str]:
    """Return the names in ``group`` that are not refused."""
    return [plugin.name for plugin in find_plugins(group, ours) if plugin.refused is None]


def list_plugins(
    group: str, ours: Collection[str], load: Callable[[Plugin], Any]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Load every entry point of ``group`` for a listing.

    Returns:
        The loaded objects by name, and the reasons why others are unavailable, by name and origin.
    """
    loaded, unavailable = {}, {}
    for plugin in find_plugins(group, ours):
        try:
            loaded[plugin.name] = load(plugin)
        except ValueError as error:
            unavailable[f"{plugin.name} ({plugin.origin})"] = " ".join(str(error).split())
    return loaded, unavailable


@functools.cache
def plugin_versions() -> dict[str, str]:
    """Return the versions of the distributions with entry points, by name, for the records."""
    entries = [entry for group in (WORKLOADS, SUBMISSIONS, TUNERS) for entry in _entries(group)]
    found = {entry.dist for entry in entries if entry.dist is not None}
    return {dist.name: dist.version for dist in sorted(found, key=lambda dist: dist.name)}


@functools.cache
def plugin_packages() -> frozenset[str]:
    """Return the importable packages with entry points."""
    entries = [entry for group in (WORKLOADS, SUBMISSIONS, TUNERS) for entry in _entries(group)]
    return frozenset(entry.module.partition(".")[0] for entry in entries)


@functools.cache
def _entries(group: str) -> tuple[metadata.EntryPoint, ...]:
    entries = metadata.entry_points(group=group)
    return tuple(sorted(entries, key=lambda entry: (entry.name, _origin(entry))))


def _origin(entry: metadata.EntryPoint) -> str:
    return "an unknown package" if entry.dist is None else f"{entry.dist.name} {entry.dist.version}"


def _judge(
    entry: metadata.EntryPoint, ours: Collection[str], entries: Collection[metadata.EntryPoint]
) -> Plugin:
    plugin = Plugin(entry.group, entry.name, _origin(entry), entry)
    twins = [_origin(e) for e in entries if e.name == entry.name and e is not entry]
    reason = None
    if entry.name in ours:
        reason = f"metaopt-bench has its own {entry.name!r}; the package must rename its entry"
    elif twins:
        reason = f"{', '.join(twins)} has {entry.name!r} too; uninstall one of them"
    elif not _NAME.fullmatch(entry.name):
        reason = "a name has only letters, digits, '_', '-' and '.'"
    refused = None if reason is None else str(plugin.broken(reason))
    return dataclasses.replace(plugin, refused=refused)
