"""Check the return values of a submission's functions."""

import collections
import operator
from typing import Any

import jax

from metaopt.bench import records
from metaopt.bench.contract.savable import find_unrestorable, find_unsavable

SAVABLE = (
    "Keep arrays and numbers in dictionaries, lists, (named) tuples or flax dataclasses; `None` "
    "for an empty array; a raw key (jax.random.key_data) for a typed one; text and functions "
    "outside of the state. Later states have the parts of the first; `None` holds a place."
)


class ContractError(Exception):
    """A submission returned a value that the contract does not allow."""


class WrongReturnError(ContractError):
    """A function returned a value of another form.

    Attributes:
        by: The function's name.
        returned: The returned value.
    """

    def __init__(self, by: str, expected: str, returned: Any) -> None:
        super().__init__(f"{by} must return {expected}, got {type(returned).__name__}.")
        self.by = by
        self.returned = returned


def as_namedtuple(hyperparameters: dict[str, Any] | None) -> Any:
    """Return AlgoPerf's form of a point: a ``Hyperparameters`` namedtuple, or ``None``."""
    if hyperparameters is None:
        return None
    return collections.namedtuple("Hyperparameters", hyperparameters)(**hyperparameters)


def ask_batch_size(module: Any, workload: Any) -> int:
    """Ask the submission; on ``ValueError`` ask again for the base workload, as AlgoPerf does.

    Raises:
        ContractError: The answer is not a positive integer.
    """
    try:
        size = module.get_batch_size(records.algoperf_name(workload.name))
    except ValueError:
        base = getattr(workload, "base_name", "")
        if not base:
            raise
        size = module.get_batch_size(base)
    try:
        number = operator.index(size)
    except TypeError:
        number = 0
    if number < 1:
        raise ContractError(f"get_batch_size must return a positive integer, got {size!r}.")
    return number


def expect_triple(returned: Any, by: str) -> tuple[Any, Any, Any]:
    """Return the three parts that a step must return."""
    try:
        optimizer_state, params, model_state = returned
    except (TypeError, ValueError):
        expected = "(optimizer_state, params, model_state)"
        raise WrongReturnError(by, expected, returned) from None
    return optimizer_state, params, model_state


def expect_state(optimizer_state: Any, by: str) -> None:
    """Check that an optimizer state is a pytree with a function, as AlgoPerf's checkpoints need."""
    if not is_pair(optimizer_state):
        raise WrongReturnError(by, "the optimizer state as (pytree, function)", optimizer_state)


def is_pair(state: Any) -> bool:
    """Return whether a state is a pair of a pytree and a function."""
    # A chain of two optax transformations has a state of two parts as well, and no function.
    pair = isinstance(state, tuple | list) and len(state) == 2 and not hasattr(state, "_fields")
    return pair and (state[1] is None or callable(state[1]))


def expect_savable(optimizer_state: Any, by: str, template: Any) -> None:
    """Check that checkpoints can hold the pytree of an optimizer state, and give it back.

    Args:
        optimizer_state: The pair of the pytree and a function.
        by: The function that returned it.
        template: A pytree in the structure of the one that ``init_optimizer_state`` returned.
    """
    state, name = optimizer_state[0], "optimizer_state"
    why = find_unsavable(state, name) or find_unrestorable(template, state, name)
    if why is not None:
        raise ContractError(f"{by} returned a state that cannot be saved: {why}. {SAVABLE}")


def signature_of(params: Any) -> Any:
    """Return the structure, shapes and dtypes of parameters, which a step must keep."""
    leaves, structure = jax.tree.flatten(params)
    return structure, [(leaf.shape, leaf.dtype) for leaf in leaves]
