"""The procedure that sets targets, with few trials."""

import dataclasses

import pytest

import tuning.targets
from metaopt.workloads.registry import get_workload
from tuning.targets import set_targets


@pytest.mark.parametrize("name", ["breast_cancer_logistic", "breast_cancer_logistic_fixed"])
def test_half_of_the_reruns_meet_the_target_and_the_test_target_is_the_worst_of_them(
    name, monkeypatch
):
    reruns = 5
    monkeypatch.setattr(tuning.targets, "SEEDS", reruns)
    monkeypatch.setattr(tuning.targets, "FIXED_TARGET", 0.0)
    seen, run = [], tuning.targets._Search.run

    def watched(search, contender, point, study):
        record = run(search, contender, point, study)
        seen.append((record, contender.submission.name, point, search.test_value(study)))
        return record

    monkeypatch.setattr(tuning.targets._Search, "run", watched)

    found = set_targets(name, trials=2)

    search, again = seen[:-reruns], seen[-reruns:]
    best = min(search, key=lambda entry: entry[0].best)
    assert len(search) == 2 * 3  # of each baseline
    assert all(entry[1:3] == best[1:3] for entry in again)
    assert found.provenance["best"] == {"submission": best[1], "hyperparameters": best[2]}
    assert found.validation.value == sorted(entry[0].best for entry in again)[reruns // 2]
    met = [test for record, _, _, test in again if record.best <= found.validation.value]
    assert found.provenance["runs_that_met_it"] == len(met) == reruns // 2 + 1
    assert found.test.value == max(met)
    budgets = {record.ledger.cost.gradient_evaluations for record, *_ in seen}
    assert budgets == {0.75 * found.step_hint}


def test_a_search_in_which_everything_fails_is_refused(monkeypatch):
    monkeypatch.setattr(tuning.targets, "BASELINES", ("sgd",))
    monkeypatch.setattr(
        "metaopt.workloads.supervised.SupervisedWorkload.init_model_fn", lambda self, rng: 1 / 0
    )

    with pytest.raises(ValueError, match="the last with: ZeroDivisionError"):
        set_targets("breast_cancer_logistic", trials=1)


@pytest.mark.parametrize(
    "metric, better, extreme",
    [
        ("loss", None, -1e9), ("accuracy", None, 1.0), ("bleu", None, 100.0), ("gain", "higher", 9),
        ("bleu", "lower", 0.0),
    ],
)  # fmt: skip
def test_nothing_meets_the_targets_of_the_search_whatever_the_metric(metric, better, extreme):
    workload = dataclasses.replace(
        get_workload("digits_mlp"), target_metric=metric, target_better=better,
        more_metrics=lambda *_: {},
    )  # fmt: skip

    search = tuning.targets._Search(workload)
    search.close()

    assert not search.target.is_met(extreme)
    better_value = -2e30 if search.target.better == "lower" else 2e30
    assert search.target.is_met(better_value)
    assert search.target.better == (better or ("lower" if metric == "loss" else "higher"))
