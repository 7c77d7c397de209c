"""The types of parameters, from the names of their layers."""

import re
from collections.abc import Mapping
from typing import Any

import jax

from metaopt.bench.contract.spec import ParameterType

_ROLES = {"query": "Q", "key": "K", "value": "V", "out": "OUT"}  # of attention's projections


def types_by_layer(params: Any) -> Any:
    """Return the type of each array, by the name of its layer, in the structure of ``params``."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: parameter_type(
            [jax.tree_util.keystr((entry,), simple=True) for entry in path]
        ),
        params,
    )


def parameter_type(path: list[str]) -> ParameterType:
    """Return the type of the array at ``path``, by the names of its layers, as AlgoPerf does.

    Flax's default names are known, as are names that contain the words ``conv``, ``bn``, ``ln``,
    ``norm`` or ``attention``. Other arrays are biases if their name says so, else weights.

    Examples:
        >>> parameter_type(["encoder", "ln_attention", "scale"]).name
        'LAYER_NORM_SCALE'
        >>> parameter_type(["BatchNorm_0", "bias"]).name
        'BATCH_NORM_BIAS'
    """
    *layers, leaf = ["", "", *(name.lower() for name in path)]
    words = re.findall("[a-z]+", layers[-1])
    name = "".join(words)
    is_batch_norm = "bn" in words or "batchnorm" in name
    if leaf in ("scale", "bias") and (is_batch_norm or "ln" in words or "norm" in name):
        norm = "BATCH_NORM" if is_batch_norm else "LAYER_NORM"
        return ParameterType[f"{norm}_{leaf.upper()}"]
    if "attention" in layers[-2]:
        role = "BIAS" if leaf == "bias" else _ROLES.get(layers[-1])
        if role is not None:
            return ParameterType[f"ATTENTION_{role}"]
    if leaf == "embedding":
        return ParameterType.EMBEDDING
    if "bias" in leaf:
        return ParameterType.BIAS
    is_convolution = any(word.startswith("conv") for word in words)
    return ParameterType.CONV_WEIGHT if is_convolution else ParameterType.WEIGHT


def algoperf_types(params: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Return the type of each array as AlgoPerf's JAX workloads do: all keys are in lower case.

    Parts of names anywhere in the path decide, so the types differ from :func:`types_by_layer`'s:
    everything inside a layer whose name contains ``conv`` is a convolution's, for example. The
    structure differs from that of ``params`` where a name has capital letters.

    Args:
        params: Nested dictionaries of arrays or their shapes.
        path: The names of the layers around ``params``, in lower case.
    """
    return {
        name.lower(): algoperf_types(value, f"{path}/{name.lower()}")
        if isinstance(value, Mapping)
        else _algoperf_type(path, name.lower())
        for name, value in params.items()
    }


def _algoperf_type(path: str, name: str) -> ParameterType:
    """Return the type of the array ``name`` in the layers ``path``, the first rule that fits."""
    for norm, parts in (("BATCH_NORM", ("batchnorm", "bn")), ("LAYER_NORM", ("layernorm", "ln"))):
        if any(part in path for part in parts):
            return ParameterType[f"{norm}_{name.upper()}"]
    if "conv" in path:
        return ParameterType.BIAS if "bias" in name else ParameterType.CONV_WEIGHT
    if "embedding" in name or ("embedding" in path and name == "kernel"):
        return ParameterType.EMBEDDING
    if "attention" in path:
        if name == "bias":
            return ParameterType.ATTENTION_BIAS
        # AlgoPerf asks in this order, and a path may contain two of the words.
        for word in ("key", "query", "value", "out"):
            if name == "kernel" and word in path:
                return ParameterType[f"ATTENTION_{_ROLES[word]}"]
    return ParameterType.BIAS if "bias" in name else ParameterType.WEIGHT
