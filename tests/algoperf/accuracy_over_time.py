"""Run submissions for their full time on AlgoPerf's MNIST, under its runner, one after another.

    python tests/algoperf/accuracy_over_time.py DATA OUT [NAME ...]

DATA is the folder of AlgoPerf's MNIST, as ``prepare_mnist.py`` makes it; OUT is for the logs, and a
submission with logs there is not run again. Prints a Markdown table: the validation accuracy of
each evaluation and the submission time at which it was made, as AlgoPerf's clock counts it. Takes
about four minutes for each submission on two cores.
"""

import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# AdamW is tuned from outside, so it gets one point: of the rates 1e-4, 3e-4 and 1e-3 the best after
# 12,000 steps.
ADAMW = {
    "learning_rate": 3e-4, "one_minus_beta1": 0.1, "one_minus_beta2": 0.001, "weight_decay": 1e-4,
    "warmup_factor": 0.0, "end_factor": 1.0,
}  # fmt: skip
EXTERNAL = ("adamw",)
NAMES = ("adamw", "metaopt_averages", "metaopt", "prodigy", "d_adaptation", "dog")


def run(name: str, data: Path, out: Path) -> None:
    """Run one submission as a competition does: its ruleset's budget, checkpoints on."""
    folder, ruleset, flags = f"self_tuning/{name}", "self", []
    if name in EXTERNAL:
        space = out / f"{name}.json"
        space.write_text(json.dumps([ADAMW]))
        folder, ruleset = f"external_tuning/{name}", "external"
        flags = [f"--tuning_search_space={space}", "--num_tuning_trials=1"]
    load = os.getloadavg()[0]
    started = time.time()
    with (out / f"{name}.log").open("w") as log:
        subprocess.run(
            [
                sys.executable, "-m", "submission_runner", "--framework=jax", "--workload=mnist",
                f"--submission_path=submissions/{folder}/submission.py", f"--data_dir={data}",
                f"--tuning_ruleset={ruleset}", f"--experiment_dir={out}",
                f"--experiment_name={name}", "--rng_seed=1", *flags,
            ],
            cwd=ROOT, check=True, stdout=log, stderr=log,
        )  # fmt: skip
    seconds = time.time() - started
    note = f"load {load:.1f} before and {os.getloadavg()[0]:.1f} after, {seconds:.0f} s in all"
    (out / f"{name}.txt").write_text(note)


def read(name: str, out: Path) -> list[dict[str, float]]:
    """Return the evaluations of a run."""
    path = out / name / "mnist_jax" / "trial_1" / "eval_measurements.csv"
    with path.open() as file:
        return [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]


def table(names: list[str], out: Path) -> str:
    """Return the accuracies over time as Markdown, a row for each evaluation."""
    runs = {name: read(name, out) for name in names}
    lines = ["| evaluation | " + " | ".join(f"`{name}`" for name in names) + " |"]
    lines.append("|---" * (len(names) + 1) + "|")
    for index in range(max(map(len, runs.values()))):
        cells = [
            f"{rows[index]['validation/accuracy']:.3f} at "
            f"{rows[index]['accumulated_submission_time']:.0f} s"
            if index < len(rows)
            else ""
            for rows in runs.values()
        ]
        lines.append(f"| {index + 1} | " + " | ".join(cells) + " |")
    steps = [f"{rows[-1]['global_step']:,.0f}" for rows in runs.values()]
    lines.append("| steps at the last evaluation | " + " | ".join(steps) + " |")
    return "\n".join(lines)


def main() -> None:
    """Run what has not run yet, and print the table."""
    data, out, *names = sys.argv[1:]
    names = names or list(NAMES)
    folder = Path(out).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        if not (folder / f"{name}.txt").exists():
            run(name, Path(data).resolve(), folder)
            print(f"{name}: {(folder / f'{name}.txt').read_text()}", file=sys.stderr, flush=True)
    print(table(names, folder))


if __name__ == "__main__":
    main()
