"""The tables of the commands, the report and the leaderboard."""
