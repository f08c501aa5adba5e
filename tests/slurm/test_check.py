"""The check before queueing: what is said of a request that Slurm cannot meet, now or ever."""

import re

import pytest
from conftest import cases
from slurm_project import SlurmProject

CONFIG = "profiles/slurm/config.yaml"
PARTITIONS = "profiles/slurm/partitions.yaml"
EXTRA = "--signal=TERM@60 --open-mode=append"
NO_FIT = "config: experiments.mlp: no partition of profiles/slurm/partitions.yaml takes "
OURS = "slurm-partition-config: partitions.yaml"
# What the experiment asks for, an edit of the profile, and the message.
WRONG = {
    "no such partition": (
        "mem_mb: 1500",
        (PARTITIONS, "  cpu:", "  nosuch:"),
        "profiles/slurm/partitions.yaml: invalid partition specified: nosuch",
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
    "no such QoS, as an option of the plugin": (
        "mem_mb: 1500",
        (CONFIG, OURS, f"{OURS}\nslurm-qos: nosuch"),
        "config.yaml: slurm-qos: Invalid qos specification",
    ),
    "no such reservation": (
        "mem_mb: 1500",
        (CONFIG, OURS, f"{OURS}\nslurm-reservation: nosuch"),
        "config.yaml: slurm-reservation: Requested reservation is invalid",
    ),
    "no such reservation, in slurm_extra": (
        "mem_mb: 1500",
        (CONFIG, EXTRA, f"{EXTRA} --reservation=nosuch"),
        "config.yaml: set-resources: train: slurm_extra: Requested reservation is invalid",
    ),
    "no such license": (
        "mem_mb: 1500",
        (CONFIG, EXTRA, f"{EXTRA} --licenses=matlab"),
        "config.yaml: set-resources: train: slurm_extra: Invalid license specification",
    ),
    "no such feature": (
        "mem_mb: 1500",
        (CONFIG, "  train:\n", "  train:\n    constraint: skylake\n"),
        "config.yaml: set-resources: train: constraint: Invalid feature specification",
    ),
    "an option that the plugin gives": (
        "mem_mb: 1500",
        (CONFIG, EXTRA, f"{EXTRA} --gres=gpu:1"),
        "profiles/slurm/config.yaml: The --generic-resources-(GRES) option is not allowed",
    ),
    "time above the partition's limit": ("runtime: 100000", None, f"{NO_FIT}runtime 100000 min"),
    "time above Slurm's limit": (
        "runtime: 2000",
        (PARTITIONS, "max_runtime: 1440", "max_runtime: 144000"),
        "config: experiments.mlp.runtime: ",
    ),
    "time above the limit of a partition that is named": (
        "runtime: 100",
        (CONFIG, "default-resources:\n", "default-resources:\n  slurm_partition: urgent\n"),
        "config: experiments.mlp.runtime: Requested time limit is invalid",
    ),
    "memory above the partition's limit": ("mem_mb: 99999", None, NO_FIT),
    "memory above any node's": (
        "mem_mb: 20000",
        (PARTITIONS, "max_mem_mb: 12288", "max_mem_mb: 99999"),
        "config: experiments.mlp.mem_mb",
    ),
    "more GPUs than there are": (
        "device: cuda",
        (PARTITIONS, "max_gpu: 2", "max_gpu: 0"),
        f"{NO_FIT}runtime 15 min, mem_mb 3072, cpus 1, GPUs 1",
    ),
    "a type of GPU that is not there": (
        "device: cuda",
        (CONFIG, '# gpu_model: "a100"', 'gpu_model: "a100"'),
        "config.yaml: set-resources: train: gpu_model: ",
    ),
}
# What is right, though it looks wrong.
RIGHT = {
    "memory that Slurm does not manage": (CONFIG, "  train:\n", "  train:\n    mem_mb: 0\n"),
    "an expression": (
        *(CONFIG, "  train:\n"),
        "  train:\n    mem_mb: attempt * 1000 + len(wildcards.experiment)\n",
    ),
    "a type of GPU, for a job without": (CONFIG, '# gpu_model: "a100"', 'gpu_model: "a100"'),
    "no partition": (CONFIG, "slurm-partition-config:", "# slurm-partition-config:"),
}
DRAIN = "update nodename=cpu1,cpu2 state=drain reason=test"
MAINTENANCE = (
    "create reservation reservationname=repair starttime=now+3minutes duration=60 "
    "nodes=cpu1,cpu2 users=root flags=maint,ignore_jobs"
)
# What makes a job wait: scontrol's words for it and against it, and what is remarked.
LATER = {
    "drained": (DRAIN, "update nodename=cpu1,cpu2 state=resume", "no node can start it now"),
    "maintenance": (MAINTENANCE, "delete reservationname=repair", ""),
    "partition down": (
        *("update partitionname=cpu state=down", "update partitionname=cpu state=up"),
        "the partition cpu is down, so its jobs will wait",
    ),
    "partition hidden": (
        *("update partitionname=cpu hidden=yes", "update partitionname=cpu hidden=no"),
        "",
    ),
}


@pytest.fixture
def project(slurm, tmp_path):
    return SlurmProject(tmp_path / "project")


def configure(project, asked, edit=None):
    project.configure(f"mlp: {{model: {{name: MLP}}, epochs: 1, {asked}}}")
    if edit:
        project.edit(*edit)


def asked(project, *options, **how):
    """Let Snakemake ask Slurm about the jobs, and no more."""
    return project.slurm_run("--forceall", *options, "--config", "check=only", **how)


@pytest.mark.parametrize(
    ("request_", "edit", "message"),
    cases(WRONG, "no such partition", "no such account", "more GPUs than there are"),
)
def test_a_request_that_can_never_be_met(project, request, request_, edit, message):
    if re.search("slurm_account|qos", message):
        request.getfixturevalue("accounting")
    configure(project, request_, edit)
    check = asked(project, check=False)
    assert check.returncode == 1
    assert message in check.stdout
    assert "--config check=false" in check.stdout
    assert "File " not in check.stdout.partition("would not accept")[2]  # no lines of code


@pytest.mark.extended
@pytest.mark.parametrize("edit", RIGHT.values(), ids=RIGHT.keys())
def test_a_request_that_can_be_met(project, edit):
    configure(project, "mem_mb: 1500", edit)
    assert "Slurm would take the jobs of all 1 experiments" in asked(project).stdout


@pytest.mark.extended
@pytest.mark.parametrize(("do", "undo", "remark"), LATER.values(), ids=LATER.keys())
def test_a_request_that_can_be_met_later(project, do, undo, remark):
    configure(project, "mem_mb: 1500")
    project.as_root("scontrol", *do.split())
    try:
        check = asked(project)
    finally:
        project.as_root("scontrol", *undo.split())
    assert "Slurm would take the jobs of all 1 experiments" in check.stdout
    assert remark in check.stdout
    assert remark or "wait" not in check.stdout


@pytest.mark.extended
def test_the_groups_of_a_partition(project):
    configure(project, "mem_mb: 1500")
    if not project.user:
        pytest.skip("Slurm lets root in everywhere")
    project.as_root("scontrol", "update", "partitionname=cpu", "allowgroups=daemon")
    try:
        check = asked(project, check=False)
    finally:
        project.as_root("scontrol", "update", "partitionname=cpu", "allowgroups=ALL")
    assert check.returncode == 1
    assert "profiles/slurm/partitions.yaml: " in check.stdout
    assert "group not permitted" in check.stdout


@pytest.mark.extended
def test_a_run_checks_before_it_queues_unless_it_is_told_not_to(accounting, project):
    request_, edit, message = WRONG["no such account"]
    configure(project, request_, edit)
    done = project.slurm_run(check=False)
    assert done.returncode == 1
    assert message in done.stdout
    assert project.accounting("JobID") == []
    done = project.slurm_run("--config", "check=false", check=False)
    assert done.returncode == 1
    assert "sbatch failed: Batch job submission failed: Invalid account" in done.stdout
    assert "Trying to restart" not in done.stdout  # what Slurm refuses it refuses again


@pytest.mark.extended
def test_where_slurm_does_not_answer(project, tmp_path, monkeypatch):
    configure(project, "mem_mb: 1500")
    conf = tmp_path / "slurm.conf"
    conf.write_text(
        "ClusterName=away\nSlurmctldHost=localhost\nSlurmctldPort=1\nAuthType=auth/none\n"
    )
    monkeypatch.setenv("SLURM_CONF", str(conf))
    check = project.script("check", "--configfile", "slurm.yaml", check=False)
    assert check.returncode == 1
    assert "Slurm does not answer: " in check.stdout


def test_check_says_that_all_is_well(project):
    configure(project, "mem_mb: 1500")
    said = project.show("check")
    assert "mlp: MLP can be trained" in said
    assert "Slurm would take the jobs of all 1 experiments" in said
