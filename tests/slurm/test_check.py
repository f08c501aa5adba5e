"""The check before queueing: what is said of a request that Slurm cannot meet."""

import pytest
from conftest import fresh_project
from slurm_project import SlurmProject

CONFIG = "profiles/slurm/config.yaml"
PARTITIONS = "profiles/slurm/partitions.yaml"
NO_FIT = "config: experiments.mlp: no partition of profiles/slurm/partitions.yaml takes "
# What the experiment asks for, an edit of the profile, and the message.
WRONG = {
    "no such partition": (
        "mem_mb: 1500",
        (PARTITIONS, "  cpu:", "  nosuch:"),
        "partitions.yaml: there is no partition 'nosuch' on this cluster; there are: cpu, gpu,",
    ),
    "no such account": (
        "mem_mb: 1500",
        (CONFIG, '# slurm_account: "myproject"', 'slurm_account: "nosuch"'),
        "config.yaml: default-resources: slurm_account: ",
    ),
    "no such QoS": (
        "mem_mb: 1500",
        (CONFIG, '# qos: "normal"', 'qos: "nosuch"'),
        "config.yaml: default-resources: qos: ",
    ),
    "time above the partition's limit": ("runtime: 100000", None, f"{NO_FIT}runtime 100000 min"),
    "time above Slurm's limit": (
        "runtime: 2000",
        (PARTITIONS, "max_runtime: 1440", "max_runtime: 144000"),
        "config: experiments.mlp.runtime: ",
    ),
    "memory above the partition's limit": ("mem_mb: 99999", None, NO_FIT),
    "memory above any node's": (
        "mem_mb: 20000",
        (PARTITIONS, "max_mem_mb: 12288", "max_mem_mb: 99999"),
        "experiments.mlp.mem_mb",
    ),
    "more GPUs than there are": (
        "device: cuda",
        (PARTITIONS, "max_gpu: 2", "max_gpu: 0"),
        f"{NO_FIT}runtime 15 min, mem_mb 3072, cpus 1, GPUs 1",
    ),
}


@pytest.fixture
def project(slurm, tmp_path):
    return SlurmProject(fresh_project(tmp_path / "project").folder)


def configure(project, asked, edit=None):
    project.configure(f"mlp: {{model: {{name: MLP}}, epochs: 1, {asked}}}")
    if edit:
        project.edit(*edit)


@pytest.mark.parametrize(("asked", "edit", "message"), WRONG.values(), ids=WRONG.keys())
def test_a_request_that_cannot_be_met(project, asked, edit, message, request):
    if edit and edit[0] == CONFIG:  # accounts and QoS
        request.getfixturevalue("accounting")
    configure(project, asked, edit)
    check = project.script("check", "--configfile", "slurm.yaml", check=False)
    assert check.returncode == 1
    assert message in check.stdout


def test_a_run_checks_before_it_queues(project, accounting):
    asked, edit, message = WRONG["no such account"]
    configure(project, asked, edit)
    done = project.slurm_run(check=False)
    assert done.returncode == 1
    assert message in done.stdout
    assert project.accounting("JobID") == []


def test_check_says_that_all_is_well(project):
    configure(project, "mem_mb: 1500")
    assert "Slurm would take the jobs of all 1 experiments" in project.show("check")
