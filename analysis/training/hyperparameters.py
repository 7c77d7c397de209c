"""Hyperparameters against outcomes: the trials of one contender on one workload as points.

    value       the objective of the tuners: the share of the trial's budget at which it met its
                target, else 1 plus the distance from the target; see
                ``bench.records.outcomes.value_of``
    rank        of the value among the trials, from 0 for the best to 1 for the worst
    explained   the share of the variance of ranks that a random forest explains on trials it has
                not seen (R squared)
    importance  half the mean squared error that shuffling the values of one hyperparameter adds,
                over that variance

With a perfect forest and independent hyperparameters, importance is Sobol's total effect: the share
of the variance that a hyperparameter explains, alone and in interactions.

Trials cut short by their study's budget are left out, because their outcomes are censored.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.logs.logs import Logs
from analysis.wording import plain
from metaopt.bench.records import TrialRecord
from metaopt.bench.records.outcomes import value_of

METHOD = (
    "Permutation importance: a random forest learns the rank of a trial's outcome from its "
    "hyperparameters, and is asked about trials it has not seen (3-fold cross-validation). "
    "Explained is the share of the variance of these ranks that its answers explain (R squared); "
    "importance is the share that one hyperparameter accounts for, alone and together with others: "
    "half the mean squared error that is added when its values are shuffled, over the variance. "
    "Both describe the trials that were run: if all values were near good ones, there is less to "
    "see. Contenders with too few trials, or whose outcomes cannot be predicted, are left out."
)
LEAST_TRIALS = 20
_TRIALS_EACH = 5  # smallest number of trials per hyperparameter that varies
_LEAST_EXPLAINED = 0.1  # below it, the forest predicts too little to be interpreted
_FOLDS, _TREES, _SHUFFLES = 3, 60, 10


@dataclasses.dataclass(frozen=True)
class Parameter:
    """A hyperparameter that varied.

    Attributes:
        values: The values, one per trial.
        places: The positions of the values on an axis from 0 to 1.
        logarithmic: Whether the axis is logarithmic.
        texts: Whether the values are names without an order.
    """

    name: str
    values: tuple[Any, ...]
    places: NDArray[np.float64]
    logarithmic: bool
    texts: bool


@dataclasses.dataclass(frozen=True)
class Points:
    """The trials of a contender on a workload with hyperparameters, without censored ones.

    Attributes:
        cut: The number of trials left out because the budget of their study cut them short.
    """

    contender: str
    workload: str
    parameters: tuple[Parameter, ...]  # the ones that varied
    outcomes: NDArray[np.float64]  # (trials,), the values
    records: tuple[TrialRecord, ...]
    cut: int = 0

    @property
    def ranks(self) -> NDArray[np.float64]:
        """The ranks of the outcomes, from 0 for the best to 1; equal outcomes share a rank."""
        from scipy.stats import rankdata

        return (rankdata(self.outcomes) - 1) / max(1, len(self.outcomes) - 1)


@dataclasses.dataclass(frozen=True)
class Importance:
    """The importance of a contender's hyperparameters on a workload, the largest first."""

    contender: str
    workload: str
    names: tuple[str, ...]
    means: tuple[float, ...]
    deviations: tuple[float, ...]  # over folds and shuffles
    explained: float
    trials: int


def points_of(logs: Logs, contender: str, workload: str) -> Points | None:
    """Return the trials as points; ``None`` for fewer than two, or if nothing varied."""
    tuned = [t.record for t in logs.of(contender, workload) if t.record.hyperparameters]
    records = [record for record in tuned if not _was_cut(record)]
    common = set.intersection(*(set(r.hyperparameters or ()) for r in records)) if records else ()
    columns = {name: tuple((r.hyperparameters or {})[name] for r in records) for name in common}
    parameters = [_place(name, values) for name, values in sorted(columns.items())]
    varied = tuple(parameter for parameter in parameters if parameter is not None)
    if len(records) < 2 or not varied:
        return None
    values = np.array([value_of(record) for record in records])
    return Points(contender, workload, varied, values, tuple(records), len(tuned) - len(records))


def all_points(logs: Logs) -> list[Points]:
    """Return the points of every workload and contender that has any."""
    pairs = [(name, workload) for workload in logs.workloads for name in logs.contenders]
    return [points for pair in pairs if (points := points_of(logs, *pair)) is not None]


def importance(points: Points, seed: int = 0) -> Importance | None:
    """Return the importance of each hyperparameter.

    Costs about 0.2 seconds.

    Args:
        points: The trials.
        seed: The seed of the forests, the folds and the shuffles.

    Returns:
        ``None`` if there are too few trials (fewer than 20, or than 5 for each hyperparameter),
        all outcomes are the same, or the forest explains less than a tenth of the variance.
    """
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.model_selection import KFold

    trials, count = len(points.outcomes), len(points.parameters)
    ranks = points.ranks
    if trials < max(LEAST_TRIALS, _TRIALS_EACH * count) or np.ptp(ranks) == 0:
        return None
    columns, owners = _features(points.parameters)
    generator = np.random.default_rng(seed)
    losses: list[NDArray[np.float64]] = []  # (shuffles, parameters) each
    errors: list[float] = []
    for train, test in KFold(_FOLDS, shuffle=True, random_state=seed).split(columns):
        forest = RandomForestRegressor(_TREES, min_samples_leaf=2, random_state=seed)
        forest.fit(columns[train], ranks[train])
        unseen, truth = columns[test], ranks[test]
        copies = [unseen]
        for _ in range(_SHUFFLES):
            order = generator.permutation(len(unseen))
            copies += [np.where(owners == i, unseen[order], unseen) for i in range(count)]
        # One call for all copies: sklearn's permutation_importance gives the same numbers but
        # takes 3 to 6 times as long, because each call has a large fixed cost.
        answers = forest.predict(np.concatenate(copies)).reshape(len(copies), len(unseen))
        squares = ((answers - truth) ** 2).mean(axis=1)
        errors.append(float(squares[0]) * len(test))
        losses.append((squares[1:] - squares[0]).reshape(_SHUFFLES, count))
    variance = float(np.var(ranks))
    explained = 1 - sum(errors) / trials / variance
    if explained < _LEAST_EXPLAINED:
        return None
    lost = np.concatenate(losses) / (2 * variance)
    means, deviations = lost.mean(axis=0), lost.std(axis=0)
    order = sorted(range(count), key=lambda i: (-means[i], points.parameters[i].name))
    return Importance(
        points.contender,
        points.workload,
        tuple(points.parameters[i].name for i in order),
        tuple(float(means[i]) for i in order),
        tuple(float(deviations[i]) for i in order),
        explained,
        trials,
    )


def _was_cut(record: TrialRecord) -> bool:
    return record.status == "study_budget" and record.reached is None


def _place(name: str, values: tuple[Any, ...]) -> Parameter | None:
    """Return a hyperparameter with its places; ``None`` if it did not vary."""
    if len(set(map(str, values))) < 2:
        return None
    if all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
        numbers = np.array(values, np.float64)
        if not np.isfinite(numbers).all() or numbers.min() == numbers.max():  # 1 and 1.0
            return None
        logarithmic = bool(numbers.min() > 0 and numbers.max() / numbers.min() >= 10)
        line = np.log(numbers) if logarithmic else numbers
        places = (line - line.min()) / (line.max() - line.min())
        return Parameter(name, values, places, logarithmic, texts=False)
    names = sorted(set(map(str, values)))
    places = np.array([names.index(str(value)) for value in values]) / (len(names) - 1)
    return Parameter(name, tuple(map(str, values)), places, logarithmic=False, texts=True)


def _features(
    parameters: Sequence[Parameter],
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return columns for a forest, (trials, columns), and the parameter index of each column."""
    columns: list[NDArray[np.float64]] = []
    owners: list[int] = []
    for index, parameter in enumerate(parameters):
        if parameter.texts:
            places = np.unique(parameter.places)
            columns += [(parameter.places == place).astype(np.float64) for place in places]
            owners += [index] * len(places)
        else:
            columns.append(parameter.places)
            owners.append(index)
    return np.column_stack(columns), np.array(owners)


def tick_labels(parameter: Parameter) -> list[tuple[float, str]]:
    """Return the tick positions and labels of a parameter's axis.

    These are all values if there are few, else the lowest, the middle and the highest.
    """
    if parameter.texts or len(set(parameter.values)) <= 5:
        known = dict(zip(parameter.places.tolist(), parameter.values, strict=True))
        return [(place, _value_text(value)) for place, value in sorted(known.items())]
    low, high = float(min(parameter.values)), float(max(parameter.values))
    middle = math.sqrt(low * high) if parameter.logarithmic else (low + high) / 2
    return [(0.0, _value_text(low)), (0.5, _value_text(middle)), (1.0, _value_text(high))]


def _value_text(value: Any) -> str:
    return f"{value:.2g}" if isinstance(value, int | float) else plain(value)[:14]
