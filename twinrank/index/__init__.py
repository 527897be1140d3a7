"""NUMBERS → IDS: the indexes that find passages; they know arrays and words, no model and no store."""
