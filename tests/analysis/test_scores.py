"""Costs to target, profiles and scores against hand-made tables and brute force."""

import math
import random
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.costs import cost_table
from analysis.profiles import profile, profile_area, ratios
from analysis.reading import read_logs
from analysis.scoring import check_budgets, missing_studies, score_strictly

INF = math.inf


def test_the_hand_made_table(hand_made):
    # a on easy: study 1 hits in trial 2 at 100 and trial 3 at 50; study 2 at once; study 3 last.
    # a on hard lacks study 3, which is a miss.
    logs = read_logs(hand_made())

    cells = cost_table(logs)

    assert cells["a+random", "easy"].given == (50.0, 200.0, 10.0)
    assert cells["a+random", "easy"].including == (350.0, 200.0, 760.0)
    assert cells["b+random", "easy"].given == (80.0, 70.0, 90.0)
    assert cells["b+random", "easy"].including == (80.0, 320.0, 90.0)
    assert cells["a+random", "hard"].including == (750.0, 750.0, INF)
    assert cells["b+random", "hard"].including == (INF, INF, 240.0)
    assert cells["a+random", "hard"].reached == 2


def test_scores_of_the_hand_made_table(hand_made):
    scores = score_strictly(read_logs(hand_made()))

    # Medians including tuning: easy a 350, b 90; hard a 750, b inf.
    assert scores.scores["a+random"]["including"] == pytest.approx(((4 - 350 / 90) + 3) / 2 / 3)
    assert scores.scores["b+random"]["including"] == pytest.approx(0.5)
    # Given tuned: easy a 50, b 80; hard a 250, b inf.
    assert scores.scores["a+random"]["given"] == pytest.approx(1.0)
    assert scores.scores["b+random"]["given"] == pytest.approx((4 - 80 / 50) / 2 / 3)
    assert scores.contenders == ("a+random", "b+random")


def test_missing_studies_are_named(hand_made):
    assert missing_studies(read_logs(hand_made())) == ["a+random on hard, study 3"]


def test_scores_know_neither_units_nor_the_order_of_files(hand_made, tmp_path):
    plain = score_strictly(read_logs(hand_made(tmp_path / "one")))
    other = read_logs(hand_made(tmp_path / "two", scale=60.0))
    shuffled = list(other.trials)
    random.Random(0).shuffle(shuffled)
    object.__setattr__(other, "trials", tuple(shuffled))

    for name, views in score_strictly(other).scores.items():
        assert views == pytest.approx(plain.scores[name])


def test_another_currency_gives_another_column(hand_made):
    cells = cost_table(read_logs(hand_made()), "seconds")

    assert cells["b+random", "easy"].given == pytest.approx((0.8, 0.7, 0.9))


def test_including_is_never_below_given(hand_made):
    for cell in cost_table(read_logs(hand_made())).values():
        assert all(i >= g for i, g in zip(cell.including, cell.given, strict=True))


def test_a_hit_beyond_the_budget_does_not_count(build, tmp_path):
    b = build(tmp_path, ["a"], ["w"], 1, budget=300.0)
    b.trial("a", "w", 1, 250.0)
    b.trial("a", "w", 1, 60.0, reached=51.0)

    assert cost_table(read_logs(tmp_path))["a", "w"].including == (INF,)


def test_a_hit_at_the_budget_counts(build, tmp_path):
    b = build(tmp_path, ["a"], ["w"], 1, budget=300.0)
    b.trial("a", "w", 1, 250.0)
    b.trial("a", "w", 1, 50.0, reached=50.0)

    assert cost_table(read_logs(tmp_path))["a", "w"].including == (300.0,)


def test_given_tuned_counts_from_the_restart_of_the_episode(build, tmp_path):
    b = build(tmp_path, ["m"], ["w"], 1)
    b.trial("m", "w", 1, 900.0, reached=800.0, episode_cost=120.0)

    cell = cost_table(read_logs(tmp_path))["m", "w"]

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


def test_a_workload_that_nobody_reaches_gives_nobody_anything():
    areas = profile_area(ratios(np.array([[1.0, INF], [1.0, np.nan]])))

    np.testing.assert_allclose(areas, 0.5)


def test_a_limit_of_one_is_refused():
    with pytest.raises(ValueError, match="`limit` must be above 1"):
        profile_area(np.ones((1, 1)), limit=1.0)


def test_unequal_budgets_are_said_and_early_ends_are_named(build, tmp_path):
    b = build(tmp_path, ["a", "g", "s"], ["w"], 1)
    b.trial("a", "w", 1, 950.0)
    b.study("a", "w", 1)
    b.trial("g", "w", 1, 100.0)
    b.study("g", "w", 1, ended="grid_exhausted")
    b.trial("s", "w", 1, 300.0, reached=300.0)
    b.study("s", "w", 1, ended="self_tuning_ended")

    assert check_budgets(read_logs(tmp_path)) == [
        "a on w, study 1: NOT EQUAL: spent 950 of 1000",
        "g on w, study 1: grid exhausted at 100 of 1000",
        "s on w, study 1: the self-tuning run ended at 300 of 1000",
    ]


def test_oddities_are_noted_and_none_is_fatal(hand_made):
    out = hand_made()
    logs = out / "logs"
    (logs / "a+random" / "notes").mkdir()
    trial = logs / "a+random" / "study_1" / "easy_jax"
    (trial / "trial_1" / "run.json").write_text("{")
    (trial / "trial_2" / "run.json").unlink()
    (trial / "study.json").unlink()
    shutil.copytree(trial / "trial_3", trial / "trial_9")

    notes = "\n".join(read_logs(out).notes)

    assert "a+random/notes: stray" in notes
    assert "trial_1/run.json: content: Invalid JSON" in notes
    assert "trial_2: unfinished trial" in notes
    assert "easy_jax: unfinished study" in notes
    assert "trial_9: its record belongs to a+random/study_1/easy_jax/trial_3" in notes


def test_an_empty_folder_is_no_campaign(tmp_path):
    with pytest.raises(ValueError, match="no finished trial"):
        read_logs(tmp_path)
