"""A copy of the project whose workflow an ordinary user runs on the throw-away cluster."""

import json
import os
import shutil
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from conftest import BIN, PATIENCE, Project, fresh_project, ordinary_user

from lib.core.layout import RunFiles

AT_ONCE = 6  # projects of `staged`: more of them would wait for two cores
# What is trained where a test compares bytes: dropout and shuffling draw random numbers. It takes
# its time, so that something can happen to it, but leaves the processor to the other tests.
NETWORK = "model: {name: Slow}, shuffle: true"
SLOW = """
import time
from torch import nn

class Slow(nn.Module):
    output = "log_softmax"

    def __init__(self, image_size, num_classes, pause=0.05):
        super().__init__()
        self.pause = pause
        height, width = image_size
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(height * width, 64), nn.ReLU(), nn.Dropout(0.5),
            nn.Linear(64, num_classes), nn.LogSoftmax(dim=1),
        )

    def forward(self, images):
        if self.training:
            time.sleep(self.pause)
        return self.layers(images)
"""


# Only `gpu` takes a long job, whether it asks for a GPU or not, and a driver (make submit).
PARTITIONS = """
partitions:
  cpu: {max_runtime: 60, max_mem_mb: 12288, max_cpus_per_task: 8}
  gpu: {max_runtime: 1440, max_mem_mb: 12288, max_cpus_per_task: 8}
"""


class SlurmProject(Project):
    """A project whose workflow runs on the cluster.

    What runs in its folder runs as the user who owns it. Root keeps the cluster.
    """

    def __init__(self, folder: Path, data: bool = True):
        """Copy the project into a new folder, with the prepared small data set or not."""
        super().__init__(fresh_project(folder, data).folder)
        self.user = ordinary_user()
        (folder / "scripts" / "models" / "slow.py").write_text(SLOW)
        self.hand_over()

    def hand_over(self) -> None:
        """Let the user own all files in the folder, and come to it."""
        if not self.user:
            return
        for path in (self.folder, *self.folder.rglob("*")):
            os.chown(path, self.user.pw_uid, self.user.pw_gid, follow_symlinks=False)
        for path in self.folder.parents:
            if path.is_relative_to(tempfile.gettempdir()):  # pytest's folders are for root alone
                path.chmod(path.stat().st_mode | 0o711)

    def as_user(self, environment: dict[str, str] | None = None) -> dict:
        """Return the arguments of `subprocess` that make a process one of the user's."""
        environment = os.environ if environment is None else environment
        if not self.user:
            return {"env": environment}
        environment = environment | {"HOME": str(self.folder)}
        environment.pop("XDG_CACHE_HOME", None)
        identity = {"user": self.user.pw_uid, "group": self.user.pw_gid, "extra_groups": []}
        return {**identity, "env": environment}

    def run(self, *command, env=None, **options):
        """Run a command in the folder, as the user."""
        return super().run(*command, **self.as_user(env), **options)

    def as_root(self, *command, **options):
        """Run a command of those who keep the cluster."""
        return super().run(*command, **options)

    def command(self, *arguments):
        profile = ("--profile", "profiles/slurm", "--configfile", "slurm.yaml")
        often = ("--max-status-checks-per-second", "0.2")  # Slurm is here for this test alone
        return [str(BIN / "snakemake"), *profile, *often, *map(str, arguments)]

    def slurm_run(self, *arguments, **options):
        return self.run(*self.command(*arguments), **options)

    def start(self, *arguments, **environment) -> subprocess.Popen:
        """Start the workflow; what it prints goes to `snakemake.log`."""
        # Tests that are run in the background inherit from the shell that Ctrl-C is ignored.
        with_signals = ("env", "--default-signal=INT")
        with (self.folder / "snakemake.log").open("a") as log:
            return subprocess.Popen(
                [*with_signals, *self.command(*arguments)],
                cwd=self.folder,
                **self.as_user(os.environ | environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def printed(self) -> str:
        return (self.folder / "snakemake.log").read_text()

    def waiting_for(self) -> str:
        """Say what the workflow waits for, and what it last printed."""
        queue = self.run("squeue", "--format=%i %k %P %T %M %l %R %N").stdout
        return f"the end of the workflow\n{queue}\n{self.printed()[-6000:]}"

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

    def show(self, command: str, *arguments) -> str:
        """Return what a command of the study prints."""
        return self.script(command, "--configfile", "slurm.yaml", *arguments).stdout

    def train_log(self, experiment: str) -> str:
        """Return the log of an experiment's training; nothing if there is none yet."""
        path = self.results / "logs" / f"train-{experiment}-seed1.log"
        return path.read_text() if path.exists() else ""

    def outcome(self, experiment: str) -> list[bytes]:
        """Return what a disturbance must not change."""
        files = ("model.safetensors", "predictions.csv.gz")
        return [(self.run_folder(experiment) / file).read_bytes() for file in files]

    def lease(self, experiment: str, seed: int = 1) -> Path:
        return RunFiles(self.run_folder(experiment, seed)).lease

    def checkpoint(self, experiment: str, seed: int = 1) -> Path:
        return RunFiles(self.run_folder(experiment, seed)).checkpoint

    def trains(self, experiment: str) -> bool:
        """Whether a process of this machine is training an experiment."""
        try:
            return psutil.pid_exists(json.loads(self.lease(experiment).read_text())["process"])
        except FileNotFoundError:
            return False

    def trained(self, experiment: str) -> str:
        """Wait until an experiment has saved a checkpoint; return the job that trains it."""
        checkpoint = self.checkpoint(experiment)
        wait_for(checkpoint.exists, f"the first checkpoint of {experiment}")
        (job,) = self.job_ids(experiment)
        return job

    def job_ids(self, experiment: str, rule: str = "train") -> list[str]:
        """Return the ids of an experiment's jobs that wait or run."""
        output = self.run("squeue", "--noheader", "--format=%i|%k|%Z").stdout
        rows = [line.split("|") for line in output.splitlines()]
        comment = f"rule_{rule}_wildcards_{experiment}_1"
        return [row[0] for row in rows if row[1:] == [comment, str(self.folder)]]

    def pack_ids(self) -> list[str]:
        """Return the ids of the Slurm jobs of many runs that wait or run."""
        output = self.run("squeue", "--noheader", "--format=%i|%k|%Z").stdout
        rows = [line.split("|") for line in output.splitlines()]
        return [row[0] for row in rows if " the first" in row[1] and row[2] == str(self.folder)]

    def pack_trained(self, experiment: str, seeds) -> str:
        """Wait until each run of a pack has saved a checkpoint; return the job that trains them."""
        for seed in seeds:
            checkpoint = self.checkpoint(experiment, seed)
            wait_for(checkpoint.exists, f"the first checkpoint of {experiment}, seed {seed}")
        (job,) = self.pack_ids()
        return job

    def node(self, experiment: str) -> str:
        """Return the node on which an experiment trains."""
        (job,) = self.job_ids(experiment)
        return self.node_of(job)

    def node_of(self, job: str) -> str:
        """Return the node of a job."""
        return self.run("squeue", "--noheader", f"--job={job}", "--format=%N").stdout.strip()

    def accounting(self, fields: str, *options) -> list[list[str]]:
        """Return rows of sacct for this project's jobs: the comment, then the fields."""
        output = self.run(
            *("sacct", "-X", "--noheader", "--parsable2", *options),
            "--starttime=now-1days",  # else midnight would hide what was before it
            f"--format=WorkDir,Comment,{fields}",
        ).stdout
        rows = [line.split("|") for line in output.splitlines()]
        return [row[1:] for row in rows if row[0] == str(self.folder)]


def scenes(*functions) -> pytest.MarkDecorator:
    """Mark a test, or a module's tests: they are about projects to which this has happened."""
    return pytest.mark.scenes.with_args(*functions)


@contextmanager
def staged(functions, tmp_path_factory):
    """Start scenes, some at once; yield a function that waits for one.

    Args:
        functions: the scenes: what happens to a project, whose class their parameter's annotation
            is, if it has one.
        tmp_path_factory: pytest's.

    Yields:
        a function that returns the project of a scene, and what the scene has returned; its `wait`
        waits for the end of all scenes.
    """
    with ThreadPoolExecutor(AT_ONCE) as pool:
        started = {}
        for scene in functions:
            kind = scene.__annotations__.get("project", SlurmProject)
            project = kind(tmp_path_factory.mktemp(scene.__name__) / "project")
            started[scene] = project, pool.submit(scene, project)

        def stage(scene):
            return started[scene][0], started[scene][1].result()

        stage.wait = lambda: wait([future for _, future in started.values()])
        yield stage


def counting_wrappers(folder: Path, log: Path, programs) -> Path:
    """Make a folder of programs that write their name and arguments into a log, then do their work.

    With the folder first on the PATH, the log has every call.
    """
    folder.mkdir()
    log.touch()
    log.chmod(0o666)
    for program in programs:
        wrapper = folder / program
        wrapper.write_text(
            f'#!/bin/sh\necho "{program} $*" >> {log}\nexec {shutil.which(program)} "$@"\n'
        )
        wrapper.chmod(0o755)
    return folder


def wait_for(condition, what="the condition", every=0.3):
    """Wait until a function, called every so many seconds, returns something true; return that.

    `what` says what has been waited for in vain; it may be a function that is asked then.
    """
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(every)
    raise AssertionError(f"waited {PATIENCE} s for {what() if callable(what) else what}")
