"""The job script that ``--slurm`` writes: Ray on every node, the command on the first."""

import os
import subprocess

import pytest

from tuning.slurm import submit

ARGUMENTS = [
    "compare", "demo", "--slurm", "3", "--slurm-option=partition=gpu", "--budget", "4x",
    "--slurm-option", "gpus-per-node=4", "--out", "runs/my demo",
]  # fmt: skip


@pytest.fixture
def path(tmp_path, monkeypatch):
    """A folder for programs, which is the only one besides the system's."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path


def add_program(path, name, text):
    (path / name).write_text(f"#!/bin/sh\n{text}\n")
    (path / name).chmod(0o755)


def test_without_sbatch_the_script_is_written(path, tmp_path):
    said = submit(ARGUMENTS, tmp_path / "out", nodes=3, options=["partition=gpu"])

    script = tmp_path / "out" / "slurm" / "job.sh"
    assert said.endswith(f"Submit it with: sbatch {script}")
    lines = script.read_text().splitlines()
    assert {"#SBATCH --nodes=3", "#SBATCH --ntasks-per-node=1", "#SBATCH --partition=gpu"} < {
        *lines
    }
    subprocess.run(["bash", "-n", script], check=True)


def test_sbatch_gets_the_script_and_its_answer_is_shown(path, tmp_path):
    add_program(path, "sbatch", 'echo "Submitted batch job 7"')

    said = submit(ARGUMENTS, tmp_path / "out", nodes=3, options=[])

    assert said.startswith("Submitted batch job 7; output in ")


def test_the_job_starts_ray_on_all_nodes_and_the_command_without_slurm(path, tmp_path):
    submit(ARGUMENTS, tmp_path / "out", nodes=3, options=[])
    add_program(path, "scontrol", "echo node1; echo node2; echo node3")
    add_program(path, "srun", f'for word in "$@"; do echo "$word"; done > {tmp_path}/words')

    environment = {**os.environ, "SLURM_JOB_NODELIST": "node[1-3]", "SLURM_CPUS_ON_NODE": "8"}
    script = tmp_path / "out" / "slurm" / "job.sh"
    subprocess.run(["bash", script], check=True, env=environment)

    words = (tmp_path / "words").read_text().splitlines()
    ray, command = words[: words.index("--")], words[words.index("--") + 1 :]
    assert ray[:6] == ["ray", "symmetric-run", "--address", "node1:6379", "--min-nodes", "3"]
    assert ray[6:8] == ["--num-cpus", "8"]
    assert command[1:] == [
        "-m", "tuning", "compare", "demo", "--budget", "4x", "--out", "runs/my demo",
        "--address", "node1:6379",
    ]  # fmt: skip


def test_a_refused_job_and_options_of_another_form_are_errors(path, tmp_path):
    with pytest.raises(ValueError, match="takes name=value, got 'gpu'"):
        submit([], tmp_path, nodes=1, options=["gpu"])
    with pytest.raises(ValueError, match="--slurm-option nodes is set by --slurm"):
        submit([], tmp_path, nodes=1, options=["nodes=4"])
    add_program(path, "sbatch", "echo invalid partition >&2; exit 1")
    with pytest.raises(ValueError, match=r"sbatch refused .*: invalid partition"):
        submit([], tmp_path, nodes=1, options=[])
