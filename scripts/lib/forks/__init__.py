"""Many trainings in one job: forked from one process, which has imported torch once."""
