"""A section of a report with nothing to show says so in a line, and no table is empty."""

import pytest

from analysis.logs.reader import read_logs
from analysis.report.report import write_report


@pytest.fixture(scope="module")
def alone(build, tmp_path_factory):
    """The report of the reference alone: no trial fails, and nothing can be compared."""
    folder = tmp_path_factory.mktemp("alone")
    b = build(folder / "runs", ["adamw+random"], ["w"], 2)
    for study in (1, 2):
        b.whole_study("adamw+random", "w", study, [None, 100.0 * study])
    write_report(read_logs(folder / "runs"), folder / "report")
    return folder / "report"


def part(page, heading):
    """The text of a section of a Markdown page."""
    return page.split(f"## {heading}\n")[1].split("\n## ")[0]


def test_a_report_without_failures_says_so_and_how_the_trials_ended(alone):
    text = part((alone / "report.md").read_text(), "What failed?")

    assert text.strip().startswith("No trial failed. This is how they ended:")
    assert "| adamw+random | 2 | 2 |" in text
    assert not (alone / "errors.csv").exists()


def test_no_table_of_a_single_contender_is_empty(alone):
    page = (alone / "report.html").read_text()

    assert "<tbody></tbody>" not in page and "<tbody>" in page
    assert not (alone / "speedups_including.csv").exists()


def test_rules_that_agree_are_a_line_and_not_an_empty_table(good, tmp_path):
    page = write_report(read_logs(good), tmp_path / "report").with_suffix(".md").read_text()

    text = part(page, "What does AlgoPerf's scorer say, and why does it differ?")
    assert text.strip().startswith("Both sets of rules come to the same time to target")
    assert "0 of 4 cells differ" not in page and "| fast | 1.0000 |" in text
    assert (tmp_path / "report/differences.csv").read_text().count("\n") == 1
