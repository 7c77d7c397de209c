"""What installed packages add, through Python entry points.

Three groups: ``metaopt.workloads``, ``metaopt.submissions`` and ``metaopt.tuners``. Only the
packages' metadata is read until a name is used, so one that cannot be imported breaks nothing else.
Names are resolved by these functions in every process, a campaign's workers included.
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

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")  # as it stands in contenders and folders


@dataclasses.dataclass(frozen=True)
class Plugin:
    """One entry point."""

    group: str
    name: str
    origin: str  # the distribution that it comes from, "lion-pkg 1.2"
    entry: metadata.EntryPoint = dataclasses.field(repr=False)
    refused: str | None = None  # why its name cannot be used

    def load(self) -> Any:
        """Return the object.

        Raises:
            ValueError: The name is refused, or the object cannot be imported; in one line.
        """
        if self.refused is not None:
            raise ValueError(self.refused)
        try:
            return self.entry.load()
        except Exception as error:  # whatever the import of somebody else's module does
            raise self.broken(error) from error

    def broken(self, why: object) -> ValueError:
        """Return the error that says that this entry point is of no use, and why."""
        kind = f"{type(why).__name__}: " if isinstance(why, Exception) else ""
        reason = " ".join(f"{kind}{why}".split())
        return ValueError(f"{self.group} {self.name!r} of {self.origin} is unavailable: {reason}")


def find_plugins(group: str, ours: Collection[str]) -> list[Plugin]:
    """Return the entry points of ``group``, refused ones included, by name and origin.

    A name is refused if it is one of ``ours``, if two distributions have it, or if it could not
    stand in a contender's name.
    """
    entries = _entries(group)
    return [_judge(entry, ours, entries) for entry in entries]


def find_plugin(group: str, name: str, ours: Collection[str]) -> Plugin | None:
    """Return the entry point ``name``, a refused one too, if there is one; it is not imported."""
    return next((plugin for plugin in find_plugins(group, ours) if plugin.name == name), None)


def plugin_names(group: str, ours: Collection[str]) -> list[str]:
    """Return the names in ``group`` that are not refused."""
    return [plugin.name for plugin in find_plugins(group, ours) if plugin.refused is None]


def list_plugins(
    group: str, ours: Collection[str], load: Callable[[Plugin], Any]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Load every entry point of ``group`` for a listing.

    Returns:
        What ``load`` returned, by name, and why the others are unavailable, by name and origin.
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
    """Return name and version of every distribution that adds something, for the records."""
    entries = [entry for group in (WORKLOADS, SUBMISSIONS, TUNERS) for entry in _entries(group)]
    found = {entry.dist for entry in entries if entry.dist is not None}
    return {dist.name: dist.version for dist in sorted(found, key=lambda dist: dist.name)}


@functools.cache
def plugin_packages() -> frozenset[str]:
    """Return the importable packages that something is added from."""
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
        reason = "a name has letters, digits, '_', '-', '.' only"
    refused = None if reason is None else str(plugin.broken(reason))
    return dataclasses.replace(plugin, refused=refused)
