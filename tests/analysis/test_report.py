"""The report: its numbers are the tables', and strangers' names are text."""

import csv
import json
import re
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from analysis.cli import app
from analysis.report import write_report
from analysis.scoring import format_cost
from analysis.tables import plain, spreadsheet_cell


@pytest.fixture
def command():
    return CliRunner()


def test_the_numbers_in_the_page_are_those_of_the_csv(hand_made, tmp_path):
    out = hand_made()

    page = write_report(out, tmp_path / "report", command="make it").read_text("utf-8")

    with (tmp_path / "report" / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4
    for row in rows:
        given, including = (
            format_cost(float(row[f"{view}_gradient_evaluations"]))
            for view in ("given_tuned", "including_tuning")
        )
        cell = f"{given} / {including} ({row['reached']}/{row['studies']})"
        assert f"<td>{cell}</td>" in page
        assert f"<td>{float(row['score_including']):.3f}</td>" in page
    assert "make it" in page


def test_the_page_needs_no_network_and_says_what_is_missing(hand_made, tmp_path):
    page = write_report(hand_made(), tmp_path / "report").read_text("utf-8")

    assert not re.findall(r"(?:src|href)=\"(?!data:)", page)
    assert "1 study is missing and counts as a miss;" in page
    assert "a+random on hard, study 3" in page


def test_everything_is_written(hand_made, tmp_path):
    write_report(hand_made(), tmp_path / "report")

    names = {path.name for path in (tmp_path / "report").iterdir()}
    assert names == {
        "report.html", "report.md", "scores.csv", "trials.csv", "ends.csv", "profile-including.png",
        "profile-given.png", "anytime-1-easy.png", "anytime-2-hard.png",
    }  # fmt: skip


def test_hostile_names_are_text_everywhere(build, tmp_path):
    name = "=<script>alert(1)</script>"
    folder = name.replace("/", "\\")
    b = build(tmp_path, [folder], ["w"], 1)
    b.trial(folder, "w", 1, 1000.0, reached=20.0)
    b.study(folder, "w", 1)

    page = write_report(tmp_path, tmp_path / "report").read_text("utf-8")

    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page
    lines = (tmp_path / "report" / "scores.csv").read_text().splitlines()
    assert lines[1].startswith("'=<script>")
    assert r"\<script\>" in (tmp_path / "report" / "report.md").read_text()


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x"])
def test_spreadsheets_see_no_formula(text):
    assert spreadsheet_cell(text) == f"'{text}"


def test_terminals_see_no_escape():
    assert plain("a\x1b[31mb\x07") == "a\N{REPLACEMENT CHARACTER}[31mb\N{REPLACEMENT CHARACTER}"


def test_a_contender_that_ran_into_nothing_is_still_reported(build, tmp_path):
    b = build(tmp_path, ["a+random", "b+random"], ["w"], 1)
    b.trial("a+random", "w", 1, 0.0, status="crashed", error="boom", best=None)
    (next(tmp_path.rglob("eval_measurements.csv"))).write_text("")
    b.trial("b+random", "w", 1, 1000.0, reached=20.0)

    page = write_report(tmp_path, tmp_path / "report").read_text("utf-8")

    assert "crashed" in page


def test_score_prints_json(hand_made, command):
    result = command.invoke(app, ["score", str(hand_made()), "--format", "json"])

    document = json.loads(result.output)
    assert document["rules"] == "strict"
    assert list(document["scores"]) == ["a+random", "b+random"]
    assert document["scores"]["b+random"] == pytest.approx(0.5)


@pytest.mark.parametrize("format", ["table", "csv", "markdown"])
def test_score_prints_every_format(hand_made, command, format):
    result = command.invoke(app, ["score", str(hand_made()), "--format", format])

    assert result.exit_code == 0
    assert "a+random" in result.output


def test_our_logs_score_under_the_official_rules(hand_made, command):
    arguments = ["score", str(hand_made()), "--rules", "algoperf", "--format", "json"]

    document = json.loads(command.invoke(app, arguments).output)

    assert document["rules"] == "algoperf"
    assert set(document["scores"]) == {"a+random", "b+random"}


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["score", "nowhere"], "No folder 'nowhere'"),
        (["score", ".", "--rules", "algoperf", "--cost", "steps"], "count seconds"),
        (["score", ".", "--targets", "x.json"], "x.json: not a workload_targets.json"),
        (["report", "nowhere"], "No folder 'nowhere'"),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_code_2(command, arguments, message):
    result = command.invoke(app, arguments)

    assert result.exit_code == 2
    assert result.stderr.startswith("analysis: ")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_no_command_of_analysis_imports_jax(hand_made, root):
    code = (
        "import sys; from pathlib import Path; from analysis.report import write_report; "
        "from analysis.terminal import print_scores; out = Path(sys.argv[1]); "
        "write_report(out, out / 'report'); print_scores(out); sys.exit('jax' in sys.modules)"
    )

    run = subprocess.run([sys.executable, "-c", code, str(hand_made())], cwd=root)

    assert run.returncode == 0


def test_a_variant_is_named_with_what_somebody_fixed(hand_made, tmp_path):
    folder = hand_made()
    path = folder / "campaign.json"
    campaign = json.loads(path.read_text())
    campaign["variants"] = {
        "a+random": {"of": "adamw+random", "hyperparameters": {"weight_decay": 0.5}},
        "unused": {"of": "sgd+random", "hyperparameters": {"learning_rate": 1.0}},
    }
    path.write_text(json.dumps(campaign))

    page = write_report(folder, tmp_path / "out").read_text()

    assert "<li>a+random: adamw+random with weight_decay 0.5</li>" in page
    assert "unused" not in page


def test_variants_of_another_form_are_noted_and_not_fatal(hand_made, tmp_path):
    folder = hand_made()
    path = folder / "campaign.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "variants": {"x": 3}}))

    page = write_report(folder, tmp_path / "out").read_text()

    assert "campaign.json cannot be read" in page


def test_a_part_of_a_data_set_is_said_so(hand_made, tmp_path):
    folder = hand_made()
    for path in folder.rglob("run.json"):
        record = json.loads(path.read_text())
        record["data"] = {"files": {"some.npz": "0"}, "whole": record["workload"] != "hard"}
        path.write_text(json.dumps(record))

    page = write_report(folder, tmp_path / "out").read_text()

    assert "On a part of the data set" in page
    assert "<li>hard: some.npz</li>" in page
    assert "easy: some.npz" not in page
