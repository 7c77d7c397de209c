"""A deep autoencoder of scikit-learn's digits, through a bottleneck of 16 numbers.

References:
    Hinton and Salakhutdinov, `Reducing the Dimensionality of Data with Neural Networks
    <https://doi.org/10.1126/science.1127647>`_, 2006: a benchmark of optimizers ever since.
"""

import flax.linen as nn
import jax

from metaopt.bench.contract.spec import LossType
from metaopt.workloads.data.arrays import Arrays
from metaopt.workloads.data.scikit_learn import load_digits
from metaopt.workloads.supervised import SupervisedWorkload


class Autoencoder(nn.Module):
    """Dense layers with tanh between them, which end with the width of their inputs."""

    widths: tuple[int, ...]  # hidden layers

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Map (n, d) to (n, d)."""
        hidden = inputs
        for index, width in enumerate(self.widths):
            hidden = nn.tanh(nn.Dense(width, name=f"hidden_{index}")(hidden))
        return nn.Dense(inputs.shape[-1], name="output")(hidden)


def load_images() -> Arrays:
    """Load the digits, (n, 64) of numbers in [0, 1], as inputs and as targets."""
    parts = vars(load_digits()).values()
    return Arrays(*({"inputs": part["inputs"], "targets": part["inputs"]} for part in parts))


DIGITS_AUTOENCODER = SupervisedWorkload(
    name="digits_autoencoder",
    summary="8x8 digits, autoencoder through 16 numbers (38,416 parameters)",
    load=load_images,
    whole={"train": 1_079, "validation": 359, "test": 359},
    model=Autoencoder(widths=(128, 64, 32, 16, 32, 64, 128)),
    loss_type=LossType.MEAN_SQUARED_ERROR,
    reference_batch_size=64,
    step_hint=300,
    eval_train_size=359,
    max_allowed_runtime_sec=10.0,
    eval_period_time_sec=0.5,
)
