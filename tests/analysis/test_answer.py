"""The answer of a campaign: its numbers are those of the tables, and it says what is wrong."""

import json

import numpy as np
import pytest

from analysis.logs.reader import read_logs
from analysis.report.answer import answer, infer_all, problems
from analysis.report.marks import Marks
from analysis.report.tables.overview_table import overview_table
from analysis.scoring.scores import score_logs


@pytest.fixture
def campaign(build, tmp_path):
    """Return a function from costs by contender and workload, one per study, to logs."""

    def make(costs, budget=1000.0, developed=()):
        contenders = list(costs)
        workloads = list(dict.fromkeys(w for mine in costs.values() for w in mine))
        studies = max(len(hits) for mine in costs.values() for hits in mine.values())
        b = build(tmp_path / "runs", contenders, workloads, studies)
        for contender, mine in costs.items():
            for workload, hits in mine.items():
                for study, hit in enumerate(hits, start=1):
                    b.trial(
                        contender, workload, study, budget, reached=hit,
                        developed_here=(contender, workload) in developed,
                    )  # fmt: skip
                    b.study(contender, workload, study)
        return read_logs(tmp_path / "runs")

    return make


def answered(logs):
    scores = score_logs(logs)
    return answer(scores, infer_all(scores))


def test_the_leader_is_compared_with_the_reference(campaign):
    logs = campaign({
        "adamw+random": {"v": [400.0] * 6, "w": [300.0] * 6},
        "fast": {"v": [100.0] * 6, "w": [300.0 / 9] * 6},
    })  # fmt: skip

    # The geometric mean of 4 and 9; twelve wins in a row decide.
    assert answered(logs) == (
        "fast reaches the targets with 6.0 times less budget than adamw+random (95%: 6.0 to 6.0); "
        "it wins 12 of 12 studies; decided. The ranking repeats (tau 1.00)."
    )


def test_the_leader_is_compared_with_the_second_too(campaign):
    logs = campaign({
        "adamw+random": {"v": [400.0] * 4, "w": [400.0] * 4},
        "fast": {"v": [100.0] * 4, "w": [100.0] * 4},
        "near": {"v": [120.0] * 3 + [90.0], "w": [120.0] * 4},
    })  # fmt: skip

    assert answered(logs).startswith(
        "fast reaches the targets with 4.0 times less budget than adamw+random (95%: 4.0 to 4.0); "
        "it wins 8 of 8 studies; decided. Against near, which is second, it wins 7 of 8 studies; "
        "undecided: "
    )


COSTS = {  # "fast" owes its lead to v
    "adamw+random": {"v": [800.0] * 2, "w": [100.0] * 2, "x": [100.0] * 2},
    "fast": {"v": [50.0] * 2, "w": [150.0] * 2, "x": [100.0] * 2},
    "other": {"v": [800.0] * 2, "w": [100.0] * 2, "x": [100.0] * 2},
}
DESIGNED = {
    "-": "",
    "v": "1 of the 3 workloads; on the 2 others, adamw+random and other have the highest score.",
    "w": "1 of the 3 workloads; on the 2 others, {less}it has the highest score too.",
    "vx": "2 of the 3 workloads; on the other, adamw+random and other have the highest score.",
    "vwx": "all of the workloads.",
}


@pytest.mark.parametrize("names, end", DESIGNED.items(), ids=DESIGNED)
@pytest.mark.parametrize("studies", [1, 2])
def test_a_leader_that_was_designed_with_some_workloads_is_compared_on_the_others(
    campaign, names, end, studies
):
    costs = {name: {w: hits[:studies] for w, hits in mine.items()} for name, mine in COSTS.items()}

    text = answered(campaign(costs, developed={("fast", w) for w in names}))

    # Where x is equal and v 16 times cheaper, the geometric mean is 4.
    less = "it takes 4.0 times less budget, and " if studies > 1 else ""
    assert text.startswith("fast ")
    assert text.partition("fast was designed with ")[2] == end.format(less=less)


def test_a_miss_makes_the_speedup_a_bound_and_ties_are_counted(campaign):
    logs = campaign({
        "adamw+random": {"v": [None] * 4, "w": [200.0] * 4},
        "fast": {"v": [250.0] * 4, "w": [200.0] * 4},
    })  # fmt: skip

    # The budget of 1000 over 250, and 1: the geometric mean is 2.
    assert answered(logs) == (
        "fast reaches the targets with at least 2.0 times less budget than adamw+random (95%: 2.0 "
        "or more); it wins 4 of 8 studies, and 4 tie; undecided: 2 more studies would do. The "
        "ranking repeats (tau 1.00)."
    )


def test_a_leader_by_score_with_higher_costs_is_not_called_faster(campaign):
    # Cheaper by 6.5 on two workloads, dearer by 100 on one: there the score ends at 32, but the
    # speed-up does not. It is the cube root of 6.5 * 6.5 / 100.
    logs = campaign({
        "adamw+random": {"v": [650.0] * 4, "w": [650.0] * 4, "x": [9.0] * 4},
        "bold": {"v": [100.0] * 4, "w": [100.0] * 4, "x": [900.0] * 4},
    })  # fmt: skip

    assert answered(logs).startswith(
        "bold has the highest score, though its median costs are 1.3 times those of adamw+random "
        "(speed-up 0.75, 95%: 0.75 to 0.75); it wins 8 of 12 studies; undecided: "
    )


def test_a_leader_with_equal_costs_is_not_called_faster(campaign):
    # Ratios 1.05 and 1 / 1.05: the geometric mean is 1, and the score does not lie far from 1.
    logs = campaign({
        "adamw+random": {"v": [105.0] * 4, "w": [100.0] * 4, "x": [900.0] * 4},
        "even": {"v": [100.0] * 4, "w": [105.0] * 4, "x": [899.0] * 4},
    })  # fmt: skip

    assert answered(logs).startswith(
        "even has the highest score, and median costs like adamw+random's (speed-up 1.00, 95%: "
        "1.00 to 1.00); it wins 8 of 12 studies; "
    )


def test_without_the_reference_scores_are_compared(campaign):
    costs = {"a": {"w": [100.0] * 4}, "b": {"w": [200.0] * 4}}

    # On one workload at twice the cost, the score including tuning is 1 - ln 2 / ln 32 = 0.8.
    text = answered(campaign(costs))

    assert text.startswith("a has the highest score, 1.000 (95%: 1.000 to 1.000), before b with "
                           "0.800; it wins 4 of 4 studies; undecided: ")  # fmt: skip


def test_equal_scores_are_called_equal(campaign):
    costs = {name: {"w": [100.0] * 4} for name in ("a", "b")}
    slower = {"adamw+random": {"w": [200.0] * 4}}

    without_reference = answered(campaign(costs))
    assert without_reference.startswith(
        "a has the highest score, 1.000 (95%: 1.000 to 1.000), as has b; it wins 0 of 4 studies, "
        "and 4 tie; undecided"
    )
    with_reference = answered(campaign(costs | slower))
    assert " Against b, whose score is the same, it wins 0 of 4 studies" in with_reference


def test_one_study_one_contender_and_nobody_who_arrived(campaign):
    one_study = campaign({"a": {"w": [100.0]}, "b": {"w": [200.0]}})
    assert answered(one_study) == (
        "a has the highest score, 1.000, before b with 0.800. How sure that is cannot be known "
        "from one study."
    )


def test_one_contender_has_nobody_to_be_compared_with(campaign):
    assert answered(campaign({"a": {"v": [100.0] * 2, "w": [None] * 2}})) == (
        "The median study of a reaches the target on 1 of 2 workloads; there is no other contender "
        "to compare it with."
    )


def test_if_nobody_arrives_the_answer_says_so_and_names_the_workload(campaign):
    logs = campaign({"a": {"w": [None] * 2}, "b": {"w": [None] * 2}})

    assert problems(logs, score_logs(logs)) == [
        "Reached no target in any study: a, b.",
        "No median study reached the target including tuning on w.",
    ]
    assert answered(logs) == "No contender's median study reached the target of any workload."


def test_a_contender_that_failed_throughout_is_named_before_the_answer(build, tmp_path):
    b = build(tmp_path / "runs", ["a", "b"], ["w"], 1)
    b.trial("a", "w", 1, 1000.0, reached=20.0)
    b.study("a", "w", 1)
    b.trial("b", "w", 1, 0.0, status="crashed", error="boom", cause="boom", best=None)
    logs = read_logs(tmp_path / "runs")

    assert problems(logs, score_logs(logs))[0] == "Failed throughout on some workload: b."


def test_the_shares_of_the_overview_average_to_its_scores(campaign):
    logs = campaign({
        "a": {"v": [100.0] * 3, "w": [400.0] * 3, "x": [10.0] * 3},
        "b": {"v": [200.0] * 3, "w": [100.0] * 3, "x": [None] * 3},
    })  # fmt: skip
    scores = score_logs(logs)

    table = overview_table(scores, Marks())

    # b costs twice the best on v: 1 - ln 2 / ln 32 including tuning, (4 - 2) / 3 given tuned.
    row = next(row for row in table.rows if row[0] == "b")
    assert row[1].shares == pytest.approx({"v": 0.8, "w": 1.0, "x": 0.0})
    assert row[2].shares == pytest.approx({"v": 2 / 3, "w": 1.0, "x": 0.0})
    for row in table.rows:
        for estimate in row[1:3]:
            assert estimate.value == pytest.approx(np.mean(list(estimate.shares.values())))
    json.dumps(row[1].shares)
    assert [table.texts[1][-1], table.records[1]["x_reached"]] == ["0/3", 0]
