"""The long table of evaluations and its schema."""

import csv
import math

import pandas as pd
import pytest
from typer.testing import CliRunner

from analysis.cli import app
from analysis.report.long_table import SCHEMA, check_table, read_table


@pytest.fixture
def table(tmp_path, official):
    logs = official(tmp_path / "logs")
    logs.trial("s-2026-01-01-00-00-00", 0, "easy", 2, [(0.9, 1.5), (math.nan, 2.5)])
    logs.trial("s-2026-01-01-00-00-00", 0, "easy", 3, None)
    return read_table(logs.root)[0]


def test_a_row_is_one_metric_at_one_evaluation(table):
    assert {name: str(kind) for name, kind in table.dtypes.items()} == SCHEMA
    path = "s-2026-01-01-00-00-00/study_0/easy_jax/trial_2"
    rows = [tuple(row) for row in table.itertuples(index=False)]
    assert rows[2][:-1] == (path, "s", "easy", "jax", 0, 2, 0, 1.0, 1.5, "train/loss")
    assert [row[-2] for row in rows] == [m for m in ("test/loss", "train/loss", "validation/loss")
                                         for _ in range(2)]  # fmt: skip
    assert [row[-1] for row in rows] == pytest.approx([0.9, math.nan] * 3, nan_ok=True)


BREAKS = {
    "columns": (lambda t: t.drop(columns="step"), r"The columns must be \['path'"),
    "type": (lambda t: t.astype({"study": "float64"}), "'study' must be int64, got float64"),
    "missing": (lambda t: t.assign(path=t["path"].where(t.index > 0)), "not have missing values"),
    "framework": (
        lambda t: t.assign(framework=pd.Categorical(["tf"] * len(t))),
        r"'framework' must be one of \['jax', 'pytorch'\], got \['tf'\]",
    ),
    "sign": (lambda t: t.assign(trial=-1), "'trial' must not be negative, got -1"),
    "metric": (
        lambda t: t.assign(metric=pd.Categorical(["loss"] * len(t))),
        r"must begin with one of .*, got \['loss'\]",
    ),
    "twice": (lambda t: pd.concat([t, t], ignore_index=True), "is there twice"),
    "gap": (lambda t: t.assign(evaluation=t["evaluation"] * 2), "have a gap"),
}


@pytest.mark.parametrize("change, message", BREAKS.values(), ids=BREAKS)
def test_what_breaks_the_schema_is_refused(table, change, message):
    with pytest.raises(ValueError, match=message):
        check_table(change(table))


def test_logs_without_an_evaluation_give_an_empty_table(tmp_path, official):
    logs = official(tmp_path / "logs")
    logs.trial("s", 1, "easy", 1, None)

    assert len(read_table(logs.root)[0]) == 0


def test_the_command_writes_csv_that_no_spreadsheet_computes(tmp_path, official):
    logs = official(tmp_path / "logs")
    logs.trial("=cmd", 1, "easy", 1, [(0.9, 1.5)])

    result = CliRunner().invoke(app, ["table", str(logs.root), "--out", str(tmp_path / "t.csv")])

    assert result.exit_code == 0
    with (tmp_path / "t.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["submission"] for row in rows] == ["'=cmd"] * 3
    assert [float(row["value"]) for row in rows] == [0.9] * 3


def test_the_command_writes_infinite_values_as_such_in_every_format(tmp_path, official):
    logs = official(tmp_path / "logs")
    logs.trial("s", 1, "easy", 1, [(math.inf, 1.5), (0.25, 2.5)])
    csv_file = CliRunner().invoke(app, ["table", str(logs.root)])
    out = tmp_path / "t.json"

    for format in ("table", "json", "markdown", "latex"):
        line = ["table", str(logs.root), "--format", format]
        printed = CliRunner().invoke(app, line, env={"COLUMNS": "300"})
        written = CliRunner().invoke(app, [*line, "--out", str(out)], env={"COLUMNS": "300"})

        assert printed.exit_code == written.exit_code == 0
        assert out.read_text() == printed.stdout
        assert printed.stdout.count("inf") == csv_file.stdout.count("inf") == 3
        assert "0.25" in printed.stdout and "missed" not in printed.stdout
