"""No tuning: the submission's defaults, in every trial or in one long trial."""

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


class LongTuner:
    """The submission's defaults in one trial, which the study gives its whole budget.

    The step hint that the submission sees is stretched to that budget, and its schedule with it.
    """

    def __init__(self, defaults: Point) -> None:
        self._left = [dict(defaults)]

    def ask(self) -> Point | None:
        """Return the defaults once, then ``None``."""
        return self._left.pop() if self._left else None

    def tell(self, value: float) -> None:
        """Learn nothing."""

    def describe(self) -> dict[str, Any]:
        """Return the record of this tuner."""
        return {"name": "long"}
