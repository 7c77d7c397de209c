"""What the runner asks a submission for, and what it must give back."""

import collections
import operator
from typing import Any

import jax

from metaopt.bench import records


class ContractError(Exception):
    """A submission returned something that the contract does not allow."""


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
    """Return what a step returned, if it has the three parts of the contract."""
    try:
        optimizer_state, params, model_state = returned
    except (TypeError, ValueError):
        raise ContractError(
            f"{by} must return (optimizer_state, params, model_state), "
            f"got {type(returned).__name__}."
        ) from None
    return optimizer_state, params, model_state


def expect_state(optimizer_state: Any, by: str) -> None:
    """Check that an optimizer state is a pytree with a function, as AlgoPerf's checkpoints need."""
    if not isinstance(optimizer_state, tuple | list) or len(optimizer_state) != 2:
        raise ContractError(
            f"{by} must return the optimizer state as (pytree, function), "
            f"got {type(optimizer_state).__name__}."
        )


def signature_of(params: Any) -> Any:
    """Return what must not change of parameters: their structure, shapes and dtypes."""
    leaves, structure = jax.tree.flatten(params)
    return structure, [(leaf.shape, leaf.dtype) for leaf in leaves]
