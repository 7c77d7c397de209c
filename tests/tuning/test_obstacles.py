"""What would keep records off the leaderboard is known before anything runs."""

import json
import subprocess
from pathlib import Path

import pytest

from metaopt.bench.trial.environment import changed_files, describe_checkout
from metaopt.workloads.registry import get_workload
from tuning.campaign import make_campaign
from tuning.commands.compare_command import begin
from tuning.obstacles import find_obstacles

GOOD = {
    "name": "test",
    "budget": "4x",
    "workloads": ["digits_mlp"],
    "contenders": ["sgd+random"],
}


@pytest.fixture
def checkout(tmp_path):
    """A repository with one commit: code and a page."""
    folder = tmp_path / "checkout"
    for name in ("tuning/study.py", "docs/page.md"):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text("first\n")
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "-c", "user.name=A", "-c", "user.email=a@b.c", "commit", "-qm", "first")
    return folder


def git(folder, *arguments):
    subprocess.run(["git", "-C", str(folder), *arguments], check=True)


@pytest.mark.parametrize(
    ("edited", "found"),
    [
        ([], []),
        (["notes.txt", "data/mine.txt"], []),
        (["docs/page.md"], ["docs/page.md"]),
        (["submissions/mine/submission.py"], ["submissions/"]),
        (["tuning/a file.py", "notes.txt"], ["tuning/a file.py"]),
    ],
    ids=["nothing", "notes", "a tracked page", "a new submission", "new code beside notes"],
)
def test_tracked_files_and_folders_of_code_count_and_other_new_files_do_not(
    checkout, edited, found
):
    for name in edited:
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).write_text("second\n")

    assert changed_files(checkout) == found
    assert describe_checkout(checkout)["dirty"] is bool(found)


def test_a_renamed_and_a_deleted_file_are_changes(checkout):
    git(checkout, "mv", "docs/page.md", "docs/other.md")
    (checkout / "tuning" / "study.py").unlink()

    assert sorted(changed_files(checkout)) == ["docs/other.md", "docs/page.md", "tuning/study.py"]


def test_a_folder_outside_git_has_no_commit(tmp_path):
    assert changed_files(tmp_path) is None
    assert describe_checkout(tmp_path) == {"commit": None, "dirty": None}


def test_nothing_is_in_the_way_of_a_clean_checkout_with_frozen_targets(tmp_path):
    frozen = get_workload("digits_mlp").targets.validation
    same = {"metric": frozen.metric, "value": frozen.value, "better": frozen.better}

    assert find_obstacles(make_campaign(GOOD, "test"), tmp_path) == []
    targets = {"targets": {"digits_mlp": {**same, "value": frozen.value * 2}}}
    (line,) = find_obstacles(make_campaign({**GOOD, **targets}, "test"), tmp_path)
    assert line == "The campaign sets targets of its own: digits_mlp."


def test_trials_that_ran_from_a_changed_checkout_are_named(tmp_path):
    for number, state in enumerate([{"dirty": False}, {"dirty": True}, None], start=1):
        path = tmp_path / "logs" / "c" / f"trial_{number}" / "run.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"environment": {"git": state}}))

    (line,) = find_obstacles(make_campaign(GOOD, "test"), tmp_path)

    assert line.endswith("from a changed checkout: logs/c/trial_2, logs/c/trial_3.")


def test_an_obstacle_is_a_note_or_with_require_clean_an_error(monkeypatch, tmp_path, capsys):
    files = [f"tuning/file{number}.py" for number in range(7)]
    monkeypatch.setattr("tuning.obstacles.changed_files", lambda folder: files)
    campaign = make_campaign(GOOD, "test")

    assert begin(campaign, tmp_path, require_clean=False, dry_run=False) == tmp_path
    said = capsys.readouterr().err
    with pytest.raises(ValueError, match=r"--require-clean.*file4.py and 2 more\. Commit them"):
        begin(campaign, tmp_path, require_clean=True, dry_run=False)

    assert said.startswith("note: the leaderboard would refuse the records. ")
    assert "tuning/file4.py and 2 more. Commit them first." in said


def test_without_git_the_commit_is_not_known(monkeypatch):
    monkeypatch.setattr("tuning.obstacles.changed_files", lambda folder: None)

    (line,) = find_obstacles(make_campaign(GOOD, "test"), Path("nowhere"))

    assert line.endswith("is no checkout of git, so the commit is not known.")
