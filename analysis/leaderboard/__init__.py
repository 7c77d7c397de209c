"""The leaderboard: records of real runs, and the pages that are generated from nothing else."""
