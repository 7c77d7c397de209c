"""Submissions in AlgoPerf's logs are shown by the names that their authors gave them."""

import json

import pytest
from typer.testing import CliRunner

from analysis.cli import app
from analysis.logs.competition import read_submission_names


def run(*arguments):
    return CliRunner().invoke(app, [*map(str, arguments)], env={"COLUMNS": "300"})


@pytest.fixture
def described(tmp_path):
    """A function that writes the descriptions of submissions, and returns their folder."""

    def write(names):
        for folder, name in names.items():
            place = tmp_path / "submissions" / folder
            place.mkdir(parents=True)
            (place / "submission_info.yml").write_text(f"submission_name: {name}\n")
        return tmp_path / "submissions"

    return write


def test_scores_and_comparisons_have_the_names(good, described):
    folder = described({"external/fast": "Fast & Good", "external/slow": "The Baseline"})

    plain = json.loads(run("score", good, "--format", "json").stdout)
    named = json.loads(run("score", good, "--submissions", folder, "--format", "json").stdout)

    assert {*plain["scores"]} == {"fast", "slow"}
    assert named["scores"] == {
        "Fast & Good": plain["scores"]["fast"], "The Baseline": plain["scores"]["slow"],
    }  # fmt: skip
    # What ends like AlgoPerf's baseline is the reference.
    assert "less time than The Baseline" in named["answer"]


def test_a_submission_without_a_description_keeps_its_folder_s_name(good, described):
    named = run("score", good, "--submissions", described({"fast": "Quick"}), "--format", "json")

    assert {*json.loads(named.stdout)["scores"]} == {"Quick", "slow"}


def test_a_name_that_two_submissions_share_tells_nothing_apart(described):
    assert read_submission_names(described({"a": "Same", "b": "Same", "c": "Mine"})) == {
        "c": "Mine"
    }


def test_two_descriptions_of_one_folder_and_none_at_all_are_refused(described, tmp_path):
    with pytest.raises(ValueError, match="Choose the folder of one ruleset"):
        read_submission_names(described({"external/a": "A", "self/a": "B"}))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"no submission_info\.yml"):
        read_submission_names(tmp_path / "empty")


def test_names_for_records_of_ours_are_refused(hand_made, described):
    refused = run("score", hand_made(), "--submissions", described({"a": "A"}))

    assert refused.exit_code == 2
    assert "--submissions is for AlgoPerf's logs" in refused.output
