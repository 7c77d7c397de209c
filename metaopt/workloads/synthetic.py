"""Problems with closed forms, for tests and tutorials; they are not in the registry."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from metaopt.bench.contract.spec import LossType, ParameterType, ShapeTuple
from metaopt.bench.measure.targets import Target, WorkloadTargets


@dataclasses.dataclass(frozen=True)
class Quadratic:
    r"""Minimise :math:`\frac12 \sum_i a_i x_i^2` starting from :math:`x = (1, \dots, 1)`.

    Gradient descent with rate ``lr`` has, after ``t`` steps, a loss of exactly
    ``sum(a_i * (1 - lr * a_i) ** (2 * t)) / 2``. Batches are empty: there is no data.
    """

    curvatures: tuple[float, ...] = (1.0, 10.0)  # the a_i
    name: str = "quadratic"
    step_hint: int = 200
    max_allowed_runtime_sec: float = 10.0
    eval_period_time_sec: float = 1.0
    reference_batch_size: int = 1
    eval_batch_size: int = 1
    loss_type: LossType | None = None  # half a sum of squares, without targets
    target_metric: str = "loss"
    is_fixed_batch: bool = False
    metrics_logger = None

    @property
    def targets(self) -> WorkloadTargets:
        """Targets of loss 0, which gradient descent only approaches."""
        validation, test = (
            Target(f"{split}/loss", 0.0, "lower") for split in ("validation", "test")
        )
        return WorkloadTargets(validation, test, self.step_hint, provenance={})

    @property
    def model_params_types(self) -> ParameterType:
        """The only parameter is a weight."""
        return ParameterType.WEIGHT

    @property
    def param_shapes(self) -> ShapeTuple:
        """The shape of the only parameter."""
        return ShapeTuple((len(self.curvatures),))

    def _build_input_queue(self, data_rng: Any, split: str, **_: Any) -> "CountingQueue":
        del data_rng, split
        return CountingQueue()

    def init_model_fn(self, rng: Any) -> tuple[jax.Array, None]:
        """Return the starting point."""
        del rng  # The starting point is part of the problem, not of the seed.
        return jnp.ones(len(self.curvatures)), None

    def model_fn(
        self,
        params: jax.Array,
        batch: Any,
        model_state: Any,
        mode: Any,
        rng: Any,
        update_batch_norm: bool,
        dropout_rate: float = 0.0,
    ) -> tuple[jax.Array, Any]:
        """Return the point itself: there is no data, so it stands for the logits."""
        del batch, mode, rng, update_batch_norm, dropout_rate
        return params, model_state

    def loss_fn(
        self,
        label_batch: Any,
        logits_batch: jax.Array,
        mask_batch: Any = None,
        label_smoothing: float = 0.0,
    ) -> dict[str, Any]:
        """Return the loss of one "example"."""
        del label_batch, mask_batch, label_smoothing
        loss = 0.5 * jnp.sum(jnp.asarray(self.curvatures) * logits_batch**2)
        return {"summed": loss, "n_valid_examples": 1, "per_example": loss[None]}

    def eval_model(
        self, global_batch_size: int, params: jax.Array, *_: Any, **__: Any
    ) -> dict[str, float]:
        """Return the loss under the names of all three splits."""
        del global_batch_size
        loss = float(self.loss_fn(None, params)["summed"])
        return {"train/loss": loss, "validation/loss": loss, "test/loss": loss}


class CountingQueue(Iterator[dict[str, jax.Array]]):
    """Yields one-example batches whose only content is their number."""

    def __init__(self) -> None:
        self.position = 0

    def seek(self, position: int) -> None:
        """Go to the position after the first ``position`` batches."""
        self.position = position

    def __next__(self) -> dict[str, jax.Array]:
        """Return the next batch."""
        self.position += 1
        return {"targets": jnp.full((1,), self.position, jnp.float32)}
