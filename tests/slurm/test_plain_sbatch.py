"""The job script that make sbatch prints, submitted by hand: the results are the same bytes."""

import json
import re
import shutil
from pathlib import Path

import pytest
from conftest import BIN, SMALL_CONFIG
from slurm_project import NETWORK, SlurmProject, scenes, wait_for

from lib.core.layout import RunFiles

pytestmark = pytest.mark.extended
RUN = "cnn/seed1"
# What a job has asked for, in the words of `scontrol show job`.
REQUEST = (
    "Partition|Account|QOS|TimeLimit|MinMemoryNode|NumNodes|NumCPUs|CPUs/Task|ReqTRES|Requeue|"
    "WorkDir|Features"
)


class ByHand(SlurmProject):
    """A project in which a user submits one run by hand."""

    def __init__(self, folder: Path):
        super().__init__(folder, data=False)

    @property
    def output(self):
        """The folder of the run."""
        return self.results / "by-hand" / RUN

    def prepare(self) -> None:
        """Prepare the data with the command that the script names, and write the script."""
        printed = self.make("sbatch", f"RUN={RUN}").stdout
        assert "The data is not prepared yet. Before you submit: snakemake " in printed
        command = re.search("^# The data must be prepared: (.*)", printed, re.MULTILINE)[1]
        self.run("bash", "-c", f"PATH={BIN}:$PATH; {command}")
        self.run(
            "bash", "-c", f"make VENV={BIN.parent} CONFIGFILE=slurm.yaml RUN={RUN} sbatch > job.sh"
        )

    def make(self, *arguments):
        return self.run("make", f"VENV={BIN.parent}", "CONFIGFILE=slurm.yaml", *arguments)

    def request(self, job: str) -> dict[str, str]:
        """Return what a job has asked Slurm for."""
        shown = self.run("scontrol", "show", "job", job).stdout
        return dict(re.findall(rf"\b({REQUEST})=(\S+)", shown))


def whole(project: ByHand):
    """Submit the script, then let the workflow train the same run; return both requests."""
    shutil.copy(project.folder / SMALL_CONFIG, project.folder / "slurm.yaml")
    project.hand_over()
    project.prepare()
    job = project.run("sbatch", "--parsable", "--wait", "job.sh").stdout.strip()
    asked = project.request(job)
    assert not (project.results / "runs").exists()  # that is the workflow's
    project.slurm_run("--", f"results/small/runs/{RUN}/run.json")
    return job, asked, project.request(project.record("cnn")["slurm"]["job_id"])


def canceled(project: ByHand):
    """Cancel the job once it has saved a checkpoint, and submit the script again."""
    project.configure(f"cnn: {{{NETWORK}, epochs: 20, mem_mb: 1536, runtime: 20}}")
    project.hand_over()
    project.prepare()
    job = project.run("sbatch", "--parsable", "job.sh").stdout.strip()
    wait_for(RunFiles(project.output).checkpoint.exists, "the first checkpoint")
    project.run("scancel", job)
    first = project.results / f"cnn-seed1-{job}.out"
    wait_for(lambda: "the same command resumes from there" in first.read_text(), "its end")
    project.run("sbatch", "--wait", "job.sh")
    return first


@scenes(whole)
def test_plain_sbatch_leads_to_the_same_bytes(stage, finished_once):
    project, (job, asked, asked_by_the_workflow) = stage(whole)
    assert {"Partition", "TimeLimit", "MinMemoryNode", "NumCPUs"} <= set(asked)
    for file in ("model.safetensors", "predictions.csv.gz", "accuracy.csv"):
        theirs = finished_once.run_folder("cnn") / file
        assert (project.output / file).read_bytes() == theirs.read_bytes()
    assert "test images correct" in (project.results / f"cnn-seed1-{job}.out").read_text()
    assert json.loads((project.output / "run.json").read_text())["slurm"]["job_id"] == job
    assert asked_by_the_workflow == asked


@scenes(canceled)
def test_a_job_that_is_canceled_resumes_when_it_is_submitted_again(stage):
    project, first = stage(canceled)
    assert "test images correct" not in first.read_text()
    assert json.loads((project.output / "run.json").read_text())["resumes"] == 1
