"""Controllers: functions from past disturbances to an update, with learned weights."""
