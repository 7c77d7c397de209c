"""Rules on a few steps, applied to the observations of the dry run."""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from flax import serialization

from metaopt.bench.contract.return_values import SAVABLE, is_pair
from metaopt.bench.contract.savable import find_unsavable
from metaopt.bench.records.failures import describe
from metaopt.bench.records.findings import Problem, Rule
from metaopt.bench.rules.dry_run import STEPS, DryRun
from metaopt.bench.rules.rule_lists import rule
from metaopt.bench.rules.workload_names import ALGOPERF_WORKLOADS

_FREE_TO_COMPILE = 3  # number of first steps that may compile
_UNKNOWN = "nowhere"

STEP_RULES: list[Rule] = []


@rule(STEP_RULES, "batch-size", "get_batch_size returns a number or raises ValueError")
def _wrong_batch_size(run: DryRun) -> Iterator[Problem]:
    get_batch_size = run.submission.module.get_batch_size  # type: ignore[union-attr]
    where, unknown = run.submission.where("get_batch_size"), []
    for name in (*ALGOPERF_WORKLOADS, run.workload.name, _UNKNOWN):
        try:
            size = get_batch_size(name)
        except ValueError:
            unknown.append(name)
        except (Exception, SystemExit) as error:
            yield Problem(
                f"get_batch_size({name!r}) raises {describe(error)}",
                where,
                "Raise ValueError for an unknown name: only then does the runner ask for the "
                "base workload.",
            )
            return
        else:
            if not isinstance(size, int | np.integer) or isinstance(size, bool) or size < 1:
                yield Problem(
                    f"get_batch_size({name!r}) returns {size!r}",
                    where,
                    "Return a positive integer, or raise ValueError for an unknown name.",
                )
                return
    missing = [name for name in dict.fromkeys(unknown) if name != _UNKNOWN]
    if missing:
        yield Problem(
            f"no batch size for {', '.join(missing)}",
            where,
            "Add a batch size for every workload that the entry is to run on.",
            "note",
        )


@rule(STEP_RULES, "crash", "no function raises")
def _crash(run: DryRun) -> Iterator[Problem]:
    if run.crash is not None:
        name, error = run.crash
        yield Problem(
            f"`{name}` raises {describe(error)}",
            run.submission.line_of(error),
            "Make it pass on a small problem: `python -m tuning run FOLDER digits_mlp` prints the "
            "whole traceback.",
        )


@rule(STEP_RULES, "state", "the optimizer state is a pair (pytree, function)")
def _wrong_state(run: DryRun) -> Iterator[Problem]:
    for state in run.states:
        if not is_pair(state):
            yield Problem(
                f"the optimizer state is {_shown(state)}",
                run.submission.where("init_optimizer_state"),
                "Return the pair (pytree of arrays, update function) as the state: AlgoPerf's "
                "checkpoints save only the pytree.",
            )
            return


@rule(STEP_RULES, "state-checkpoint", "the state survives AlgoPerf's checkpoints")
def _state_without_checkpoint(run: DryRun) -> Iterator[Problem]:
    states = [state for state in run.states if is_pair(state)]
    for state in reversed(states):  # the last state has the most entries
        why = _checkpoint_problem(states[0][0], state[0])
        if why is not None:
            yield Problem(why, run.submission.where("init_optimizer_state"), SAVABLE)
            return


@rule(STEP_RULES, "return", "steps return state, parameters and model state")
def _wrong_return(run: DryRun) -> Iterator[Problem]:
    if run.wrong_return is not None:
        name, returned = run.wrong_return
        yield Problem(
            f"`{name}` returns {_shown(returned)}",
            run.submission.where(name),
            "Return (optimizer_state, params, model_state), in this order.",
        )


@rule(STEP_RULES, "params", "parameters keep structure, shapes and dtypes")
def _changed_params(run: DryRun) -> Iterator[Problem]:
    if run.wrong_params is not None:
        name, changed = run.wrong_params
        yield Problem(
            f"`{name}` changes the form of the parameters: {changed}",
            run.submission.where(name),
            "Keep structure, shapes and dtypes: cast the parameters back to their dtype, and "
            "check that state and parameters are not swapped.",
        )


@rule(STEP_RULES, "recompilation", "a step is compiled once")
def _recompilation(run: DryRun) -> Iterator[Problem]:
    late = run.compiled[_FREE_TO_COMPILE:]
    if late and all(late):
        yield Problem(
            f"each of the steps {_FREE_TO_COMPILE + 1} to {STEPS} compiles again "
            f"({late[-1]} functions in the last step)",
            run.submission.where("update_params"),
            "Call jax.jit once, at the top level or in init_optimizer_state, not inside "
            "update_params. Pass changing values as arrays, not as static arguments or closure "
            "variables.",
        )


@rule(STEP_RULES, "early-return", "a step returns when the device is done")
def _early_return(run: DryRun) -> Iterator[Problem]:
    if not run.waits:
        yield Problem(
            "a step returns before the device is done",
            run.submission.where("update_params"),
            "This is allowed: the runner here waits before it reads the clock. AlgoPerf's runner "
            "does not, and counts some training time as evaluation. For equal times, call "
            "jax.block_until_ready(params) before the return; host and device then do not overlap.",
            "note",
        )


def _checkpoint_problem(template: Any, state: Any) -> str | None:
    """Return why ``state`` does not survive a checkpoint that is read into ``template``."""
    why = find_unsavable(state, "optimizer_state")
    if why is not None:
        return why
    try:
        restored = serialization.from_bytes(template, serialization.to_bytes(state))
    except Exception as error:  # from flax, msgpack or a registered type
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
