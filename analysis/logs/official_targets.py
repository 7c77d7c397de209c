"""AlgoPerf's ``workload_targets.json``: which workloads there are, and what is to be reached."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Literal

from metaopt.bench.targets import Target

Ruleset = Literal["external", "self"]

_MINIMISED = ("ce_loss", "error_rate", "ctc_loss", "wer", "l1_loss", "loss", "ppl")
_MAXIMISED = ("mean_average_precision", "ssim", "accuracy", "bleu")


@dataclasses.dataclass(frozen=True)
class OfficialTargets:
    """A ``workload_targets.json`` of the official scorer.

    Attributes:
        base: Workloads that a score is over.
        held_out: Variants that a submission has to reach as well.
        metrics: By workload: metric name without its split, target value.
        version: Of the benchmark, e.g. ``"0.5"``.
    """

    base: tuple[str, ...]
    held_out: tuple[str, ...]
    metrics: dict[str, tuple[str, float]]
    version: str = ""

    def column(self, workload: str) -> str | None:
        """Return the column of evaluations that decides; ``None`` without a target."""
        return f"validation/{self.metrics[workload][0]}" if workload in self.metrics else None

    def target(self, workload: str) -> Target:
        """Return a workload's validation target.

        Raises:
            ValueError: The official scorer knows no direction for its metric.
        """
        metric, value = self.metrics[workload]
        # As the official scorer looks names up: by how they begin, the minimised ones first.
        if metric.startswith(_MINIMISED):
            return Target(f"validation/{metric}", value, "lower")
        if metric.startswith(_MAXIMISED):
            return Target(f"validation/{metric}", value, "higher")
        raise ValueError(
            f"The official scorer knows no metric {metric!r}, only names that begin with one of "
            f"{[*_MINIMISED, *_MAXIMISED]}."
        )

    def base_of(self, workload: str) -> str:
        """Return the base workload of a variant: the first whose name is part of its own."""
        return next((base for base in self.base if base in workload), workload)

    def studies(self) -> int:
        """Return how many studies the rules of this version ask for."""
        return 5 if self.version == "0.5" else 3

    def trials(self, ruleset: Ruleset) -> int:
        """Return how many trials a study has."""
        return 5 if ruleset == "external" else 1

    def budget_factor(self, ruleset: Ruleset) -> float:
        """Return by what the workload's ``max_allowed_runtime_sec`` is multiplied."""
        if ruleset == "external":
            return 1.0
        return 3.0 if self.version == "0.5" else 1.5


def read_official_targets(path: Path) -> OfficialTargets:
    """Read the official scorer's configuration.

    Raises:
        ValueError: It is another format.
    """
    try:
        document = json.loads(path.read_text("utf-8"))
        if not isinstance(document, dict):
            raise ValueError("not an object")
        metrics = {
            name: (str(entry["target_metric_name"]), float(entry["validation_target_value"]))
            for name, entry in document["workloads"].items()
        }
        base, held_out = document["base_workloads"], document["held_out_workloads"]
        if missing := [name for name in [*base, *held_out] if name not in metrics]:
            raise ValueError(f"no target for {missing}")
        if unreal := [name for name, (_, value) in metrics.items() if not math.isfinite(value)]:
            raise ValueError(f"targets are no numbers: {unreal}")
        for variant in held_out:
            if not any(name in variant for name in base):
                raise ValueError(f"held-out workload {variant!r} has no base workload")
        targets = OfficialTargets(
            tuple(base), tuple(held_out), metrics, str(document.get("benchmark_version", ""))
        )
    except KeyError as error:
        raise ValueError(f"{path}: not a workload_targets.json: no key {error}") from None
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: not a workload_targets.json: {error}") from None
    if not base:
        raise ValueError(f"{path}: not a workload_targets.json: no base workloads")
    return targets
