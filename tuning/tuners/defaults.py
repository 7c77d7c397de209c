"""No tuning: the submission's defaults in every trial."""

from typing import Any

from metaopt.bench.contract.spaces import Point


class DefaultsTuner:
    """The submission's defaults in every trial, from new seeds."""

    def __init__(self, defaults: Point) -> None:
        self._defaults = defaults

    def ask(self) -> Point:
        """Return the defaults."""
        return dict(self._defaults)

    def tell(self, value: float) -> None:
        """Learn nothing."""

    def describe(self) -> dict[str, Any]:
        """Return the record of this tuner."""
        return {"name": "none"}
