"""The uncertainty of scores: intervals, comparisons, ranks."""
