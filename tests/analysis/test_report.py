"""The report: its numbers are the tables', and strangers' names are text."""

import csv
import json
import re
import subprocess
import sys
import xml.etree.ElementTree

import pytest
from rich.console import Console
from typer.testing import CliRunner

from analysis.checks.fairness import equality_of_budgets
from analysis.checks.validation import problem_sentences
from analysis.cli import app
from analysis.logs.reader import read_logs
from analysis.report.report import write_report
from analysis.report.table import Column, Table, format_cost
from analysis.report.terminal import print_table
from metaopt.bench import records
from tests.analysis.conftest import COMMAND, write_hand_made


@pytest.fixture
def command():
    return CliRunner()


def read_csv(folder, name):
    with (folder / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_numbers_in_the_page_are_those_of_the_csv(reported):
    page = (reported / "report.html").read_text("utf-8")

    costs, scores = (read_csv(reported, f"{name}.csv") for name in ("costs", "scores"))

    assert (len(costs), len(scores)) == (4, 2)
    contenders = {row["contender"]: row for row in scores}
    for row in costs:
        given, including = (
            row[f"{view}_gradient_evaluations"] for view in ("given_tuned", "including_tuning")
        )
        share = f"{row['reached']}/{row['reached_of']}"
        own = contenders[row["contender"]]
        assert own[f"{row['workload']}_including_tuning"] == including
        if including == "missed":
            assert f'data-sort="" class="missed">{share}</td>' in page
        else:
            given, including = float(given), float(including)
            assert f'data-sort="{including}">{format_cost(including)}</td>' in page
            assert f'data-sort="{given}">{format_cost(given)} (' in page
    for row in scores:
        value, low, high = (float(row[f"score_including{end}"]) for end in ("", "_low", "_high"))
        cell = f"{value:.3f} ({low:.3f} to {high:.3f})"
        assert re.search(rf'data-sort="{value}" data-shares="[^"]+">{re.escape(cell)}</td>', page)
    assert "make it" in page


def test_the_page_needs_no_network_and_says_what_is_missing(reported):
    page = (reported / "report.html").read_text("utf-8")

    assert not re.findall(r"(?:src|href)=\"(?!data:|#)", page)
    assert not re.findall(r"url\((?!#)|@import|fetch\(|XMLHttpRequest", page)
    assert re.search("Missing studies.{,40}a\\+halton on hard, study 3", page)


def test_no_file_of_a_report_has_a_secret_of_the_command(reported):
    assert "postgresql://me:***@host/base" in (reported / "report.html").read_text("utf-8")
    assert not [path for path in reported.iterdir() if b"TopSecret1" in path.read_bytes()]


def test_everything_is_written(reported):
    names = {path.name for path in reported.iterdir()}

    plots = (
        "intervals-including", "intervals-given", "profile-including", "profile-given",
        "anytime-1-easy", "anytime-2-hard", "breakdown", "costs-1-easy", "costs-2-hard",
    )  # fmt: skip
    tables = (
        "overview", "scores", "costs", "trials", "ends", "spent", "failures", "targets",
        "environment", "anytime", "profiles", "statistics", "comparisons", "ranks", "left_out",
        "repeatability",
    )  # fmt: skip
    assert names == {
        "report.html", "report.md", *(f"{name}.csv" for name in tables),
        *(f"{name}.{kind}" for name in plots for kind in ("png", "svg")),
    }  # fmt: skip


def test_a_report_opens_with_the_warning_that_its_ranking_would_not_repeat(build, tmp_path):
    # Halves of the studies disagree if one has both of the studies with a cost of 100.
    b = build(tmp_path / "runs", ["adamw+random", "b"], ["w"], 4)
    for study in (1, 2, 3, 4):
        b.trial("adamw+random", "w", study, 500.0, 100.0 if study % 2 else 400.0)
        b.trial("b", "w", study, 500.0, 200.0)

    write_report(read_logs(tmp_path / "runs"), tmp_path / "report")

    page, markdown = ((tmp_path / "report" / f"report.{kind}").read_text()
                      for kind in ("html", "md"))  # fmt: skip
    for view, paragraph in zip(("including tuning", "given tuned"), markdown.split("\n\n")[1:3],
                               strict=True):  # fmt: skip
        assert paragraph.startswith(f"**The ranking {view} would not repeat: rankings by two")
        assert paragraph.endswith("studies on each workload would give 0.7.**")
    assert '</h1>\n<p class="warn">The ranking including tuning would not repeat' in page
    speedups = read_csv(tmp_path / "report", "speedups_given.csv")
    assert [(row["contender"], float(row["speed-up"])) for row in speedups] == [("b", 250 / 200)]


def test_every_table_and_picture_of_the_page_is_in_markdown_too(reported):
    page, markdown = ((reported / f"report.{kind}").read_text("utf-8") for kind in ("html", "md"))

    tables = page.count("<table")
    assert tables >= 8
    assert len(re.findall(r"^\|-", markdown, re.MULTILINE)) == tables
    for text in (page, markdown):
        assert "missed" in text
        assert "350" in text
    assert len(re.findall(r"!\[.+?\]\(.+?\.svg\)", markdown)) == page.count('role="img"') == 9


def test_spent_seconds_are_those_of_the_trials(reported):
    spent, trials = (read_csv(reported, f"{name}.csv") for name in ("spent", "trials"))

    assert len(spent) == 4
    for row in spent:
        mine = [t for t in trials if all(t[key] == row[key] for key in ("contender", "workload"))]
        seconds = sum(float(t["seconds"]) for t in mine)
        assert float(row["training_s"]) + float(row["compilation_s"]) == pytest.approx(seconds)
        assert float(row["trials"]) == len(mine)


def test_curves_and_profiles_are_there_as_numbers(reported):
    curves, profiles = (read_csv(reported, f"{name}.csv") for name in ("anytime", "profiles"))

    last = [row for row in curves if (row["workload"], row["contender"]) == ("easy", "a+halton")][
        -1
    ]
    assert (float(last["spent"]), float(last["low"]), float(last["median"])) == (1000, 0.4, 0.4)
    ends = {(row["view"], row["contender"]): float(row["share"]) for row in profiles}
    assert ends == {
        ("including", "a+halton"): 1.0, ("including", "b+halton"): 0.5,
        ("given", "a+halton"): 1.0, ("given", "b+halton"): 0.5,
    }  # fmt: skip


def test_a_report_is_the_same_bytes_again(reported, tmp_path):
    logs = read_logs(write_hand_made(tmp_path / "runs"))
    write_report(logs, tmp_path / "report", command=COMMAND)

    for path in sorted(reported.iterdir()):
        assert (tmp_path / "report" / path.name).read_bytes() == path.read_bytes(), path.name


HOSTILE = "=<script>alert(1)</script>$x$\\input{x}|_&amp;'\"\x1b[31m"


def test_hostile_names_are_text_everywhere(build, tmp_path):
    # A name is a folder's: a slash cannot be in it.
    name = HOSTILE.replace("/", "\N{FRACTION SLASH}")
    b = build(tmp_path / "runs", [name], [name], 1)
    own = {"hyperparameters": {name: name, "rate": 0.1}}
    b.trial(name, name, 1, 500.0, reached=20.0, **own)
    own["hyperparameters"] |= {name: "other", "rate": 0.2}
    b.trial(name, name, 1, 500.0, status="crashed", error=name, cause=name, **own)
    b.study(name, name, 1)

    folder = write_report(read_logs(tmp_path / "runs"), tmp_path / "report", command=name).parent

    page = (folder / "report.html").read_text("utf-8")
    assert page.count("<script") == 1  # ours
    assert "&lt;script&gt;alert(1)" in page
    markdown = (folder / "report.md").read_text("utf-8")
    assert "<script" not in markdown.replace(r"\<", "")
    assert r"=\<script\>alert" in markdown
    for path in folder.glob("*.csv"):
        with path.open(encoding="utf-8", newline="") as file:
            cells = [cell for row in csv.reader(file) for cell in row]
        assert not [cell for cell in cells if cell.startswith(("=", "@", "\t", "\r"))], path.name
    for path in folder.glob("*.svg"):
        tree = xml.etree.ElementTree.parse(path)
        tags = {element.tag.rpartition("}")[2] for element in tree.iter()}
        assert not tags & {"script", "foreignObject", "a", "iframe"}, path.name
    for path in folder.iterdir():
        assert b"\x1b" not in path.read_bytes() or path.suffix == ".png", path.name


def test_score_prints_json(hand_made, command):
    result = command.invoke(app, ["score", str(hand_made()), "--format", "json"])

    document = json.loads(result.output)
    assert document["rules"] == "strict"
    assert list(document["scores"]) == ["a+halton", "b+halton"]
    assert document["scores"]["b+halton"] == pytest.approx(0.5)


@pytest.mark.parametrize("format", ["table", "csv", "markdown", "latex"])
def test_score_prints_every_format(hand_made, command, format):
    result = command.invoke(app, ["score", str(hand_made()), "--format", format])

    assert result.exit_code == 0
    assert "a+halton" in result.output
    assert "missed" in result.output
    assert (r"\begin{longtable}" in result.output) == (format == "latex")


def test_our_logs_score_under_the_official_rules(hand_made, command):
    arguments = ["score", str(hand_made()), "--rules", "algoperf", "--format", "json"]

    document = json.loads(command.invoke(app, arguments).output)

    assert document["rules"] == "algoperf"
    assert set(document["scores"]) == {"a+halton", "b+halton"}


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["score", "nowhere"], "No folder 'nowhere'"),
        (["score", "RUNS", "--rules", "algoperf", "--cost", "steps"], "count seconds"),
        (["score", ".", "--targets", "x.json"], "x.json: no such file"),
        (["report", "nowhere"], "No folder 'nowhere'"),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_code_2(reported, command, arguments, message):
    runs = str(reported.parent / "runs")
    result = command.invoke(app, [runs if word == "RUNS" else word for word in arguments])

    assert result.exit_code == 2
    assert result.stderr.startswith("analysis: ")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_no_command_of_analysis_imports_jax(hand_made, root):
    code = (
        "import sys; from pathlib import Path; from analysis.cli import app; runs = sys.argv[1]\n"
        "for name in ('report', 'score', 'statistics', 'validate'):\n"
        "    app([name, runs], standalone_mode=False)\n"
        "sys.exit('jax' in sys.modules)"
    )

    run = subprocess.run(
        [sys.executable, "-c", code, str(hand_made())], cwd=root, capture_output=True, text=True
    )

    assert run.returncode == 0, run.stderr


@pytest.fixture(scope="module")
def troubled(build, tmp_path_factory):
    """A campaign with everything that a reader must know before the numbers, and its report."""
    folder = tmp_path_factory.mktemp("troubled")
    b = build(folder / "runs", ["a+halton", "b+halton", "c+halton"], ["easy", "hard"], 1)
    part = {"data": {"files": {"some.npz": "0"}, "whole": False}}
    whole = {"data": {"files": {"some.npz": "0"}, "whole": True}}
    for contender in ("a+halton", "b+halton"):
        b.trial(contender, "easy", 1, 1000.0, reached=20.0, **whole)
        b.study(contender, "easy", 1)
    b.trial("a+halton", "hard", 1, 1000.0, best=None, **part)
    b.study("a+halton", "hard", 1)
    b.trial("b+halton", "hard", 1, 1000.0, reached=20.0, **part)
    b.study("b+halton", "hard", 1)
    b.trial(
        "c+halton", "easy", 1, 0.0, status="crashed", error="boom", cause="boom", best=None, **whole
    )
    next((folder / "runs/logs/c+halton").rglob(records.EVAL_FILE)).write_text("")
    path = folder / "runs" / records.CAMPAIGN_FILE
    campaign = json.loads(path.read_text())
    campaign["variants"] = {
        "a+halton": {"of": "adamw+halton", "hyperparameters": {"weight_decay": 0.5}},
        "unused": {"of": "sgd+halton", "hyperparameters": {"learning_rate": 1.0}},
    }
    path.write_text(json.dumps(campaign))
    write_report(read_logs(folder / "runs"), folder / "report")
    return folder


@pytest.mark.parametrize("kind", ["html", "md"])
def test_a_page_begins_with_its_warnings(troubled, kind):
    page = (troubled / "report" / f"report.{kind}").read_text("utf-8").replace("\\", "")

    def listed(title, *entries):
        found = page[page.index(title) :].split("</ul>" if kind == "html" else "\n\n\n")[0]
        return all(re.search(rf"{entry}\s*(</li>|\n|$)", found) for entry in entries)

    assert listed("Never took a step", r"c\+halton on easy: .*boom")
    assert listed("Never evaluated", r"a\+halton on hard, study 1")
    assert listed("On a part of the data set", r"hard: .*some\.npz")
    assert not re.search(r"easy: [^<\n]*some\.npz", page)
    assert listed("fixed by hand", r"a\+halton: adamw\+halton with weight_decay 0\.5")
    assert "unused" not in page


def test_variants_of_another_form_are_noted_and_not_fatal(hand_made):
    folder = hand_made()
    path = folder / "campaign.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "variants": {"x": 3}}))

    assert any(
        re.search(r"campaign\.json.*cannot be read", note) for note in read_logs(folder).notes
    )


def test_a_study_that_was_never_evaluated_is_named_with_the_scores(troubled, command):
    result = command.invoke(app, ["score", str(troubled / "runs")])

    printed = " ".join(result.output.split())
    assert re.search("Never evaluated.{,40}a.halton on hard, study 1", printed)
    assert result.exit_code == 1  # c failed throughout


def test_budgets_that_are_equal_but_for_a_long_step_say_so(build, tmp_path):
    b = build(tmp_path / "runs", ["a+halton", "b+halton"], ["easy"], 1)
    for contender in ("a+halton", "b+halton"):
        b.whole_study(contender, "easy", 1, [100.0, None, None, None])
    assert equality_of_budgets(read_logs(tmp_path / "runs")).endswith("one evaluation period")
    path = next((tmp_path / "runs").rglob("a+halton/*/*/study.json"))
    study = records.read_study(path)
    spent = study.spent.model_copy(update={"gradient_evaluations": 1070.0})
    records.write_json(path, study.model_copy(update={"spent": spent, "largest_step": 80.0}))

    logs = read_logs(tmp_path / "runs")

    assert not problem_sentences("budgets-spent", logs)
    assert "most expensive step with its compilation, which is 70" in equality_of_budgets(logs)


def test_a_table_that_is_cut_keeps_what_its_rows_are_about(capsys):
    columns = map(Column, ("contender", "versus", *(f"number {i}" for i in range(9))))
    rows = tuple((a, b, *["0.123456"] * 9) for a, b in (("x", "y"), ("x", "z")))

    print_table(Table("", tuple(columns), rows, keys=2), Console(width=60))

    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert sum(line[:2] == ["x", "y"] for line in lines) > 1
    assert all(line[1] in "yz" for line in lines if line[:1] == ["x"])


def test_a_report_names_every_kind_of_machine(build, tmp_path):
    b = build(tmp_path / "runs", ["a"], ["w"], 4)
    for study, cpu in enumerate(["Abacus", "Bead frame", "Abacus", "Quipu"], start=1):
        environment = {"hardware": {"cpu": cpu, "cpu_count": 2, "devices": ["cpu:0"]}}
        b.trial("a", "w", study, 1000.0, reached=100.0, environment=environment)
        b.study("a", "w", study)

    page = write_report(read_logs(tmp_path / "runs"), tmp_path / "out").read_text()

    machines = "Abacus x 2 (cpu:0); Bead frame x 2 (cpu:0); Quipu x 2 (cpu:0)"
    assert page.count(f"on {machines}") == 2


def test_the_picture_of_the_answer_is_never_empty(build, tmp_path):
    b = build(tmp_path / "runs", ["adamw+random"], ["w"], 2)
    for study in (1, 2):
        b.trial("adamw+random", "w", study, 1000.0, reached=100.0)
        b.study("adamw+random", "w", study)

    page = write_report(read_logs(tmp_path / "runs"), tmp_path / "out").read_text()

    opening = page[page.index('aria-labelledby="answer"') : page.index('id="part-1"')]
    assert "Scores including tuning with intervals of 95%." in opening
    assert "speed-up over adamw+random" not in opening


def test_a_page_that_would_be_too_large_leaves_out_its_last_plots(reported, tmp_path, monkeypatch):
    whole = (reported / "report.html").read_text("utf-8")
    drawings = re.findall("<svg.*?</svg>", whole, re.DOTALL)
    text = len(whole) - sum(map(len, drawings))
    limit = len(whole) - len(drawings[-1]) // 2
    monkeypatch.setattr("analysis.report.pages._LARGEST", limit)

    logs = read_logs(reported.parent / "runs")
    page = write_report(logs, tmp_path / "small").read_text("utf-8")

    kept = re.findall("<svg.*?</svg>", page, re.DOTALL)
    assert text < len(page) <= limit
    assert 0 < len(kept) < len(drawings)
    assert kept[0] == drawings[0]
