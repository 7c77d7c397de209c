"""Controller files: a learned controller as a small JSON document.

    {"schema_version": 1, "family": "scalar_lags", "shape": [32], "weights": [...],
     "provenance": {...}}

Averages also have ``"settings"``: their decays and the space of their weights. Index 0 is the
newest lag, and the update is *minus* the weighted sum. Numbers are stored exactly.
"""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .averages import Averages
from .base import Controller
from .diagonal_lags import DiagonalLags
from .full_lags import FullLags
from .lags import ScalarLags
from .step_size import StepSize

SCHEMA_VERSION = 1

FAMILIES: dict[str, Any] = {
    kind.family: kind for kind in (ScalarLags, DiagonalLags, FullLags, Averages, StepSize)
}
_SETTINGS = {"averages": {"decays", "space"}}
# Number of axes of the weights; that of diagonal lags depends on the parameters.
_AXES = {"scalar_lags": 1, "averages": 1, "full_lags": 3, "step_size": 0}


def save_controller(
    path: str | Path, controller: Controller, provenance: dict[str, Any] | None = None
) -> None:
    """Write a controller, atomically.

    Args:
        path: The file; an existing file is replaced.
        controller: The family with its weights, such as ``state.controller`` of an optimizer's
            state.
        provenance: JSON data about the origin of the weights.

    Raises:
        ValueError: The controller has no weights, or some are not finite.
    """
    if controller.weights is None:
        raise ValueError(
            "`controller` must have weights, got none. Save `state.controller` of an optimizer."
        )
    leaves = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(controller.weights)]
    if len(leaves) == 1:
        weights = leaves[0]
    else:  # of a tree: its leaves one after another, behind the axis of the lags
        weights = np.concatenate([leaf.reshape(len(leaf), -1) for leaf in leaves], axis=1)
    if not np.isfinite(weights).all():
        raise ValueError(f"`controller` must have finite weights, got {weights.ravel()[:4]} ...")
    document = {
        "schema_version": SCHEMA_VERSION,
        "family": controller.family,
        "shape": list(weights.shape),
        "weights": weights.tolist(),
        **({"settings": controller.settings} if controller.settings else {}),
        "provenance": provenance or {},
    }
    path = Path(path)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(document, file, allow_nan=False)
        os.chmod(temporary, 0o644)  # readable by other users, unlike a temporary file
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def load_controller(path: str | Path) -> Controller:
    """Read a file of :func:`save_controller`, for ``frozen_control`` or ``meta_optimizer``.

    Raises:
        ValueError: The file is not a controller file of this schema version and a known family,
            or its weights are not finite or differ from the stated shape.
    """
    try:
        document = json.loads(Path(path).read_text("utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path}: not a controller file: {error}") from None
    version = document.get("schema_version") if isinstance(document, dict) else None
    if type(version) is not int or version != SCHEMA_VERSION:
        raise ValueError(
            f"{path}: not a controller file of schema version {SCHEMA_VERSION}, got {version!r}."
        )
    family = document.get("family")
    if not isinstance(family, str) or family not in FAMILIES:
        raise ValueError(f"{path}: no controller family {family!r}, only {sorted(FAMILIES)}.")
    try:
        if not _are_numbers(document.get("weights")):
            raise TypeError
        weights = np.asarray(document.get("weights"), np.float64)
    except (ValueError, TypeError, OverflowError):
        raise ValueError(f"{path}: `weights` must be numbers in a regular array.") from None
    if list(weights.shape) != document.get("shape"):
        raise ValueError(
            f"{path}: `weights` have shape {list(weights.shape)}, the file states "
            f"{document.get('shape')}."
        )
    if weights.ndim != _AXES.get(family, weights.ndim):
        raise ValueError(
            f"{path}: `weights` of {family} must have {_AXES[family]} axes, the lags first, got "
            f"shape {list(weights.shape)}."
        )
    if not weights.size:
        raise ValueError(f"{path}: `weights` must not be empty, got shape {list(weights.shape)}.")
    if not (np.abs(weights) <= np.finfo(np.float32).max).all():  # also catches NaN
        raise ValueError(f"{path}: `weights` must be finite.")
    settings = document.get("settings", {})
    expected = _SETTINGS.get(family, set())
    if not isinstance(settings, dict) or set(settings) != expected:
        raise ValueError(
            f"{path}: `settings` of {family} must be {sorted(expected) or 'left out'}, got "
            f"{settings!r}."
        )
    if family == "averages":
        decays, space = settings["decays"], settings["space"]
        if not isinstance(decays, list) or not all(type(decay) in (int, float) for decay in decays):
            raise ValueError(f"{path}: `decays` must be numbers, got {decays!r}.")
        if not isinstance(space, str):
            raise ValueError(f"{path}: `space` must be text, got {space!r}.")
        settings = {"decays": [float(decay) for decay in decays], "space": space}
    try:
        return FAMILIES[family](weights=jnp.asarray(weights, jnp.float32), **settings)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None


def _are_numbers(part: Any) -> bool:
    """Return whether nested lists hold only numbers; ``True`` and ``"1"`` do not count."""
    return all(map(_are_numbers, part)) if isinstance(part, list) else type(part) in (int, float)
