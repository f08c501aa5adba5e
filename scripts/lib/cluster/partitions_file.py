"""partitions.yaml of a profile: which cluster it is about, and how what was found is written."""

from collections.abc import Mapping

from ruamel.yaml.comments import CommentedMap

from lib.core import yaml_edit

HEADER = """\
# The partitions of the cluster {}, and their limits. Each job goes to the one that fits
# it best, and a job with `device: cuda` to one with max_gpu. `make profile` keeps limits that you
# lower, and finds those of another cluster.
partitions:
"""
UNITS = {"max_runtime": "minutes", "max_mem_mb": "MiB per node"}


def is_about(text: str, cluster: str) -> bool:
    """Return whether partitions.yaml is about a cluster, which its first line names."""
    return text.startswith(HEADER.partition("{}")[0] + cluster + ",")


def updated(text: str, cluster: str, found: Mapping[str, Mapping[str, int]]) -> str:
    """Return partitions.yaml with the partitions that were found, and what the user has set."""
    if not is_about(text, cluster):
        text = HEADER.format(cluster)
    content = yaml_edit.load(text)
    known = content["partitions"] = content.get("partitions") or CommentedMap()
    for name in [*known]:
        if name not in found:
            del known[name]
    for name, limits in found.items():
        if not known.get(name):
            known[name] = CommentedMap(limits)
            for key in UNITS.keys() & limits:
                known[name].yaml_add_eol_comment(UNITS[key], key, column=33)
        for key, limit in limits.items():
            old = known[name].setdefault(key, limit)
            if isinstance(old, int) and old > limit:
                known[name][key] = limit
    return yaml_edit.dump(content, text)
