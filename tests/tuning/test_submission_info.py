"""``submission_info.yml``: read as far as it goes, asked for, and written as upstream reads it."""

import shutil

import pytest
import yaml

from metaopt.bench.records.submission_info import KEYS, parse_info, read_info
from tuning.contenders import SUBMISSIONS
from tuning.packaging import package, package_submission
from tuning.packaging.info import SubmissionInfo, check_value, complete_info, question

INFO = dict.fromkeys(KEYS, "x") | {
    "submission_folder": "plain", "ruleset": "self-tuning", "framework": "JAX",
}  # fmt: skip


def upstream_reads(text: str) -> dict:
    """The rule of upstream's check of pull requests: cut at ``#``, trim, then YAML."""
    return yaml.safe_load("\n".join(line.split("#")[0].strip() for line in text.split("\n")))


MESSY = {
    "folded text and a path": (
        "submission_name: Some Thing\nsubmission_folder: submissions/self_tuning/some_thing/\n"
        "authors: >-\n  Ann Other,\n  Bo Third\nversion: 1.10\nruleset: self-tuning\n"
        "framework: jax\ndescription: >-\n        Deep [text](https://x.y) of\n      two lines.\n",
        {"submission_name": "Some Thing", "submission_folder": "some_thing",
         "authors": "Ann Other, Bo Third", "version": "1.10", "ruleset": "self-tuning",
         "framework": "JAX", "description": "Deep [text](https://x.y) of two lines."},
    ),
    "empty values": ('authors: ""\naffiliations:\nversion: "2.0"', {"version": "2.0"}),
    "an environment dump instead": ("name: env\ndependencies:\n  - a=1\n  - pip:\n    - b\n", {}),
    "a dump before it": (
        "name: env\ndependencies: [a]\n---\nsubmission_name: Last\nruleset: external_tuning\n",
        {"submission_name": "Last", "ruleset": "external"},
    ),
    "no YAML": (
        "submission_name: A: B\nauthors: 'x'\ndescription: >-\n  one\n  two\n\t- ]\n",
        {"submission_name": "A: B", "authors": "x", "description": "one two - ]"},
    ),
    "lists and comments": (
        "authors: [Ann, Bo]\nframework: pytorch # or JAX\ndescription: {a: b}",
        {"authors": "Ann, Bo", "framework": "PyTorch"},
    ),
    "nothing": ("", {}),
    "a list": ("- authors", {}),
}  # fmt: skip


@pytest.mark.parametrize(("text", "values"), MESSY.values(), ids=MESSY)
def test_descriptions_in_the_wild_are_read_as_far_as_they_go(text, values):
    assert parse_info(text) == values


def test_a_description_is_found_under_the_names_that_it_has_in_the_wild(tmp_path):
    (tmp_path / "submissions_info.yaml").write_text("authors: Ann")

    assert read_info(tmp_path) == {"authors": "Ann"}
    assert read_info(tmp_path / "nowhere") == {}


@pytest.mark.parametrize("value", ['A "b"', "Niccolò: x", "- a", "{a}", "null", "1.0", "'", "yes"])
def test_what_is_written_upstream_reads_back(value):
    info = complete_info(INFO, {"authors": value}, None)

    assert upstream_reads(info.to_yaml()) == {**INFO, "authors": value}


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("authors", "A # B", "must not contain '#'.*give --authors"),
        ("description", "costs 5$", r"must not contain '\$'.*give --description"),
        ("description", "two\nlines", "must be one line.*give --description"),
        ("submission_folder", "My Folder", "lower-case letters.*give --folder"),
        ("submission_folder", "class", "lower-case letters.*give --folder"),
        ("submission_name", " ", "at least 1 character; give --name"),
    ],
)
def test_a_value_that_upstream_would_misread_is_refused_with_its_flag(key, value, message):
    with pytest.raises(ValueError, match=message):
        complete_info(INFO, {key: value}, None)


def test_what_is_missing_is_asked_for_and_flags_go_first():
    asked = []

    def ask(key):
        asked.append(key)
        return f"my {key}"

    found = {"submission_folder": "plain", "ruleset": "external", "framework": "JAX",
             "version": "1.0", "authors": "old"}  # fmt: skip
    info = complete_info(found, {"authors": "new", "version": None}, ask)

    assert asked == ["submission_name", "affiliations", "description"]
    assert (info.authors, info.version, info.description) == ("new", "1.0", "my description")


@pytest.mark.parametrize("key", KEYS)
def test_the_example_of_every_question_is_a_valid_answer(key):
    example = question(key).partition(" (example: ")[2].removesuffix(")")

    assert check_value(key, example) == example


def test_what_is_read_and_what_is_written_have_the_same_keys():
    assert tuple(SubmissionInfo.model_fields) == KEYS


def test_a_copied_template_is_packaged_only_under_a_description_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(package, "_try_step", lambda *_: None)
    folder, asked = tmp_path / "mine", []
    shutil.copytree(SUBMISSIONS / "template", folder)
    text = (folder / "submission_info.yml").read_text("utf-8")
    (folder / "submission_info.yml").write_text(text.replace('"Template"', '"Mine"'))

    with pytest.raises(ValueError, match="still has the template's authors, description: give"):
        package_submission(folder, tmp_path / "out")
    packaged = package_submission(
        folder, tmp_path / "out", {"authors": "Ann"}, lambda key: asked.append(key) or "My own"
    )

    assert asked == ["description"]
    assert (packaged.info.submission_name, packaged.info.authors) == ("Mine", "Ann")
    assert package_submission(SUBMISSIONS / "template", tmp_path / "template").info.authors
