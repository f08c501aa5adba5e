"""The training loop and what it rests on: recipe, device, checkpoint, lease, metrics."""
