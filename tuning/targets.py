"""Set a workload's targets by the stated procedure, from the baselines' own search spaces.

1.  Search: draw the same number of random points from each baseline's space, train every point for
    0.75 of the step hint, and keep the point with the best validation metric.
2.  Rerun that point from 20 new seeds.
3.  Validation target: the median of the 20 best values. Test target: among the runs that met the
    validation target, the worst test value at the best validation evaluation.

On ``_fixed`` workloads the target is the larger of 1e-4 and the value of the procedure.
"""

import math
import shutil
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from metaopt.bench import records
from metaopt.bench.measure.seeds import derive_seed
from metaopt.bench.measure.targets import Target, WorkloadTargets
from metaopt.bench.records import TrialRecord
from metaopt.bench.records.outcomes import value_of
from metaopt.bench.trial.environment import describe_environment
from metaopt.bench.trial.plan import derive_seeds, plan_trial
from metaopt.bench.trial.runner import run_trial
from metaopt.workloads.registry import get_workload
from metaopt.workloads.supervised import SupervisedWorkload
from tuning.contenders import Contender, parse_contender
from tuning.tuners import OptunaTuner

BASELINES = ("adamw", "momentum", "sgd")
STOP = 0.75  # of the step hint
SEEDS = 20
FIXED_TARGET = 1e-4
FIXED_BESIDE = (1e-2, 1e-6)
_SEARCH_SEED = 20_240_901  # of the procedure, far from the seeds of campaigns
_EVALUATIONS = 16  # in a trial of one step hint, as in a campaign without a period

_UNREACHABLE = 1e30  # times -1 or 1: every trial of the search trains to its end


def set_targets(
    name: str, *, trials: int, say: Callable[[str], None] = lambda _: None
) -> WorkloadTargets:
    """Run the procedure for one workload.

    Args:
        name: The workload.
        trials: Search trials for each baseline.
        say: Called with a line about the progress.

    Returns:
        The targets with their provenance.

    Raises:
        FileNotFoundError: The workload's data is missing.
        ValueError: Every trial of the search failed.
    """
    workload = get_workload(name)
    workload.check_data()
    search = _Search(workload)
    try:
        found, error = [], None
        for baseline in BASELINES:
            contender = parse_contender(f"{baseline}+random")
            tuner = contender.make_tuner(derive_seed(_SEARCH_SEED, name, 1, "tuner"))
            assert isinstance(tuner, OptunaTuner)
            for _ in range(trials):
                point = tuner.ask()
                record = search.run(contender, point, study=1)
                tuner.tell(value_of(record))
                error = record.error
                if record.best is not None:
                    found.append((record.best, contender, point))
            say(f"{name}: {baseline}: {trials} trials")
        if not found:
            last = (error or "no value").strip().splitlines()[-1]
            raise ValueError(f"{name}: every trial of the search failed, the last with: {last}")
        sign = 1.0 if search.target.better == "lower" else -1.0
        _, contender, point = min(found, key=lambda entry: sign * entry[0])
        reruns = [search.run(contender, point, study=study) for study in range(2, 2 + SEEDS)]
        bests = [math.inf * sign if r.best is None else r.best for r in reruns]
        tests = [search.test_value(number) for number in range(2, 2 + SEEDS)]
    finally:
        search.close()
    median = statistics.median(bests)
    value = max(FIXED_TARGET, median) if workload.is_fixed_batch else median
    validation = Target(search.target.metric, value, search.target.better)
    met = [test for best, test in zip(bests, tests, strict=True) if validation.is_met(best)]
    worst = max(met, key=lambda test: sign * test)
    test_value = value if workload.is_fixed_batch else worst
    metric = workload.target_metric
    software = describe_environment()["software"]
    return WorkloadTargets(
        validation=validation,
        test=Target(f"test/{metric}", test_value, validation.better),
        step_hint=workload.step_hint,
        also=tuple(
            Target(validation.metric, beside, "lower")
            for beside in FIXED_BESIDE
            if workload.is_fixed_batch
        ),
        provenance={
            "command": f"python -m tuning targets {name} --trials {trials}",
            "search": f"{trials} trials of each of {', '.join(BASELINES)}, search seed "
            f"{_SEARCH_SEED}, stopped at {STOP} of the step hint",
            "best": {"submission": contender.submission.name, "hyperparameters": point},
            "reruns": SEEDS,
            "median_of_best": median,
            "runs_that_met_it": len(met),
            "software": {key: software[key] for key in ("jax", "flax", "optax", "numpy")},
        },
    )


class _Search:
    """Trials on one workload with an unreachable target, in a temporary folder."""

    def __init__(self, workload: SupervisedWorkload) -> None:
        self.workload = workload
        value = -_UNREACHABLE if workload.better == "lower" else _UNREACHABLE
        self.target = Target(f"validation/{workload.target_metric}", value, workload.better)
        self.folder = Path(tempfile.mkdtemp(prefix="metaopt-targets-"))
        self.count = 0
        self.rows: dict[int, list[dict[str, Any]]] = {}

    def run(self, contender: Contender, point: Any, study: int) -> TrialRecord:
        """Run one trial; study 1 is the search, other studies are reruns from other seeds."""
        workload = self.workload
        self.count += 1
        seeds = derive_seeds(_SEARCH_SEED, workload, study, 1)
        if workload.is_fixed_batch:
            workload = workload.with_batch_seed(seeds.fixed_batch)  # type: ignore[attr-defined]
        budget = STOP * workload.step_hint
        period = 1 if workload.is_fixed_batch else max(1, workload.step_hint // _EVALUATIONS)
        plan = plan_trial(
            contender.submission,
            workload,
            campaign="targets",
            contender=contender.name,
            space=contender.space,
            study=study,
            trial=1,
            seeds=seeds,
            hyperparameters=point,
            budget=records.BudgetRecord(
                currency="gradient_evaluations", study=budget, trial=budget, eval_period=period
            ),
            target=self.target,
            test_target=None,
        )
        folder = self.folder / str(self.count)
        record = run_trial(plan, folder)
        self.rows[study] = records.read_evaluations(folder / records.EVAL_FILE)
        shutil.rmtree(folder)
        return record

    def test_value(self, study: int) -> float:
        """Return a rerun's test metric at its best validation metric."""
        sign = 1.0 if self.target.better == "lower" else -1.0
        metric = self.target.metric
        rows = [row for row in self.rows[study] if not math.isnan(row[metric])]
        best = min(rows, key=lambda row: sign * row[metric], default={})
        return best.get(f"test/{self.workload.target_metric}", math.nan)

    def close(self) -> None:
        """Delete the temporary folder."""
        shutil.rmtree(self.folder, ignore_errors=True)
