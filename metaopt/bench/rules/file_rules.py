"""Rules on the files beside the module: search spaces, and the ruleset they belong to."""

from collections.abc import Callable, Iterator

from metaopt.bench.contract.loading import SPACE_FILE
from metaopt.bench.contract.spaces import DuplicateNameError, find_problems, parse_space, read_space
from metaopt.bench.records.findings import Problem
from metaopt.bench.rules.checked_submission import Subject
from metaopt.bench.rules.workload_names import is_workload_name

_FIXES = {
    "form": (
        'Write every entry as {"min": 1e-4, "max": 1e-1, "scaling": "log"} or as '
        '{"feasible_points": [...]}, or the whole space as a list of points.'
    ),
    "names": "Rename it to a Python identifier: the points are namedtuples with these fields.",
    "scalar": 'Put the value into a list, as in {"feasible_points": [0.9]}.',
    "range": "Make `min` smaller than `max`, above 0 on a log scale; list at least one point.",
    "points": "Give every point of the list the same hyperparameters.",
}


def find_unreadable_spaces(subject: Subject) -> Iterator[Problem]:
    """Search spaces are JSON, and name every entry once."""
    for name, text in subject.spaces.items():
        try:
            read_space(text)
        except DuplicateNameError as error:
            fix = "Keep one of them: a JSON parser takes the last and says nothing."
            yield Problem(str(error), name, fix)
        except ValueError as error:
            yield Problem(f"not JSON: {error}", name, "Correct the JSON.")


def space_problems(kind: str) -> Callable[[Subject], Iterator[Problem]]:
    """Return the rule that finds one kind of problem in search spaces."""

    def find(subject: Subject) -> Iterator[Problem]:
        for name, document in subject.documents():
            for problem in find_problems(document):
                if problem.kind == kind and not _settings_by_workload(document):
                    yield Problem(problem.message, name, _FIXES[kind])

    return find


def find_workload_spaces(subject: Subject) -> Iterator[Problem]:
    """One search space serves all workloads."""
    fix = "Keep one search space for all workloads: AlgoPerf allows no tuning per workload."
    for path in sorted(subject.folder.rglob("*.json")):
        name = path.relative_to(subject.folder).as_posix()
        stem = path.stem.removeprefix("tuning_search_space_")
        if is_workload_name(stem) or is_workload_name(path.parent.name):
            yield Problem(f"{name} is for one workload", name, fix)
    for name, document in subject.documents():
        if found := _settings_by_workload(document):
            yield Problem(f"the space has entries by workload: {found}", name, fix)


def _settings_by_workload(document: object) -> list[str]:
    return [key for key in document if is_workload_name(key)] if isinstance(document, dict) else []


def find_wrong_ruleset(subject: Subject) -> Iterator[Problem]:
    """A self-tuning entry has no search space, an external one has one."""
    declared, has_space = subject.declared_ruleset, SPACE_FILE in subject.spaces
    if declared == "self-tuning" and has_space:
        yield Problem(
            f"a self-tuning submission has {SPACE_FILE}",
            SPACE_FILE,
            "Delete the search space, for a self-tuning submission gets None for hyperparameters; "
            "or declare the external ruleset and move to external_tuning/.",
        )
    if declared == "external" and not has_space:
        yield Problem(
            f"an external-tuning submission has no {SPACE_FILE}",
            SPACE_FILE,
            f"Add {SPACE_FILE}; or declare the self-tuning ruleset and move to self_tuning/.",
        )


def find_unknown_hyperparameters(subject: Subject) -> Iterator[Problem]:
    """A search space has no hyperparameter but those of ``DEFAULTS``."""
    defaults = getattr(subject.module, "DEFAULTS", None)
    if not isinstance(defaults, dict) or subject.declared_ruleset == "self-tuning":
        return
    for name, document in subject.documents():
        if [*find_problems(document)]:
            continue
        unknown = sorted(parse_space(document, name).middle().keys() - defaults.keys())
        if unknown:
            yield Problem(
                f"{unknown} are not in DEFAULTS, which has {sorted(defaults)}",
                name,
                "Add them to DEFAULTS in submission.py, or take them out of the space: an untuned "
                "run takes its hyperparameters from there.",
            )
