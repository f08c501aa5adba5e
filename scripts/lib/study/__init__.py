"""The config as typed objects, and how far each of its runs is."""
