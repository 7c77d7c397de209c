"""No number depends on the order of trials, workloads, contenders or logs, or on the page."""

import dataclasses
import json
import random

import numpy as np
import pytest

from analysis.leaderboard.board import board_of
from analysis.leaderboard.entries import read_entries
from analysis.leaderboard.submitting import submit
from analysis.logs.merging import merge_logs
from analysis.logs.reader import read_logs
from analysis.report.answer import infer_all
from analysis.report.marks import Marks
from analysis.report.tables.campaign_tables import spent_table
from analysis.report.tables.score_tables import facets_of
from analysis.report.tables.statistics_tables import numbers_table
from analysis.scoring.scores import score_logs
from analysis.statistics.inference import infer
from analysis.statistics.resampling import bootstrap
from analysis.statistics.samples import Samples
from metaopt.bench import records
from tests.analysis.conftest import WORKLOADS

CONTENDERS = ["b+random", "a+halton", "d+random", "adamw+random"]
STRATA = [f"w{letter}" for letter in "gbfdace"]


@pytest.fixture(scope="module")
def parts(build, tmp_path_factory):
    """Two folders of one campaign of random costs, each with some of the studies."""
    root, rng = tmp_path_factory.mktemp("parts"), random.Random(1)
    for part, workloads, studies in (("one", STRATA, (1, 3)), ("two", STRATA[::-1], (2, 4, 5))):
        b = build(root / part, CONTENDERS, workloads, 5)
        for contender in CONTENDERS:
            for workload in workloads:
                for study in studies:
                    for _ in range(3):
                        cost = rng.uniform(100.0, 330.0)
                        hit = rng.choice([None, cost])
                        tuner = {"name": contender.split("+")[1]}
                        b.trial(contender, workload, study, cost, hit, tuner=tuner)
                    b.study(contender, workload, study)
    return [read_logs(root / part) for part in ("one", "two")]


def numbers(found):
    """The statistics by what they are about."""
    return {tuple(map(str, row[:5])): row[5:] for row in numbers_table(found).rows}


def facts(logs):
    """All numbers of some logs by what they are about, with their representation."""
    scores, marks = score_logs(logs), Marks()
    inferred = infer_all(scores)
    spent = spent_table(logs, facets_of(logs), marks)
    return {
        "scores": {name: dict(mine) for name, mine in scores.scores.items()},
        "cells": {pair: repr(cell) for pair, cell in scores.cells.items()},
        "statistics": repr(sorted(numbers(inferred).items())),
        "friedman": repr([(one.ranking.statistic, one.ranking.p) for one in inferred]),
        "spent": {row[:2]: row[2:] for row in spent.rows},
    }


def shuffled(logs, seed):
    """The logs with trials, workloads and contenders in another order."""
    rng = random.Random(seed)
    mixed = {name: rng.sample(logs.campaign[name], len(logs.campaign[name]))
             for name in ("workloads", "contenders")}  # fmt: skip
    assert mixed["workloads"] != logs.campaign["workloads"]
    trials = tuple(rng.sample(logs.trials, len(logs.trials)))
    return dataclasses.replace(logs, trials=trials, campaign={**logs.campaign, **mixed})


@pytest.mark.parametrize("seed", [1, 2])
def test_the_order_of_trials_workloads_and_contenders_changes_no_number(parts, seed):
    logs = merge_logs(parts)
    expected = facts(logs)

    found = facts(shuffled(logs, seed))

    del expected["spent"], found["spent"]  # sums over trials, which every reader sorts
    assert found == expected
    assert len(expected["scores"]) == len(CONTENDERS)


def test_the_order_of_logs_changes_no_number(parts):
    assert facts(merge_logs(parts[::-1])) == facts(merge_logs(parts))


def test_a_further_workload_moves_no_interval_of_the_others():
    rng = np.random.default_rng(0)
    costs = rng.lognormal(3, 1, (3, 4, 6))
    names = ("a", "b", "c")
    samples = Samples(names, ("w1", "w2", "w3", "w4"), costs)
    many = infer(samples, "steps", resamples=400)

    few = infer(Samples(names, ("w4", "w2"), costs[:, [3, 1]]), "steps", resamples=400)

    for end in ("low", "high"):
        all_ends, ends = getattr(many.costs, end), getattr(few.costs, end)
        np.testing.assert_array_equal(ends, all_ends[:, [3, 1]])
    counts = bootstrap(samples, 0, 400).counts
    assert (counts[:, 0] != counts[:, 1]).any()  # each workload has draws of its own


def test_the_report_and_the_leaderboard_of_the_same_runs_have_the_same_numbers(make_runs, board):
    runs = make_runs()
    campaign = json.loads((runs / "campaign.json").read_text())
    backwards = campaign | {
        "workloads": WORKLOADS[::-1],
        "contenders": campaign["contenders"][::-1],
    }
    records.write_json(runs / "campaign.json", backwards)
    submit(runs, board)

    (part,) = board_of(read_entries(board), None).parts
    scores = score_logs(read_logs(runs))

    assert scores.workloads == tuple(WORKLOADS[::-1]) != part.scores.workloads
    assert part.scores.scores == scores.scores and part.scores.cells == scores.cells
    theirs, ours = numbers(part.found), numbers(infer_all(scores))
    assert repr(sorted(theirs.items())) == repr(sorted(ours.items()))
