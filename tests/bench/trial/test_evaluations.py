"""Evaluation rows are appended, survive a kill, and come back as they were."""

import math

import pytest

from metaopt.bench import records
from metaopt.bench.trial.evaluation_log import EvaluationLog


def row(step, **more):
    return {"global_step": step, "validation/loss": 1 / (step + 3), "phase": "training", **more}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "rows.csv"


def test_however_rows_are_flushed_the_file_is_the_same(path, tmp_path):
    rows = [row(step) for step in range(7)]
    log = EvaluationLog(path)
    for index, one in enumerate(rows):
        log.append(one)
        if index in (0, 1, 4):
            log.flush()
    log.flush()
    log.flush()

    records.write_evaluations(tmp_path / "whole.csv", rows)

    assert path.read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert records.read_evaluations(path) == rows


def test_a_column_that_comes_later_is_added_to_all_rows(path):
    log = EvaluationLog(path)
    log.append(row(1))
    log.flush()
    log.append(row(2, bleu=3.5))
    log.flush()
    log.append(row(3))
    log.flush()

    bleu = [found["bleu"] for found in records.read_evaluations(path)]
    assert bleu[1] == 3.5
    assert math.isnan(bleu[0]) and math.isnan(bleu[2])


def test_what_was_written_after_a_checkpoint_is_dropped_even_half_a_line(path):
    log = EvaluationLog(path)
    for step in range(5):
        log.append(row(step))
    log.flush()
    with path.open("a") as file:
        file.write("5,trai")

    again = EvaluationLog(path)
    again.restore(3)
    again.append(row(9))
    again.flush()

    assert records.read_evaluations(path) == [row(0), row(1), row(2), row(9)]
    assert again.rows == [row(0), row(1), row(2), row(9)]


def test_rows_that_are_lost_are_not_made_up(path):
    log = EvaluationLog(path)
    log.append(row(0))
    log.flush()

    with pytest.raises(ValueError, match=r"has 1 rows, a checkpoint counts 2"):
        EvaluationLog(path).restore(2)
    with pytest.raises(ValueError, match=r"has 0 rows, a checkpoint counts 1"):
        EvaluationLog(path.with_name("other.csv")).restore(1)
