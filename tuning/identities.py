"""The identities of a campaign's studies, and whether a folder's results can be continued.

All trials of a contender on a workload have one identity. All contenders on a workload share the
workload's code, data, targets and settings. A finished contender whose code has changed since is
kept, because its results are complete: a note names it.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax

from metaopt.bench import records
from metaopt.bench.contract.digests import (
    digest_folder,
    digest_imports,
    digest_modules,
    digest_value,
)
from metaopt.bench.contract.loading import SPACE_FILE
from metaopt.bench.measure.targets import Target
from metaopt.bench.records.identity import (
    FILE,
    WORKLOAD_PARTS,
    Identity,
    differences,
    listed,
    read_identity,
)
from metaopt.workloads.data.datasets import digests
from metaopt.workloads.registry import get_workload, modules_of
from tuning.campaign import Campaign
from tuning.contenders import Contender
from tuning.tuners import TUNERS, get_tuner

Identities = dict[tuple[str, str], Identity]  # by contender and workload

# Settings of JAX that change numbers or end runs. Those of random keys are pinned instead.
_SETTINGS = (
    "jax_debug_infs",
    "jax_debug_key_reuse",
    "jax_debug_nans",
    "jax_default_matmul_precision",
    "jax_disable_jit",
    "jax_enable_x64",
    "jax_numpy_dtype_promotion",
    "jax_numpy_rank_promotion",
    "jax_softmax_custom_jvp",
)
_VARIABLES = ("NVIDIA_TF32_OVERRIDE",)


def identify(
    contender: Contender, workload: Any, targets: tuple[Target, Target | None]
) -> Identity:
    """Return the identity of a contender's studies on a workload, as its files are now.

    Args:
        contender: The contender.
        workload: The workload; its data is not loaded.
        targets: The validation and the test target.
    """
    folder, files = contender.submission.folder, digest_folder(contender.submission.folder)
    return {
        "submission": _own_files(contender, files),
        "modules": digest_imports(folder / name for name in files if name.endswith(".py")),
        "tuner": digest_modules(_modules_of_tuner(contender)),
        "workload": digest_modules(modules_of(workload)),
        "data": digests(getattr(workload, "files", ())),
        "targets": {f"targets of {workload.name}": digest_value(repr(targets))},
        "settings": {name: str(getattr(jax.config, name)) for name in _SETTINGS}
        | {name: os.environ.get(name, "") for name in _VARIABLES},
    }


def identify_campaign(campaign: Campaign) -> Identities:
    """Return the identity of each contender's studies on each workload."""
    workloads = [get_workload(name) for name in campaign.workloads]
    return {
        (name, workload.name): identify(contender, workload, campaign.targets_on(workload))
        for name, contender in campaign.contenders_by_name.items()
        for workload in workloads
    }


def _own_files(contender: Contender, files: dict[str, str]) -> dict[str, str]:
    """Return the digests of a submission's files, without unused search spaces."""
    own = SPACE_FILE if contender.space is None else f"spaces/{contender.space}.json"
    return {
        f"{contender.submission.folder.name}/{name}": digest
        for name, digest in files.items()
        if name == own or not (name == SPACE_FILE or name.startswith("spaces/"))
    }


def _modules_of_tuner(contender: Contender) -> set[str]:
    tuner = contender.make_tuner(seed=0)
    if tuner is None:
        return set()
    found = {type(tuner).__module__}
    if contender.tuner is not None and contender.tuner not in TUNERS:  # of a package
        found.add(get_tuner(contender.tuner).__module__)
    return found


def check_folder(
    out: Path, studies: Iterable[tuple[tuple[str, str], Path]], identities: Identities
) -> list[str]:
    """Check that the studies that are left to run would not mix with results of another version.

    Args:
        out: The output folder, for messages.
        studies: The contender and workload, and the folder, of every study of the campaign.
        identities: The current identities.

    Returns:
        Notes on finished contenders that have changed since.

    Raises:
        ValueError: An unfinished contender, or a workload that is still needed, has changed; names
            the files.
    """
    studies = list(studies)
    unfinished = {key for key, folder in studies if not (folder / records.STUDY_FILE).exists()}
    busy = {workload for _, workload in unfinished}
    notes: dict[str, None] = {}
    for key, folder in studies:
        if not _is_begun(folder):
            continue
        contender, workload = key
        before, now = read_identity(folder) or {}, identities[key]
        parts = () if key in unfinished else WORKLOAD_PARTS
        if workload in busy and (names := differences(before, now, parts)):
            raise _mixed_versions(f"{out} holds {contender} on {workload}", names)
        if names := differences(before, now):
            notes[
                f"{contender} on {workload} is finished and is kept; {listed(names)} changed since "
                "it ran. Another --out runs it again."
            ] = None
    return list(notes)


def claim_study(folder: Path, identity: Identity) -> None:
    """Write a study's identity into its folder, or check that its trials ran with the same.

    Raises:
        ValueError: They ran with another one; names the files.
    """
    if not _is_begun(folder):
        records.write_json(folder / FILE, identity)
    elif names := differences(read_identity(folder) or {}, identity):
        raise _mixed_versions(f"{folder} holds trials", names)


def _mixed_versions(what: str, names: list[str]) -> ValueError:
    return ValueError(
        f"{what} from before {listed(names)} changed. Results of two versions cannot be mixed: use "
        "another output folder, or restore the first version."
    )


def _is_begun(folder: Path) -> bool:
    return any(folder.glob("trial_*"))


def changed_names(before: Identities, now: Identities) -> list[str]:
    """Return the names that differ for some contender and workload."""
    return sorted({name for key in before for name in differences(before[key], now[key])})
