"""Rules on clocks and steps: they increase, agree with each other, and differ between trials."""

from collections.abc import Iterator

import numpy as np

from analysis.checks.rules import oddity_rule, rule
from analysis.logs.logs import Logs
from analysis.logs.trial_files import (
    CLOCKS,
    EVAL_SECONDS,
    LOGGING_SECONDS,
    PREEMPTIONS,
    SCORE,
    SECONDS,
    STEP,
    WALL_SECONDS,
    ColumnValues,
)
from metaopt.bench.records import EVAL_FILE

# total_duration over the sum of the other clocks: 1.000 to 1.016 in the 4,099 trials of v0.5, to
# 1.04 in other public logs.
_EXCESS, _LACK = 0.10, 0.001
_SLACK_SECONDS = (10.0, 1.0)  # above and below


def _rows(logs: Logs) -> Iterator[tuple[str, dict[str, ColumnValues], np.ndarray]]:
    """Yield path, columns and row numbers from 1 of each trial, without truncated rows."""
    for trial in logs.all_trials:
        rows = trial.rows
        if not rows.rows:
            continue
        names = (STEP, *CLOCKS, SCORE, PREEMPTIONS)
        kept = {name: rows.column(name)[rows.whole] for name in names}
        yield f"{trial.where}/{EVAL_FILE}", kept, np.flatnonzero(rows.whole) + 1


@rule(
    "clocks-numbers",
    "times and steps are numbers, none below 0",
    means="Costs are unknown. A hit without a cost counts as missed.",
    fix="Restore the file as the runner wrote it, or run the trial again.",
)
def invalid_clock_values(logs: Logs) -> Iterator[tuple[str, str]]:
    """Find times and steps that are NaN, infinite or negative."""
    for trial in logs.all_trials:
        rows = trial.rows
        for name in (STEP, *CLOCKS, SCORE):
            values = rows.columns.get(name)
            if values is None or name in rows.faulty:
                continue
            wrong = ~(np.isfinite(values) & (values >= 0)) & rows.whole
            if wrong.any():
                row = int(np.argmax(wrong))
                yield f"{trial.where}/{EVAL_FILE}", f"{name} is {values[row]:g} in row {row + 1}"


@rule(
    "clocks-back",
    "no clock goes back",
    means="The file was assembled from two runs, or the machine's clock was set.",
    fix="Run the trial again.",
)
def decreasing_clocks(logs: Logs) -> Iterator[tuple[str, str]]:
    """Find clocks that decrease."""
    for where, columns, numbers in _rows(logs):
        restarted = np.diff(columns[PREEMPTIONS]) > 0
        for name in CLOCKS:
            change = np.diff(columns[name])
            # The wall clock starts again with each process.
            back = (change < 0) & ~(restarted & (name == WALL_SECONDS))
            if back.any():
                row = int(np.argmax(back))
                yield where, f"{name} goes back by {-change[row]:.6g} s in row {numbers[row + 1]}"


@rule(
    "clocks-steps",
    "every evaluation is at a later step",
    means="The file was assembled from two runs, or a resumed run wrote rows again.",
    fix="Run the trial again. If it was resumed, keep the rows that were written last.",
)
def non_increasing_steps(logs: Logs) -> Iterator[tuple[str, str]]:
    """Find steps that do not increase."""
    for where, columns, numbers in _rows(logs):
        change = np.diff(columns[STEP])
        if (change <= 0).any():
            row = int(np.argmax(change <= 0))
            yield where, f"{STEP} changes by {change[row]:g} in row {numbers[row + 1]}"


@rule(
    "clocks-score",
    f"{SCORE} equals {SECONDS}",
    means="Scorers read the first, the runner counts the second; one of them was changed.",
    fix="Restore the file as the runner wrote it.",
)
def differing_time_columns(logs: Logs) -> Iterator[tuple[str, str]]:
    """Find rows in which the two columns of the submission's time differ."""
    for where, columns, numbers in _rows(logs):
        score, seconds = columns[SCORE], columns[SECONDS]
        with np.errstate(invalid="ignore"):  # infinities, which have a rule of their own
            apart = np.abs(score - seconds) > 1e-6 * np.maximum(1.0, np.abs(seconds))
        if apart.any():
            row = int(np.argmax(apart))
            yield where, f"{SCORE} {score[row]:g}, {SECONDS} {seconds[row]:g} in row {numbers[row]}"


@rule(
    "clocks-sum",
    f"{WALL_SECONDS} is the sum of the other clocks, and little more",
    means="A clock was changed. Public logs exceed the sum by 0 to 4 %; these lack 0.1 % and 1 s, "
    "or exceed it by 10 % and 10 s. Logs of ours may exceed it: their audits are not timed.",
    fix="Restore the file as the runner wrote it, or run the trial again.",
)
def wall_clock_mismatches(logs: Logs) -> Iterator[tuple[str, str]]:
    """Find wall clocks below the sum of the other clocks, or far above it."""
    for where, columns, numbers in _rows(logs):
        total = columns[WALL_SECONDS]
        parts = np.array([columns[name] for name in (SECONDS, EVAL_SECONDS, LOGGING_SECONDS)])
        with np.errstate(invalid="ignore"):
            known = np.isfinite(total) & (total >= 0) & (np.isfinite(parts) & (parts >= 0)).all(0)
            # The wall clock of a preempted run starts again.
            known &= ~(columns[PREEMPTIONS] > 0)
            summed = parts.sum(0)
            wrong = known & (total < summed * (1 - _LACK) - _SLACK_SECONDS[1])
            if not logs.is_ours:
                wrong |= known & (total > summed * (1 + _EXCESS) + _SLACK_SECONDS[0])
        if wrong.any():
            row = int(np.argmax(wrong))
            yield (
                where,
                f"{WALL_SECONDS} {total[row]:,.6g} s, the other clocks sum to "
                f"{summed[row]:,.6g} s in row {numbers[row]}",
            )


oddity_rule(
    "clocks-preempted",
    "no run was preempted",
    severity="note",
    means="The run was resumed: the time that its process lost is not in its seconds.",
    fix="Nothing, if the rules allow it; else run the trial again without a break.",
)


@rule(
    "trials-repeated",
    "every trial is there once",
    means="One run counts as two.",
    fix="Remove the copy, or run the trial.",
)
def repeated_trials(logs: Logs) -> Iterator[tuple[str, str]]:
    """Find trials in two folders, and pairs of trials with equal times in all rows."""
    first: dict[tuple, str] = {}
    by_times: dict[bytes, str] = {}
    for trial in logs.all_trials:
        if (where := first.setdefault(trial.key, trial.where)) != trial.where:
            yield trial.where, f"the same submission, workload, study and trial as {where}"
            continue
        seconds = trial.rows.column(SECONDS)
        # Of thousands of short trials, some with one evaluation agree to a nanosecond by chance. So
        # these must agree in their other clocks too.
        names = CLOCKS if len(seconds) == 1 else (SECONDS,)
        times = b"".join(trial.rows.column(name).tobytes() for name in names)
        if (seconds > 0).any():
            where = by_times.setdefault(times, trial.where)
            if where != trial.where:
                yield trial.where, f"the times of all its evaluations are those of {where}"
