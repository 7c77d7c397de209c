"""The leaderboard: which runs it takes, its records, and its standings."""

import csv
import json
import math
import re
import shlex
import shutil

import pytest

from analysis.cli import app
from analysis.command_line import run_app
from analysis.leaderboard.board_pages import BOARD, write_leaderboard
from analysis.leaderboard.board_tables import MeasuredStanding, standing_table
from analysis.leaderboard.entries import Authorship, entry_text, read_entries
from analysis.leaderboard.standings import standings
from analysis.leaderboard.submitting import RefusedRuns, entries_of, submit
from analysis.logs.reader import read_logs
from analysis.report.marks import Marks
from analysis.report.tables.score_tables import Extras, facets_of, score_table
from analysis.scoring.scores import score_logs
from metaopt.bench import records
from metaopt.bench.measure.seeds import derive_seed
from metaopt.bench.measure.targets import Target
from metaopt.bench.records.identity import digest_of
from tests.analysis.conftest import ENVIRONMENT, HITS, WORKLOADS, build_runs, target


def run(*arguments):
    return run_app(app, "analysis", [str(argument) for argument in arguments])


def test_the_leaderboard_of_this_checkout_is_what_its_records_make_of_it(capsys):
    assert run("leaderboard", "--check") == 0, capsys.readouterr().err
    assert read_entries(BOARD)


def test_scores_and_cells_of_the_leaderboard_are_those_of_the_logs(make_runs, board):
    runs = make_runs()
    submit(runs, board)

    (standing,) = standings(read_entries(board))

    expected = score_logs(read_logs(runs))
    found = standing.scores()
    assert found.cells == expected.cells
    assert set(found.scores) == set(expected.scores) == {"a+halton", "b+halton"}
    for name, scores in found.scores.items():
        assert scores == pytest.approx(expected.scores[name])
    assert found.contenders == expected.contenders
    # The third study of b on the second workload: two trials of 250 in, none hit but the first.
    assert found.cells["b+halton", "digits_mlp"].including == (math.inf, math.inf, 240.0)


def test_a_record_keeps_what_a_study_did(filled):

    entry = next(e for e in read_entries(filled) if e.contender == "a+halton")
    campaign = entry.campaigns["made"]

    assert entry.path.parts[:2] == ("records", entry.hardware.slug)
    assert entry.hardware.slug.startswith("abacus-x1-")
    assert campaign.commits == ("0" * 40,) and campaign.first_day == "2026-01-01"
    assert campaign.command == (
        "python -m tuning compare made --contenders a+halton --workloads breast_cancer_logistic "
        "--budget 1000grads --studies 3 --seed 1"
    )
    first, *_ = campaign.studies
    assert (first.trials, first.failures, first.best) == (4, 0, 0.01)
    assert first.seed == derive_seed(1, "breast_cancer_logistic", 1, "trial", 1)
    assert first.given.gradient_evaluations == 50.0
    assert first.including.gradient_evaluations == 350.0
    assert first.including.seconds == pytest.approx(3.5)
    assert first.spent.steps == 1000


TOML = """# Mine.
name = "made"
contenders = ["subs/a+halton", "b+halton"]
"""


def test_the_command_that_repeats_a_users_own_campaign_names_a_file_that_is_there(
    make_runs, board, tmp_path
):
    runs = make_runs()
    source = {"file": "mine.toml", "toml": TOML, "changes": {"eval_period": "10grads"}}
    campaign = json.loads((runs / "campaign.json").read_text())
    changed = campaign | {"source": source, "eval_period": "10grads"}
    records.write_json(runs / "campaign.json", changed)

    submit(runs, board)

    entry = next(e for e in read_entries(board) if e.contender == "a+halton")
    words = shlex.split(entry.campaigns["made"].command)
    assert words[:4] == ["python", "-m", "tuning", "compare"]
    assert words[5:] == [
        "--contenders", "subs/a+halton", "--workloads", "breast_cancer_logistic",
        "--budget", "1000grads", "--eval-period", "10grads", "--studies", "3", "--seed", "1",
    ]  # fmt: skip
    assert (tmp_path / words[4]).read_text() == TOML
    records.write_json(runs / "campaign.json", campaign | {"source": source | {"file": "made"}})
    submit(runs, tmp_path / "other")
    entry = read_entries(tmp_path / "other")[0]
    assert " compare made --contenders subs/a+halton" in entry.campaigns["made"].command
    assert (tmp_path / "other/campaigns/made.toml").read_text() == TOML


def test_authors_of_a_record_are_those_of_the_submissions_folder(
    make_runs, board, tmp_path, monkeypatch
):
    runs = make_runs()
    source = {"file": "made", "toml": TOML, "changes": {}}
    campaign = json.loads((runs / "campaign.json").read_text())
    records.write_json(runs / "campaign.json", campaign | {"source": source})
    folder = tmp_path / "subs" / "a"
    folder.mkdir(parents=True)
    (folder / "submission_info.yml").write_text(
        "authors: [Ann, Bo]\naffiliations: Here\nlink: https://example.org\nsubmission_name: A\n"
    )
    monkeypatch.chdir(tmp_path)

    submit(runs, board)

    found = {entry.contender: entry.campaigns["made"].about for entry in read_entries(board)}
    assert found["a+halton"] == Authorship(
        name="A", authors="Ann, Bo", affiliations="Here", link="https://example.org"
    )
    assert found["b+halton"] == Authorship()


def test_a_record_that_names_no_authors_can_be_read(filled):
    path = next((filled / "records").rglob("digits_mlp/a+halton.json"))
    document = json.loads(path.read_text())
    del document["campaigns"]["made"]["about"]
    path.write_text(json.dumps(document))

    entries = {
        entry.path.name: entry for entry in read_entries(filled) if entry.workload == "digits_mlp"
    }

    assert entries["a+halton.json"].campaigns["made"].about is None


def test_a_given_command_is_kept_without_its_secrets(make_runs, board):
    command = "python -m tuning worker mine.toml --storage postgresql://me:TopSecret1@host/base"
    submit(make_runs(), board, command=command)

    assert not [path for path in board.rglob("*.*") if "TopSecret1" in path.read_text()]
    assert "postgresql://me:***@host/base" in read_entries(board)[0].campaigns["made"].command


def identify(runs, recipes="1", losses="1"):
    identity = {
        "modules": {"metaopt/recipes.py": recipes},
        "workload": {"metaopt/workloads/losses.py": losses},
    }
    for path in runs.rglob("run.json"):
        records.write_json(path, json.loads(path.read_text()) | {"digest": digest_of(identity)})
        records.write_json(path.parents[1] / "identity.json", identity)


def test_entries_of_one_campaign_are_on_one_version_of_the_workload(make_runs, board):
    late = {"c+halton": HITS["b+halton"]}
    runs, same, other = (
        make_runs(name, **given)
        for name, given in (("runs", {}), ("same", {"hits": late}), ("other", {"hits": late}))
    )
    identify(runs)
    identify(same, recipes="2")
    identify(other, losses="2")

    submit(runs, board)

    with pytest.raises(ValueError, match="differ in version of the workload"):
        submit(other, board)
    submit(same, board)
    assert {entry.contender for entry in read_entries(board)} == {"a+halton", "b+halton", *late}


def test_costs_on_workloads_that_a_submission_was_designed_with_are_marked(build, board, tmp_path):
    runs = build_runs(build, tmp_path / "runs")
    for path in (runs / "logs/a+halton").rglob("digits_mlp_jax/trial_*/run.json"):
        records.write_json(path, json.loads(path.read_text()) | {"developed_here": True})

    submit(runs, board)

    (standing,) = standings(read_entries(board))
    logs = read_logs(runs)
    scores = score_logs(logs)
    tables = (
        standing_table(MeasuredStanding(standing, "here")),
        score_table(scores, Marks()),
        score_table(scores, Marks(), Extras(facets=facets_of(logs))),
    )
    for table in tables:
        marked = [(row[0], name) for row in table.texts for name, cell in
                  zip(table.header, row, strict=True) if "‡" in cell]  # fmt: skip
        assert marked == [("a+halton", "digits_mlp")]
        assert any("‡" in note and "designed with this workload" in note for note in table.notes)


def test_submit_prints_how_many_files_it_wrote_and_where(make_runs, board, capsys):
    assert run("submit", make_runs(), "--board", board) == 0

    (line,) = capsys.readouterr().out.splitlines()
    others = sum(path.is_file() for path in board.rglob("*")) - 4
    assert line == f"Wrote 4 records and {others} other files to {board}."

    assert run("leaderboard", "--board", board) == 0
    assert capsys.readouterr().out == f"{board} is up to date.\n"


def test_submitting_the_same_runs_again_changes_nothing(make_runs, board):
    runs = make_runs()
    submit(runs, board)
    before = {path: path.read_bytes() for path in board.rglob("*.*")}

    submit(runs, board)

    assert {path: path.read_bytes() for path in board.rglob("*.*")} == before
    assert all(path.read_text() == entry_text(entry) for entry in read_entries(board)
               for path in [board / entry.path])  # fmt: skip


def test_scores_do_not_depend_on_the_unit_of_costs(make_runs, filled, tmp_path):
    submit(make_runs("scaled", scale=60.0), tmp_path / "scaled_board")

    (one,), (two,) = (standings(read_entries(path)) for path in (filled, tmp_path / "scaled_board"))

    for name, scores in one.scores().scores.items():
        assert scores == pytest.approx(two.scores().scores[name])
    rows = [standing_table(MeasuredStanding(standing, "here")).texts for standing in (one, two)]
    assert [row[:3] for row in rows[0]] == [row[:3] for row in rows[1]]


DIRTY = ENVIRONMENT | {"git": {"commit": "0" * 40, "dirty": True}}
ELSEWHERE = ENVIRONMENT | {"hardware": {"cpu": "slide rule", "cpu_count": 1}}
OWN_TARGET = Target(metric="validation/loss", value=0.7, better="lower")


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"environment": DIRTY}, "environment-commit: .*: changes on .* 000.*; and 47 more"),
        ({"environment": {}}, "environment-commit: .*: the commit is not known; and 47 more"),
        ({"data": {"whole": False, "files": {"part": "0"}}}, "environment-data: .*: part"),
        ({"target": OWN_TARGET}, "targets-frozen: .*: its target, validation/loss 0.7, is not"),
        (
            {"skip": [("b+halton", "digits_mlp", 2)]},
            "budgets-studies: b.halton on digits_mlp: 2 of",
        ),
    ],
    ids=["dirty", "no commit", "partial", "own target", "missing"],
)
def test_runs_that_may_not_be_submitted_are_refused_by_name(
    make_runs, board, capsys, arguments, message
):
    runs = make_runs(**arguments)

    assert run("submit", runs, "--board", board) == 1

    assert re.search(message, capsys.readouterr().err)
    assert not board.exists()


def test_budgets_lost_trials_and_mixed_hardware_are_refused_too(make_runs, board, build, tmp_path):
    runs = make_runs()
    b = build(tmp_path / "again", ["a+halton"], WORKLOADS, 3)
    b.trial("a+halton", "digits_mlp", 1, 250.0, target=target("digits_mlp"), environment=ELSEWHERE)
    b.study("a+halton", "digits_mlp", 1)
    place = "logs/a+halton/study_1/digits_mlp_jax"
    shutil.copytree(tmp_path / "again" / place, runs / place, dirs_exist_ok=True)
    shutil.rmtree(runs / "logs/b+halton/study_2/digits_mlp_jax/trial_3")

    with pytest.raises(RefusedRuns) as error:
        submit(runs, board)

    text = "\n".join(error.value.problems)
    assert "budgets-spent: a+halton on digits_mlp, study 1: spent 250 of 1,000" in text
    assert re.search("files-study: .*: 1 trial was run, 4 can be read; and 1 more", text)
    assert "environment-machines: a+halton on digits_mlp: ran on 2 kinds of hardware" in text


def test_what_validate_finds_keeps_runs_out(make_runs, board):
    runs = make_runs()
    next(runs.rglob("flags_0.json")).unlink()

    with pytest.raises(RefusedRuns) as error:
        submit(runs, board)

    assert all(problem.startswith("files-flags: ") for problem in error.value.problems)
    assert not board.exists()


def test_missing_runs_are_unknown_without_a_campaign(make_runs, board):
    runs = make_runs()
    (runs / "campaign.json").unlink()

    with pytest.raises(RefusedRuns, match=r"no campaign\.json"):
        submit(runs, board)


def test_a_contender_joins_a_campaign_later_and_one_under_other_rules_does_not(
    make_runs, filled, capsys
):
    late = {"c+halton": HITS["b+halton"]}
    submit(make_runs("late", hits=late), filled)

    (standing,) = standings(read_entries(filled))
    assert standing.complete == ["a+halton", "b+halton", "c+halton"]
    before = (filled / "README.md").read_bytes()
    assert run("submit", make_runs("other", hits=late, campaign_seed=2), "--board", filled) == 2
    assert "differ in seeds of studies" in capsys.readouterr().err
    assert (filled / "README.md").read_bytes() == before


def test_a_contender_that_did_not_run_everywhere_has_costs_but_no_score(make_runs, filled):
    (whole,) = standings(read_entries(filled))
    late = {"c+halton": HITS["a+halton"]}
    submit(make_runs("late", hits=late), filled)
    next((filled / "records").rglob("digits_mlp/c+halton.json")).unlink()

    (standing,) = standings(read_entries(filled))
    table = standing_table(MeasuredStanding(standing, "here"))

    assert standing.scores().scores == whole.scores().scores
    row = dict(zip(table.header, table.texts[-1], strict=True))
    assert (row["contender"], row["score"], row["given tuned"]) == ("c+halton", "", "")
    assert row["breast_cancer_logistic"] == "260" and row["digits_mlp"] == ""
    assert any("did not run on every workload" in note for note in table.notes)


def test_one_study_has_a_table_without_intervals(build, tmp_path):
    b = build(tmp_path / "runs", ["a+halton"], ["digits_mlp"], 1)
    b.trial("a+halton", "digits_mlp", 1, 1000.0, 900.0, target=target("digits_mlp"))
    b.study("a+halton", "digits_mlp", 1)

    (standing,) = standings(entries_of(read_logs(tmp_path / "runs")))

    assert standing.inferences() == []
    assert standing_table(MeasuredStanding(standing, "here")).texts[0][1:3] == ("1.000", "1.000")


def test_hardware_has_tables_of_its_own_and_ratios_across(make_runs, filled):
    slow = ENVIRONMENT | {"hardware": {"cpu": "slide rule", "cpu_count": 1}}
    submit(make_runs("slow", environment=slow), filled)

    one, two = standings(read_entries(filled))

    assert one.hardware.startswith("abacus-x1-") and two.hardware.startswith("slide-rule-x1-")
    assert one.scores().scores == two.scores().scores
    page = (filled / "protocols/made.html").read_text()
    text = (filled / "protocols/made.across_hardware.csv").read_text()
    rows = list(csv.DictReader(text.splitlines()))
    assert (
        f'<section aria-labelledby="hardware-2" data-hardware="[&#34;slide rule x 1 ({two.hardware}'
        in page
    )
    assert len(rows) == 4
    for row in rows:
        pair = row["contender"], row["workload"]
        for standing in (one, two):
            cost = standing.scores().median(*pair, "including")
            other = standing.scores().median("a+halton", pair[1], "including")
            shown = float(row[f"{standing.hardware}:_cost"].replace("missed", "inf"))
            assert shown == cost
            ratio = float(row[f"{standing.hardware}:_cost_ratio"].replace("missed", "inf"))
            assert ratio == pytest.approx(cost / other)


def test_a_failed_audit_is_flagged_in_the_table_across_hardware(make_runs, filled):
    slow = ENVIRONMENT | {"hardware": {"cpu": "slide rule", "cpu_count": 1}}
    submit(make_runs("slow", environment=slow), filled)
    path = min((filled / "records").rglob("*.json"))
    document = json.loads(path.read_text())
    (campaign,) = document["campaigns"].values()
    campaign["audit"] = {
        "failed": True, "findings": ["32 counted and 8 charged"], "ratio": None, "time_factor": 1.0
    }  # fmt: skip
    path.write_text(json.dumps(document))

    write_leaderboard(filled)

    page = (filled / "protocols/made.html").read_text().partition('id="across"')[2]
    assert f"{document['contender']} §" in page
    assert "32 counted and 8 charged" in page
