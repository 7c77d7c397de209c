"""Rules that need the submission to run: they read what a walk has noted."""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from flax import serialization

from metaopt.bench.contract.return_values import SAVABLE, is_pair
from metaopt.bench.contract.savable import find_unsavable
from metaopt.bench.records import FAILURES
from metaopt.bench.records.failures import describe
from metaopt.bench.records.findings import Problem
from metaopt.bench.rules.checked_submission import Subject
from metaopt.bench.rules.dry_run import STEPS, workload_of
from metaopt.bench.rules.workload_names import ALGOPERF_WORKLOADS

_SETTLED = 3  # so many steps may compile; of those after them some must not
_UNKNOWN = "nowhere"


def find_wrong_batch_size(subject: Subject) -> Iterator[Problem]:
    """``get_batch_size`` returns a number, or raises ``ValueError`` for a name it does not know."""
    if subject.walk is None:
        return
    get_batch_size = subject.module.get_batch_size  # type: ignore[union-attr]
    workload, unknown = workload_of(subject), []
    for name in (*ALGOPERF_WORKLOADS, workload.name, _UNKNOWN):
        try:
            size = get_batch_size(name)
        except ValueError:
            unknown.append(name)
        except (Exception, SystemExit) as error:
            yield Problem(
                f"get_batch_size({name!r}) raises {describe(error)}",
                subject.where("get_batch_size"),
                "Raise ValueError for a name that it does not know: on that, and on nothing else, "
                "the runner asks again for the base workload.",
            )
            return
        else:
            if not isinstance(size, int | np.integer) or isinstance(size, bool) or size < 1:
                yield Problem(
                    f"get_batch_size({name!r}) returns {size!r}",
                    subject.where("get_batch_size"),
                    "Return a positive integer, or raise ValueError for an unknown name.",
                )
                return
    missing = [name for name in unknown if name not in (_UNKNOWN, workload.name)]
    if workload.name in unknown:
        missing.append(workload.name)
    if missing:
        yield Problem(
            f"no batch size for {', '.join(missing)}",
            subject.where("get_batch_size"),
            "Add a batch size for every workload that the entry is to run on.",
            "note",
        )


def find_crash(subject: Subject) -> Iterator[Problem]:
    """No function raises."""
    if subject.walk is not None and subject.walk.crash is not None:
        name, error = subject.walk.crash
        yield Problem(
            f"`{name}` raises {describe(error)}",
            subject.line_of(error),
            "Make it pass on a small problem: `python -m tuning run FOLDER digits_mlp` prints the "
            "whole traceback.",
        )
        return
    record = subject.audited.record if subject.audited else None
    if record is not None and record.status in FAILURES:
        last = (record.error or f"the trial ended as {record.status}").strip().splitlines()[-1]
        yield Problem(
            f"a trial ends after {record.ledger.cost.steps} steps: {last}",
            subject.where("update_params"),
            "Make it pass on a small problem: `python -m tuning run FOLDER digits_mlp` prints the "
            "whole traceback.",
        )


def find_wrong_state(subject: Subject) -> Iterator[Problem]:
    """The optimizer state is a pair of a pytree and a function."""
    for state in subject.walk.states if subject.walk else []:
        if not is_pair(state):
            yield Problem(
                f"the optimizer state is {_shown(state)}",
                subject.where("init_optimizer_state"),
                "Return the pair (pytree of arrays, update function) as the state, for AlgoPerf's "
                "checkpoints take it apart; the second part is kept as it is and never saved.",
            )
            return


def find_state_without_checkpoint(subject: Subject) -> Iterator[Problem]:
    """The state can be saved and restored as AlgoPerf's checkpoints do it."""
    walk = subject.walk
    states = [state for state in (walk.states if walk else []) if is_pair(state)]
    for state in reversed(states):  # at its fullest first
        why = _checkpoint_problem(states[0][0], state[0])
        if why is not None:
            yield Problem(
                why,
                subject.where("init_optimizer_state"),
                SAVABLE,
            )
            return


def find_wrong_return(subject: Subject) -> Iterator[Problem]:
    """``update_params`` and ``prepare_for_eval`` return state, parameters and model state."""
    if subject.walk is not None and subject.walk.wrong_return is not None:
        name, returned = subject.walk.wrong_return
        yield Problem(
            f"`{name}` returns {_shown(returned)}",
            subject.where(name),
            "Return (optimizer_state, params, model_state), in this order.",
        )


def find_changed_params(subject: Subject) -> Iterator[Problem]:
    """Parameters keep their structure, shapes and dtypes."""
    if subject.walk is not None and subject.walk.wrong_params is not None:
        name, changed = subject.walk.wrong_params
        yield Problem(
            f"`{name}` returns other parameters than it got: {changed}",
            subject.where(name),
            "Return the parameters in the form in which they came: cast back what is computed in "
            "another dtype, and check that state and parameters are not exchanged.",
        )


def find_recompilation(subject: Subject) -> Iterator[Problem]:
    """The step is compiled once, not at every call."""
    late = subject.walk.lowered[_SETTLED:] if subject.walk else []
    if late and all(late):
        yield Problem(
            f"each of the steps {_SETTLED + 1} to {STEPS} compiles again "
            f"({late[-1]} functions at the last)",
            subject.where("update_params"),
            "Call jax.jit once, at the top level or in init_optimizer_state, and not inside of "
            "update_params; hand over what changes from step to step as arrays, not as static "
            "arguments or as variables of a closure.",
        )


def find_early_return(subject: Subject) -> Iterator[Problem]:
    """A step returns when the device is done."""
    if subject.walk is not None and not subject.walk.waits:
        yield Problem(
            "a step returns before the device is done",
            subject.where("update_params"),
            "Nothing is wrong: this runner waits before it reads the clock. AlgoPerf's does not, "
            "so there some seconds of training are counted as evaluation; "
            "jax.block_until_ready(params) before the return makes the two agree, at the price of "
            "the overlap.",
            "note",
        )


def _checkpoint_problem(template: Any, state: Any) -> str | None:
    """Return why ``state`` does not survive a checkpoint that is read into ``template``."""
    why = find_unsavable(state, "optimizer_state")
    if why is not None:
        return why
    try:
        restored = serialization.from_bytes(template, serialization.to_bytes(state))
    except Exception as error:  # whatever flax, msgpack or a registered type says
        return f"the optimizer state cannot be saved and restored: {describe(error)}"
    if jax.tree.structure(restored) != jax.tree.structure(state):
        return (
            "the optimizer state comes back from a checkpoint with another structure: "
            f"{str(jax.tree.structure(restored))[:120]}"
        )
    for saved, leaf in zip(jax.tree.leaves(restored), jax.tree.leaves(state), strict=True):
        if not np.array_equal(np.asarray(saved), np.asarray(leaf), equal_nan=_is_float(leaf)):
            return "the optimizer state comes back from a checkpoint with other values"
    return None


def _is_float(leaf: Any) -> bool:
    return np.issubdtype(np.asarray(leaf).dtype, np.inexact)


def _shown(value: Any) -> str:
    """Return a short description of a value."""
    if isinstance(value, tuple | list):
        kind = type(value).__name__
        return f"a {kind} of {len(value)} ({', '.join(type(v).__name__ for v in value)})"
    if isinstance(value, dict):
        return f"a dictionary with {sorted(map(str, value))[:4]}"
    return "None" if value is None else f"{type(value).__name__} {str(value)[:60]!r}"
