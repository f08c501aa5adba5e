"""What computes the numbers of a run: the loop, recipe, device, checkpoint, metrics."""
