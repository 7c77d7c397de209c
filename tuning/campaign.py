"""Campaigns: contenders x workloads x studies under one budget, from a TOML file.

``campaign.json`` in an output folder holds the whole file and the changes of the command line. It
can be read instead of the file.
"""

import itertools
import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import pydantic

from metaopt.bench.contract.spaces import Point
from metaopt.bench.contract.suggestions import did_you_mean
from metaopt.bench.measure.budget import Budget, Currency, parse_budget
from metaopt.bench.measure.targets import Direction, Target
from metaopt.bench.records import CAMPAIGN_FILE, BudgetRecord
from metaopt.workloads.registry import get_workload
from metaopt.workloads.supervised import SupervisedWorkload
from tuning.contenders import Contender, make_variant, parse_contender

_SHIPPED = Path(__file__).parent / "campaigns"
_DEFAULT_EVALUATIONS = 16  # of a step hint, if neither campaign nor workload states a period


def _unique(names: list[str]) -> list[str]:
    if len(set(names)) != len(names):
        raise ValueError(f"names must differ, got {names}")
    return names


def _known_workloads(names: list[str]) -> list[str]:
    for name in names:
        get_workload(name)
    return names


_Names = Annotated[list[str], pydantic.Field(min_length=1), pydantic.AfterValidator(_unique)]


class Variant(pydantic.BaseModel):
    """A contender with some hyperparameters fixed."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")

    of: str
    hyperparameters: Point


class OwnTarget(pydantic.BaseModel):
    """A target that a campaign sets instead of the frozen one."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")

    metric: str
    value: Annotated[float, pydantic.Field(allow_inf_nan=False, strict=True)]
    better: Direction

    @pydantic.field_validator("metric")
    @classmethod
    def _check_split(cls, metric: str) -> str:
        if not metric.startswith("validation/"):
            raise ValueError("must be a metric of the validation split, as in 'validation/loss'")
        return metric


class Source(pydantic.BaseModel):
    """The origin of a campaign.

    Attributes:
        file: The name of a shipped campaign, or the file name of a user's, ``*.toml``.
        toml: The whole file.
        changes: Values that replace the file's, by key.
    """

    model_config = pydantic.ConfigDict(frozen=True)

    file: str
    toml: str
    changes: dict[str, Any] = {}

    @property
    def document(self) -> dict[str, Any]:
        """The file's content with the changes, unchecked.

        Where the changes name workloads or contenders, targets and variants of others are left out.
        """
        document = tomllib.loads(self.toml) | self.changes
        for names, table in (("workloads", "targets"), ("contenders", "variants")):
            if names in self.changes and isinstance(entries := document.get(table), dict):
                used = self.changes[names]
                document[table] = {name: entries[name] for name in entries if name in used}
        return document


class Campaign(pydantic.BaseModel):
    """A campaign file; see ``tuning/campaigns`` for examples.

    A relative budget such as ``"16x"`` is a multiple of the workload's step hint, in gradient
    evaluations (or, beside a study budget in another currency, of the step hint in steps, or of
    ``max_allowed_runtime_sec``).
    """

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, pydantic.Field(pattern=r"^[A-Za-z0-9_.-]+$")]
    seed: Annotated[int, pydantic.Field(ge=0)] = 1
    studies: Annotated[int, pydantic.Field(ge=1)] = 3
    budget: str
    trial_budget: str = "1x"
    eval_period: str | None = None
    workloads: Annotated[_Names, pydantic.AfterValidator(_known_workloads)]
    contenders: _Names
    variants: dict[str, Variant] = {}
    stop_at_target: bool = True
    targets: dict[str, OwnTarget] = {}
    # A trial without a step for this long has stalled: longer than any compilation.
    stall_seconds: Annotated[float, pydantic.Field(gt=0, allow_inf_nan=False)] = 1800.0
    _source: Source | None = None
    _contenders: dict[str, Contender] = {}

    @property
    def source(self) -> Source | None:
        """The file that the campaign was read from, if any."""
        return self._source

    @pydantic.model_validator(mode="after")
    def _check_contenders(self) -> "Campaign":
        try:
            for name, variant in self.variants.items():
                make_variant(name, variant.of, variant.hyperparameters)
        except ValueError as error:
            raise ValueError(f"variants: {error}") from None
        try:
            parsed = [self._parse(name) for name in self.contenders]
            _unique([contender.name for contender in parsed])
        except ValueError as error:
            raise ValueError(f"contenders: {error}") from None
        self._contenders = {contender.name: contender for contender in parsed}
        if stray := sorted(set(self.targets) - set(self.workloads)):
            raise ValueError(f"targets: {stray} are not among the workloads of this campaign")
        for name, target in self.targets.items():
            reported = getattr(get_workload(name), "metric_names", None)
            if reported is not None and target.metric not in reported:
                known = sorted(metric for metric in reported if metric.startswith("validation/"))
                raise ValueError(
                    f"targets: {name} reports no metric {target.metric!r}, only {known}"
                )
        return self

    @pydantic.model_validator(mode="after")
    def _check_budgets(self) -> "Campaign":
        for name in self.workloads:
            self.limits(get_workload(name))
        return self

    @property
    def contenders_by_name(self) -> dict[str, Contender]:
        """The contenders; a submission that is given by its path is named after its folder."""
        return self._contenders

    def _parse(self, name: str) -> Contender:
        if name not in self.variants:
            return parse_contender(name)
        variant = self.variants[name]
        return make_variant(name, variant.of, variant.hyperparameters)

    def targets_on(self, workload: SupervisedWorkload) -> tuple[Target, Target | None]:
        """Return the validation and the test target: the campaign's own, or the frozen ones.

        Raises:
            ValueError: There is neither.
        """
        own = self.targets.get(workload.name)
        if own is not None:
            return Target(own.metric, own.value, own.better), None
        return workload.targets.validation, workload.targets.test

    def limits(self, workload: SupervisedWorkload) -> BudgetRecord:
        """Return the budgets on one workload.

        Raises:
            ValueError: The currencies differ, or a trial is shorter than an evaluation period.
        """
        in_grads = Budget(workload.step_hint, "gradient_evaluations")
        study = _parse("budget", self.budget, in_grads)
        one = {
            "gradient_evaluations": in_grads,
            "steps": Budget(workload.step_hint, "steps"),
            "seconds": Budget(workload.max_allowed_runtime_sec, "seconds"),
        }[study.currency]
        trial = _parse("trial_budget", self.trial_budget, one)
        amount = min(trial.amount, study.amount)  # of one currency, or refused below
        period = self._eval_period(workload, study.currency, amount, one)
        for key, part in (("trial_budget", trial), ("eval_period", period)):
            if part.currency != study.currency:
                raise ValueError(
                    f"{key} = {str(part)!r} must be in the currency of budget = {str(study)!r}"
                )
        if period.amount > amount:
            raise ValueError(
                f"eval_period = {str(period)!r} does not fit into a trial of {amount:g} "
                f"{study.currency} on {workload.name}, which would never be evaluated"
            )
        return BudgetRecord(
            currency=study.currency, study=study.amount, trial=amount, eval_period=period.amount
        )

    def _eval_period(
        self, workload: SupervisedWorkload, currency: Currency, trial: float, one: Budget
    ) -> Budget:
        if self.eval_period is not None:
            return _parse("eval_period", self.eval_period, one)
        if currency == "seconds":
            return Budget(workload.eval_period_time_sec, "seconds")
        # AlgoPerf's workloads, and those of plug-ins, may have no period but one in seconds.
        own = getattr(workload, "eval_period", max(1, workload.step_hint // _DEFAULT_EVALUATIONS))
        return Budget(min(own, trial), currency)


def _parse(key: str, text: str, one: Budget) -> Budget:
    try:
        return parse_budget(text, one=one)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from None


def read_campaign(path: Path, **changes: Any) -> Campaign:
    """Read a campaign file.

    Args:
        path: The TOML file, the name of one in ``tuning/campaigns``, or a ``campaign.json``.
        changes: Values that replace the file's, by key; ``None`` keeps the file's.

    Raises:
        ValueError: The file is missing, not TOML, or breaks a rule; names key, rule and value.
    """
    source = read_source(path)
    given = {key: value for key, value in changes.items() if value is not None}
    source = source.model_copy(update={"changes": source.changes | given})
    campaign = make_campaign(source.document, str(path))
    campaign._source = source
    return campaign


def read_source(path: Path) -> Source:
    """Return a campaign file unchecked; ``path`` and errors as in :func:`read_campaign`."""
    name = path.name
    if not path.is_file() and (_SHIPPED / f"{path}.toml").is_file():
        name, path = str(path), _SHIPPED / f"{path}.toml"
    try:
        text = path.read_text("utf-8")
        if name == CAMPAIGN_FILE:
            return _recorded(text, path)
        tomllib.loads(text)
    except FileNotFoundError:
        names = list(list_campaigns())
        meant = did_you_mean(path, names)
        raise ValueError(f"No campaign file {str(path)!r}{meant}; there are {names}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not TOML: {error}") from None
    return Source(file=name, toml=text)


def _recorded(text: str, path: Path) -> Source:
    """Return the file that a ``campaign.json`` holds."""
    try:
        return Source.model_validate(json.loads(text)["source"])
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{path}: holds no campaign file. Use the file itself.") from None


def list_campaigns() -> dict[str, str]:
    """Return the summary of each shipped campaign: its comment up to the first stop or colon."""
    texts = {path.stem: path.read_text("utf-8") for path in sorted(_SHIPPED.glob("*.toml"))}
    return {
        name: re.split(r"[.:](?: |$)", " ".join(line.lstrip("# ") for line in _comment(text)))[0]
        for name, text in texts.items()
    }


def _comment(text: str) -> list[str]:
    return list(itertools.takewhile(lambda line: line.startswith("#"), text.splitlines()))


def make_campaign(document: dict[str, Any], source: str) -> Campaign:
    """Check a campaign; raises ``ValueError`` with the key, the rule and the value."""
    if document.get("kind") == "stability":
        raise ValueError(f"{source} measures stability. Use `python -m tuning stability {source}`.")
    try:
        return Campaign(**document)
    except pydantic.ValidationError as error:
        models = {"variants": Variant, "targets": OwnTarget}
        raise ValueError(f"{source}: {describe_problems(error, Campaign, models)}") from None


def describe_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Return the differences of two campaigns, ``""`` if there are none.

    Examples:
        >>> describe_changes({"seed": 1, "studies": 3}, {"seed": 2, "studies": 3})
        'seed: 1 there, 2 now'
    """
    return "; ".join(
        f"{key}: {before.get(key)!r} there, {now.get(key)!r} now"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    )


def only_adds(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Return whether ``now`` is ``before`` with more contenders, workloads or studies.

    A trial's seeds depend only on the campaign's seed, the workload, the study and the trial. So
    finished studies are the same in the larger campaign.

    Examples:
        >>> before = {"seed": 1, "contenders": ["a"], "workloads": ["v"], "studies": 3}
        >>> only_adds(before, before | {"contenders": ["a", "b"], "studies": 5})
        True
        >>> only_adds(before, before | {"contenders": ["b"]})
        False
    """
    lists, tables = ("contenders", "workloads"), {"variants": "contenders", "targets": "workloads"}
    free = {*lists, *tables, "studies"}
    if any(before.get(key) != now.get(key) for key in (before.keys() | now.keys()) - free):
        return False
    for table, names in tables.items():
        old, new = before.get(table) or {}, now.get(table) or {}
        # A new entry must not change a contender or a workload that has run.
        if (set(new) - set(old)) & set(before[names]) or any(new.get(k) != old[k] for k in old):
            return False
    grown = all(set(before[key]) <= set(now[key]) for key in lists)
    return grown and before["studies"] <= now["studies"]


def describe_problems(
    error: pydantic.ValidationError,
    model: type[pydantic.BaseModel],
    inner: Mapping[str, type[pydantic.BaseModel]],
) -> str:
    """Return one line with the key, the rule and the value of every mistake in a campaign file.

    Args:
        error: The error of pydantic.
        model: The model of the file; its keys are listed for an unknown one.
        inner: The models of nested tables, by key, for the same purpose.
    """
    problems = []
    for detail in error.errors(include_url=False):
        key = ".".join(str(part) for part in detail["loc"])
        message = detail["msg"].removeprefix("Value error, ")
        plain = detail["type"] not in ("value_error", "missing", "extra_forbidden")
        given = f", got {detail['input']!r}" if plain else ""
        if detail["type"] == "extra_forbidden":
            where = model if len(detail["loc"]) == 1 else inner[str(detail["loc"][0])]
            given = f"; known are {list(where.model_fields)}"
        problems.append(f"{key + ': ' if key else ''}{message}{given}")
    return "; ".join(problems)
