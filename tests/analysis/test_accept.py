"""Accepted findings: files of them, and the findings of a published competition."""

import glob
import json
import os
from collections import Counter
from pathlib import Path

import pytest

from analysis.checks.acceptance import read_acceptances, review_findings
from analysis.checks.validation import read_for_checks, validate
from analysis.cli import app
from analysis.command_line import run_app

FIRST = "fast/study_1/easy_jax/trial_1"
SECOND = "fast/study_1/easy_jax/trial_2"


def findings(path):
    return validate(read_for_checks(path))


def rewrite(path, old, new):
    path.write_text(path.read_text().replace(old, new))


ACCEPT = """
[[accept]]
rule = "files-hparams"
where = "fast/*/trial_1"
reason = "lost with a disk"
"""


@pytest.fixture
def file(tmp_path):
    """A file of accepted findings."""
    path = tmp_path / "accepted.toml"
    path.write_text(ACCEPT)
    return path


def run(*arguments):
    return run_app(app, "analysis", ["validate", *map(str, arguments)])


def test_accepted_findings_are_counted_and_do_not_decide_the_exit_code(good, file, capsys):
    (good / FIRST / "hparams.json").unlink()
    assert run(good) == 1
    capsys.readouterr()

    assert run(good, "--accept", file) == 0

    assert "0 errors, 0 notes, 1 accepted" in capsys.readouterr().out
    assert run(good, "--accept", file, "--all") == 0
    out = capsys.readouterr().out
    assert f"accepted error: files-hparams: {FIRST}: " in out
    assert "lost with a disk" in out


def test_json_has_accepted_findings_with_the_reason(good, file, capsys):
    for trial in (FIRST, SECOND):
        (good / trial / "hparams.json").unlink()

    assert run(good, "--accept", file, "--format", "json") == 1

    document = json.loads(capsys.readouterr().out)
    assert (document["errors"], document["accepted"]) == (1, 1)
    assert {f["where"]: f["accepted"] for f in document["findings"]} == {
        FIRST: "lost with a disk", SECOND: None
    }  # fmt: skip


def test_a_file_of_accepted_findings_may_begin_with_a_byte_order_mark(file):
    before = read_acceptances(file)
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())

    assert read_acceptances(file) == before


def test_an_entry_that_matches_nothing_is_a_note(good, file):
    ((note, accepted),) = review_findings(findings(good), read_acceptances(file))

    assert (note.rule, note.severity, note.where) == ("accept-unused", "note", "fast/*/trial_1")
    assert accepted is None


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("files-hparams", "files-x", "accept 1 rule: .*no rule 'files-x'"),
        ('reason = "lost with a disk"', "", "accept 1 reason: Field required"),
        ("lost with a disk", "", "accept 1 reason: "),
        ("where", "were", "accept 1 where: Field required"),
        ('"fast/*/trial_1"', "3", "accept 1 where: .*string"),
        ("[[accept]]", "[[except]]", "accept: Field required"),
        ("[[accept]]", "[[accept", "line 2"),
    ],
)
def test_another_file_is_refused_by_the_entry_and_the_key(file, old, new, message):
    rewrite(file, old, new)

    with pytest.raises(ValueError, match=f"accepted.toml: not a file of accepted.*{message}"):
        read_acceptances(file)


# The competition of AlgoPerf v0.5.


@pytest.fixture(params=["external", "self"])
def published(request, tmp_path):
    """The options that name one ruleset's logs."""
    folder = os.environ.get("METAOPT_ALGOPERF_LOGS")
    if not folder:
        pytest.skip("METAOPT_ALGOPERF_LOGS is not set")
    folder = Path(folder)
    return request.param, (
        folder / "v05_logs.tar.xz", "--within", f"algoperf_v05/logs/{request.param}_tuning",
        "--targets", folder / "workload_targets_v05.json",
    )  # fmt: skip


@pytest.mark.slow  # reads thousands of logs
def test_the_competitions_logs_have_the_known_findings_and_can_be_accepted(
    published, tmp_path, capsys
):
    ruleset, options = published
    assert run(*options, "--format", "json") == 1
    document = json.loads(capsys.readouterr().out)
    counts = Counter((f["severity"], f["rule"]) for f in document["findings"])

    # Trials that crashed before an evaluation, or broke off; one study is missing.
    assert counts == KNOWN[ruleset]

    accepted = tmp_path / "accepted.toml"
    accepted.write_text("".join(
        f"[[accept]]\nrule = {f['rule']!r}\nwhere = {glob.escape(f['where'])!r}\n"
        "reason = 'published'\n"
        for f in document["findings"] if f["severity"] == "error"
    ))  # fmt: skip
    assert run(*options, "--format", "json", "--accept", accepted) == 0
    again = json.loads(capsys.readouterr().out)
    assert (again["errors"], again["accepted"]) == (0, document["errors"])
    assert again["notes"] == document["notes"]


KNOWN = {
    "external": {
        ("error", "budgets-studies"): 6, ("error", "budgets-trials"): 10,
        ("error", "files-evaluations"): 181, ("error", "files-flags"): 4,
        ("error", "files-meta"): 4, ("error", "files-stray"): 18, ("error", "targets-agree"): 3,
        ("error", "trials-broke-off"): 380, ("note", "budgets-time"): 30,
        ("note", "environment-hardware"): 1, ("note", "environment-software"): 1,
        ("note", "seeds-reused"): 308, ("note", "types-finite"): 42,
    },
    "self": {
        ("error", "budgets-studies"): 1, ("error", "files-evaluations"): 20,
        ("error", "trials-broke-off"): 15, ("note", "types-finite"): 1,
    },
}  # fmt: skip
