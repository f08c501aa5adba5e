"""make sbatch on a machine without Slurm; the script is a script of bash, and runs there too."""

import os
import re

import pytest
from conftest import BIN, ROOT, SMALL_CONFIG, cases, fresh_project

CONFIG = "profiles/slurm/config.yaml"
GPU = "gpu: {model: {name: MLP}, device: cuda, cpus: 2, runtime: 7}"
LARGE = "large: {model: {name: MLP}, mem_mb: 99999}"


@pytest.fixture
def called(programs):
    """What is asked of a Slurm that does not answer."""
    names = ("sbatch", "sinfo", "sacct", "squeue", "scontrol")
    return programs(**dict.fromkeys(names, "exit 1"))


@pytest.fixture
def project(project):
    """The project with more experiments, which ask for more."""
    text = (ROOT / SMALL_CONFIG).read_text()
    (project.folder / "more.yaml").write_text(f"{text}  {GPU}\n  {LARGE}\n")
    return project


def script(project, run, *options, **how):
    arguments = ("--run", run, "--configfile", "more.yaml", *options)
    return project.script("job_script", *arguments, **how).stdout


def test_it_asks_for_what_the_profile_and_the_config_say(project, called):
    project.edit(CONFIG, '# slurm_account: "myproject"', 'slurm_account: "ours"')
    project.edit(CONFIG, '# gpu_model: "a100"', 'gpu_model: "h100"')
    project.edit(CONFIG, "--open-mode=append", "--mail-user=$WHO@example.org")
    printed = script(project, "gpu/seed1", env=os.environ | {"WHO": "me"})
    asked = re.findall(r"^#SBATCH (\S+)  +# \w", printed, re.MULTILINE)
    assert asked == [
        "--job-name=gpu-seed1",
        "--output=results/small/gpu-seed1-%j.out",
        "--account=ours",
        "--partition=gpu",
        "--time=7",
        "--mem=3072",
        "--requeue",
        "--cpus-per-task=2",
        "--signal=TERM@60",
        "--mail-user=me@example.org",
        f"--chdir={project.folder}",
        "--gpus=h100:1",
    ]
    assert {call.split()[0] for call in called()} <= {"scontrol"}  # by the plugin
    assert not (project.results / "by-hand").exists()


WHY_NOT = {
    "no run": (
        "no/seed1",
        (),
        "error: there is no run 'no/seed1'; there are: mlp/seed1, cnn/seed1, ",
    ),
    "no partition": (
        "large/seed1",
        (),
        "experiments.large: no partition of profiles/slurm/partitions.yaml",
    ),
    "no Slurm": ("mlp/seed1", ("--profile", "profiles/local"), "Snakemake cannot plan the job"),
}


@pytest.mark.parametrize(("run", "options", "message"), cases(WHY_NOT, "no partition"))
def test_why_it_prints_no_script(project, called, run, options, message):
    printed = script(project, run, *options, check=False)
    assert message in printed
    assert "#SBATCH" not in printed
    assert "Traceback" not in printed


@pytest.mark.extended
def test_the_script_runs_without_slurm_too(tmp_path, finished_once):
    """In a folder whose name has a space and a quote."""
    project = fresh_project(tmp_path / "it's my work")
    (project.folder / ".venv").symlink_to(BIN.parent)
    command = f"make sbatch RUN=mlp/seed1 CONFIGFILE={SMALL_CONFIG} > mlp.sh && bash mlp.sh"
    outside = {key: value for key, value in os.environ.items() if key != "VENV"}
    before = project.run("bash", "-c", command, env=outside, check=False).stdout
    assert "The data is not prepared yet. Before you submit: " in before
    project.snakemake("results/small/data/MNIST-small.safetensors")
    printed = project.run("bash", "mlp.sh").stdout
    assert "test images correct" in printed
    for file in ("model.safetensors", "predictions.csv.gz", "accuracy.csv"):
        ours = project.results / "by-hand" / "mlp" / "seed1" / file
        assert ours.read_bytes() == (finished_once.run_folder("mlp") / file).read_bytes()
