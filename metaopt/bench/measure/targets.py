"""Targets: the one definition of "reached", and the frozen values with their provenance.

The runner, the tuner and the analysis all call :meth:`Target.is_met`. The values lie in
``targets.json`` beside this file, written by ``python -m tuning targets`` and never by hand; the
provenance of a value says which search produced it. Nothing here needs JAX.
"""

import dataclasses
import functools
import json
import math
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args

Direction = Literal["lower", "higher"]

SCHEMA_VERSION = 1

# The direction of the metrics that our workloads and AlgoPerf's report, by name without the split.
BETTER: dict[str, Direction] = {
    **dict.fromkeys(
        ("loss", "ce_loss", "ctc_loss", "l1_loss", "error_rate", "wer", "ppl",
         "mean_absolute_error", "mean_squared_error"),
        "lower",
    ),
    **dict.fromkeys(("accuracy", "bleu", "mean_average_precision", "ssim"), "higher"),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Target:
    """A value that one metric has to reach; only finite numbers meet it, and equality counts.

    Raises:
        ValueError: ``value`` is not a finite number, or ``better`` is not a direction.

    Examples:
        >>> target = Target("validation/loss", 0.1, "lower")
        >>> target.is_met(0.1), target.is_met(0.2), target.is_met(float("-inf"))
        (True, False, False)
    """

    metric: str  # with its split, e.g. "validation/loss"
    value: float
    better: Direction
    version: int = 1  # of the frozen targets; of those set anew, the procedure's

    def __post_init__(self) -> None:
        """Check the value and the direction."""
        if not math.isfinite(self.value):
            raise ValueError(
                f"A target must be a finite number, got {self.value} for {self.metric!r}."
            )
        if self.better not in get_args(Direction):
            raise ValueError(f"`better` must be 'lower' or 'higher', got {self.better!r}.")

    def is_met(self, value: float) -> bool:
        """Return whether ``value`` is finite and reaches the target; arrays work as well."""
        if self.better == "lower":
            return (value > -math.inf) & (value <= self.value)
        return (value < math.inf) & (value >= self.value)

    def is_improvement(self, value: float, best: float | None) -> bool:
        """Return whether ``value`` is finite and better than ``best`` (``None``: none so far)."""
        if not math.isfinite(value):
            return False
        if best is None:
            return True
        return value < best if self.better == "lower" else value > best

    def distance(self, value: float | None) -> float:
        r"""Map a missed value to a bounded distance in [0, 1); monotone, 0 at the target.

        With the gap :math:`g = |v - v^*|` the distance is :math:`g / (g + |v^*| + 10^{-12})`, so it
        has no unit. No value, or one that is not finite, is at the largest distance: 1.
        """
        if value is None or not math.isfinite(value):
            return 1.0
        if self.is_met(value):
            return 0.0
        gap = abs(value - self.value)
        return 1.0 if math.isinf(gap) else gap / (gap + abs(self.value) + 1e-12)


@dataclasses.dataclass(frozen=True)
class WorkloadTargets:
    """The frozen targets of one workload."""

    validation: Target
    test: Target
    step_hint: int
    also: tuple[Target, ...] = ()  # further validation targets, reported beside the first
    provenance: dict[str, Any] = dataclasses.field(default_factory=dict, hash=False)


def to_document(targets: dict[str, WorkloadTargets]) -> dict[str, Any]:
    """Return ``targets`` as the JSON data of ``targets.json``."""
    return {
        "schema_version": SCHEMA_VERSION,
        "workloads": {name: dataclasses.asdict(targets[name]) for name in sorted(targets)},
    }


def from_document(document: dict[str, Any]) -> dict[str, WorkloadTargets]:
    """Read what :func:`to_document` wrote.

    Raises:
        ValueError: The document has another schema version.
    """
    version = document.get("schema_version")
    if version != SCHEMA_VERSION:
        raise ValueError(
            f"Targets have schema version {version}, this code reads {SCHEMA_VERSION}."
        )
    return {
        name: WorkloadTargets(
            validation=Target(**row["validation"]),
            test=Target(**row["test"]),
            step_hint=row["step_hint"],
            also=tuple(Target(**also) for also in row["also"]),
            provenance=row["provenance"],
        )
        for name, row in document["workloads"].items()
    }


def load_targets(path: Path | None = None) -> dict[str, WorkloadTargets]:
    """Read the targets in ``path``, by default the frozen ones that ship with the package."""
    return _frozen_targets() if path is None else from_document(json.loads(path.read_text("utf-8")))


def targets_of(workload: str) -> WorkloadTargets:
    """Return the frozen targets of one workload.

    Raises:
        ValueError: The workload has none; the message names the command that sets them.
    """
    targets = load_targets()
    if workload not in targets:
        raise ValueError(
            f"No frozen targets for workload {workload!r}, only for {sorted(targets)}; "
            f"set them with `python -m tuning targets {workload}`."
        )
    return targets[workload]


@functools.cache
def _frozen_targets() -> dict[str, WorkloadTargets]:
    text = resources.files("metaopt.bench.measure").joinpath("targets.json").read_text("utf-8")
    return from_document(json.loads(text))
