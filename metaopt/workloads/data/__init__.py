"""Data sets: where their files are, their formats, and queues of batches."""
