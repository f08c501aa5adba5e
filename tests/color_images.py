"""Makes a small data set of color images for a test, in folders of classes."""

import numpy as np
from PIL import Image

COLORS = {"red": (255, 40, 40), "green": (40, 255, 40), "blue": (40, 40, 255)}
ENTRY = "mine:\n  folder: colors\n  test_share: 0.25\n"


def write_color_images(folder):
    """Write forty noisy images of each of three colors, in folders of their colors."""
    random = np.random.default_rng(0)
    for name, color in COLORS.items():
        (folder / name).mkdir(parents=True)
        for index in range(40):
            pixels = random.uniform(0.3, 1, (12, 12, 1)) * color
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{index}.png")
