"""AlgoPerf's ``train_state``, as it is at the start of a run."""

from typing import Any


def fresh_train_state() -> dict[str, Any]:
    """Return AlgoPerf's entries at the start of a run; times are in seconds."""
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
