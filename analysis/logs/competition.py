"""The rules of an AlgoPerf competition: its workloads and targets, and each ruleset's limits."""

import dataclasses
import json
import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from metaopt.bench.measure.targets import Target
from metaopt.bench.records.submission_info import INFO_GLOBS, read_info

Ruleset = Literal["external", "self"]
MOST = 10_000  # studies, or trials of a study: a missing one takes memory too

_MINIMISED = ("ce_loss", "error_rate", "ctc_loss", "wer", "l1_loss", "loss", "ppl")
_MAXIMISED = ("mean_average_precision", "ssim", "accuracy", "bleu")


@dataclasses.dataclass(frozen=True)
class OfficialTargets:
    """A ``workload_targets.json`` of the official scorer.

    Attributes:
        base: The workloads that are averaged into a score.
        held_out: The held-out variants, whose targets a submission must also reach.
        metrics: The metric name without its split, and the target value, by workload.
        version: The version of the benchmark, such as ``"0.5"``.
    """

    base: tuple[str, ...]
    held_out: tuple[str, ...]
    metrics: dict[str, tuple[str, float]]
    version: str = ""

    def column(self, workload: str) -> str | None:
        """Return the evaluation column of the target metric; ``None`` without a target."""
        return f"validation/{self.metrics[workload][0]}" if workload in self.metrics else None

    def target(self, workload: str) -> Target:
        """Return a workload's validation target.

        Raises:
            ValueError: The official scorer does not know the direction of the metric.
        """
        metric, value = self.metrics[workload]
        # The official scorer matches names by prefix, minimised metrics first.
        if metric.startswith(_MINIMISED):
            return Target(f"validation/{metric}", value, "lower")
        if metric.startswith(_MAXIMISED):
            return Target(f"validation/{metric}", value, "higher")
        raise ValueError(
            f"The official scorer knows no metric {metric!r}, only names that start with one of "
            f"{[*_MINIMISED, *_MAXIMISED]}."
        )

    def base_of(self, workload: str) -> str:
        """Return the base workload of a variant: the first one whose name the variant contains."""
        return next((base for base in self.base if base in workload), workload)


@dataclasses.dataclass(frozen=True)
class Limits:
    """The studies, trials and time that a ruleset grants a submission on a workload.

    Raises:
        ValueError: A number is not positive.
    """

    studies: int | None  # None: as many as the logs have
    trials: int  # of a study
    budget_factor: float  # of the workload's max_allowed_runtime_sec

    def __post_init__(self) -> None:
        """Check the numbers."""
        for name in ("studies", "trials"):
            value = getattr(self, name)
            if value is not None and not 1 <= value <= MOST:
                raise ValueError(f"`{name}` must be at least 1 and at most {MOST:,}, got {value}.")
        if not (self.budget_factor > 0 and math.isfinite(self.budget_factor)):
            raise ValueError(f"`budget_factor` must be positive, got {self.budget_factor}.")


@dataclasses.dataclass(frozen=True)
class Competition:
    """The rules that AlgoPerf's logs are read by.

    Attributes:
        targets: The workloads and targets; by default those in the meta data of the logs.
        ruleset: The ruleset that the logs must have; by default the one in their flags.
        studies: A number of studies instead of the ruleset's.
        trials: A number of trials of a study instead of the ruleset's.
        budget_factor: A factor instead of the ruleset's.
        names: The names that submissions are shown by, by folder; by default the folders' names.
    """

    targets: OfficialTargets | None = None
    ruleset: Ruleset | None = None
    studies: int | None = None
    trials: int | None = None
    budget_factor: float | None = None
    names: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the numbers."""
        self.limits("external")

    def limits(self, ruleset: Ruleset) -> Limits:
        """Return a ruleset's limits in the targets' version of the benchmark."""
        first_version = self.targets is not None and self.targets.version == "0.5"
        studies = None if self.targets is None else 5 if first_version else 3
        if ruleset == "external":
            trials, factor = 5, 1.0
        else:
            trials, factor = 1, 3.0 if first_version else 1.5
        return Limits(
            studies if self.studies is None else self.studies,
            trials if self.trials is None else self.trials,
            factor if self.budget_factor is None else self.budget_factor,
        )


def read_official_targets(path: Path) -> OfficialTargets:
    """Read the official scorer's configuration.

    Raises:
        ValueError: The file has another format.
    """
    try:
        document = json.loads(path.read_text("utf-8-sig"))
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
    except FileNotFoundError:
        raise ValueError(
            f"{path}: no such file. Give the path of a workload_targets.json."
        ) from None
    except KeyError as error:
        raise ValueError(f"{path}: not a workload_targets.json: no key {error}") from None
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: not a workload_targets.json: {error}") from None
    if not base:
        raise ValueError(f"{path}: not a workload_targets.json: no base workloads")
    return targets


def read_submission_names(folder: Path) -> dict[str, str]:
    """Return the ``submission_name`` of each submission below a folder, by the submission's folder.

    A name that several submissions have is left out, because it would not tell them apart.

    Raises:
        ValueError: There is no ``submission_info.yml``, or two are about one folder's name.
    """
    names: dict[str, str] = {}
    for place in sorted({path.parent for glob in INFO_GLOBS for path in folder.rglob(glob)}):
        name = read_info(place).get("submission_name", place.name)
        if names.setdefault(place.name, name) != name:
            raise ValueError(
                f"{folder}: two submissions lie in folders {place.name!r}, {names[place.name]!r} "
                f"and {name!r}. Choose the folder of one ruleset."
            )
    if not names:
        raise ValueError(f"{folder}: no submission_info.yml below it.")
    counts = Counter(names.values())
    return {place: name for place, name in names.items() if counts[name] == 1}
