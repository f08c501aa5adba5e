"""The Slurm profile: what is asked of Slurm, and what is said of a request that cannot be met."""

import time

import pytest
from conftest import fresh_project
from slurm_project import SlurmProject

MLP = "model: {name: MLP}, epochs: 1"


@pytest.fixture
def project(slurm, tmp_path):
    return SlurmProject(fresh_project(tmp_path / "project").folder)


def test_the_same_answer_as_on_a_laptop(project, finished_once):
    """Two training jobs with the lesson's time, memory and cores; the same table as locally."""
    project.configure(
        "mlp: {model: {name: MLP}, runtime: 5}\ncnn: {model: {name: CNN}, runtime: 15}",
        training="{epochs: 2}",
    )
    project.slurm_run()
    trained = {
        row[0]: row[1:]
        for row in project.accounting("Timelimit,ReqMem,ReqCPUS,State,Partition")
        if "train" in row[0]
    }
    assert trained == {
        "rule_train_wildcards_mlp_1": ["00:05:00", "3G", "1", "COMPLETED", "cpu"],
        "rule_train_wildcards_cnn_1": ["00:15:00", "3G", "1", "COMPLETED", "cpu"],
    }
    changing = {"train_seconds", "images_per_second", "peak_memory_mb", "resumes", "host"}
    changing |= {"slurm_job_id", "partition", "git_commit"}
    tables = []
    for each in (project, finished_once):
        header, *rows = (each.results / "report.csv").read_text().splitlines()
        keep = [i for i, name in enumerate(header.split(",")) if name not in changing]
        tables.append([[row.split(",")[i] for i in keep] for row in [header, *rows]])
    assert tables[0] == tables[1]
    slurm = project.record("mlp")["slurm"]
    assert slurm["partition"] == "cpu"
    assert slurm["submit_time"] <= slurm["start_time"]


def test_a_gpu_job_goes_to_the_gpu_partition_and_fails_loudly_without_one(project):
    project.configure(f"gpu: {{{MLP}, device: cuda, mem_mb: 1500, runtime: 2}}")
    start = time.monotonic()
    done = project.slurm_run(check=False)
    assert done.returncode == 1
    assert "device cuda: torch sees no GPU here. Check `nvidia-smi` on this node" in done.stdout
    assert (
        "gpu, seed 1: train is not done; see results/small/logs/train-gpu-seed1.log" in done.stdout
    )
    rows = [row for row in project.accounting("Partition,AllocTRES,NodeList") if "train" in row[0]]
    assert rows
    for _, partition, resources, node in rows:
        assert (partition, node) == ("gpu", "gpu1")
        assert "gres/gpu=1" in resources
    assert time.monotonic() - start < 180
    assert (project.results / "resources.csv").is_file()  # after a failed run too
    why = project.script("status", "--configfile", "slurm.yaml", "--why", "gpu/seed1").stdout
    assert "FAILED" in why
    assert "torch sees no GPU" in why


WRONG = {
    "no such partition": (
        ("profiles/slurm/partitions.yaml", "  cpu:", "  nosuch:"),
        "partitions.yaml: there is no partition 'nosuch' on this cluster; there are: cpu, gpu,",
    ),
    "no such account": (
        ("profiles/slurm/config.yaml", '# slurm_account: "myproject"', 'slurm_account: "nosuch"'),
        "config.yaml: default-resources: slurm_account: ",
    ),
    "no such QoS": (
        ("profiles/slurm/config.yaml", '# qos: "normal"', 'qos: "nosuch"'),
        "config.yaml: default-resources: qos: ",
    ),
    "time above the partition's limit": (
        ("slurm.yaml", "runtime: 2", "runtime: 100000"),
        "config: experiments.mlp: no partition of profiles/slurm/partitions.yaml takes "
        "runtime 100000 min",
    ),
    "time above Slurm's limit": (
        ("profiles/slurm/partitions.yaml", "max_runtime: 1440", "max_runtime: 144000"),
        "config: experiments.mlp.runtime: ",
    ),
    "memory above any node's": (
        ("slurm.yaml", "mem_mb: 1500", "mem_mb: 99999"),
        "config: experiments.mlp: no partition of profiles/slurm/partitions.yaml takes",
    ),
    "memory above Slurm's limit": (
        ("profiles/slurm/partitions.yaml", "max_mem_mb: 8192", "max_mem_mb: 99999"),
        "experiments.mlp.mem_mb",
    ),
}


@pytest.mark.parametrize(("edit", "message"), WRONG.values(), ids=WRONG.keys())
def test_a_request_that_cannot_be_met(project, edit, message):
    runtime = 2000 if "Slurm's" in message or "runtime: " in message[-9:] else 2
    project.configure(f"mlp: {{{MLP}, mem_mb: 1500, runtime: {runtime}}}")
    if "max_mem_mb" in edit[1]:
        project.configure(f"mlp: {{{MLP}, mem_mb: 20000, runtime: 2}}")
    project.edit(*edit)
    done = project.slurm_run(check=False)
    assert done.returncode == 1
    assert message in done.stdout
    assert project.accounting("JobID") == []  # nothing was queued
    check = project.script("check", "--configfile", "slurm.yaml", check=False)
    assert check.returncode == 1
    assert message in check.stdout


def test_check_says_that_all_is_well(project):
    project.configure(f"mlp: {{{MLP}, mem_mb: 1500, runtime: 2}}")
    output = project.script("check", "--configfile", "slurm.yaml").stdout
    assert "Slurm would take the jobs of all 1 experiments" in output
