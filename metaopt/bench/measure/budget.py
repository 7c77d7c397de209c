"""Budgets: an amount of one currency, and its text form.

Three currencies: optimizer ``steps``; ``gradient_evaluations`` (one forward and backward pass over
one reference batch of the workload; n examples cost n / reference batch size); ``seconds`` of the
submission's own time. Nothing here needs JAX.
"""

import dataclasses
import math
import re
from typing import Literal, get_args

Currency = Literal["steps", "gradient_evaluations", "seconds"]
CURRENCIES: tuple[Currency, ...] = get_args(Currency)

_SUFFIXES: dict[str, Currency] = {
    "steps": "steps",
    "grads": "gradient_evaluations",
    "s": "seconds",
}
_PATTERN = re.compile(
    r"(?P<amount>[-+]?[0-9.]+(?:e[-+]?[0-9]+)?)\s*(?P<unit>[a-z]+)", re.IGNORECASE
)


@dataclasses.dataclass(frozen=True)
class Budget:
    """An amount of one currency.

    Examples:
        >>> Budget(2000, "gradient_evaluations")
        Budget(amount=2000, currency='gradient_evaluations')
        >>> str(Budget(60, "seconds"))
        '60s'
    """

    amount: float
    currency: Currency

    def __post_init__(self) -> None:
        """Check the amount and the currency."""
        if self.currency not in CURRENCIES:
            raise ValueError(
                f"`currency` must be one of {list(CURRENCIES)}, got {self.currency!r}."
            )
        if not (self.amount > 0 and math.isfinite(self.amount)):  # also catches NaN
            raise ValueError(f"A budget must be positive and finite, got {self.amount}.")

    def __str__(self) -> str:
        """Write the budget the way :func:`parse_budget` reads it."""
        suffix = next(s for s, currency in _SUFFIXES.items() if currency == self.currency)
        return f"{self.amount:.10g}{suffix}"


def parse_budget(text: str, *, one: Budget | None = None) -> Budget:
    """Read ``"2000grads"``, ``"500steps"``, ``"60s"`` or, with the amount of 1x, ``"16x"``.

    Args:
        text: The budget's text form.
        one: The budget that ``"1x"`` means; ``None`` refuses that form.

    Returns:
        The budget.

    Raises:
        ValueError: The text has another form, or the amount is not positive and finite.

    Examples:
        >>> parse_budget("2x", one=Budget(300, "gradient_evaluations"))
        Budget(amount=600.0, currency='gradient_evaluations')
    """
    match = _PATTERN.fullmatch(text.strip())
    forms = ["2000grads", "500steps", "60s"] + ([] if one is None else ["16x"])
    message = f"A budget looks like one of {forms}, got {text!r}."
    if match is None:
        raise ValueError(message)
    try:
        amount = float(match["amount"])
    except ValueError:
        raise ValueError(message) from None
    unit = match["unit"].lower()
    if unit == "x" and one is not None:
        return Budget(amount * one.amount, one.currency)
    if unit not in _SUFFIXES:
        raise ValueError(message)
    return Budget(amount, _SUFFIXES[unit])
