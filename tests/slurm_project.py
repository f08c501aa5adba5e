"""A copy of the project whose workflow runs on the throw-away cluster."""

import subprocess
import time

from conftest import BIN, Project


class SlurmProject(Project):
    """A project whose workflow runs on the cluster."""

    def command(self, *arguments):
        profile = ("--profile", "profiles/slurm", "--configfile", "slurm.yaml")
        return [str(BIN / "snakemake"), *profile, *map(str, arguments)]

    def slurm_run(self, *arguments, **options):
        return self.run(*self.command(*arguments), **options)

    def start(self, *arguments) -> subprocess.Popen:
        """Start the workflow; what it prints goes to `snakemake.log`."""
        with (self.folder / "snakemake.log").open("a") as log:
            return subprocess.Popen(
                self.command(*arguments),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def printed(self) -> str:
        return (self.folder / "snakemake.log").read_text()

    def configure(self, experiments: str, **keys) -> None:
        """Write the config `slurm.yaml` of the small data set."""
        lines = [
            "results_dir: results/small",
            "dataset: MNIST-small",
            "datasets_file: tests/data/datasets.yaml",
            "data_dir: results/small/data",
            "mirrors: [tests/data]",
            *(f"{key}: {value}" for key, value in keys.items()),
            "experiments:",
            *(f"  {line.strip()}" for line in experiments.strip().splitlines()),
        ]
        (self.folder / "slurm.yaml").write_text("\n".join(lines) + "\n")

    def job_ids(self, experiment: str, rule: str = "train") -> list[str]:
        """Return the ids of an experiment's jobs that wait or run."""
        output = self.run("squeue", "--noheader", "--format=%i|%k|%Z").stdout
        rows = [line.split("|") for line in output.splitlines()]
        comment = f"rule_{rule}_wildcards_{experiment}_1"
        return [row[0] for row in rows if row[1:] == [comment, str(self.folder)]]

    def accounting(self, fields: str) -> list[list[str]]:
        """Return rows of sacct for this project's jobs: the comment, then the fields."""
        output = self.run(
            "sacct", "-X", "--noheader", "--parsable2", f"--format=WorkDir,Comment,{fields}"
        ).stdout
        rows = [line.split("|") for line in output.splitlines()]
        return [row[1:] for row in rows if row[0] == str(self.folder)]


def wait_for(condition, seconds=120, what="the condition"):
    """Wait until a function returns something true, and return that."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.3)
    raise AssertionError(f"waited {seconds} s for {what}")
