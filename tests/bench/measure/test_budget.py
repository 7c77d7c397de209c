"""Budgets as people write them."""

import pytest

from metaopt.bench.measure.budget import Budget, parse_budget


@pytest.mark.parametrize(
    "text, budget",
    [
        ("2000grads", Budget(2000, "gradient_evaluations")),
        ("500steps", Budget(500, "steps")),
        ("1.5e1 s", Budget(15, "seconds")),
        ("16x", Budget(48, "steps")),
    ],
)
def test_the_forms_that_are_allowed(text, budget):
    assert parse_budget(text, one=Budget(3, "steps")) == budget


def test_a_budget_reads_what_it_writes():
    budget = Budget(1234567.5, "gradient_evaluations")

    assert parse_budget(str(budget)) == budget


@pytest.mark.parametrize(
    "text", ["-5steps", "0s", "nansteps", "1e999s", "5", "5 minutes", "2x", ""]
)
def test_nothing_else_is_a_budget(text):
    with pytest.raises(ValueError, match="budget"):
        parse_budget(text)
