"""The strict rules on AlgoPerf's logs, against tables by hand."""

import json
import math

import numpy as np
import pytest

from analysis.logs.competition import Competition, Limits, OfficialTargets, read_official_targets
from analysis.logs.reader import read_logs
from analysis.scoring.benchmark import Benchmark
from analysis.scoring.diff import compare_rules
from analysis.scoring.scores import score_logs

INF = math.inf


@pytest.fixture
def logs(tmp_path, official):
    return official(tmp_path / "logs")


@pytest.fixture
def read(logs, tmp_path):
    """Read the logs with the studies, trials and budget factor of a ruleset."""

    def make(studies=1, trials=2, factor=1.0, ruleset=None, **changes):
        targets = logs.targets(tmp_path / "t.json", **({"base_workloads": ["easy"]} | changes))
        competition = Competition(read_official_targets(targets), ruleset, studies, trials, factor)
        return read_logs(logs.root, None, competition)

    return make


@pytest.fixture
def hand_table(logs, read):
    """Three studies of two trials: what each rule makes of it is in the tests."""
    # Trial 1 is earlier by evaluation, trial 2 cheaper.
    logs.trial("s", 1, "easy", 1, [(0.9, 10.0), (0.4, 50.0), (0.3, 60.0)])
    logs.trial("s", 1, "easy", 2, [(0.9, 10.0), (0.9, 20.0), (0.4, 40.0)])
    # Trial 1 crashed, and is charged its whole budget of 100 s.
    logs.trial("s", 2, "easy", 1, None)
    logs.trial("s", 2, "easy", 2, [(0.9, 10.0), (0.4, 30.0)])
    # Trial 1 hits beyond its budget, trial 2 never.
    logs.trial("s", 3, "easy", 1, [(0.9, 10.0), (0.4, 101.0)])
    logs.trial("s", 3, "easy", 2, [(0.9, 10.0), (math.nan, 80.0)])
    return read


def test_the_hand_made_table_under_strict_rules(hand_table):
    cell = score_logs(hand_table(studies=3)).cells["s", "easy"]

    assert cell.given == (40.0, 30.0, INF)
    assert cell.including == (50.0, 130.0, INF)
    assert (cell.median("given"), cell.median("including"), cell.reached) == (40.0, 130.0, 2)


def test_a_missing_study_is_a_miss_and_the_official_rules_leave_it_out(hand_table):
    (difference,) = compare_rules(hand_table(studies=4)).differences

    assert difference[:4] == ("s", "easy", 50.0, INF)
    assert difference.why == "1 study missing: a miss under strict, left out under algoperf"


def test_a_study_too_many_is_left_out_and_the_official_rules_count_it(logs, read):
    for study in (1, 2, 3):
        logs.trial("s", study, "easy", 1, [(0.4, 10.0 * study)])

    (difference,) = compare_rules(read(studies=2)).differences

    assert difference[:4] == ("s", "easy", 20.0, 15.0)
    assert difference.why == "1 study beyond the expected number: left out under strict"


def test_a_study_without_evaluations_is_a_miss(logs, read):
    logs.trial("s", 1, "easy", 1, [(0.4, 30.0)])
    logs.trial("s", 2, "easy", 1, None)

    (difference,) = compare_rules(read(studies=2, trials=1)).differences

    assert (difference.algoperf, difference.strict) == (30.0, INF)


def test_trials_beyond_the_rulesets_number_do_not_count(logs, read):
    for trial, seconds in [(1, 60.0), (2, 50.0), (3, 10.0)]:
        logs.trial("s", 1, "easy", trial, [(0.4, seconds)])

    assert score_logs(read(trials=2)).cells["s", "easy"].given == (50.0,)


def test_studies_beyond_the_rulesets_number_do_not_count(logs, read):
    for study in (1, 2, 3):
        logs.trial("s", study, "easy", 1, [(0.4, 10.0 * study)])

    assert score_logs(read(studies=2)).cells["s", "easy"].given == (10.0, 20.0)


@pytest.mark.parametrize("slower", ["jax", "pytorch"])
def test_the_more_expensive_of_two_frameworks_counts(logs, read, slower):
    for framework in ("jax", "pytorch"):
        seconds = 50.0 if framework == slower else 40.0
        logs.trial("s", 1, "easy", 1, [(0.4, seconds)], framework=framework)

    assert score_logs(read()).cells["s", "easy"].given == (50.0,)


def test_the_budget_is_multiplied_by_the_rulesets_factor(logs, read):
    logs.trial("s", 1, "easy", 1, [(0.9, 10.0), (0.4, 140.0)], ruleset="self")

    given = {factor: score_logs(read(factor=factor)).cells["s", "easy"].given
             for factor in (1.0, 1.5)}  # fmt: skip

    assert given == {1.0: (INF,), 1.5: (140.0,)}


def test_a_late_hit_is_a_miss_in_steps_too(logs, read):
    logs.trial("s", 1, "easy", 1, [(0.9, 10.0), (0.4, 50.0)])
    logs.trial("t", 1, "easy", 1, [(0.9, 10.0), (0.4, 150.0)])

    cells = score_logs(read(), unit="steps").cells

    assert (cells["s", "easy"].given, cells["t", "easy"].given) == ((11.0,), (INF,))


def test_the_area_is_exact_and_missing_workloads_give_nothing(logs, read):
    logs.trial("a", 1, "easy", 1, [(0.4, 10.0)])
    logs.trial("b", 1, "easy", 1, [(0.4, 15.0)])
    logs.trial("a", 1, "hard", 1, [(0.4, 10.0)])

    scores = score_logs(read(base_workloads=["easy", "hard"])).scores

    assert scores["a"]["given"] == 1.0
    assert scores["b"]["given"] == pytest.approx(2.5 / 3 / 2, abs=1e-12)


def change_meta_data(folder, **changes):
    path = folder / "meta_data_0.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_budget_is_that_of_the_trials_own_meta_data(logs, read):
    for name, budget in [("s", 1), ("t", 100)]:
        folder = logs.trial(name, 1, "easy", 1, [(0.9, 10.0), (0.4, 50.0)])
        change_meta_data(folder, **{"workload.max_allowed_runtime_sec": budget})

    cells = score_logs(read()).cells

    assert (cells["s", "easy"].given, cells["t", "easy"].given) == ((INF,), (50.0,))


def test_budgets_in_steps_ignore_the_time_limit_of_slower_machines(logs, read):
    logs.trial("slow", 1, "easy", 1, [(0.9, 10.0), (0.4, 90.0)])
    folder = logs.trial("fast", 1, "easy", 1, [(0.9, 5.0), (0.9, 10.0), (0.4, 20.0)])
    change_meta_data(folder, gpu_model_name="pebbles", **{"workload.max_allowed_runtime_sec": 30})

    scores = score_logs(read(), unit="steps")

    assert [scores.cells[name, "easy"].given for name in ("slow", "fast")] == [(11.0,), (21.0,)]
    assert scores.contenders == ("slow", "fast")


def test_the_two_columns_of_the_submissions_time_stand_in_for_each_other(logs, read):
    logs.trial("s", 1, "easy", 1, [(0.9, 10.0), (0.4, 50.0)])
    expected = score_logs(read()).cells["s", "easy"]

    for name in ("accumulated_submission_time", "score"):
        file = logs.trial("s", 1, "easy", 1, [(0.9, 10.0), (0.4, 50.0)]) / "eval_measurements.csv"
        file.write_text(file.read_text().replace(name, "other"))
        assert score_logs(read()).cells["s", "easy"] == expected


def test_the_ruleset_comes_from_the_flags_and_another_one_is_refused(logs, read):
    # As self-tuning it has 1.5 times the budget; as external tuning this hit would be too late.
    logs.trial("s", 1, "easy", 1, [(0.9, 10.0), (0.4, 140.0)], ruleset="self")

    found = read(trials=None, factor=None)

    assert found.trials[0].record.ruleset == "self-tuning"
    assert score_logs(found).cells["s", "easy"].given == (140.0,)
    assert read(trials=None, factor=None, ruleset="self").trials[0].record == found.trials[0].record
    with pytest.raises(ValueError, match="flags of s say --tuning_ruleset=self"):
        read(trials=None, factor=None, ruleset="external")


def test_without_a_targets_file_the_meta_data_name_the_target(logs):
    logs.good()

    found = read_logs(logs.root)

    assert found.study_count == 2  # as many as there are
    assert score_logs(found).scores["fast"] == {"including": 1.0, "given": 1.0}


@pytest.mark.parametrize(
    "rows, hint, status",
    [
        ([(0.9, 1.0), (0.4, 20.0)], None, "target"),
        ([(0.9, 1.0), (0.9, 89.0)], None, "broke_off"),
        ([(0.9, 1.0), (0.9, 90.0)], None, "trial_budget"),
        ([(0.9, 1.0), (0.9, 20.0)], 12, "trial_budget"),  # 11 steps are nine tenths of it
        ([(0.9, 1.0), (0.9, 20.0)], 13, "broke_off"),
        (None, None, "crashed"),
    ],
)
def test_a_trial_broke_off_that_met_neither_target_nor_nine_tenths_of_its_budget(
    logs, read, rows, hint, status
):
    folder = logs.trial("s", 1, "easy", 1, rows)
    if hint:
        change_meta_data(folder, **{"workload.step_hint": hint})

    assert read().trials[0].record.status == status


def markdown_tables(text):
    """The tables of a page, as lists of rows of cells, headers first."""
    tables = [[]]
    for line in text.splitlines():
        if line.startswith("| "):
            tables[-1].append([cell.strip() for cell in line.strip("|").split(" | ")])
        elif tables[-1] and not line.startswith("|--"):
            tables.append([])
    return tables


def test_the_worked_example_of_the_document(logs, read, root):
    page = (root / "docs" / "scoring.md").read_text()
    example, results = (
        next(t for t in markdown_tables(page) if t and t[0][0] == first)[1:]
        for first in ("submission", "rules")
    )
    for submission, workload, study, trial, evaluation, hit, end in example:
        rows = [(0.9, 1.0 + n) for n in range(int(evaluation) if hit != "-" else 2)]
        rows += [(0.4, float(hit))] if hit != "-" else [(0.9, float(end))]
        logs.trial(submission, study, workload, trial, rows)
    found = read(3, 2, 100.0, base_workloads=["easy", "hard"])

    computed = {"algoperf": (score_logs(found, "algoperf"), "given")}
    strict = score_logs(found)
    computed |= {f"strict, {view}": (strict, view) for view in ("given", "including")}

    assert {name for name, *_ in results} == set(computed)
    for name, *cells in results:
        scores, view = computed[name]
        medians = [scores.median(s, w, view) for s in ("a", "b") for w in ("easy", "hard")]
        expected = ["missed" if math.isinf(m) else f"{m:g}" for m in medians]
        expected += [f"{scores.scores[s][view]:.4f}" for s in ("a", "b")]
        assert cells == expected


def test_the_example_of_the_rules_has_the_scores_that_it_says(root):
    page = (root / "docs" / "rules.md").read_text()
    header, *rows = next(t for t in markdown_tables(page) if t and "closed" in t[0])
    costs = [[INF if c == "missed" else float(c) for c in row[1:4]] for row in rows]

    for place, view in ((4, "given"), (5, "including")):
        scores = Benchmark(tuple(header[1:4])).score(np.array(costs), view)

        assert [f"{score:.3f}" for score in scores] == [row[place] for row in rows]


@pytest.mark.parametrize(
    "version, ruleset, expected",
    [("0.5", "external", (5, 5, 1.0)), ("0.5", "self", (5, 1, 3.0)),
     ("0.6", "external", (3, 5, 1.0)), ("0.6", "self", (3, 1, 1.5))],
)  # fmt: skip
def test_limits_are_those_of_the_version_and_the_ruleset(version, ruleset, expected):
    competition = Competition(OfficialTargets((), (), {}, version))

    assert competition.limits(ruleset) == Limits(*expected)
    assert Competition(studies=9).limits("self").studies == 9


@pytest.mark.parametrize("value", [0, -1])
def test_limits_are_positive(value):
    with pytest.raises(ValueError, match="`studies` must be at least 1"):
        Competition(studies=value)
    with pytest.raises(ValueError, match="`budget_factor` must be positive"):
        Competition(budget_factor=value)
