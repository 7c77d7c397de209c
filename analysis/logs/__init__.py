"""A folder or archive of logs -> trials: ours and AlgoPerf's."""
