"""Rules on the module: it is valid Python, can be imported, and has AlgoPerf's functions."""

import inspect
from collections.abc import Iterator

from metaopt.bench.contract.loading import REQUIRED, SUBMISSION_FILE
from metaopt.bench.records.findings import Problem, Rule
from metaopt.bench.rules.checked_submission import CheckedSubmission
from metaopt.bench.rules.rule_lists import rule

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
_BY_KEYWORD = ("update_params", "prepare_for_eval")  # the others get their arguments by position
_OPTIONAL = {"update_params": ["train_state"]}


MODULE_RULES: list[Rule] = []


@rule(MODULE_RULES, "source", "submission.py exists and is valid Python")
def _unreadable_source(submission: CheckedSubmission) -> Iterator[Problem]:
    if not submission.has_source:
        yield Problem(
            f"there is no {SUBMISSION_FILE}",
            SUBMISSION_FILE,
            f"Put the functions into a file {SUBMISSION_FILE} in this folder; "
            "submissions/template has one to start from.",
        )
    for reason, where in submission.unreadable:
        yield Problem(reason, where, "Correct the syntax; other checks need it.")


@rule(MODULE_RULES, "import", "the module can be imported")
def _failing_import(submission: CheckedSubmission) -> Iterator[Problem]:
    failure = submission.import_failure
    if failure is None:
        return
    fix = "Make the import succeed with only the packages in requirements.txt."
    if "ModuleNotFoundError" in failure.reason:
        fix = (
            "Install the missing module and list it in requirements.txt. Put imports that only "
            "annotations need under `if TYPE_CHECKING:`. Import modules in the submission's folder "
            "relatively: `from . import mine`."
        )
    yield Problem(f"the import fails: {failure.reason}", failure.where, fix)


@rule(MODULE_RULES, "functions", "the module has all functions of the contract")
def _missing_functions(submission: CheckedSubmission) -> Iterator[Problem]:
    if SUBMISSION_FILE not in submission.trees:
        return
    for name in REQUIRED:
        if not submission.has_function(name):
            yield Problem(
                f"there is no function `{name}`",
                SUBMISSION_FILE,
                f"Define `{name}({', '.join(ARGUMENTS[name])})` at the top level of "
                f"{SUBMISSION_FILE}.",
            )


@rule(MODULE_RULES, "arguments", "functions take the runner's arguments")
def _wrong_arguments(submission: CheckedSubmission) -> Iterator[Problem]:
    for name, expected, signature in _signatures(submission):
        error = _refusal(name, expected, signature)
        if error is not None:
            how = "by name" if name in _BY_KEYWORD else "by position"
            yield Problem(
                f"`{name}` cannot be called {how} with AlgoPerf's {len(expected)} arguments: "
                f"{error}; it has ({', '.join(signature.parameters)})",
                submission.where(name),
                f"Give it the arguments ({', '.join(expected)}). `del` unused ones; further "
                "arguments need defaults.",
            )


@rule(MODULE_RULES, "arguments-order", "arguments are in AlgoPerf's order")
def _wrong_order(submission: CheckedSubmission) -> Iterator[Problem]:
    for name, expected, signature in _signatures(submission):
        if _refusal(name, expected, signature) is not None:
            continue
        allowed = [*expected, *_OPTIONAL.get(name, [])]
        named = [p.name for p in signature.parameters.values() if p.kind in _BY_POSITION]
        found = [argument for argument in named if argument in allowed]
        if name in _BY_KEYWORD:
            if found != [argument for argument in allowed if argument in found]:
                yield Problem(
                    f"`{name}` has its arguments in the order ({', '.join(named)})",
                    submission.where(name),
                    f"Nothing breaks, because runners pass them by name. AlgoPerf's order is "
                    f"({', '.join(allowed)}).",
                    "note",
                )
        elif any(
            argument in allowed and argument != expected[position]
            for position, argument in enumerate(named[: len(expected)])
        ):
            yield Problem(
                f"`{name}` has its arguments in the order ({', '.join(named)})",
                submission.where(name),
                f"Put them in AlgoPerf's order, ({', '.join(allowed)}): the runner passes them by "
                "position.",
            )


_BY_POSITION = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def _refusal(name: str, expected: list[str], signature: inspect.Signature) -> str | None:
    """Return why the runner's call fails; ``None`` if it succeeds."""
    try:
        if name in _BY_KEYWORD:
            signature.bind(**dict.fromkeys(expected))
        else:
            signature.bind(*expected)
    except TypeError as error:
        return str(error)
    return None


def _signatures(
    submission: CheckedSubmission,
) -> Iterator[tuple[str, list[str], inspect.Signature]]:
    for name, expected in ARGUMENTS.items():
        signature = submission.signature(name) if submission.has_function(name) else None
        if signature is not None:
            yield name, expected, signature
