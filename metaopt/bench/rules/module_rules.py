"""Rules on the module: that it is Python, can be imported, and has AlgoPerf's functions."""

import inspect
from collections.abc import Iterator

from metaopt.bench.contract.loading import REQUIRED, SUBMISSION_FILE
from metaopt.bench.contract.requirements import beyond_algoperf, read_requirements
from metaopt.bench.records.findings import Problem
from metaopt.bench.rules.checked_submission import Subject

# AlgoPerf v0.6's functions and arguments, in its order.
_BEFORE_BATCH = (
    "workload", "current_param_container", "current_params_types", "model_state", "hyperparameters",
)  # fmt: skip
_AFTER_BATCH = ("loss_type", "optimizer_state", "eval_results", "global_step", "rng")
ARGUMENTS = {
    "get_batch_size": ["workload_name"],
    "init_optimizer_state": [
        "workload", "model_params", "model_state", "hyperparameters", "rng",
    ],
    "data_selection": [
        "workload", "input_queue", "optimizer_state", "current_param_container", "model_state",
        "hyperparameters", "global_step", "rng",
    ],
    "update_params": [*_BEFORE_BATCH, "batch", *_AFTER_BATCH],
    "prepare_for_eval": [*_BEFORE_BATCH, *_AFTER_BATCH],
}  # fmt: skip
BY_KEYWORD = ("update_params", "prepare_for_eval")  # the others get their arguments by position
_OPTIONAL = {"update_params": ["train_state"]}


def find_unreadable_source(subject: Subject) -> Iterator[Problem]:
    """``submission.py`` is there, and every Python file parses."""
    if not (subject.folder / SUBMISSION_FILE).is_file():
        yield Problem(
            f"there is no {SUBMISSION_FILE}",
            SUBMISSION_FILE,
            f"Put the functions into a file {SUBMISSION_FILE} in this folder; "
            "submissions/template has one to start from.",
        )
    for what, where in subject.unreadable:
        yield Problem(what, where, "Correct the syntax; nothing else can be checked before.")


def find_failing_import(subject: Subject) -> Iterator[Problem]:
    """The module can be imported."""
    failure = subject.import_failure
    if failure is None:
        return
    fix = "Make the import succeed with nothing but what requirements.txt asks for."
    if "ModuleNotFoundError" in failure.what:
        fix = (
            "Install the missing module, and name it in requirements.txt. What only annotations "
            "need belongs under `if TYPE_CHECKING:`; modules beside submission.py are imported "
            "relatively, `from . import mine`."
        )
    yield Problem(f"the import fails: {failure.what}", failure.where, fix)


def find_missing_functions(subject: Subject) -> Iterator[Problem]:
    """The functions of the contract are there."""
    if SUBMISSION_FILE not in subject.trees:
        return
    for name in REQUIRED:
        if not subject.has_function(name):
            yield Problem(
                f"there is no function `{name}`",
                SUBMISSION_FILE,
                f"Define `{name}({', '.join(ARGUMENTS[name])})` at the top level of "
                f"{SUBMISSION_FILE}.",
            )


def find_wrong_arguments(subject: Subject) -> Iterator[Problem]:
    """Every function can be called with what the runner passes."""
    for name, expected, signature in _signatures(subject):
        error = _refusal(name, expected, signature)
        if error is not None:
            how = "by name" if name in BY_KEYWORD else "by position"
            yield Problem(
                f"`{name}` cannot be called {how} with AlgoPerf's {len(expected)} arguments: "
                f"{error}; it has ({', '.join(signature.parameters)})",
                subject.where(name),
                f"Give it the arguments ({', '.join(expected)}); what it does not use it can "
                "`del`, and arguments of its own need defaults.",
            )


def find_wrong_order(subject: Subject) -> Iterator[Problem]:
    """Arguments stand in AlgoPerf's order."""
    for name, expected, signature in _signatures(subject):
        if _refusal(name, expected, signature) is not None:
            continue
        allowed = [*expected, *_OPTIONAL.get(name, [])]
        named = [p.name for p in signature.parameters.values() if p.kind in _BY_POSITION]
        found = [argument for argument in named if argument in allowed]
        if name in BY_KEYWORD:
            if found != [argument for argument in allowed if argument in found]:
                yield Problem(
                    f"`{name}` has its arguments in the order ({', '.join(named)})",
                    subject.where(name),
                    f"Nothing breaks, for runners pass them by name; AlgoPerf's order is "
                    f"({', '.join(allowed)}).",
                    "note",
                )
        elif any(
            argument in allowed and argument != expected[position]
            for position, argument in enumerate(named[: len(expected)])
        ):
            yield Problem(
                f"`{name}` has its arguments in the order ({', '.join(named)})",
                subject.where(name),
                f"Put them in AlgoPerf's order, ({', '.join(allowed)}): the runner passes them by "
                "position.",
            )


_BY_POSITION = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def _refusal(name: str, expected: list[str], signature: inspect.Signature) -> str | None:
    """Return why a call as the runner makes it fails, ``None`` if it does not."""
    try:
        if name in BY_KEYWORD:
            signature.bind(**dict.fromkeys(expected))
        else:
            signature.bind(*expected)
    except TypeError as error:
        return str(error)
    return None


def _signatures(subject: Subject) -> Iterator[tuple[str, list[str], inspect.Signature]]:
    for name, expected in ARGUMENTS.items():
        signature = subject.signature(name) if subject.has_function(name) else None
        if signature is not None:
            yield name, expected, signature


def find_newer_requirements(subject: Subject) -> Iterator[Problem]:
    """AlgoPerf's pinned versions meet ``requirements.txt``."""
    try:
        read_requirements(subject.folder)
    except ValueError as error:
        where, _, what = str(error).partition(": ")
        yield Problem(what, where, "Write one requirement a line, as pip reads them.")
        return
    for line, pin in beyond_algoperf(subject.folder):
        yield Problem(
            f"{line.requirement} is required, and AlgoPerf pins {line.name} {pin}",
            line.where,
            "This runs here. For AlgoPerf, copy the newer code into the submission, or agree with "
            "the organisers on a newer version.",
            "note",
        )
