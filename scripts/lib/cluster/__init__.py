"""Slurm: how jobs are submitted and watched, and what is known of them."""
