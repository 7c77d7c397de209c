"""A rerun that says the same verifies, and no other."""

import json

import pytest

from analysis.checks.verification import verified_contenders, verify
from analysis.cli import app
from analysis.command_line import run_app
from analysis.leaderboard.board_tables import MeasuredStanding, standing_table
from analysis.leaderboard.entries import read_entries
from analysis.leaderboard.standings import standings
from analysis.leaderboard.submitting import RefusedRuns, submit
from analysis.logs.reader import read_logs
from metaopt.bench import records
from metaopt.bench.records.identity import digest_of
from tests.analysis.conftest import HITS, build_runs

WHEN = "2026-02-02T00:00:00+00:00"


@pytest.fixture
def runs(build, tmp_path):
    """A campaign of two contenders."""
    build_runs(build, tmp_path / "runs")
    return tmp_path / "runs"


@pytest.fixture
def run_again(build, tmp_path):
    """A factory of reruns, on another day."""

    def run_again(hits=HITS, **changes):
        build_runs(build, tmp_path / "rerun", hits, **{"started_at": WHEN} | changes)
        return tmp_path / "rerun"

    return run_again


def shifted(contender, by):
    """Return the hits with those of one contender later."""
    moved = [
        [[hit and hit + by for hit in trials] for trials in studies] for studies in HITS[contender]
    ]
    return HITS | {contender: moved}


def problems(runs, rerun):
    verdicts = verify(read_logs(runs), read_logs(rerun))
    return {v.contender: v.problem for v in verdicts if v.workload == "breast_cancer_logistic"}


def test_the_same_costs_verify(runs, run_again):
    verdicts = verify(read_logs(runs), read_logs(run_again()))

    assert [verdict.problem for verdict in verdicts] == [""] * 4
    assert verified_contenders(verdicts) == {"a+halton": True, "b+halton": True}


# Median costs of b given tuned are 80 on the first workload; an evaluation period is 10.
@pytest.mark.parametrize(("by", "agrees"), [(10, True), (-10, True), (11, False)])
def test_costs_agree_to_within_an_evaluation_period(by, agrees, runs, run_again):
    found = problems(runs, run_again(shifted("b+halton", by)))

    assert (found["b+halton"] == "") is agrees
    if not agrees:
        assert found["b+halton"] == "given tuned: 80, and 91 in the rerun"
    assert found["a+halton"] == ""


@pytest.mark.parametrize(("cost", "agrees"), [(220.0, True), (221.0, False), (180.0, True)])
def test_a_tenth_of_a_larger_cost_agrees_too(cost, agrees, build, tmp_path):
    outs = []
    for hit, when in ((200.0, WHEN), (cost, "2026-03-03T00:00:00+00:00")):
        hits = {"a+halton": [[[hit], [hit], [hit]]] * 2}
        outs.append(build_runs(build, tmp_path / str(hit), hits, started_at=when))

    assert (problems(*outs)["a+halton"] == "") is agrees


def test_a_target_that_was_missed_again_agrees_and_one_that_was_met_does_not(runs, run_again):
    met = [
        HITS["b+halton"][0],
        [[10.0], [10.0], [10.0]],
    ]  # it had missed the second in two of three
    verdicts = verify(read_logs(runs), read_logs(run_again(HITS | {"b+halton": met})))

    assert verdicts[-1].problem == "given tuned: missed, and 10 in the rerun"
    assert verified_contenders(verdicts) == {"a+halton": True, "b+halton": False}


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"digest": "1"}, "submission"),
        ({"space": "paper"}, "search space"),
        ({"tuner": {"name": "tpe"}}, "tuner"),
        ({"campaign_seed": 2}, "seed"),
        ({"scale": 2.0}, "budget"),
        ({"data": {"examples": {"train": 3}}}, "data"),
    ],
)
def test_another_experiment_verifies_nothing(changes, what, runs, run_again):
    found = problems(runs, run_again(**changes))

    assert set(found.values()) == {f"another experiment: other {what}"}


def test_a_rerun_with_another_version_of_a_file_verifies_nothing_and_names_it(runs, run_again):
    rerun = run_again(digest="2")
    for out, recipes in ((runs, "1"), (rerun, "2")):
        identity = {"modules": {"metaopt/recipes.py": recipes, "metaopt/guards.py": "1"}}
        for path in out.rglob("run.json"):
            content = json.loads(path.read_text()) | {"digest": digest_of(identity)}
            records.write_json(path, content)
            records.write_json(path.parents[1] / "identity.json", identity)

    found = problems(runs, rerun)

    assert set(found.values()) == {"another experiment: other metaopt/recipes.py"}


def test_another_version_of_the_tuners_library_may_verify(runs, run_again):
    tuner = {"name": "halton", "library": "optuna 6"}

    assert set(problems(runs, run_again(tuner=tuner)).values()) == {""}


def test_who_was_not_run_again_is_not_verified(runs, run_again):
    found = problems(runs, run_again({"a+halton": HITS["a+halton"]}))

    assert found == {"a+halton": "", "b+halton": "not run again"}


def test_a_copy_is_refused(runs):
    with pytest.raises(ValueError, match=r"copy: trial 1 of a\+halton on breast.*, study 1, began"):
        verify(read_logs(runs), read_logs(runs))


def test_the_command_prints_verdicts_and_fails_where_there_is_no_agreement(runs, run_again, capsys):
    rerun = run_again(shifted("b+halton", 50))

    code = run_app(app, "analysis", ["verify", str(runs), str(rerun), "--format", "csv"])

    assert code == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == (
        "contender,workload,verdict,given_tuned,given_tuned_rerun,including_tuning,"
        "including_tuning_rerun"
    )
    assert sum(",verified," in line for line in lines) == 3
    assert run_app(app, "analysis", ["verify", str(runs), str(runs)]) == 2


def test_the_leaderboard_marks_who_is_verified(runs, run_again, tmp_path):
    rerun, board = run_again(shifted("b+halton", 50)), tmp_path / "board"

    submit(runs, board, rerun=rerun)

    found = standings(read_entries(board))
    (standing,) = found
    table = standing_table(MeasuredStanding(standing, "here"))
    assert {r["contender"]: r["verified"] for r in table.records} == {
        "a+halton": True, "b+halton": False,
    }  # fmt: skip
    assert {row[0]: row[table.header.index("verified")] for row in table.texts} == {
        "a+halton": "yes", "b+halton": "no",
    }  # fmt: skip
    entry = standing.entries["a+halton", "digits_mlp"]
    assert (entry.verified.first_day, entry.verified.commits) == (WHEN[:10], ("0" * 40,))
    assert "2026-02-02 on" in (board / "protocols/made.html").read_text()


def verified_pairs(board):
    return {(e.contender, e.workload) for e in read_entries(board) if e.campaigns["made"].verified}


def test_entries_stay_verified_without_a_rerun_while_their_costs_are_unchanged(
    runs, run_again, tmp_path
):
    board = tmp_path / "board"
    submit(runs, board, rerun=run_again())
    before = verified_pairs(board)
    assert len(before) == 4

    submit(runs, board)

    assert verified_pairs(board) == before
    submit(run_again(shifted("b+halton", 50)), board)
    assert verified_pairs(board) == {pair for pair in before if pair[0] == "a+halton"}
    submit(runs, board)  # the costs of b were verified, but the leaderboard no longer has them
    assert verified_pairs(board) == {pair for pair in before if pair[0] == "a+halton"}


def test_a_rerun_that_disagrees_takes_the_mark_away(runs, run_again, tmp_path):
    board = tmp_path / "board"
    submit(runs, board, rerun=run_again())

    before = verified_pairs(board)

    submit(runs, board, rerun=run_again(shifted("b+halton", 50)))

    assert before - verified_pairs(board) == {("b+halton", "breast_cancer_logistic")}


def test_a_rerun_that_is_not_valid_verifies_nothing(runs, run_again, tmp_path):
    rerun = run_again()
    next(rerun.rglob(records.STUDY_FILE)).unlink()

    with pytest.raises(RefusedRuns, match="rerun: files-study"):
        submit(runs, tmp_path / "board", rerun=rerun)


def test_the_command_names_what_is_wrong_with_the_rerun(runs, run_again, capsys):
    rerun = run_again()
    next(rerun.rglob(records.STUDY_FILE)).unlink()

    assert run_app(app, "analysis", ["verify", str(runs), str(rerun)]) == 1

    lines = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[1:3] for line in lines] == [["rerun", "files-study"]]


def test_logs_of_algoperf_are_refused(official, tmp_path):
    logs = read_logs(official(tmp_path / "logs").good())

    with pytest.raises(ValueError, match="only our records can be verified"):
        verify(logs, logs)
