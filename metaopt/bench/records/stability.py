"""The record of a measurement of sequential stability, Figure 3 of the paper.

Letters as in ``metaopt.theory.dynamics``: A_t the transitions of the dynamical system that a
network's training is, eta learning rate, delta weight decay, beta weight of the regulariser.
Definition 3 asks of every product of n consecutive transitions that its spectral norm be at most
kappa^2 (1 - gamma)^n. The *gap* of a product of n is n - 1, the paper's |r - s|.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic

from metaopt.bench.records.trials import Model, read_model

STABILITY_FILE = "stability.json"


class StabilitySetting(Model):
    """A network, its data and the constants of its training."""

    label: Annotated[str, pydantic.Field(min_length=1)]
    workload: Literal["mnist", "digits"]
    pool: Annotated[int, pydantic.Field(ge=1)]  # side of the squares of pixels that are averaged
    widths: tuple[Annotated[int, pydantic.Field(ge=1)], ...]  # of the hidden layers
    activation: Literal["tanh", "relu"] = "tanh"
    examples: Annotated[int, pydantic.Field(ge=1)] = 512  # of the one batch of a trial
    eta: Annotated[float, pydantic.Field(gt=0, allow_inf_nan=False)]
    delta: Annotated[float, pydantic.Field(ge=0, lt=1)]
    beta: Annotated[float, pydantic.Field(ge=0, allow_inf_nan=False)] = 0.0
    gradient_age: Literal[0, 1] = 1  # 1: the system as printed; 0: Algorithm 7's


class StabilityResult(Model):
    """The measurements in one setting, and the fit once every trial has ended."""

    setting: StabilitySetting
    parameters: int  # d
    gaps: tuple[int, ...]  # |r - s|
    # The largest norm over all starts, for each trial and gap; None for a trial that diverged.
    norms: tuple[tuple[float, ...] | None, ...]
    kappa: float | None = None  # of all trials together; None: unfinished, or one diverged
    gamma: float | None = None
    mean_kappa: float | None = None  # of the mean over trials, as in a figure of averages

    @pydantic.model_validator(mode="after")
    def _check_lengths(self) -> "StabilityResult":
        if any(row is not None and len(row) != len(self.gaps) for row in self.norms):
            raise ValueError("every trial must have one norm for each of `gaps`")
        return self

    @property
    def measured(self) -> list[tuple[float, ...]]:
        """The norms of the trials that did not diverge."""
        return [row for row in self.norms if row is not None]

    @property
    def decays(self) -> bool:
        """Whether Definition 3 holds with a decay.

        It does if for some n every product of n is below 1: then products of k n are below its
        k-th power, as long as steps stay as they were. That needs no fit.
        """
        rows = self.measured
        complete = len(rows) == len(self.norms) > 0
        return complete and min(map(max, zip(*rows, strict=True))) < 1


class StabilityRecord(Model):
    """The content of ``stability.json``."""

    schema_version: Literal[1] = 1
    kind: Literal["stability"] = "stability"
    name: str
    seed: int
    trials: int
    steps: int
    settings: tuple[StabilityResult, ...]
    environment: dict[str, Any]  # of the process that began
    started_at: str  # UTC, ISO 8601
    identity: Mapping[str, Mapping[str, str]] = {}  # what decides the norms; none in older records


def read_stability(path: Path) -> StabilityRecord:
    """Read a ``stability.json``, or the one in a folder.

    Raises:
        FileNotFoundError: It is missing.
        ValueError: It is not a stability record; names the file, the key and the rule.
    """
    path = path / STABILITY_FILE if path.is_dir() else path
    return read_model(path, StabilityRecord)
