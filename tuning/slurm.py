"""A campaign as a SLURM job: Ray on every node, and the command on the first."""

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

_FOLDER = "slurm"
_PORT = 6379
_DEFAULTS = {"job-name": "metaopt-bench", "time": "1-00:00:00"}
_OWN = ("nodes", "ntasks-per-node", "output")  # set here
_SCRIPT = """\
#!/bin/bash
{options}
export PATH={programs}:"$PATH" RAY_USAGE_STATS_ENABLED=0 RAY_AUTH_MODE=token
export RAY_AUTH_TOKEN=$(head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \\n')
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
cpus=${{SLURM_CPUS_PER_TASK:-$SLURM_CPUS_ON_NODE}}
srun ray symmetric-run --address "$head:{port}" --min-nodes {nodes} \\
  --num-cpus "$cpus" -- \\
  {command} --address "$head:{port}"
"""


def submit(arguments: list[str], out: Path, *, nodes: int, options: list[str]) -> str:
    """Write a job script for SLURM and submit it if ``sbatch`` is there.

    Args:
        arguments: Of ``python -m tuning``, with ``--slurm`` and its options.
        out: The campaign's folder, on a disk that all nodes share; the script and the job's output
            go to ``slurm/`` in it.
        nodes: The number of nodes.
        options: ``name=value`` of ``sbatch``, such as ``partition=gpu`` or ``gpus-per-node=4``.

    Returns:
        A line for the user.

    Raises:
        ValueError: An option has another form, or is set here, or ``sbatch`` refuses the job.
    """
    folder = out.resolve() / _FOLDER
    named = {
        **_DEFAULTS, **_parse(options),
        "nodes": str(nodes), "ntasks-per-node": "1", "output": str(folder / "%j.log"),
    }  # fmt: skip
    command = [sys.executable, "-m", "tuning", *_without_slurm(arguments)]
    text = _SCRIPT.format(
        options="\n".join(f"#SBATCH --{name}={value}" for name, value in named.items()),
        programs=shlex.quote(str(Path(sys.executable).parent)),  # with Ray's own, `ray`
        port=_PORT,
        nodes=nodes,
        command=shlex.join(command),
    )
    folder.mkdir(parents=True, exist_ok=True)
    script = folder / "job.sh"
    script.write_text(text, "utf-8")
    if shutil.which("sbatch") is None:
        return f"No sbatch on this machine; wrote {script}. Submit it with: sbatch {script}"
    run = subprocess.run(["sbatch", str(script)], capture_output=True, text=True)
    if run.returncode:
        raise ValueError(f"sbatch refused {script}: {run.stderr.strip()}")
    return f"{run.stdout.strip()}; output in {folder}, results in {out}"


def _parse(options: list[str]) -> dict[str, str]:
    named = {}
    for option in options:
        name, separator, value = option.partition("=")
        if not (name and separator) or "\n" in option:
            raise ValueError(f"--slurm-option takes name=value, got {option!r}.")
        if name in _OWN:
            raise ValueError(f"--slurm-option {name} is set by --slurm, got {option!r}.")
        named[name] = value
    return named


def _without_slurm(arguments: list[str]) -> list[str]:
    """Return the command line without ``--slurm``, ``--slurm-option`` and their values."""
    kept, values = [], iter(arguments)
    for argument in values:
        name = argument.partition("=")[0]
        if name not in ("--slurm", "--slurm-option", "--address"):
            kept.append(argument)
        elif name == argument:
            next(values, None)
    return kept
