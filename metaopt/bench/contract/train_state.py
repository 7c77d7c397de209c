"""What a submission is told of its run: AlgoPerf's ``train_state``, as a run begins."""

from typing import Any


def fresh_train_state() -> dict[str, Any]:
    """Return AlgoPerf's entries with the values of a run that begins; times are in seconds."""
    return {
        "validation_goal_reached": False,
        "test_goal_reached": False,
        "is_time_remaining": True,
        "last_eval_time": 0.0,
        "training_complete": False,
        "accumulated_submission_time": 0.0,
        "accumulated_eval_time": 0.0,
        "accumulated_logging_time": 0.0,
        "last_step_end_time": None,
    }
