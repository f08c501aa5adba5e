"""Makes a small data set of color images for a test, in folders of classes."""

import numpy as np
from PIL import Image

COLORS = {"red": (255, 40, 40), "green": (40, 255, 40), "blue": (40, 40, 255)}
ENTRY = "mine:\n  folder: colors\n  test_share: 0.25\n"
# A search in packs, and an experiment that is not searched.
SEARCH = """
results_dir: results/small
dataset: mine
datasets_file: mine.yaml
seeds: [1, 2]
runs_per_job: 10
training: {epochs: 2, shuffle: true, validation_size: 0.25}
experiments:
  plain: {model: {name: MLP, hidden: 8}}
  searched:
    model: {name: CNN}
    sweep: {optimizer.lr: [0.001, 0.3], refit: true}
"""


def write_color_images(folder):
    """Write forty noisy images of each of three colors, in folders of their colors."""
    random = np.random.default_rng(0)
    for name, color in COLORS.items():
        (folder / name).mkdir(parents=True)
        for index in range(40):
            pixels = random.uniform(0.3, 1, (12, 12, 1)) * color
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{index}.png")
