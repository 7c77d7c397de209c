"""Costs to target, profiles and scores against hand-made tables and brute force."""

import dataclasses
import math
import random
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.checks.fairness import early_ends, missing_studies, random_only_studies
from analysis.checks.validation import problem_sentences
from analysis.logs.reader import read_logs
from analysis.scoring.benchmark import Benchmark
from analysis.scoring.costs import cost_factors, costs_by_pair, pass_ratios, time_factors
from analysis.scoring.profiles import LOGARITHMIC, Axis, profile, profile_area, ratios
from analysis.scoring.scores import score_logs
from metaopt.bench.measure.targets import Target
from metaopt.bench.records.audit import AuditedWindow, AuditRecord

INF = math.inf
GRADS = "gradient_evaluations"


def test_the_hand_made_table(hand_made):
    # a on easy: study 1 hits in trial 2 at 100 and trial 3 at 50; study 2 at once; study 3 last.
    # a on hard lacks study 3, which is a miss.
    logs = read_logs(hand_made())

    cells = costs_by_pair(logs, GRADS)

    assert cells["a+halton", "easy"].given == (50.0, 200.0, 10.0)
    assert cells["a+halton", "easy"].including == (350.0, 200.0, 760.0)
    assert cells["b+halton", "easy"].given == (80.0, 70.0, 90.0)
    assert cells["b+halton", "easy"].including == (80.0, 320.0, 90.0)
    assert cells["a+halton", "hard"].including == (750.0, 750.0, INF)
    assert cells["b+halton", "hard"].including == (INF, INF, 240.0)
    assert cells["a+halton", "hard"].reached == 2


def test_scores_of_the_hand_made_table(hand_made):
    scores = score_logs(read_logs(hand_made()))

    # Medians including tuning: easy a 350, b 90; hard a 750, b inf.
    along = 1 - math.log(350 / 90) / math.log(32)
    assert scores.scores["a+halton"]["including"] == pytest.approx((along + 1) / 2)
    assert scores.scores["b+halton"]["including"] == pytest.approx(0.5)
    # Given tuned: easy a 50, b 80; hard a 250, b inf.
    assert scores.scores["a+halton"]["given"] == pytest.approx(1.0)
    assert scores.scores["b+halton"]["given"] == pytest.approx((4 - 80 / 50) / 2 / 3)
    assert scores.contenders == ("a+halton", "b+halton")


def test_a_start_that_meets_the_target_costs_nothing_and_is_best():
    costs = np.array([[0.0], [0.0], [5.0], [INF]])

    np.testing.assert_array_equal(ratios(costs), [[1], [1], [INF], [INF]])


def test_contenders_without_a_reached_target_or_without_logs_score_zero(build, tmp_path):
    b = build(tmp_path, ["a", "b", "ghost"], ["w"], 1)
    b.trial("a", "w", 1, 100.0, reached=100.0)
    b.trial("b", "w", 1, 100.0)

    scores = score_logs(read_logs(tmp_path)).scores

    assert scores["a"]["including"] == 1.0
    assert scores["b"] == scores["ghost"] == {"including": 0.0, "given": 0.0}


def test_without_a_campaign_the_largest_study_says_how_many_there_are(build, tmp_path):
    b = build(tmp_path, ["a", "b"], ["w"], 1)
    for contender, study in [("a", 1), ("a", 2), ("a", 3), ("b", 1)]:
        b.trial(contender, "w", study, 100.0, reached=100.0)
    (tmp_path / "campaign.json").unlink()

    scores = score_logs(read_logs(tmp_path))

    assert scores.studies == 3
    assert scores.cells["b", "w"].including == (100.0, INF, INF)
    assert scores.scores["b"]["including"] == 0.0


def test_a_miss_is_a_miss_in_every_currency(build, tmp_path):
    b = build(tmp_path, ["a"], ["w"], 1, budget=300.0)
    b.trial("a", "w", 1, 250.0)
    b.trial("a", "w", 1, 60.0, reached=51.0)

    assert costs_by_pair(read_logs(tmp_path), "seconds")["a", "w"].given == (INF,)


def test_missing_studies_are_named(hand_made):
    assert missing_studies(read_logs(hand_made())) == ["a+halton on hard, study 3"]


def test_scores_know_neither_units_nor_the_order_of_files(hand_made, tmp_path):
    plain = score_logs(read_logs(hand_made(tmp_path / "one")))
    other = read_logs(hand_made(tmp_path / "two", scale=60.0))
    shuffled = list(other.trials)
    random.Random(0).shuffle(shuffled)
    object.__setattr__(other, "trials", tuple(shuffled))

    for name, views in score_logs(other).scores.items():
        assert views == pytest.approx(plain.scores[name])


def test_another_currency_gives_another_column(hand_made):
    cells = costs_by_pair(read_logs(hand_made()), "seconds")

    assert cells["b+halton", "easy"].given == pytest.approx((0.8, 0.7, 0.9))


def test_including_is_never_below_given(hand_made):
    for cell in costs_by_pair(read_logs(hand_made()), GRADS).values():
        assert all(i >= g for i, g in zip(cell.including, cell.given, strict=True))


def test_a_hit_beyond_the_budget_does_not_count(build, tmp_path):
    b = build(tmp_path, ["a"], ["w"], 1, budget=300.0)
    b.trial("a", "w", 1, 250.0)
    b.trial("a", "w", 1, 60.0, reached=51.0)

    assert costs_by_pair(read_logs(tmp_path), GRADS)["a", "w"].including == (INF,)


def test_a_hit_at_the_budget_counts(build, tmp_path):
    b = build(tmp_path, ["a"], ["w"], 1, budget=300.0)
    b.trial("a", "w", 1, 250.0)
    b.trial("a", "w", 1, 50.0, reached=50.0)

    assert costs_by_pair(read_logs(tmp_path), GRADS)["a", "w"].including == (300.0,)


def test_given_tuned_counts_from_the_restart_of_the_episode(build, tmp_path):
    b = build(tmp_path, ["m"], ["w"], 1)
    b.trial("m", "w", 1, 900.0, reached=800.0, episode_cost=120.0)

    cell = costs_by_pair(read_logs(tmp_path), GRADS)["m", "w"]

    assert (cell.given, cell.including) == ((120.0,), (800.0,))


TABLES = st.lists(
    st.lists(st.one_of(st.floats(1, 1e4), st.just(INF)), min_size=3, max_size=3),
    min_size=1,
    max_size=5,
)


@given(TABLES)
def test_the_exact_area_is_the_integral_of_the_profile(table):
    r = ratios(np.array(table))
    tau = np.linspace(1, 4, 30_001)

    areas = profile_area(r)

    for row, area in zip(r, areas, strict=True):
        rho = (row[:, None] <= tau).mean(axis=0)
        assert area == pytest.approx(np.trapezoid(rho, tau) / 3, abs=2e-4)
        steps, heights = profile(row)
        assert area == pytest.approx(np.sum(np.diff(steps) * heights[:-1]) / 3, abs=1e-9)


@given(TABLES, st.floats(1e-3, 1e3))
def test_scores_are_between_0_and_1_and_scale_free(table, factor):
    costs = np.array(table)

    areas = profile_area(ratios(costs))

    assert np.all((areas >= 0) & (areas <= 1))
    np.testing.assert_allclose(profile_area(ratios(costs * factor)), areas, atol=1e-9)
    for row, area in zip(costs, areas, strict=True):
        if np.isinf(row).all():
            assert area == 0


def test_a_workload_without_a_reached_target_adds_to_no_score():
    areas = profile_area(ratios(np.array([[1.0, INF], [1.0, np.nan]])))

    np.testing.assert_allclose(areas, 0.5)


def test_a_limit_of_one_is_refused():
    with pytest.raises(ValueError, match="`limit` must be above 1"):
        Axis(1.0)


def test_scores_on_the_logarithmic_axis_are_those_of_a_table_made_by_hand():
    # Powers of 2 lie evenly on an axis that ends at 32 = 2 ** 5.
    costs = np.array([[10.0, 80.0, INF], [20.0, 10.0, 7.0], [320.0, 330.0, INF]])

    scores = Benchmark(("u", "v", "w")).score(costs, "including")

    np.testing.assert_allclose(scores, [(1 + 2 / 5 + 0) / 3, (4 / 5 + 1 + 1) / 3, 0], atol=1e-12)


@given(TABLES)
def test_the_logarithmic_score_is_the_area_under_the_profile_over_log_ratios(table):
    r = ratios(np.array(table))

    areas = profile_area(r, LOGARITHMIC)

    for row, area in zip(r, areas, strict=True):
        tau, rho = profile(row, 32.0)
        steps = np.diff(np.log2(tau)) / 5
        assert area == pytest.approx(np.sum(steps * rho[:-1]), abs=1e-9)


def test_a_variant_is_a_miss_beyond_the_end_of_the_axis_of_its_view():
    # The second contender takes 10 times the best cost on the variant.
    costs = np.array([[1.0, 1.0], [1.0, 10.0]])
    benchmark = Benchmark(("w",), {"variant": "w"})

    np.testing.assert_allclose(benchmark.score(costs, "given"), [1, 0])
    np.testing.assert_allclose(benchmark.score(costs, "including"), [1, 1])


def test_unequal_budgets_are_said_and_early_ends_are_named(build, tmp_path):
    b = build(tmp_path, ["a", "g", "s"], ["w"], 1)
    b.trial("a", "w", 1, 950.0)
    b.study("a", "w", 1)
    b.trial("g", "w", 1, 100.0)
    b.study("g", "w", 1, ended="grid_exhausted")
    b.trial("s", "w", 1, 300.0, reached=300.0)
    b.study("s", "w", 1, ended="failures")

    logs = read_logs(tmp_path)

    assert problem_sentences("budgets-spent", logs) == ["a on w, study 1: spent 950 of 1,000"]
    assert early_ends(logs) == [
        "g: its grid was exhausted in 1 of 1 studies, 10% of the budget spent",
        "s: its trials cost nothing in 1 of 1 studies, 30% of the budget spent",
    ]


def test_a_tuner_that_never_used_its_model_is_named(build, tmp_path):
    b = build(tmp_path, ["g", "r", "t"], ["v", "w"], 1)
    kinds = {"g": {"n_startup_trials": 3}, "r": {}, "t": {"n_startup_trials": 3}}
    counts = {("g", "v"): 4, ("g", "w"): 4, ("r", "v"): 1, ("r", "w"): 1, ("t", "v"): 2}
    for (name, workload), count in {**counts, ("t", "w"): 3}.items():
        for _ in range(count):
            b.trial(name, workload, 1, 1000.0 / count, tuner={"name": name, **kinds[name]})
        b.study(name, workload, 1)
    b.trial("t", "w", 2, 1000.0, tuner=None)

    assert random_only_studies(read_logs(tmp_path)) == [
        "t: 2 of 2 studies, of 2 to 3 trials; its model begins with trial 4"
    ]


def test_budgets_and_targets_that_differ_are_said(build, tmp_path):
    target = Target(metric="validation/loss", value=0.7, better="lower")
    for name, budget, changes in [("a", 1000.0, {}), ("b", 2000.0, {"target": target})]:
        b = build(tmp_path, ["a", "b"], ["w"], 1, budget=budget)
        b.trial(name, "w", 1, budget, **changes)
        b.study(name, "w", 1)
    logs = read_logs(tmp_path)

    assert problem_sentences("budgets-spent", logs) == [
        "w: budgets of a study differ: 1,000 gradient_evaluations, 2,000 gradient_evaluations"
    ]
    assert problem_sentences("targets-agree", logs) == [
        "w: targets differ: validation/loss 0.5 (1 trial), validation/loss 0.7 (1 trial)"
    ]


def test_targets_of_another_version_are_said_even_if_their_values_agree(build, tmp_path):
    for name, version in [("a", 1), ("b", 2)]:
        b = build(tmp_path, ["a", "b"], ["w"], 1)
        target = Target(metric="validation/loss", value=0.5, better="lower", version=version)
        b.trial(name, "w", 1, 1000.0, target=target)
        b.study(name, "w", 1)

    assert problem_sentences("targets-agree", read_logs(tmp_path)) == [
        "w: targets differ: validation/loss 0.5 of version 1 (1 trial), "
        "validation/loss 0.5 of version 2 (1 trial)"
    ]


def test_oddities_are_noted_and_none_is_fatal(hand_made):
    out = hand_made()
    logs = out / "logs"
    (logs / "a+halton" / "notes").mkdir()
    trial = logs / "a+halton" / "study_1" / "easy_jax"
    (trial / "trial_1" / "run.json").write_text("{")
    (trial / "trial_2" / "run.json").unlink()
    (trial / "trial_4" / "eval_measurements.csv").write_text("")
    (trial / "study.json").unlink()
    (logs / "b+halton" / "study_1" / "easy_jax" / "trial_4" / "run.json").unlink()
    (logs / "cake.txt").touch()
    shutil.copytree(trial / "trial_3", trial / "trial_9")

    found = {
        (oddity.rule, oddity.where.removeprefix("logs/")) for oddity in read_logs(out).oddities
    }

    study = "a+halton/study_1/easy_jax"
    assert found >= {
        ("files-stray", "a+halton/notes"),
        ("files-stray", "cake.txt"),
        ("files-evaluations", f"{study}/trial_4"),
        ("files-study", "b+halton/study_1/easy_jax"),
        ("files-study", study),
        ("files-run", f"{study}/trial_1"),
        ("files-run", f"{study}/trial_2"),
        ("files-run", f"{study}/trial_9"),
    }


@pytest.mark.parametrize("text", ["{", "[]", '{"contenders": 1, "workloads": [], "studies": 1}'])
def test_an_unreadable_campaign_is_a_note(hand_made, text):
    out = hand_made()
    (out / "campaign.json").write_text(text)

    logs = read_logs(out)

    assert logs.campaign is None
    assert [oddity.where for oddity in logs.oddities] == ["campaign.json"]
    assert logs.contenders == ["a+halton", "b+halton"]


def test_the_folder_of_logs_is_read_like_the_one_around_it(hand_made):
    out = hand_made()

    inner, outer = read_logs(out / "logs"), read_logs(out)

    assert [trial.record for trial in inner.trials] == [trial.record for trial in outer.trials]
    assert (inner.campaign, inner.oddities) == (outer.campaign, outer.oddities)


def test_an_empty_folder_is_no_campaign(tmp_path):
    (tmp_path / "notes").mkdir()
    with pytest.raises(ValueError, match="no finished trial"):
        read_logs(tmp_path)


@pytest.mark.parametrize("order", [1, -1])
def test_the_largest_time_factor_and_ratio_of_several_audits_count(hand_made, order):
    def audit(trial, seconds, charged):
        window = AuditedWindow(
            kind="sampled", first_step=1, steps=10, charged=charged, counted=30.0,
            counted_in_evaluation_mode=0.0, moved=1.0, norm=1.0, deviation=0.0,
        )  # fmt: skip
        return AuditRecord(
            campaign="made", contender="a+halton", workload="easy", study=1, trial=trial,
            position=0.5, seconds=seconds, reference_seconds=2.0, windows=(window,), findings=(),
        )  # fmt: skip

    audits = (audit(1, 4.0, 10.0), audit(2, 3.0, 20.0))[::order]
    logs = dataclasses.replace(read_logs(hand_made()), audits=audits)

    assert time_factors(logs) == {("a+halton", "easy"): 2.0}
    assert pass_ratios(logs) == {("a+halton", "easy"): 3.0}
    assert cost_factors(logs) == {("a+halton", "easy"): 3.0}
