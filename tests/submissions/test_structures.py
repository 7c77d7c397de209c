"""Submissions cope with the batches, parameters and model states that AlgoPerf's workloads have."""

from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaopt.bench.contract.loading import load_submission
from metaopt.bench.contract.return_values import as_namedtuple, signature_of
from metaopt.bench.contract.savable import find_unsavable
from metaopt.bench.contract.spec import LossType, ParameterType
from metaopt.bench.trial.checkpoints import load_checkpoint, save_checkpoint
from tuning.contenders import SUBMISSIONS

EXAMPLES, CLASSES = 6, 3


class GraphsTuple(NamedTuple):
    """The graphs of jraph, in whose place they are here."""

    nodes: Any
    edges: Any
    receivers: Any
    senders: Any
    globals: Any
    n_node: Any
    n_edge: Any


class Structured:
    """A linear classifier of four features, in the clothes of one of AlgoPerf's workloads.

    Subclasses say how batches look (``batch``), how features and targets are read from them, and
    what the model keeps beside its parameters (``initial_state``, ``next_state``).
    """

    name, loss_type = "mnist", LossType.SOFTMAX_CROSS_ENTROPY
    step_hint, reference_batch_size, max_allowed_runtime_sec = 12, EXAMPLES, 60.0
    target_metric_name = "loss"
    # As AlgoPerf's: with other keys than the parameters, so that no map over both works.
    model_params_types: ClassVar = {
        "dense_0": {"kernel": ParameterType.WEIGHT, "bias": ParameterType.BIAS},
        "scale": ParameterType.LAYER_NORM_SCALE,
    }
    initial_state: ClassVar = None

    def examples(self, step):
        """Return four features and a label of each example; a few batches again and again."""
        rng = np.random.default_rng(step % 3)
        labels = rng.integers(0, CLASSES, EXAMPLES)
        features = np.eye(4)[labels] + 0.1 * rng.normal(size=(EXAMPLES, 4))
        return features.astype(np.float32), labels.astype(np.int32)

    def has_reached_validation_target(self, eval_result):
        return eval_result["validation/loss"] <= 0.1

    def batch_shapes(self, size=None):
        return jax.eval_shape(lambda: jax.tree.map(jnp.asarray, self.batch(0)))

    def init_model_fn(self, rng):
        kernel = 0.1 * jax.random.normal(rng, (4, CLASSES))
        params = {"Dense_0": {"kernel": kernel, "bias": jnp.zeros(CLASSES)}, "Scale": jnp.ones(4)}
        return params, jax.tree.map(jnp.copy, self.initial_state)

    def model_fn(self, params, batch, model_state, mode, rng, update_batch_norm):
        features = params["Scale"] * self.features(batch)
        logits = features @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"]
        return self.logits(logits), self.next_state(model_state, features)

    def loss_fn(self, label_batch, logits_batch, mask_batch=None, label_smoothing=0.0):
        labels = self.one_hot(label_batch)
        each = -jnp.sum(labels * jax.nn.log_softmax(logits_batch), axis=-1)
        mask = jnp.ones_like(each) if mask_batch is None else mask_batch.astype(jnp.float32)
        return {"summed": (mask * each).sum(), "n_valid_examples": mask.sum(), "per_example": each}

    def batch(self, step):
        inputs, targets = self.examples(step)
        return {"inputs": inputs.reshape(-1, 2, 2, 1), "targets": targets}

    def features(self, batch):
        return batch["inputs"].reshape(-1, 4)

    def one_hot(self, targets):
        return jax.nn.one_hot(targets.astype(jnp.int32), CLASSES)

    def logits(self, logits):
        return logits

    def next_state(self, model_state, features):
        return model_state


class Vit(Structured):
    """One-hot targets; ``weights`` in padded batches only; a state that becomes ``None``."""

    initial_state: ClassVar = {}

    def batch(self, step):
        inputs, targets = self.examples(step)
        batch = {"inputs": inputs, "targets": np.eye(CLASSES, dtype=np.float32)[targets]}
        return batch if step % 2 == 0 else {**batch, "weights": np.float32(np.arange(EXAMPLES) < 4)}

    def one_hot(self, targets):
        return targets

    def next_state(self, model_state, features):
        return None


class Speech(Structured):
    """Pairs with paddings; tokens as floats; statistics that change their shape at once."""

    loss_type = LossType.CTC_LOSS
    initial_state: ClassVar = {"batch_stats": {"mean": np.zeros(4, np.float32)}}

    def batch(self, step):
        inputs, targets = self.examples(step)
        paddings = np.zeros_like(inputs)
        tokens = targets[:, None].astype(np.float32)
        return {"inputs": (inputs, paddings), "targets": (tokens, np.zeros_like(tokens))}

    def features(self, batch):
        values, paddings = batch["inputs"]
        return values * (1.0 - paddings)

    def one_hot(self, targets):
        tokens, paddings = targets
        return super().one_hot(tokens[:, 0]) * (1.0 - paddings)

    def next_state(self, model_state, features):
        mean = 0.9 * model_state["batch_stats"]["mean"] + 0.1 * features.mean(0)[None, None]
        return {"batch_stats": {"mean": mean}}


class Ogbg(Structured):
    """Graphs on the host, one more than examples; weights of each label; no globals."""

    def batch(self, step):
        inputs, targets = self.examples(step)
        graphs = EXAMPLES + 1  # the last is padding
        nodes = np.concatenate([inputs, np.zeros((1, 4), np.float32)])
        index, count = np.arange(graphs, dtype=np.int32), np.ones(graphs, np.int32)
        edges = np.zeros((graphs, 1), np.float32)
        labels = np.zeros((graphs, CLASSES), np.float32)
        labels[np.arange(EXAMPLES), targets] = 1.0
        weights = np.repeat((index < EXAMPLES)[:, None], CLASSES, axis=1).astype(np.float32)
        graph = GraphsTuple(nodes, edges, index, index, {}, count, count)
        return {"inputs": graph, "targets": labels, "weights": weights}

    def features(self, batch):
        assert batch["inputs"].globals == {}
        return batch["inputs"].nodes

    def loss_fn(self, label_batch, logits_batch, mask_batch=None, label_smoothing=0.0):
        each = jnp.logaddexp(0.0, logits_batch) - label_batch * logits_batch
        return {
            "summed": (mask_batch * each).sum(), "n_valid_examples": mask_batch.sum(),
            "per_example": each,
        }  # fmt: skip


class Wmt(Structured):
    """Tokens with positions and segments; integer weights of each token."""

    def batch(self, step):
        _, targets = self.examples(step)
        tokens = np.stack([targets, targets], axis=1)
        places = np.broadcast_to(np.arange(2, dtype=np.int32), tokens.shape)
        names = "inputs_position", "targets_position", "inputs_segmentation", "targets_segmentation"
        weights = np.ones_like(tokens)
        weights[0, 1] = 0
        return {
            "inputs": tokens,
            "targets": tokens,
            "weights": weights,
            **dict.fromkeys(names, places),
        }

    def features(self, batch):
        return jax.nn.one_hot(batch["inputs"], 4)


class Cifar(Structured):
    """A state that begins as a copy of the parameters and then is something else."""

    initial_state: ClassVar = {"Dense_0": {"kernel": np.zeros((4, CLASSES), np.float32)}}

    def next_state(self, model_state, features):
        return {"batch_stats": features.mean(0)}


STRUCTURES = [Vit(), Speech(), Ogbg(), Wmt(), Cifar()]
# By submission: small episodes, so that the steps of a test hold restarts and rollouts.
POINTS = {
    "adamw": {"learning_rate": 0.1},
    "schedule_free_adamw": {"learning_rate": 0.1},
    "template": None,
    "metaopt": {"history": 2, "episodes": 2, "episode_steps": 5},
    "metaopt_averages": {"episode_steps": 6, "scale": 30.0},
    "metaopt_step_size": {"scale": 10.0},
}
STEPS = 14


class Run:
    """A submission's functions, called in a runner's order on a workload."""

    def __init__(self, name, workload):
        folder = SUBMISSIONS / name if name == "template" else name
        self.module = load_submission(folder, SUBMISSIONS).module
        self.workload, self.point = workload, as_namedtuple(POINTS[name])
        self.params, self.model_state = workload.init_model_fn(jax.random.PRNGKey(0))
        self.signature = signature_of(self.params)
        self.state = self.module.init_optimizer_state(
            workload, self.params, self.model_state, self.point, jax.random.PRNGKey(1)
        )

    def go(self, steps):
        for step in steps:
            batch = self.module.data_selection(
                self.workload, iter([self.workload.batch(step)]), self.state, self.params,
                self.model_state, self.point, step, jax.random.PRNGKey(step),
            )  # fmt: skip
            self.state, self.params, self.model_state = self.module.update_params(
                batch=batch, **self.common(step)
            )
        return self

    def common(self, step):
        return {
            "workload": self.workload, "current_param_container": self.params,
            "current_params_types": self.workload.model_params_types,
            "model_state": self.model_state, "hyperparameters": self.point,
            "loss_type": self.workload.loss_type, "optimizer_state": self.state,
            "eval_results": [], "global_step": step, "rng": jax.random.PRNGKey(step),
        }  # fmt: skip

    def loss(self):
        batch = self.workload.batch(0)
        logits, _ = self.workload.model_fn(
            self.params, batch, self.model_state or self.workload.initial_state, None, None, False
        )
        loss = self.workload.loss_fn(batch["targets"], logits, mask_batch=batch.get("weights"))
        return float(loss["summed"])


@pytest.mark.parametrize(
    "name, workload",
    [
        (name, workload)
        for name in POINTS
        for workload in STRUCTURES
        # Schedule-Free has the kit's step; its own are parameters beside a state that changes.
        if name != "schedule_free_adamw" or isinstance(workload, Cifar)
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_a_submission_trains_on_the_structure_and_goes_on_from_a_checkpoint(
    name, workload, tmp_path
):
    run, middle = Run(name, workload), STEPS - 4
    before = run.loss()
    assert run.go(range(5)).loss() < before
    run.go(range(5, middle))
    assert find_unsavable(run.state[0], "optimizer_state") is None
    kept = jax.tree.map(jnp.copy, (run.params, run.model_state))
    save_checkpoint(tmp_path / "checkpoint", {"state": run.state[0]}, {})

    run.go(range(middle, STEPS))
    other = Run(name, workload)
    trees, _ = load_checkpoint(tmp_path / "checkpoint", {"state": other.state[0]})
    other.state, (other.params, other.model_state) = (trees["state"], other.state[1]), kept
    other.go(range(middle, STEPS))

    assert signature_of(run.params) == run.signature
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(run.params))
    jax.tree.map(np.testing.assert_array_equal, run.params, other.params)
