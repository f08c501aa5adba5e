"""What surrounds a training and computes no number: lease, progress, the files of a run."""
