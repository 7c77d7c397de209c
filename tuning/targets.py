"""Set a workload's targets by the stated procedure, so that they can tell contenders apart.

1.  Search: quasi-random points of each baseline's own space, one step hint each. The ten with the
    best final validation metrics run again from five new seeds, and the best median wins: the best
    of hundreds of single runs is often a lucky one, whose point fails from other seeds.
2.  Run that point from 20 further seeds, one step hint each, evaluated as a campaign evaluates.
3.  For f = 0.75, 0.6, 0.5, 0.4: the candidate is the value that 18 of the 20 runs have reached by
    the fraction f of the step hint. The first candidate is accepted for which (a) the cost to reach
    it has a standard deviation of at most a quarter of its mean over the 20 runs, where a run that
    does not reach it costs one hint, and (b) AdamW with random search reaches it in at least 8 of
    10 studies of 16 step hints, from seeds of their own.

On ``_fixed`` workloads the value is the training loss of the batch, studies have 8 step hints, and
a candidate below 1e-4 is raised to it. The test target is the worst test value among the runs that
met the validation target, taken where they met it.

Every trial's records stay in the output folder: a procedure that was killed resumes.
"""

import dataclasses
import math
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from metaopt.bench import records
from metaopt.bench.measure.targets import Target, WorkloadTargets
from metaopt.bench.records import TrialRecord
from metaopt.bench.trial.environment import describe_environment
from metaopt.workloads.registry import get_workload
from metaopt.workloads.supervised import SupervisedWorkload
from tuning.campaign import Campaign, make_campaign
from tuning.campaign_folder import claim_folder
from tuning.executor import UnfinishedError, run_in_process
from tuning.locks import hold
from tuning.studies import LOCKS, list_studies

VERSION = 2  # of the procedure; the targets of version 1 were medians of 20 best values
BASELINES = ("adamw", "nadamw", "momentum", "sgd")
POINTS = 100  # of each baseline
FINALISTS, FINAL_RUNS = 10, 5
RERUNS, MUST_REACH = 20, 18
FRACTIONS = (0.75, 0.6, 0.5, 0.4)
LARGEST_VARIATION = 0.25
CHECKED_BY, CHECKS, MUST_ARRIVE = "adamw+random", 10, 8
CHECK_BUDGET = {False: "16x", True: "8x"}  # by whether the batch is fixed
FIXED_TARGET = 1e-4
FIXED_BESIDE = (1e-2, 1e-6)
_STAGES = ("search", "reruns", "check", "finalists")
_SEEDS = {stage: 20_240_901 + index for index, stage in enumerate(_STAGES)}  # unlike campaigns'
_UNREACHABLE = 1e30  # times -1 or 1: every trial trains to its end

Curve = list[tuple[float, float, float]]  # cost in gradient evaluations, validation, test


class NoTargetError(ValueError):
    """No candidate was accepted: the workload has to change."""


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A value that was examined.

    Attributes:
        fraction: Of the step hint, by which 18 of the 20 runs have reached the value.
        value: The value.
        variation: Standard deviation over mean of the 20 runs' costs to reach it.
        reached: The number of the 20 runs that reached it.
        arrived: The number of the 10 studies of AdamW with random search that reached it.
    """

    fraction: float
    value: float
    variation: float
    reached: int
    arrived: int

    @property
    def accepted(self) -> bool:
        """Whether contenders can be told apart by it."""
        return self.variation <= LARGEST_VARIATION and self.arrived >= MUST_ARRIVE


def set_targets(
    name: str,
    out: Path,
    *,
    points: int = POINTS,
    say: Callable[[str], None] = lambda _: None,
) -> WorkloadTargets:
    """Run the procedure for one workload, or continue it.

    Args:
        name: The workload.
        out: Folder of the procedure's records, one folder in it for each workload.
        points: Search points for each baseline.
        say: Called with lines about the progress.

    Returns:
        The targets with their provenance.

    Raises:
        FileNotFoundError: The workload's data is missing.
        NoTargetError: No candidate was accepted; the message says what was measured.
        ValueError: Every trial of the search failed, or ``out`` holds something else.
    """
    workload = get_workload(name)
    workload.check_data()
    procedure = _Procedure(workload, out / name)
    submission, point, value = procedure.search(points)
    say(f"{name}: best of {points} points of each of {len(BASELINES)} baselines: {submission}")
    reruns = procedure.rerun(submission, point)
    studies = procedure.check()
    floor = FIXED_TARGET if workload.is_fixed_batch else None
    examined = []
    for fraction in FRACTIONS:
        candidate = examine(
            reruns, studies, fraction, workload.step_hint, procedure.unreachable, floor
        )
        examined.append(candidate)
        say(
            f"{name}: by {fraction:g} of the hint {candidate.value:.6g}, variation "
            f"{candidate.variation:.2f}, {CHECKED_BY} {candidate.arrived} of {len(studies)}"
        )
        if candidate.accepted:
            break
    else:
        raise NoTargetError(
            f"{name}: no target: no candidate repeats and is reached. Change the workload."
        )
    validation = dataclasses.replace(procedure.unreachable, value=candidate.value, version=VERSION)
    software = describe_environment()["software"]
    return WorkloadTargets(
        validation=validation,
        test=Target(
            f"test/{workload.target_metric}",
            worst_test_value(reruns, validation),
            validation.better,
            VERSION,
        ),
        step_hint=workload.step_hint,
        also=tuple(
            Target(validation.metric, beside, "lower", VERSION)
            for beside in FIXED_BESIDE
            if workload.is_fixed_batch
        ),
        provenance={
            "command": f"python -m tuning targets {name} --points {points}",
            "baselines": [*BASELINES],
            "points": points,
            "seeds": _SEEDS,
            "best": {
                "submission": submission,
                "hyperparameters": point,
                "median_final_value": value,
            },
            "finalists": FINALISTS,
            "runs_of_each_finalist": FINAL_RUNS,
            "reruns": len(reruns),
            "eval_period": procedure.eval_period,
            "examined": [dataclasses.asdict(candidate) for candidate in examined],
            "fraction": candidate.fraction,
            "share_reached": candidate.arrived / len(studies),
            "variation": candidate.variation,
            "software": {key: software[key] for key in ("jax", "flax", "optax", "numpy")},
        },
    )


class _Procedure:
    """The runs of the procedure on one workload: campaigns with an unreachable target."""

    def __init__(self, workload: SupervisedWorkload, folder: Path) -> None:
        self.workload = workload
        self.folder = folder
        value = -_UNREACHABLE if workload.better == "lower" else _UNREACHABLE
        self.unreachable = Target(f"validation/{workload.target_metric}", value, workload.better)
        self.eval_period = workload.eval_period

    def search(self, points: int) -> tuple[str, dict[str, Any], float]:
        """Return the submission, the point and the median final value of the best finalist."""
        trials = self._run("search", [f"{name}+qmc" for name in BASELINES], 1, f"{points}x")
        found = [
            (self._final(record, curve), record) for study in trials for record, curve in study
        ]
        found = sorted(
            (entry for entry in found if math.isfinite(entry[0])), key=lambda entry: entry[0]
        )[:FINALISTS]
        if not found:
            cause = next((r.cause for study in trials for r, _ in study if r.cause), "no value")
            raise ValueError(
                f"{self.workload.name}: every trial of the search failed, one with: {cause}"
            )
        finalists = [record for _, record in found]
        names = [f"finalist_{index}" for index in range(len(finalists))]
        variants = {
            name: {"of": f"{record.submission}+none", "hyperparameters": record.hyperparameters}
            for name, record in zip(names, finalists, strict=True)
        }
        again = self._run("finalists", names, FINAL_RUNS, "1x", variants)
        values: dict[str, list[float]] = {name: [] for name in names}
        for study in again:
            record, curve = study[0]
            values[record.contender].append(self._final(record, curve))
        medians = [statistics.median(values[name]) for name in names]
        best = medians.index(min(medians))
        point = finalists[best].hyperparameters
        assert point is not None
        return finalists[best].submission, point, self._sign * medians[best]

    @property
    def _sign(self) -> float:
        return 1.0 if self.unreachable.better == "lower" else -1.0

    def _final(self, record: TrialRecord, curve: Curve) -> float:
        """Return a trial's last validation value, signed so that less is better; failed: inf."""
        if record.status in records.FAILURES or not curve or not math.isfinite(curve[-1][1]):
            return math.inf
        return self._sign * curve[-1][1]

    def rerun(self, submission: str, point: dict[str, Any]) -> list[Curve]:
        """Return the curves of a point from 20 new seeds."""
        variants = {"best": {"of": f"{submission}+none", "hyperparameters": point}}
        trials = self._run("reruns", ["best"], RERUNS, "1x", variants)
        return [curve for study in trials for _, curve in study[:1]]

    def check(self) -> list[list[Curve]]:
        """Return the curves of all trials of each study of AdamW with random search."""
        budget = CHECK_BUDGET[self.workload.is_fixed_batch]
        return [
            [curve for _, curve in study]
            for study in self._run("check", [CHECKED_BY], CHECKS, budget)
        ]

    def _run(
        self,
        stage: str,
        contenders: list[str],
        studies: int,
        budget: str,
        variants: dict[str, Any] | None = None,
    ) -> list[list[tuple[TrialRecord, Curve]]]:
        """Run the studies that are not on disk; return the trials of each."""
        target = dataclasses.asdict(self.unreachable)
        del target["version"]
        campaign = make_campaign(
            {
                "name": f"targets_{stage}",
                "seed": _SEEDS[stage],
                "studies": studies,
                "budget": budget,
                "workloads": [self.workload.name],
                "contenders": contenders,
                "variants": variants or {},
                "targets": {self.workload.name: target},
                "stop_at_target": False,
            },
            f"targets, {stage}",
        )
        return self._run_campaign(campaign, self.folder / stage)

    def _run_campaign(self, campaign: Campaign, out: Path) -> list[list[tuple[TrialRecord, Curve]]]:
        keys = list_studies(campaign)
        with hold(out / LOCKS / "campaign.lock", f"Output folder {str(out)!r}"):
            identities = claim_folder(campaign, out, None)
            left = [k for k in keys if not (k.folder(out) / records.STUDY_FILE).exists()]
            # Audits of these runs are not read.
            found, errors = run_in_process(
                campaign, out, identities, left, set(), lambda key, share: None
            )
        if errors:
            raise UnfinishedError(errors, len(found))
        return [self._read_study(key.folder(out)) for key in keys]

    def _read_study(self, folder: Path) -> list[tuple[TrialRecord, Curve]]:
        names = ("gradient_evaluations", self.unreachable.metric,
                 f"test/{self.workload.target_metric}")  # fmt: skip
        trials = []
        for path in folder.glob(f"trial_*/{records.RUN_FILE}"):
            record = records.read_trial(path)
            rows = records.read_evaluations(path.with_name(records.EVAL_FILE))
            cost, validation, test = ([float(row[name]) for row in rows] for name in names)
            trials.append((record, [*zip(cost, validation, test, strict=True)]))
        return sorted(trials, key=lambda entry: entry[0].trial)


def examine(
    reruns: Sequence[Curve],
    studies: Sequence[Sequence[Curve]],
    fraction: float,
    step_hint: int,
    target: Target,
    floor: float | None = None,
) -> Candidate:
    """Examine the value that 18 of the 20 runs have reached by a fraction of the step hint.

    Args:
        reruns: The curves of one point from several seeds.
        studies: The curves of all trials of each study of the check.
        fraction: The fraction.
        step_hint: Also what a run costs that does not reach the value.
        target: Metric and direction.
        floor: The least value.
    """
    sign = 1.0 if target.better == "lower" else -1.0
    bests = sorted(
        min((sign * value for cost, value, _ in curve
             if cost <= fraction * step_hint and math.isfinite(value)), default=math.inf)
        for curve in reruns
    )  # fmt: skip
    value = sign * bests[MUST_REACH * len(reruns) // RERUNS - 1]
    if not math.isfinite(value):  # too many runs had failed by then
        return Candidate(fraction, value, math.inf, 0, 0)
    target = dataclasses.replace(target, value=value if floor is None else max(floor, value))
    costs = [first_cost(curve, target) for curve in reruns]
    counted = [step_hint if cost is None else cost for cost in costs]
    return Candidate(
        fraction,
        target.value,
        variation=statistics.stdev(counted) / statistics.mean(counted),
        reached=sum(cost is not None for cost in costs),
        arrived=sum(
            any(first_cost(curve, target) is not None for curve in study) for study in studies
        ),
    )


def first_cost(curve: Curve, target: Target) -> float | None:
    """Return the cost at which a curve first meets a target; ``None`` if it does not."""
    return next((cost for cost, value, _ in curve if target.is_met(value)), None)


def worst_test_value(reruns: Sequence[Curve], target: Target) -> float:
    """Return the worst test value of the runs that meet a target, taken where they meet it."""
    met = [
        next(test for _, value, test in curve if target.is_met(value))
        for curve in reruns
        if first_cost(curve, target) is not None
    ]
    return max(met) if target.better == "lower" else min(met)
