"""The workloads by name: ours, and those that installed packages add."""

import dataclasses
import functools
import sys
from typing import Any

from metaopt.bench.contract.kit import BATCH_SIZES
from metaopt.bench.contract.plugins import (
    WORKLOADS,
    Plugin,
    find_plugin,
    list_plugins,
    plugin_names,
)
from metaopt.bench.contract.suggestions import did_you_mean
from metaopt.workloads import algoperf_workloads as algoperf
from metaopt.workloads.breast_cancer_logistic import BREAST_CANCER_LOGISTIC
from metaopt.workloads.cifar10 import CIFAR10_VGG16, CIFAR10_VGG16_SMALL
from metaopt.workloads.digits_autoencoder import DIGITS_AUTOENCODER
from metaopt.workloads.digits_conv import DIGITS_CONV
from metaopt.workloads.digits_mlp import DIGITS_MLP
from metaopt.workloads.digits_transformer import DIGITS_TRANSFORMER
from metaopt.workloads.fixed_batch import fix_batch
from metaopt.workloads.mini_conformer import MINI_CONFORMER
from metaopt.workloads.mini_criteo import MINI_CRITEO
from metaopt.workloads.mini_deepspeech import MINI_DEEPSPEECH
from metaopt.workloads.mini_fastmri import MINI_FASTMRI
from metaopt.workloads.mini_lm import MINI_LM
from metaopt.workloads.mini_ogbg import MINI_OGBG
from metaopt.workloads.mini_resnet import MINI_RESNET
from metaopt.workloads.mini_vit import MINI_VIT
from metaopt.workloads.mini_wmt import MINI_WMT
from metaopt.workloads.mnist import MNIST_MLP
from metaopt.workloads.poisson_pinn import POISSON_PINN
from metaopt.workloads.supervised import SupervisedWorkload
from metaopt.workloads.translation import ENDE_TRANSFORMER, ENDE_TRANSFORMER_SMALL

FIXED_SUFFIX = "_fixed"

_STOCHASTIC = (
    BREAST_CANCER_LOGISTIC,
    CIFAR10_VGG16,
    CIFAR10_VGG16_SMALL,
    DIGITS_AUTOENCODER,
    DIGITS_CONV,
    DIGITS_MLP,
    DIGITS_TRANSFORMER,
    ENDE_TRANSFORMER,
    ENDE_TRANSFORMER_SMALL,
    MINI_CONFORMER,
    MINI_CRITEO,
    MINI_DEEPSPEECH,
    MINI_FASTMRI,
    MINI_LM,
    MINI_OGBG,
    MINI_RESNET,
    MINI_VIT,
    MINI_WMT,
    MNIST_MLP,
    POISSON_PINN,
)


@functools.cache
def _registry() -> dict[str, SupervisedWorkload]:
    workloads = [form for base in _STOCHASTIC for form in (base, fix_batch(base))]
    return {workload.name: workload for workload in workloads}


def list_workloads() -> dict[str, SupervisedWorkload]:
    """Return all our workloads by name, without loading their data."""
    return dict(_registry())


def list_plugin_workloads() -> tuple[dict[str, Any], dict[str, str]]:
    """Return the workloads that installed packages add, and why others are unavailable."""
    loaded, unavailable = list_plugins(WORKLOADS, _registry(), _forms)
    return {name: form for forms in loaded.values() for name, form in forms.items()}, unavailable


def get_workload(name: str) -> Any:
    """Return the workload ``name``, one object per process; ``_fixed`` gives its fixed-batch form.

    AlgoPerf's workloads, if it is installed, are ``algoperf_...``.

    Raises:
        ValueError: There is no such workload; or AlgoPerf, or the package that adds the workload,
            cannot be imported.
    """
    if name.startswith(algoperf.PREFIX):
        return algoperf.get_algoperf_workload(name)
    ours = _registry()
    if name in ours:
        return ours[name]
    plugin = _plugin_of(name)
    if plugin is not None:
        return _forms(plugin)[name]
    names = sorted([*ours, *plugin_names(WORKLOADS, ours)])
    raise ValueError(f"No workload {name!r}{did_you_mean(name, names)}, only {names}.")


def _plugin_of(name: str) -> Plugin | None:
    """Return the plug-in that adds the workload ``name``; ``None`` if no plug-in does."""
    ours = _registry()
    for entry in () if name in ours else (name, name.removesuffix(FIXED_SUFFIX)):
        plugin = None if entry in ours else find_plugin(WORKLOADS, entry, ours)
        if plugin is not None and name in _forms(plugin):
            return plugin
    return None


def modules_of(workload: Any) -> set[str]:
    """Return the names of the modules that define a workload, its class and its fields."""
    plugin = _plugin_of(workload.name)
    found = {kind.__module__ for kind in type(workload).__mro__}
    base = getattr(workload, "base", workload)
    found |= {
        name
        for name, module in sys.modules.items()
        if name.startswith("metaopt.workloads.") and name != __name__
        and any(value is base for value in vars(module).values())
    }  # fmt: skip
    fields = dataclasses.fields(workload) if dataclasses.is_dataclass(workload) else ()
    for field in fields:
        value = getattr(workload, field.name)
        for part in value if isinstance(value, tuple) else (value,):
            found.add(getattr(getattr(part, "func", part), "__module__", None) or "")
    return found - {""} | ({plugin.entry.module} if plugin else set())


_NEEDED = (
    *("name", "summary", "step_hint", "targets", "is_fixed_batch", "check_data", "describe_data"),
    *("max_allowed_runtime_sec", "eval_batch_size", "loss_type", "model_params_types"),
    "reference_batch_size",
    *("init_model_fn", "model_fn", "loss_fn", "eval_model", "_build_input_queue"),
)


@functools.cache
def _forms(plugin: Plugin) -> dict[str, Any]:
    """Return a package's workload and, if it is a ``SupervisedWorkload``, its fixed-batch form."""
    workload: Any = plugin.load()
    if callable(workload):
        try:
            workload = workload()
        except Exception as error:
            raise plugin.broken(error) from error
    # Of the class, for some of a workload's properties read its data.
    missing = [n for n in _NEEDED if not hasattr(type(workload), n) and n not in vars(workload)]
    if missing:
        raise plugin.broken(f"{type(workload).__name__} has no {', '.join(missing)}")
    if workload.name != plugin.name:
        raise plugin.broken(f"the workload's own name is {workload.name!r}; they must be the same")
    # For the submissions that are built on the kit.
    BATCH_SIZES.setdefault(workload.name, workload.reference_batch_size)
    forms = [workload]
    if isinstance(workload, SupervisedWorkload) and not workload.is_fixed_batch:
        forms.append(fix_batch(workload))
    return {form.name: form for form in forms}
