"""Records of trials and studies: the content of ``run.json`` and ``study.json``. Needs no JAX."""

from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import pydantic

from metaopt.bench.measure.budget import Currency
from metaopt.bench.measure.targets import Target

_M = TypeVar("_M", bound=pydantic.BaseModel)

SCHEMA_VERSION = 1  # of run.json, study.json and campaign.json


# Why a trial ended. The last four are failures: a miss, at the cost it had.
Status = Literal[
    "target",  # met its validation target
    "trial_budget",  # spent its own budget
    "study_budget",  # cut where the study's budget ended
    "completed",  # the submission said that it is done
    "pruned",  # stopped by its tuner
    "paused",  # at a rung of its tuner, which never called it back
    "diverged",  # a metric that is NaN or infinite
    "crashed",  # raised; the traceback is kept
    "out_of_memory",
    "stalled",  # took no step for too long: it did not return
    "invalid",  # broke the contract: wrong structure, shape or dtype
]
FAILURES: frozenset[str] = frozenset({"diverged", "crashed", "out_of_memory", "stalled", "invalid"})
# Failures of code or memory. Training itself can diverge, at a large learning rate.
ERRORS = FAILURES - {"diverged"}

# Why a study ended.
StudyEnd = Literal[
    "budget",  # was spent
    "grid_exhausted",  # its tuner had no point left
    "failures",  # too many trials in a row cost nothing
    # Of the tuner `long`, whose only trial
    "target",  # met its target
    "completed",  # said that it is done
    "trial_failed",
]


class Model(pydantic.BaseModel):
    """Plain data that is written to disk as JSON: frozen, no unknown keys, finite numbers only."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Cost(Model):
    """A cost in all three currencies."""

    steps: int = 0
    gradient_evaluations: float = 0.0
    # Of the submission: selection, update, prepare-for-eval. A study's are its tuner's too.
    seconds: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            steps=self.steps + other.steps,
            gradient_evaluations=self.gradient_evaluations + other.gradient_evaluations,
            seconds=self.seconds + other.seconds,
        )

    def __sub__(self, other: "Cost") -> "Cost":
        return Cost(
            steps=self.steps - other.steps,
            gradient_evaluations=self.gradient_evaluations - other.gradient_evaluations,
            seconds=self.seconds - other.seconds,
        )

    def amount(self, currency: Currency) -> float:
        """Return the cost in one currency."""
        return getattr(self, currency)


class Ledger(Model):
    """The cost of a trial by purpose."""

    cost: Cost
    examples: int = 0  # that entered optimizer steps
    declared: bool = False  # the submission itself reported its gradient evaluations
    compilation_seconds: float = 0.0  # also part of cost.seconds
    evaluation_seconds: float = 0.0  # untimed, as in AlgoPerf
    logging_seconds: float = 0.0  # records and checkpoints, untimed
    tuner_seconds: float = 0.0  # deciding on this trial; the study pays them, the trial does not
    largest_step: float = 0.0  # cost of the most expensive step, in the budget's currency
    restarts: int = 0  # by the submission's count: steps that went back to a better point


class Reached(Model):
    """Where a trial first met its validation target."""

    evaluation: int  # row of eval_measurements.csv, from 0
    cost: Cost  # of the trial, up to that row
    episode_cost: Cost  # "given tuned": since the episode's restart, compilation left out


class Segment(Model):
    """A part of a trial that has run: from its start or a pause to the next pause or its end."""

    rung: float | None = None  # cost of the trial at which it was to pause; None: at its own end
    spent_before: Cost  # of the study at the start of the segment, the tuner's decision included
    start: Cost  # of the trial, at the start of the segment
    end: Cost  # of the trial, at the end of the segment
    evaluations: int  # rows of eval_measurements.csv by the end of the segment
    tuner_seconds: float = 0.0  # deciding on this segment

    @property
    def cost(self) -> Cost:
        """The cost of the segment itself."""
        return self.end - self.start


class Seeds(Model):
    """The seeds of one trial. Equal for all contenders of a campaign: that pairs them."""

    campaign: int
    trial: int  # initial parameters, data order, dropout
    tuner: int | None = None  # the sampler's, one per study; None without a tuner
    fixed_batch: int | None = None  # the batch of a `_fixed` workload; once, each study had its own


class BudgetRecord(Model):
    """The budgets in force, all in one currency."""

    currency: Currency
    study: float
    trial: float
    eval_period: float


class TrialSettings(Model):
    """The facts about a trial that are known before it runs; its record repeats them."""

    campaign: str
    contender: str  # submission[@space][+tuner]
    submission: str
    # SHA-256 of what decides its result: of identity.json. In records of studies that have none, of
    # the submission's Python files.
    digest: str = ""
    space: str | None = None  # the name of the search space; None: the submission's own, or none
    # The search space as it was, in AlgoPerf's form, with the values that a variant fixes; None
    # where nothing is searched.
    search_space: dict[str, Any] | list[dict[str, Any]] | None = None
    tuner: dict[str, Any] | None = None  # its name, version and every argument
    ruleset: Literal["external", "self-tuning"]
    workload: str
    study: int  # from 1
    trial: int  # from 1
    seeds: Seeds
    hyperparameters: dict[str, float | int | str | bool] | None
    budget: BudgetRecord
    target: Target  # validation
    test_target: Target | None
    stop_at_target: bool = True  # False: the trial trains on after it met its target
    # The step hint that the submission saw, if it was not the workload's: of the tuner `long`.
    stretched_step_hint: int | None = None
    developed_here: bool = False  # the submission says that it was designed with this workload


class TrialRecord(TrialSettings):
    """One trial: everything about it but its evaluation rows, which are in the CSV."""

    schema_version: Literal[1] = SCHEMA_VERSION
    batch_size: int
    reference_batch_size: int
    step_hint: int
    status: Status
    cause: str | None = None  # of a failure, on one line: type, message, line of the submission
    error: str | None = None  # its traceback, if something was raised
    ledger: Ledger
    segments: Annotated[tuple[Segment, ...], pydantic.Field(min_length=1)]  # two with one pause
    reached: Reached | None
    best: float | None  # best validation metric
    preemptions: int = 0
    environment: dict[str, Any]  # software, hardware, git; see metaopt.bench.trial.environment
    started_at: str  # UTC, ISO 8601
    data: dict[str, Any] | None = None  # files with SHA-256, examples, whether it is the whole set
    data_restored: Literal["exact", "replayed"] = "exact"  # how a killed trial finds its place

    @property
    def spent_before(self) -> Cost:
        """The cost of the study when this trial began, the tuner's decision included."""
        return self.segments[0].spent_before

    def spent_at(self, cost: Cost) -> Cost:
        """Return what the study had spent when this trial had cost ``cost``.

        Between two segments of a trial the study spends on other trials. A cost at a pause belongs
        to the segment that ended there.
        """
        for segment in reversed(self.segments):
            if segment.start.steps < cost.steps:
                return segment.spent_before + (cost - segment.start)
        return self.spent_before + cost


class StudyRecord(Model):
    """One study: its totals and why it ended."""

    schema_version: Literal[1] = SCHEMA_VERSION
    campaign: str
    contender: str
    workload: str
    study: int
    ended: StudyEnd
    trials: int
    spent: Cost
    budget: BudgetRecord
    tuner_seconds: float
    # Cost of its most expensive step, in the budget's currency; in seconds, the slowest decision is
    # added.
    largest_step: float
    # Of earlier attempts at the study whose machine died with their files; not charged.
    lost_seconds: float = 0.0

    @property
    def tolerance(self) -> float:
        """How far its spent budget may be from its budget: no step, no decision is cut in two."""
        return max(self.budget.eval_period, self.largest_step)

    @property
    def budget_gap(self) -> float:
        """The distance between the spent amount and the budget."""
        return abs(self.spent.amount(self.budget.currency) - self.budget.study)

    @property
    def spent_all(self) -> bool:
        """Whether it spent its budget, to within its tolerance."""
        return self.budget_gap <= self.tolerance


def read_trial(path: Path) -> TrialRecord:
    """Read a ``run.json``.

    Raises:
        ValueError: It is not one; the message names the file, the key and the rule.
    """
    return read_model(path, TrialRecord)


def read_study(path: Path) -> StudyRecord:
    """Read a ``study.json``; raises like :func:`read_trial`."""
    return read_model(path, StudyRecord)


def read_model(path: Path, model: type[_M]) -> _M:
    """Read a JSON file as a model; raises like :func:`read_trial`."""
    try:
        return model.model_validate_json(path.read_bytes())
    except pydantic.ValidationError as error:
        raise ValueError(f"{path}: {describe_invalid(error)}") from None


def describe_invalid(error: pydantic.ValidationError) -> str:
    """Return the first key that breaks a rule, and the rule."""
    first = error.errors(include_url=False)[0]
    return f"{'.'.join(map(str, first['loc'])) or 'content'}: {first['msg']}"
