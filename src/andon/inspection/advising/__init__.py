"""What to use for a task: its character, candidates measured on it, a choice that goes no further than its evidence."""
