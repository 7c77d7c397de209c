"""Run submissions for their full time on AlgoPerf's MNIST, under its runner, one after another.

    python tests/algoperf/accuracy_over_time.py DATA OUT [NAME ...]

DATA is the folder of AlgoPerf's MNIST, as ``prepare_mnist.py`` makes it; OUT is for the logs, and a
submission with logs there is not run again. Prints a Markdown table: the validation accuracy of
each evaluation and the submission time at which it was made, as AlgoPerf's clock counts it. AdamW
and NadamW are tuned from outside: they run for the full time at each of eight points, and the
table has the one with the best last accuracy.
"""

import csv
import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
EXTERNAL = ("adamw", "nadamw")
POINTS = [  # of each: a rate that stays, and one that falls to zero over the step hint
    {
        "learning_rate": rate, "one_minus_beta1": 0.1, "one_minus_beta2": 0.001,
        "weight_decay": 1e-4, "warmup_factor": 0.02, "end_factor": end,
    }
    for rate, end in itertools.product((3e-5, 1e-4, 3e-4, 1e-3), (1.0, 0.0))
]  # fmt: skip
NAMES = (
    *EXTERNAL, "metaopt_step_size", "metaopt_averages", "metaopt", "prodigy", "d_adaptation", "dog",
)  # fmt: skip


def run(name: str, data: Path, out: Path) -> None:
    """Run one submission as a competition does: its ruleset's budget, checkpoints on."""
    folder, ruleset, flags = f"self_tuning/{name}", "self", []
    if name in EXTERNAL:
        space = out / f"{name}.json"
        space.write_text(json.dumps(POINTS))
        folder, ruleset = f"external_tuning/{name}", "external"
        flags = [f"--tuning_search_space={space}", f"--num_tuning_trials={len(POINTS)}"]
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


def read(name: str, out: Path) -> tuple[str, list[dict[str, float]]]:
    """Return the trial with the best last accuracy, as text, and its evaluations."""
    trials = []
    for path in sorted((out / name / "mnist_jax").glob("trial_*/eval_measurements.csv")):
        with path.open() as file:
            rows = [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]
        trials.append((path.parent, rows))
    folder, rows = max(trials, key=lambda trial: trial[1][-1]["validation/accuracy"])
    if name not in EXTERNAL:
        return "", rows
    point = json.loads((folder / "hparams.json").read_text())
    return f"{point['learning_rate']:g}, {'stays' if point['end_factor'] else 'falls'}", rows


def table(names: list[str], out: Path) -> str:
    """Return the accuracies over time as Markdown, a row for each evaluation."""
    points, runs = zip(*(read(name, out) for name in names), strict=True)
    lines = [["evaluation", *(f"`{name}`" for name in names)], ["---"] * (len(names) + 1)]
    lines += [
        [
            str(index + 1),
            *(
                f"{rows[index]['validation/accuracy']:.3f} at "
                f"{rows[index]['accumulated_submission_time']:.0f} s"
                if index < len(rows)
                else ""
                for rows in runs
            ),
        ]
        for index in range(max(map(len, runs)))
    ]
    lines.append(["steps at the last evaluation", *(f"{r[-1]['global_step']:,.0f}" for r in runs)])
    lines.append(["learning rate", *points])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


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
