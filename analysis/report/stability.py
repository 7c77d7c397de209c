"""The decay of products of transitions, Figure 3 of the paper: its record and table.

Letters as in ``metaopt.theory.dynamics``: A_t the transitions of the dynamical system that a
network's training is, eta learning rate, delta weight decay, beta weight of the regulariser.
Definition 3 asks of every product of n consecutive transitions that its spectral norm be at most
kappa^2 (1 - gamma)^n. The *gap* of a product of n is n - 1, the paper's |r - s|.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic

from analysis.report.table import COUNT, Column, Table, number_format

STABILITY_FILE = "stability.json"


class _Model(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")


class StabilitySetting(_Model):
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


class StabilityResult(_Model):
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


class StabilityRecord(_Model):
    """What ``stability.json`` holds."""

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
        FileNotFoundError: It is not there.
        ValueError: It is not such a record; names the file, the key and the rule.
    """
    path = path / STABILITY_FILE if path.is_dir() else path
    try:
        return StabilityRecord.model_validate_json(path.read_bytes())
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"{path}: {key or 'content'}: {first['msg']}") from None


def stability_table(record: StabilityRecord) -> Table:
    """Return one row for each setting: constants, fit, largest norms, and whether they decay."""
    last = record.steps - 1
    shown = sorted({0, min(1, last), last // 4, last // 2, last})
    columns = (
        Column("setting"), Column("data"), Column("d", COUNT),
        *(Column(name, number_format("g")) for name in ("eta", "delta", "beta")),
        Column("age", COUNT),
        Column("kappa", number_format(".2f")), Column("mean's", number_format(".2f")),
        Column("gamma", number_format(".3f")),
        *(Column(f"gap {gap}", number_format(".3f")) for gap in shown), Column("Assumption 2"),
    )  # fmt: skip
    rows = tuple(_row(result, shown, record.trials) for result in record.settings)
    caption = (
        f"Products of transitions, {record.trials} trials, {record.steps} steps: d parameters; "
        "age of the gradient, 1 as printed, 0 as in Algorithm 7; kappa and gamma of Definition 3, "
        "fitted to all trials, and the kappa of the mean over trials; the largest norm of all "
        "trials at each gap |r - s|. Assumption 2 holds if at some gap all norms are below 1; "
        "otherwise the steps show no decay."
    )
    return Table(caption, columns, rows, "stability")


def stability_summary(record: StabilityRecord) -> Table:
    """Return the columns of :func:`stability_table` that fit into a terminal."""
    whole = stability_table(record)
    names = ("setting", "eta", "delta", "beta", "kappa", "gamma", "Assumption 2")
    summary = whole.with_columns([whole.header.index(name) for name in names])
    caption = (
        f"Products of transitions, {record.trials} trials, {record.steps} steps. kappa and gamma "
        "of Definition 3, fitted to all trials. Assumption 2 holds if at some gap all norms are "
        "below 1; otherwise the steps show no decay. More in the report."
    )
    return dataclasses.replace(summary, caption=caption)


def _row(result: StabilityResult, shown: list[int], trials: int) -> tuple[Any, ...]:
    setting, rows = result.setting, result.measured
    diverged = len(result.norms) - len(rows)
    if len(result.norms) < trials:
        verdict = f"unfinished ({len(result.norms)}/{trials})"
    elif diverged:
        verdict = f"{diverged} diverged"
    else:
        verdict = "yes" if result.decays else "not shown"
    return (
        setting.label,
        setting.workload,
        result.parameters,
        setting.eta,
        setting.delta,
        setting.beta,
        setting.gradient_age,
        result.kappa,
        result.mean_kappa,
        result.gamma,
        *(max(row[gap] for row in rows) if rows else None for gap in shown),
        verdict,
    )
