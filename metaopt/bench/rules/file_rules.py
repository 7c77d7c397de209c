"""Rules on the files beside the module: requirements, search spaces, and their ruleset."""

import functools
from collections.abc import Iterator

from metaopt.bench.contract.loading import SPACE_FILE
from metaopt.bench.contract.requirements import beyond_algoperf
from metaopt.bench.contract.spaces import DuplicateNameError, find_problems, parse_space, read_space
from metaopt.bench.records.findings import Problem, Rule
from metaopt.bench.records.submission_info import INFO_FILE, unchanged_keys
from metaopt.bench.rules.checked_submission import CheckedSubmission
from metaopt.bench.rules.rule_lists import rule
from metaopt.bench.rules.workload_names import is_workload_name
from metaopt.bench.trial.environment import CHECKOUT

FILE_RULES: list[Rule] = []


@rule(FILE_RULES, "workload-spaces", "one search space serves all workloads")
def _spaces_by_workload(submission: CheckedSubmission) -> Iterator[Problem]:
    fix = "Keep one search space for all workloads: AlgoPerf allows no tuning per workload."
    for path in sorted(submission.folder.rglob("*.json")):
        name = path.relative_to(submission.folder).as_posix()
        stem = path.stem.removeprefix("tuning_search_space_")
        if is_workload_name(stem) or is_workload_name(path.parent.name):
            yield Problem(f"{name} is for one workload", name, fix)
    for name, document in submission.documents():
        if found := _settings_by_workload(document):
            yield Problem(f"the space has entries by workload: {found}", name, fix)


@rule(FILE_RULES, "requirements", "AlgoPerf's pinned versions satisfy requirements.txt")
def _newer_requirements(submission: CheckedSubmission) -> Iterator[Problem]:
    try:
        beyond = [*beyond_algoperf(submission.folder)]
    except ValueError as error:
        where, _, what = str(error).partition(": ")
        yield Problem(what, where, "Write one requirement a line, as pip reads them.")
        return
    for line, pin in beyond:
        yield Problem(
            f"{line.requirement} is required, and AlgoPerf pins {line.name} {pin}",
            line.where,
            "The submission runs here. For AlgoPerf, copy the newer code into the submission, or "
            "ask the organisers for a newer version.",
            "note",
        )


@rule(FILE_RULES, "ruleset", "external tuning has a search space, self-tuning none")
def _wrong_ruleset(submission: CheckedSubmission) -> Iterator[Problem]:
    declared, has_space = submission.declared_ruleset, SPACE_FILE in submission.spaces
    if declared == "self-tuning" and has_space:
        yield Problem(
            f"a self-tuning submission has {SPACE_FILE}",
            SPACE_FILE,
            "Delete the search space: a self-tuning submission gets None for hyperparameters. Or "
            "declare the external ruleset and move to external_tuning/.",
        )
    if declared == "external" and not has_space:
        yield Problem(
            f"an external-tuning submission has no {SPACE_FILE}",
            SPACE_FILE,
            f"Add {SPACE_FILE}; or declare the self-tuning ruleset and move to self_tuning/.",
        )


@rule(FILE_RULES, "template", "submission_info.yml no longer describes the template")
def _description_of_the_template(submission: CheckedSubmission) -> Iterator[Problem]:
    if keys := unchanged_keys(submission.folder, CHECKOUT / "submissions" / "template"):
        yield Problem(
            f"{', '.join(keys)}: still the template's",
            INFO_FILE,
            "Describe your own submission: the file is published with it.",
            "note",
        )


@rule(FILE_RULES, "space-json", "search spaces are JSON with unique names")
def _unreadable_spaces(submission: CheckedSubmission) -> Iterator[Problem]:
    for name, text in submission.spaces.items():
        try:
            read_space(text)
        except DuplicateNameError as error:
            fix = "Keep one of them: a JSON parser silently takes the last."
            yield Problem(str(error), name, fix)
        except ValueError as error:
            yield Problem(f"not JSON: {error}", name, "Correct the JSON.")


def _space_problems(submission: CheckedSubmission, kind: str, fix: str) -> Iterator[Problem]:
    """Yield the problems of one kind in search spaces."""
    for name, document in submission.documents():
        for problem in find_problems(document):
            if problem.kind == kind and not _settings_by_workload(document):
                yield Problem(problem.message, name, fix)


FILE_RULES += [
    Rule(f"space-{kind}", title, functools.partial(_space_problems, kind=kind, fix=fix))
    for kind, title, fix in (
        ("form", "a space has ranges and lists of values, or is a list of points", (
            'Write every entry as {"min": 1e-4, "max": 1e-1, "scaling": "log"} or as '
            '{"feasible_points": [...]}, or the whole space as a list of points.'
        )),
        ("names", "names of hyperparameters are Python identifiers", (
            "Rename it to a Python identifier: the points are namedtuples with these fields."
        )),
        ("scalar", "feasible_points are lists", (
            'Put the value into a list, as in {"feasible_points": [0.9]}.'
        )),
        ("range", "ranges are not empty, and positive on a log scale", (
            "Make `min` smaller than `max`, above 0 on a log scale; list at least one point."
        )),
        ("points", "all points have the same hyperparameters", (
            "Give every point of the list the same hyperparameters."
        )),
    )
]  # fmt: skip


@rule(FILE_RULES, "space-defaults", "DEFAULTS has a value for every hyperparameter")
def _unknown_hyperparameters(submission: CheckedSubmission) -> Iterator[Problem]:
    defaults = getattr(submission.module, "DEFAULTS", None)
    if not isinstance(defaults, dict) or submission.declared_ruleset == "self-tuning":
        return
    for name, document in submission.documents():
        if [*find_problems(document)]:
            continue
        unknown = sorted(parse_space(document, name).middle().keys() - defaults.keys())
        if unknown:
            yield Problem(
                f"{unknown} are not in DEFAULTS, which has {sorted(defaults)}",
                name,
                "Add them to DEFAULTS in submission.py, or remove them from the space: an untuned "
                "run uses DEFAULTS.",
            )


def _settings_by_workload(document: object) -> list[str]:
    return [key for key in document if is_workload_name(key)] if isinstance(document, dict) else []
