"""The stability record: its table and plot against norms that are exactly geometric."""

import subprocess
import sys

import matplotlib.pyplot as plt
import numpy as np
import pytest
from typer.testing import CliRunner

from analysis.cli import app
from analysis.report.stability import stability_table
from analysis.report.stability_report import plot_stability
from metaopt.bench.records import write_json
from metaopt.bench.records.stability import (
    StabilityRecord,
    StabilityResult,
    read_stability,
)

GAPS = np.arange(6)
LOW, HIGH = 2.0 * 0.8 ** (GAPS + 1), 4.0 * 0.8 ** (GAPS + 1)


def result(label, rows, **fit):
    setting = {
        "label": label, "workload": "digits", "pool": 2, "widths": [4], "eta": 0.1, "delta": 0.2,
    }  # fmt: skip
    norms = tuple(None if row is None else tuple(row) for row in rows)
    return StabilityResult.model_validate(
        {"setting": setting, "parameters": 118, "gaps": tuple(GAPS), "norms": norms, **fit}
    )


@pytest.fixture
def record():
    """Two trials of six steps: one setting that decays, three that give no such answer."""
    flat = np.full(6, 1.5)
    return StabilityRecord(
        name="made", seed=1, trials=2, steps=6, started_at="2026-01-01T00:00:00+00:00",
        environment={},
        settings=(
            result("decaying", [LOW, HIGH], kappa=2.0, gamma=0.2, mean_kappa=1.732),
            result("flat", [flat, LOW], kappa=1.2, gamma=0.0),
            result("half done", [LOW]),
            result("wild", [LOW, None]),
        ),
    )  # fmt: skip


def test_the_table_says_the_fit_and_where_assumption_2_holds(record):
    table = stability_table(record)

    rows = [dict(zip(table.header, row, strict=True)) for row in table.texts]
    verdicts = ["not shown", "not shown", "unfinished (1/2)", "1 diverged"]
    assert [row["Assumption 2"] for row in rows] == verdicts
    assert rows[0]["mean's"] == "1.73"
    assert rows[2]["mean's"] == ""
    assert (rows[0]["kappa"], rows[0]["gamma"]) == ("2.00", "0.200")
    assert rows[2]["kappa"] == ""
    assert rows[0]["gap 0"] == f"{4 * 0.8:.3f}"
    assert rows[0]["gap 5"] == f"{4 * 0.8**6:.3f}"
    assert (rows[0]["data"], rows[0]["d"], rows[0]["delta"]) == ("digits", "118", "0.2")


@pytest.mark.parametrize(
    ("rows", "answer"),
    [
        ([LOW, HIGH], False),  # 4 * 0.8^6 is 1.05
        ([LOW, LOW], True),
        ([[2.0, 0.9, 3.0, 3.0, 3.0, 3.0]], True),  # products of two contract, so of 2 k
        ([[0.9] + [2.0] * 5, [2.0, 0.9] + [2.0] * 4], False),  # never all trials at one gap
        ([LOW, None], False),
        ([], False),
    ],
    ids=["too slow", "decays", "transient", "at no common gap", "diverged", "nothing"],
)
def test_products_decay_if_at_some_gap_all_are_below_1(rows, answer):
    assert result("x", rows).decays is answer


def test_the_plot_shows_means_bands_and_the_bound_on_a_logarithmic_axis(
    record, tmp_path, monkeypatch
):
    kept = []
    monkeypatch.setattr(plt, "close", kept.append)

    plot_stability(record, tmp_path / "plot.png")

    monkeypatch.undo()
    (axis,) = kept[0].axes
    lines = {
        (line.get_linestyle() == "--", tuple(np.round(np.float64(line.get_ydata()), 6)))
        for line in axis.lines
    }
    assert (False, tuple(np.round((LOW + HIGH) / 2, 6))) in lines
    assert (True, tuple(np.round(4 * 0.8 ** (GAPS + 1), 6))) in lines
    band = axis.collections[0].get_paths()[0].vertices
    at_zero = band[band[:, 0] == 0][:, 1]
    assert (at_zero.min(), at_zero.max()) == pytest.approx((1.6, 3.2))
    assert axis.get_yscale() == "log"
    assert len(axis.lines) == 4 + 2  # settings, and the bounds of those that have one
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    plt.close(kept[0])


def test_nothing_to_draw_is_an_error(record, tmp_path):
    empty = record.model_copy(update={"settings": (result("new", []),)})

    with pytest.raises(ValueError, match="'made' has no finished trial"):
        plot_stability(empty, tmp_path / "plot.png")


def test_a_record_is_read_as_it_was_written(record, tmp_path):
    write_json(tmp_path / "stability.json", record)

    assert read_stability(tmp_path) == read_stability(tmp_path / "stability.json") == record


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "stability.json: name: Field required"),
        ([], "stability.json: content: "),
        ({"settings": [{"norms": [[1.0]]}]}, r"settings\.0\.setting: Field required"),
    ],
    ids=["empty", "a list", "no setting"],
)
def test_what_is_no_record_is_refused_with_file_key_and_rule(tmp_path, content, message):
    if content:
        content = {"name": "x", "seed": 1, "trials": 1, "steps": 1, **content} if isinstance(
            content, dict) else content  # fmt: skip
    write_json(tmp_path / "stability.json", content)

    with pytest.raises(ValueError, match=message):
        read_stability(tmp_path)


def test_a_trial_has_a_norm_for_each_gap():
    with pytest.raises(ValueError, match="one norm for each of `gaps`"):
        result("short", [LOW[:3]])


def test_options_of_campaigns_are_refused_for_its_report(record, tmp_path):
    write_json(tmp_path / "stability.json", record)
    line = ["report", str(tmp_path), "--out", str(tmp_path / "report")]

    plain = CliRunner().invoke(app, line)
    wrong = ["--cost", "steps"], ["--mix-hardware"], ["--reference", "adamw+random"]
    refused = [CliRunner().invoke(app, [*line, *more]) for more in wrong]

    assert plain.exit_code == 0, plain.stderr
    assert [result.exit_code for result in refused] == [2, 2, 2]
    for result, (option, *_) in zip(refused, wrong, strict=True):
        assert f"takes no {option}." in result.stderr


def test_it_is_read_without_jax(root):
    code = "import sys, analysis.report.stability; sys.exit('jax' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], cwd=root).returncode == 0
