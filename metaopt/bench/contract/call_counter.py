"""Count the calls of a function that runs inside compiled code."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


class CallCounter:
    """Count how often a compiled program calls a function of the parameters.

    A line search calls its function in a loop, in the loop's condition or under ``vmap``, so the
    number of calls is known only when the program has run. The program therefore tells the host of
    each call. The count is exact under jit, in loops, branches, derivatives and ``vmap`` (where
    each point is a call), and on several devices. Recomputation by ``jax.checkpoint`` counts again.
    """

    def __init__(self) -> None:
        self._is_traced = False
        self._calls = 0

    def counting(self, function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Return ``function``, counted; for use within a traced function."""

        def counted(params: Any) -> Any:
            self._is_traced = True
            # One number of every array: under vmap it tells the points apart.
            marks = [leaf.ravel()[:1] for leaf in jax.tree.leaves(jax.lax.stop_gradient(params))]
            jax.debug.callback(self._count, jnp.array([jnp.isnan(m).sum() for m in marks]).sum())
            return function(params)

        return counted

    def take(self) -> int:
        """Return the number of calls since the last time; waits for the device if there can be any.

        A program that never traced a call is not waited for.
        """
        if not self._is_traced:
            return 0
        jax.effects_barrier()
        calls, self._calls = self._calls, 0
        return calls

    def _count(self, mark: Any) -> None:
        del mark
        self._calls += 1
