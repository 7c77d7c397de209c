"""Saving a running trial, and resuming it after a pause or a kill.

A checkpoint holds the arrays, and the facts: counters, seconds by purpose, the place in the data.
A resumed trial continues from the checkpoint's counters and clock. Work after the last checkpoint
is repeated and charged once, so with budgets in steps or gradient evaluations a killed trial gives
the numbers of an unbroken one. With a budget in seconds, the repeated steps are charged what they
take now, and so is compiling again in the new process.
"""

import warnings
from pathlib import Path
from typing import Any

from metaopt.bench.trial.checkpoints import FILE, load_checkpoint, load_facts, save_checkpoint
from metaopt.bench.trial.state import TrialState

_SHARE = 30  # times the duration of a write lie between two writes: 3 % of the time at most
_WATCHED = ("training", "compilation", "evaluation", "logging")


class Checkpointer:
    """Saves a trial now and then.

    Args:
        state: The trial, built.
        seconds: The least time between two checkpoints. Where writing one takes long, it is 30
            times that duration.
    """

    def __init__(self, state: TrialState, seconds: float) -> None:
        self._state = state
        self._seconds = seconds
        self._clock = state.watch.clock
        self._next = self._clock.now() + seconds

    def save_if_due(self) -> None:
        """Save the trial if the last checkpoint is old enough."""
        if self._clock.now() >= self._next:
            self.save()

    def save(self) -> None:
        """Save everything that the trial continues from."""
        state = self._state
        start = self._clock.now()
        with state.watch.measure("logging"):
            state.log.flush()
            save_checkpoint(state.directory / FILE, _named_trees(state), _facts_of(state))
        end = self._clock.now()
        self._next = end + max(self._seconds, _SHARE * (end - start))


def restore(state: TrialState) -> None:
    """Continue from the trial's checkpoint, if there is one that can be read.

    Without one, the trial runs again from its start, to the same numbers. A checkpoint of another
    version of the submission cannot be read, for example; a warning says so.
    """
    path = state.directory / FILE
    if not path.exists():
        return
    try:
        trees, facts = load_checkpoint(path, _named_trees(state))
        state.log.restore(facts["rows"])
    except (ValueError, TypeError, KeyError) as error:
        _warn_of(path, error, "The trial runs again from its start.")
        return
    function = state.trees[0][1]
    optimizer_state = trees["optimizer_state"], function
    state.trees = optimizer_state, trees["params"], trees["model_state"]
    state.queue.seek(facts["queue_position"])
    _take_counters(state, facts)
    state.show_rows()


def restore_counters(state: TrialState) -> None:
    """Restore the rows and counters of a trial that will take no step; run none of its code."""
    path = state.directory / FILE
    if not path.exists():
        return
    try:
        facts = load_facts(path)
        state.log.restore(facts["rows"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        _warn_of(path, error, "Its cost counts as 0.")
        return
    _take_counters(state, facts)


def _warn_of(path: Path, error: Exception, what: str) -> None:
    warnings.warn(f"Cannot read the checkpoint {path}: {error}. {what}", stacklevel=3)


def _take_counters(state: TrialState, facts: dict[str, Any]) -> None:
    for name in _WATCHED:
        setattr(state.watch, name, facts["watch"][name])
    state.meter.restore(facts["meter"])


def _named_trees(state: TrialState) -> dict[str, Any]:
    optimizer_state, params, model_state = state.trees
    return {"params": params, "model_state": model_state, "optimizer_state": optimizer_state[0]}


def _facts_of(state: TrialState) -> dict[str, Any]:
    return {
        "rows": len(state.log.rows),
        "meter": state.meter.facts(),
        "watch": {name: getattr(state.watch, name) for name in _WATCHED},
        "queue_position": state.queue.position,
    }
