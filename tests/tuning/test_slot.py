"""What slots do with files: archives of studies, and compiled programs."""

import tarfile

import jax
import jax.numpy as jnp
import pytest

from tuning.campaign import make_campaign
from tuning.slot import compiled_programs_kept, pack, unpack


def test_a_study_is_what_its_archive_holds(tmp_path):
    there, here = tmp_path / "there", tmp_path / "here"
    (there / "trial_1").mkdir(parents=True)
    (there / "trial_1" / "run.json").write_text("new")
    here.mkdir()
    (here / "old").write_text("old")

    unpack(pack(there), here, tmp_path)

    assert [path.name for path in here.rglob("*")] == ["trial_1", "run.json"]


def test_an_empty_archive_leaves_an_empty_study(tmp_path):
    here = tmp_path / "here"
    here.mkdir()
    (here / "old").write_text("old")

    unpack(pack(tmp_path / "missing"), here, tmp_path)

    assert [*here.iterdir()] == []


def test_a_broken_archive_changes_nothing(tmp_path):
    here = tmp_path / "here"
    here.mkdir()
    (here / "old").write_text("old")

    with pytest.raises(tarfile.ReadError):
        unpack(b"no archive", here, tmp_path)

    assert [path.name for path in here.iterdir()] == ["old"]


def test_each_campaign_of_a_process_keeps_its_programs_in_its_own_folder(tmp_path, monkeypatch):
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs",
             "jax_persistent_cache_min_entry_size_bytes")  # fmt: skip
    before = {name: jax.config.values[name] for name in names}
    campaign = make_campaign(
        {
            "name": "test", "studies": 1, "budget": "1x", "workloads": ["digits_mlp"],
            "contenders": ["sgd+random"],
        },
        "test",
    )  # fmt: skip
    jax.config.update("jax_compilation_cache_dir", None)
    try:
        for number in (1, 2):
            with compiled_programs_kept(campaign, tmp_path / str(number)):
                jax.jit(lambda x, number=number: jnp.sin(x) * number)(jnp.ones(3))
    finally:
        for name, value in before.items():
            jax.config.update(name, value)

    for number in (1, 2):
        assert [*(tmp_path / str(number)).rglob("jit_*")]
