r"""Convolutions inside branches and loops, in the layout that is fast there on CPUs.

XLA's CPU backend uses Eigen for a convolution of arrays (batch, space, features) with a kernel
(space, in, out), and takes ten times as long otherwise. It transposes other layouts, such as those
of gradients, only outside of branches and loops (`jax #12868
<https://github.com/jax-ml/jax/issues/12868>`_).
"""

from collections.abc import Callable
from typing import Any

import jax
from jax.extend import core


def with_fast_convolutions(fun: Callable[[], Any]) -> Callable[[], Any]:
    """Return ``fun`` with the arrays of its convolutions transposed into the fast layout.

    The values equal those of ``fun`` up to rounding. Convolutions inside ``fun``'s own branches and
    loops, and inside functions with custom derivatives, stay unchanged. Differentiate inside
    ``fun``: the result must not be differentiated.

    Args:
        fun: A function without arguments; its arrays are closed over.
    """

    def transposed() -> Any:
        closed, shapes = jax.make_jaxpr(fun, return_shape=True)()
        leaves = _evaluate(closed.jaxpr, closed.consts)
        return jax.tree.unflatten(jax.tree.structure(shapes), leaves)

    return transposed


def _evaluate(jaxpr: Any, consts: Any, *args: Any) -> list[Any]:
    """Evaluate ``jaxpr`` and return its outputs."""
    values = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *args), strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, core.Literal) else values[atom]

    for eqn in jaxpr.eqns:
        operands = [read(atom) for atom in eqn.invars]
        if eqn.primitive.name == "conv_general_dilated":
            results = [_convolution(*operands, **eqn.params)]
        elif eqn.primitive.name in ("jit", "pjit"):  # since JAX 0.7, and before
            inner = eqn.params["jaxpr"]
            results = _evaluate(inner.jaxpr, inner.consts, *operands)
        else:
            bound = eqn.primitive.get_bind_params(eqn.params)
            functions, params = bound if isinstance(bound, tuple) else ((), bound)  # by JAX version
            with eqn.ctx.manager:
                results = eqn.primitive.bind(*functions, *operands, **params)
            results = results if eqn.primitive.multiple_results else [results]
        values.update(zip(eqn.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _convolution(lhs: jax.Array, rhs: jax.Array, *, dimension_numbers: Any, **params: Any) -> Any:
    """Return the convolution, transposed to (batch, space, features) and back."""
    (batch, features, *space), (out, into, *window), (to_batch, to_features, *to_space) = (
        dimension_numbers
    )
    first, last, middle = 0, lhs.ndim - 1, tuple(range(1, lhs.ndim - 1))
    result = jax.lax.conv_general_dilated(
        lhs.transpose(batch, *space, features),
        rhs.transpose(*window, into, out),
        dimension_numbers=jax.lax.ConvDimensionNumbers(
            lhs_spec=(first, last, *middle),
            rhs_spec=(last, last - 1, *range(last - 1)),
            out_spec=(first, last, *middle),
        ),
        **params,
    )
    order = (to_batch, *to_space, to_features)
    return result.transpose([order.index(axis) for axis in range(result.ndim)])
