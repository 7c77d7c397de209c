"""The environment of a run: software versions, hardware, and the state of the checkout."""

import datetime
import functools
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from metaopt.bench.contract.plugins import plugin_versions

PACKAGES = (
    *("metaopt-bench", "jax", "jaxlib", "flax", "optax", "optuna", "numpy", "scikit-learn"),
    "algoperf",
)
_PRECISION = (("x64", "jax_enable_x64"), ("matmul", "jax_default_matmul_precision"))
_RANDOM = (
    ("key_implementation", "jax_default_prng_impl"),
    ("partitionable", "jax_threefry_partitionable"),
)
CODE = ("metaopt", "submissions", "tuning", "analysis")
CHECKOUT = Path(__file__).resolve().parents[3]


@functools.cache
def describe_environment() -> dict[str, Any]:
    """Return the facts that every ``run.json`` carries; plain data, read once per process."""
    import jax  # here, so that reading records needs no JAX

    devices = jax.devices()
    return {
        "software": {
            "python": platform.python_version(),
            **{name: version for name in PACKAGES if (version := _version(name))},
            **plugin_versions(),
            "xla_flags": os.environ.get("XLA_FLAGS", ""),
        },
        "hardware": {
            "platform": platform.platform(),
            "cpu": _cpu_model(),
            "cpu_count": os.cpu_count(),
            "memory_bytes": _memory_bytes(),
            "backend": jax.default_backend(),
            "devices": [device.device_kind for device in devices],
            "device_version": getattr(devices[0].client, "platform_version", ""),
        },
        "precision": {
            **{key: str(getattr(jax.config, flag) or "default") for key, flag in _PRECISION},
            "tf32_override": os.environ.get("NVIDIA_TF32_OVERRIDE", ""),
        },
        "random": {key: str(getattr(jax.config, flag)) for key, flag in _RANDOM},
        "git": describe_checkout(CHECKOUT),
    }


def describe_checkout(folder: Path) -> dict[str, Any]:
    """Return ``{commit, dirty}`` of the checkout at ``folder``; ``None`` for both outside one."""
    changed = changed_files(folder)
    if changed is None:
        return {"commit": None, "dirty": None}
    return {"commit": _git(folder, "rev-parse", "HEAD").strip(), "dirty": bool(changed)}


def changed_files(folder: Path) -> list[str] | None:
    """Return the files of a checkout that are not as committed; ``None`` outside one.

    These are the tracked files that changed, and new files in folders of code. A new file elsewhere
    decides no result.
    """
    try:
        _git(folder, "rev-parse", "HEAD")
        entries = _git(folder, "status", "--porcelain", "-z", "--no-renames").split("\0")
    except (OSError, subprocess.CalledProcessError):
        return None
    return [
        entry[3:]
        for entry in entries
        if entry and (not entry.startswith("??") or entry[3:].partition("/")[0] in CODE)
    ]


def _git(folder: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True
    ).stdout


def utc_now() -> str:
    """Return the time of day in UTC, ISO 8601, whole seconds."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
