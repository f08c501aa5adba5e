"""partitions.yaml of a profile: which cluster it is about, and how what was found is written."""

import json
from collections.abc import Mapping

from lib.core import strict_yaml, yaml_edit
from lib.core.errors import UserError

HEADER = """\
# The partitions of the cluster {}, and their limits. Each job goes to the one that fits
# it best, and a job with `device: cuda` to one with max_gpu. `make profile` keeps limits that you
# lower, and finds those of another cluster.
"""
UNITS = {"max_runtime": "minutes", "max_mem_mb": "MiB per node"}


def is_about(text: str, cluster: str) -> bool:
    """Return whether partitions.yaml is about a cluster, which its first line names."""
    return text.startswith(HEADER.partition("{}")[0] + cluster + ",")


def merged(
    found: Mapping[str, Mapping[str, int]], known: Mapping[str, Mapping]
) -> dict[str, dict[str, object]]:
    """Return the partitions that were found, with what the user has set for them."""
    return {
        name: {
            **limits,
            **{
                key: min(old, limits.get(key, old)) if isinstance(old, int) else old
                for key, old in (known.get(name) or {}).items()
            },
        }
        for name, limits in found.items()
    }


def written(cluster: str, partitions: Mapping[str, Mapping], text: str) -> str:
    """Return partitions.yaml, with the comments of the text that was there, if possible."""
    try:
        changes = {
            ("partitions", name, key): number
            for name, limits in partitions.items()
            for key, number in limits.items()
        }
        edited = yaml_edit.edit(text, changes, "partitions.yaml")
        if text and strict_yaml.parse(edited)["partitions"] == partitions:
            return edited
    except UserError:
        pass
    lines = [HEADER.format(cluster) + "partitions:"]
    for name, limits in partitions.items():
        lines.append(f"  {json.dumps(name) if not name[:1].isalpha() else name}:")
        for key, number in limits.items():
            line = f"    {key}: {json.dumps(number)}"
            lines.append(f"{line:<33}# {UNITS[key]}" if key in UNITS else line)
    return "\n".join(lines) + "\n"
