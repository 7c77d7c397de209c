"""Rules on clocks and steps: they go forward, and agree."""

from collections.abc import Iterator

import numpy as np

from analysis.checks.subject import LogSubject, log_rule
from analysis.logs.files import CLOCKS, PREEMPTIONS, SCORE, SECONDS, STEP, WALL_SECONDS
from analysis.logs.trial_logs import LoggedTrial
from metaopt.bench.records import EVAL_FILE


def _rows(subject: LogSubject) -> Iterator[tuple[LoggedTrial, str]]:
    for trial in subject.trials:
        if trial.evaluations is not None and trial.evaluations.rows:
            yield trial, f"{trial.where}/{EVAL_FILE}"


def _going_back(subject: LogSubject) -> Iterator[tuple[str, str]]:
    for trial, where in _rows(subject):
        assert trial.evaluations is not None
        restarted = np.diff(trial.evaluations.column(PREEMPTIONS)) > 0
        for name in CLOCKS:
            change = np.diff(trial.evaluations.column(name))
            # The wall clock counts since its process began.
            back = (change < 0) & ~(restarted & (name == WALL_SECONDS))
            if back.any():
                row = int(np.argmax(back))
                yield where, f"{name} goes back by {-change[row]:.6g} s in row {row + 2}"


def _not_rising(subject: LogSubject) -> Iterator[tuple[str, str]]:
    for trial, where in _rows(subject):
        assert trial.evaluations is not None
        change = np.diff(trial.evaluations.column(STEP))
        if (change <= 0).any():
            row = int(np.argmax(change <= 0))
            yield where, f"{STEP} changes by {change[row]:g} in row {row + 2}"


def _disagreeing(subject: LogSubject) -> Iterator[tuple[str, str]]:
    for trial, where in _rows(subject):
        assert trial.evaluations is not None
        score, seconds = trial.evaluations.column(SCORE), trial.evaluations.column(SECONDS)
        with np.errstate(invalid="ignore"):  # infinities, which have a rule of their own
            apart = np.abs(score - seconds) > 1e-6 * np.maximum(1.0, np.abs(seconds))
        if apart.any():
            row = int(np.argmax(apart))
            yield where, f"{SCORE} {score[row]:g}, {SECONDS} {seconds[row]:g} in row {row + 1}"


def _no_numbers(subject: LogSubject) -> Iterator[tuple[str, str]]:
    for trial, where in _rows(subject):
        assert trial.evaluations is not None
        for name in (STEP, *CLOCKS, SCORE):
            values = trial.evaluations.columns.get(name)
            if values is None or name in trial.evaluations.faulty:
                continue
            wrong = ~(np.isfinite(values) & (values >= 0))
            if wrong.any():
                row = int(np.argmax(wrong))
                yield where, f"{name} is {values[row]:g} in row {row + 1}"


def _preempted(subject: LogSubject) -> Iterator[tuple[str, str]]:
    for trial, where in _rows(subject):
        assert trial.evaluations is not None
        times = np.fmax.reduce(trial.evaluations.column(PREEMPTIONS))
        if times > 0:
            yield where, f"preempted {times:g} time{'s' if times > 1 else ''}"


RULES = (
    log_rule(
        "clocks-numbers",
        "times and steps are numbers, none below 0",
        _no_numbers,
        means="Costs cannot be told. A hit without a cost is a miss.",
        mend="Restore the file as the runner wrote it, or run the trial again.",
    ),
    log_rule(
        "clocks-back",
        "no clock goes back",
        _going_back,
        means="The file was put together from two runs, or the machine's clock was set.",
        mend="Run the trial again.",
    ),
    log_rule(
        "clocks-steps",
        "every evaluation is at a later step",
        _not_rising,
        means="The file was put together from two runs, or a resumed run wrote rows again.",
        mend="Run the trial again; of a resumed one, keep the rows that were written last.",
    ),
    log_rule(
        "clocks-score",
        f"{SCORE} is {SECONDS}",
        _disagreeing,
        means="Scorers read the first, the runner counts the second; one of them was changed.",
        mend="Restore the file as the runner wrote it.",
    ),
    log_rule(
        "clocks-preempted",
        "no run was preempted",
        _preempted,
        severity="note",
        means="The run was resumed: what its process lost is not in its seconds.",
        mend="Nothing, if the rules allow it; else run the trial again without a break.",
    ),
)
