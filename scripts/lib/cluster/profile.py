"""The profile of a run on Slurm: what it says, and where the value of a resource comes from.

Snakemake and its plugin read it for themselves, and `make profile` writes it. Whoever else wants to
know what it says asks here.
"""

import argparse
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lib.core import strict_yaml

NAMES = ("config.v9+.yaml", "config.v8+.yaml", "config.yaml")  # as Snakemake prefers them
# What an experiment says of its jobs.
RESOURCES = ("runtime", "mem_mb", "cpus")
IN_CONFIG = {"train": RESOURCES, "prepare": RESOURCES, "evaluate": ("mem_mb", "cpus")}
OPTIONS = ("qos", "reservation")  # of the plugin, for all jobs


def add_argument(parser: argparse.ArgumentParser, default: str = "profiles/slurm") -> None:
    """Let a command take the folder of a profile."""
    parser.add_argument(
        "--profile",
        type=Path,
        default=Path(default),
        metavar="DIR",
        help="the profile (default: %(default)s)",
    )


@dataclass(frozen=True)
class Profile:
    """What a profile says.

    Attributes:
        file: the one that Snakemake reads; partitions.yaml is beside it.
        settings: its content.
    """

    file: Path = Path("the profile/config.yaml")
    settings: Mapping = field(default_factory=dict)

    @classmethod
    def read(cls, *folders: str | Path) -> "Profile":
        """Read the profile in the first of some folders that has one; an empty one if none has."""
        for path in (Path(folder, name) for folder in folders for name in NAMES):
            if path.is_file():
                return cls(path, strict_yaml.load(path) or {})
        return cls()

    @classmethod
    def of_this_run(cls, partitions: str | Path | None) -> "Profile":
        """Read the profile on Snakemake's command line, or the one beside its partitions."""
        parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        parser.add_argument("--profile", action="append", default=[])
        named = parser.parse_known_args()[0].profile
        named += [os.environ.get("SNAKEMAKE_PROFILE"), partitions and Path(partitions).parent]
        return cls.read(*filter(None, named))

    @property
    def partitions_file(self) -> Path:
        """Where the limits of the partitions are, or would be: beside the profile's own file."""
        return self.file.parent / (self.settings.get("slurm-partition-config") or "partitions.yaml")

    @property
    def partitions(self) -> dict[str, dict]:
        """The limits of the partitions by name; none where the profile names no such file."""
        named = self.settings.get("slurm-partition-config")
        return strict_yaml.load(self.partitions_file)["partitions"] if named else {}

    def for_all_jobs(self, name: str) -> str:
        """Return what all jobs ask for, unless a rule says otherwise; empty where nothing."""
        defaults = self.settings.get("default-resources") or {}
        value = self.settings.get(f"slurm-{name}") or defaults.get(name)
        text = "" if value is None else str(value)
        return re.sub(r"^(['\"])(.*)\1$", r"\2", text)  # a string within a string

    def origin(self, job, names: Iterable[str]) -> str:
        """Say where the value of one of the resources of a job comes from."""
        of_rule = (self.settings.get("set-resources") or {}).get(job.name) or {}
        of_all = self.settings.get("default-resources") or {}
        experiment = job.wildcards.get("experiment", "")
        own = []
        for name in names:
            if name in OPTIONS and self.settings.get(f"slurm-{name}"):
                return f"{self.file}: slurm-{name}"
            if name in of_rule:
                return f"{self.file}: set-resources: {job.name}: {name}"
            if name in IN_CONFIG.get(job.name, ()):
                own.append(name)
            elif job.name == "evaluate" and name == "runtime":
                return f"{self.file}: set-resources: evaluate: runtime"
            elif name in of_all or job.resources.get(name):
                return f"{self.file}: default-resources: {name}"
        if own:
            place = f"experiments.{experiment}" if experiment else job.name
            return f"config: {place}.{' and '.join(own)}"
        if "slurm_partition" in names:
            return str(self.partitions_file)
        return f"{self.file}: {' or '.join(names)}"
