"""AlgoPerf's ``submission_runner``, which knows our workloads as well: all of its flags are here.

python -m metaopt.algoperf.submission_runner --framework=jax --workload=digits_mlp \
        --submission_path=submissions/external_tuning/adamw/submission.py \
        --tuning_search_space=submissions/external_tuning/adamw/tuning_search_space.json \
        --experiment_dir=/tmp/experiments --experiment_name=adamw
"""

import sys


def main() -> None:
    """Register our workloads, then hand over to AlgoPerf."""
    try:
        import submission_runner  # pyright: ignore[reportMissingImports]
        from absl import app  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        print(f"AlgoPerf cannot be imported: {error}.", file=sys.stderr)
        raise SystemExit(2) from None

    # After AlgoPerf: importing its runner sets JAX up for the whole process.
    from metaopt.algoperf.registration import register

    register()
    app.run(submission_runner.main)  # pyright: ignore[reportArgumentType]


if __name__ == "__main__":
    main()
