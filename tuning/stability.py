"""Sequential stability, Figure 3 of the paper: products of transitions during training.

A trial draws a batch and initial parameters, trains without controls for some steps, and measures
the spectral norms of all products of consecutive transitions A_t of system (2); see
``metaopt.theory.dynamics``.
"""

import functools
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import pydantic

from metaopt.bench.contract.digests import digest_file, digest_modules
from metaopt.bench.contract.rng import pinned_randomness
from metaopt.bench.records import write_json
from metaopt.bench.records.identity import Identity, differences, listed
from metaopt.bench.records.stability import (
    STABILITY_FILE,
    StabilityRecord,
    StabilityResult,
    StabilitySetting,
    read_stability,
)
from metaopt.bench.trial.environment import describe_environment, utc_now
from metaopt.theory.dynamics import fit_stability
from metaopt.theory.stability_norms import stability_norms
from metaopt.workloads.data.datasets import digests
from metaopt.workloads.data.scikit_learn import load_digits
from metaopt.workloads.mnist import MNIST_FILES, load_mnist
from tuning.campaign import describe_problems, read_source
from tuning.locks import hold

_LOADERS = {"mnist": load_mnist, "digits": load_digits}
_SIDES = {"mnist": 28, "digits": 8}
_CLASSES = 10


class StabilityCampaign(pydantic.BaseModel):
    """A campaign file with ``kind = "stability"``.

    See ``tuning/campaigns/figure3_mnist.toml``. The keys of a setting are the fields of
    :class:`~metaopt.bench.records.stability.StabilitySetting`.
    """

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")

    kind: Literal["stability"]
    name: Annotated[str, pydantic.Field(pattern=r"^[A-Za-z0-9_.-]+$")]
    seed: Annotated[int, pydantic.Field(ge=0)] = 1
    trials: Annotated[int, pydantic.Field(ge=1)] = 10
    steps: Annotated[int, pydantic.Field(ge=2)] = 20
    settings: Annotated[tuple[StabilitySetting, ...], pydantic.Field(min_length=1)]

    @pydantic.model_validator(mode="after")
    def _check_settings(self) -> "StabilityCampaign":
        labels = [setting.label for setting in self.settings]
        if len(set(labels)) != len(labels):
            raise ValueError(f"settings: labels must differ, got {labels}")
        for setting in self.settings:
            side = _SIDES[setting.workload]
            if side % setting.pool:
                raise ValueError(
                    f"settings: pool must divide the {side} pixels of a side of {setting.workload},"
                    f" got {setting.pool} in {setting.label!r}"
                )
        return self


def read_stability_campaign(path: Path, *, seed: int | None = None) -> StabilityCampaign:
    """Read a campaign file on stability.

    Args:
        path: The TOML file, or the name of one in ``tuning/campaigns``.
        seed: Replaces the file's.

    Raises:
        ValueError: The file is missing, not TOML, or breaks a rule; names key, rule and value.
    """
    document = read_source(path).document
    return make_stability_campaign(
        document if seed is None else document | {"seed": seed}, str(path)
    )


def make_stability_campaign(document: dict[str, Any], source: str) -> StabilityCampaign:
    """Check the content of a campaign file.

    Args:
        document: The content.
        source: The file's name, for messages.

    Raises:
        ValueError: The content breaks a rule; names key, rule and value.
    """
    try:
        return StabilityCampaign(**document)
    except pydantic.ValidationError as error:
        models = {"settings": StabilitySetting}
        problems = describe_problems(error, StabilityCampaign, models)
        raise ValueError(f"{source}: {problems}") from None


@pinned_randomness()
def run_stability(
    campaign: StabilityCampaign,
    out: Path,
    on_progress: Callable[[int, int], None] | None = None,
) -> StabilityRecord:
    """Measure every trial of every setting that ``out`` does not hold yet.

    ``<out>/stability.json`` is written after each trial. A killed campaign resumes to the same
    numbers.

    Args:
        campaign: The campaign.
        out: Output folder; new, empty, or of the same campaign.
        on_progress: Called with the number of finished trials and of all trials.

    Raises:
        FileNotFoundError: The campaign needs data that is missing.
        ValueError: ``out`` holds another campaign, or is in use; a batch is larger than the data.
    """
    with hold(out / ".locks" / "campaign.lock", f"Output folder {str(out)!r}"):
        record = _begin(campaign, out)
        images = {  # missing data is reported before anything runs
            setting.workload: _LOADERS[setting.workload]().train for setting in campaign.settings
        }
        for setting in campaign.settings:
            have = len(images[setting.workload]["targets"])
            if setting.examples > have:
                raise ValueError(
                    f"{setting.label!r}: examples must be at most the {have} of "
                    f"{setting.workload}, got {setting.examples}."
                )
        total = len(campaign.settings) * campaign.trials
        for index, setting in enumerate(campaign.settings):
            for trial in range(len(record.settings[index].norms), campaign.trials):
                row = _measure(setting, images[setting.workload], campaign, trial)
                record = _with_trial(record, index, row)
                write_json(out / STABILITY_FILE, record)
                if on_progress is not None:
                    on_progress(index * campaign.trials + trial + 1, total)
    return record


def _begin(campaign: StabilityCampaign, out: Path) -> StabilityRecord:
    """Return the record that ``out`` holds, or a new one without trials."""
    fresh = StabilityRecord(
        **campaign.model_dump(exclude={"settings"}),
        settings=tuple(
            StabilityResult(
                setting=setting, parameters=count_parameters(setting),
                gaps=tuple(range(campaign.steps)), norms=(),
            )
            for setting in campaign.settings
        ),
        environment=describe_environment(),
        started_at=utc_now(),
        identity=_identify(campaign),
    )  # fmt: skip
    path = out / STABILITY_FILE
    if not path.exists():
        return fresh
    there = read_stability(path)
    changed = [
        f"{key}: {before!r} there, {now!r} now"
        for key, before, now in (
            *((k, getattr(there, k), getattr(fresh, k)) for k in ("name", "seed", "steps")),
            ("trials", there.trials, fresh.trials),
            *(
                (f"settings.{i}", a and a.setting, b and b.setting)
                for i, (a, b) in enumerate(itertools.zip_longest(there.settings, fresh.settings))
            ),
        )
        if before != now
    ]
    if changed:
        raise ValueError(
            f"{out} holds another campaign ({'; '.join(changed)}). "
            "Use another output folder, or the original campaign."
        )
    is_finished = all(len(result.norms) == there.trials for result in there.settings)
    if not is_finished and (names := differences(there.identity, fresh.identity)):
        raise ValueError(
            f"{out} holds trials from before {listed(names)} changed. Results of two versions "
            "cannot be mixed: use another output folder, or restore the first version."
        )
    return there


def _identify(campaign: StabilityCampaign) -> Identity:
    """Return the digests of everything that decides the norms besides the campaign."""
    used = {setting.workload for setting in campaign.settings}
    modules = [
        "metaopt.theory.stability_norms",
        *(_LOADERS[name].__module__ for name in sorted(used)),
    ]
    return {
        "modules": digest_modules(modules) | {"tuning/stability.py": digest_file(Path(__file__))},
        "data": digests(MNIST_FILES.values() if "mnist" in used else ()),
    }


def _with_trial(
    record: StabilityRecord, index: int, row: tuple[float, ...] | None
) -> StabilityRecord:
    """Return the record with one more trial in one setting, fitted if it was the last."""
    before = record.settings[index]
    norms = (*before.norms, row)
    changes: dict[str, Any] = {"norms": norms}
    rows = [row for row in norms if row is not None]
    if len(rows) == record.trials:  # no constants for a setting that diverges
        fit, mean = fit_stability(np.array(rows)), fit_stability(np.mean(rows, axis=0)[None])
        changes |= {"kappa": fit.kappa, "gamma": fit.gamma, "mean_kappa": mean.kappa}
    settings = list(record.settings)
    settings[index] = before.model_copy(update=changes)
    return record.model_copy(update={"settings": tuple(settings)})


def _measure(
    setting: StabilitySetting,
    images: dict[str, np.ndarray],
    campaign: StabilityCampaign,
    trial: int,
) -> tuple[float, ...] | None:
    """Return the largest norm of each gap; None if training diverged.

    Batch and initial parameters depend on seed and trial only, so settings of one network are
    paired.
    """
    rng = np.random.default_rng((campaign.seed, trial))
    chosen = rng.choice(len(images["targets"]), setting.examples, replace=False)
    inputs = pool_images(images["inputs"][chosen], _SIDES[setting.workload], setting.pool)
    data = jnp.asarray(inputs, jnp.float32), jnp.asarray(images["targets"][chosen])
    key = jax.random.PRNGKey(int(rng.integers(2**31)))
    try:
        norms = stability_norms(
            _network_loss(_layers(setting), setting.activation),
            initial_parameters(setting, key),
            data,
            steps=campaign.steps,
            learning_rate=setting.eta,
            weight_decay=setting.delta,
            beta=setting.beta,
            gradient_age=setting.gradient_age,
        )
    except FloatingPointError:
        return None
    return tuple(float(norm) for norm in np.nanmax(norms, axis=0))


def pool_images(inputs: np.ndarray, side: int, pool: int) -> np.ndarray:
    """Average squares of ``pool`` x ``pool`` pixels of (n, side^2) images: (n, (side / pool)^2)."""
    cells = side // pool
    return inputs.reshape(-1, cells, pool, cells, pool).mean((2, 4)).reshape(-1, cells**2)


def count_parameters(setting: StabilitySetting) -> int:
    """Return d: weights and biases of all layers."""
    return sum((before + 1) * after for before, after in itertools.pairwise(_layers(setting)))


def initial_parameters(setting: StabilitySetting, key: jax.Array) -> jax.Array:
    """Return initial parameters (d,): weights and biases, layer by layer.

    Weights are truncated normals of variance 1 / inputs (tanh, LeCun) or 2 / inputs (ReLU, He),
    biases 0.
    """
    init = jax.nn.initializers
    draw = {"tanh": init.lecun_normal(), "relu": init.he_normal()}[setting.activation]
    layers = _layers(setting)
    parts = []
    for layer_key, (before, after) in zip(
        jax.random.split(key, len(layers) - 1), itertools.pairwise(layers), strict=True
    ):
        parts += [draw(layer_key, (before, after)).ravel(), jnp.zeros(after)]
    return jnp.concatenate(parts)


def _layers(setting: StabilitySetting) -> tuple[int, ...]:
    inputs = (_SIDES[setting.workload] // setting.pool) ** 2
    return inputs, *setting.widths, _CLASSES


@functools.cache  # one function for each network, so that it is compiled once
def _network_loss(
    layers: tuple[int, ...], activation: str
) -> Callable[[jax.Array, Any], jax.Array]:
    """Return the mean softmax cross-entropy of a dense network of flat parameters."""
    act = {"tanh": jnp.tanh, "relu": jax.nn.relu}[activation]

    def loss(parameters: jax.Array, data: tuple[jax.Array, jax.Array]) -> jax.Array:
        hidden, targets = data
        place = 0
        for depth, (before, after) in enumerate(itertools.pairwise(layers), start=2):
            end = place + before * after
            weights = parameters[place:end].reshape(before, after)
            hidden = hidden @ weights + parameters[end : end + after]
            place = end + after
            if depth < len(layers):
                hidden = act(hidden)
        scores = jax.nn.log_softmax(hidden)
        return -jnp.mean(jnp.take_along_axis(scores, targets[:, None], axis=1))

    return loss
