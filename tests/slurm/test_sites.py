"""The workflow on clusters with other rules: what works on the throw-away one works there too.

Each site of tests/cluster/sites has a cluster of its own, all side by side. There an ordinary user
types what docs/cluster.md says: `make profile`, which ends with `make check`, Snakemake, `make
status`, `make why`, `make sbatch`. The profile is as it was cloned; only an account is named where
there are two. One experiment asks for a GPU that torch does not see, and fails loudly.
"""

import csv
import os
import pwd
import re
import shlex
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from conftest import NO_ACCOUNTING, ROOT, fresh_project
from slurm_project import SlurmProject

USER = pwd.getpwnam("nobody")
CONFIG = "profiles/slurm/config.yaml"
MLP = "mlp: {model: {name: MLP}, epochs: 1, mem_mb: 1024, runtime: 10}"
STUDY = f"{MLP}\ngpu: {{model: {{name: MLP}}, epochs: 1, mem_mb: 1024, runtime: 10, device: cuda}}"
LOCAL_SEEDS = [1, 5]  # two are enough to compare bytes
# Columns of the report in which two runs with the same result differ.
CIRCUMSTANCES = {
    *("train_seconds", "images_per_second", "peak_memory_mb"),
    *("slurm_job_id", "partition", "host"),
}


@dataclass(frozen=True)
class Site:
    """A site, and what its users know of it."""

    account: str = ""  # where there are two
    # Lines of config.yaml that were not there before `make profile`, and parts of its answer.
    profile: list[str] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    # What to type at the prompt, and what is answered.
    rules: dict[str, str] = field(default_factory=dict)
    experiments: str = STUDY
    seeds: list[int] = field(default_factory=lambda: [1])
    driver: bool = False  # whether `make submit` is typed too


SBATCH = "sbatch -o /dev/null --wrap true"
ACCOUNT = "Please specify one of the following accounts to submit this job: def-prof, rrg-prof"
SITES = {
    "alliance": Site(
        driver=True,
        account="def-prof",
        profile=[
            "# slurm-partition-config: partitions.yaml",
            '  slurm_account: "def-prof"',
            '    gpu_model: "h100"',
        ],
        findings=[
            "GPU: --gpus=h100:1; other types: a100",
            "partition: none has to be named, base is the default",
            "jobs in the queue: 1000; running: no limit",
        ],
        rules={
            SBATCH: ACCOUNT,
            f"{SBATCH} --account=rrg-prof --gpus=1": "name the type of the GPU",
            f"{SBATCH} --account=rrg-prof --gpus=a100:1 --test-only": "gpu1 in partition base",
            "sacctmgr -nP show assoc user=nobody format=account,maxsubmit": "def-prof|1000",
        },
    ),
    "department": Site(
        driver=True,
        profile=[
            "# slurm-partition-config: partitions.yaml",
            'slurm-status-command: "squeue"',
        ],
        findings=["accounting: none, so squeue is asked; it forgets a job 10 sec after its end"],
        rules={
            "sacct": "Slurm accounting storage is disabled",
            "sinfo -h -o [%P]": "[batch*]",
            "scontrol show config": "MinJobAge               = 10 sec",
        },
    ),
    "center": Site(
        driver=True,
        profile=[
            "# slurm-partition-config: partitions.yaml",
            '  constraint: "cpu"',
            '  qos: "regular"',
            '    gpu_constraint: "gpu"',
        ],
        findings=["GPU: --gpus=1 --constraint=gpu", "whole nodes: in nodes"],
        rules={
            SBATCH: "--constraint=cpu or --constraint=gpu",
            f"{SBATCH} --constraint=cpu": "Invalid qos specification",
            f"{SBATCH} --constraint=gpu --qos=debug --hold": "Submitted batch job 1",
            "scontrol show job 1": "OverSubscribe=NO",
            "scancel --me; sinfo -h -o %h": "EXCLUSIVE",
        },
    ),
    "wholenode": Site(
        profile=['    gres: "gpu:1"'],
        findings=[
            "GPU: --gres=gpu:1",
            "memory: Slurm does not count it",
            "whole nodes: in compute;",
        ],
        rules={
            f"{SBATCH} --mem=999999 --test-only": "using 8 processors on nodes cpu1",
            f"{SBATCH} -p gpu --gpus=1": "Please ask for GPUs of a node",
        },
    ),
    "limits": Site(
        profile=["jobs: 4"],
        findings=["jobs in the queue: 4; running: 1"],
        rules={
            f"for n in 1 2 3 4 5; do {SBATCH} --hold; done; scancel --me": "AssocMaxSubmitJobLimit",
            "sacctmgr -nP show assoc user=nobody format=maxjobs,maxsubmit": "1|4",
        },
        experiments=MLP,
        seeds=[1, 2, 3, 4, 5],
    ),
    "broken": Site(
        rules={
            f"srun --nodelist=noenv ls {sys.prefix}/bin": "No such file or directory",
            f"srun --nodelist=cpu1 ls {sys.prefix}/bin": "snakemake",
            f"{SBATCH} --nodelist=noprolog; sleep 3; sinfo -R; scancel --me": "Prolog error",
            "sinfo -h -n gpu1 -o %G": "gpu:2",
        },
    ),
}


class Visit(SlurmProject):
    """What a user has typed on a site, and what was answered."""

    def __init__(self, folder: Path, name: str):
        super().__init__(folder)
        self.name, self.site = name, SITES[name]
        self.configure(self.site.experiments, seeds=self.site.seeds)
        self.cloned = (self.folder / CONFIG).read_text()

    def go(self) -> None:
        """Start the cluster, and type everything there."""
        make = f"make VENV={sys.prefix} CONFIGFILE=slurm.yaml"
        last = self.site.experiments.splitlines()[-1].partition(":")[0]
        steps = {
            **{f"rule{number}": rule for number, rule in enumerate(self.site.rules)},
            "choice": f"{make} profile" if self.site.account else "true",
            "profile": f"{make} profile ACCOUNT={self.site.account}",
            "run": shlex.join(["timeout", "900", *self.command()]),
            "status": f"{make} status",
            "why": f"{make} why RUN={last}/seed1",
            "by_hand": f"{make} sbatch RUN={last}/seed1 > job.sh && sbatch --test-only job.sh",
        }
        if self.site.driver:
            # Another study in the same clone; it ends when there is no driver any more.
            text = (self.folder / "slurm.yaml").read_text().replace(STUDY.splitlines()[1], "")
            text = text.replace("results_dir: results/small", "results_dir: results/driven")
            (self.folder / "driven.yaml").write_text(text)
            make = make.replace("slurm.yaml", "driven.yaml")
            rest = f"for n in $(seq 100); do sleep 2; {make} status | grep Driver: || break; done"
            steps |= {"submit": f"{make} submit", "driver": rest}
        script = self.folder / "type.sh"
        script.write_text(
            "".join(
                f"({command}) > {step}.txt 2>&1; echo $? > {step}.code\n"
                for step, command in steps.items()
            )
        )
        for path in (self.folder, *self.folder.rglob("*")):
            os.chown(path, USER.pw_uid, USER.pw_gid)
        home = f"HOME={self.folder}"
        become = "setpriv --reuid=nobody --regid=nogroup --clear-groups --inh-caps=-all".split()
        typed = ["env", "-u", "XDG_CACHE_HOME", home, *become, "bash", "type.sh"]
        inside = f"cd {shlex.quote(str(self.folder))}; exec {shlex.join(typed)}"
        options = ["--site", self.name, "--user", "nobody", "--hide", sys.prefix]
        command = [ROOT / "tests/cluster/slurm", "run", *options, "--", "bash", "-ec", inside]
        done = subprocess.run(command, capture_output=True, text=True, timeout=1500, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    def answer(self, step: str) -> str:
        return (self.folder / f"{step}.txt").read_text()

    def code(self, step: str) -> int:
        return int((self.folder / f"{step}.code").read_text())

    def files(self, seed: int) -> list[bytes]:
        """Return the weights, the predictions and the accuracy of a run."""
        names = ("model.safetensors", "predictions.csv.gz", "accuracy.csv")
        return [(self.run_folder("mlp", seed) / name).read_bytes() for name in names]

    def report(self) -> dict[int, dict[str, str]]:
        """Return the rows of the report by seed."""
        with (self.results / "report.csv").open() as file:
            return {int(row["seed"]): row for row in csv.DictReader(file)}


def result(row: dict[str, str]) -> dict[str, str]:
    """Return what two runs with the same result have in common."""
    return {key: value for key, value in row.items() if key not in CIRCUMSTANCES}


def possible(name: str) -> bool:
    """Return whether this machine can play a site: on some, Slurm runs only without accounting."""
    rules = ROOT / "tests/cluster/sites" / name / "slurm.conf"
    without = rules.exists() and "AccountingStorageType=\n" in rules.read_text()
    return without or not NO_ACCOUNTING.exists()


@pytest.fixture(scope="module")
def visits(slurm):
    """Return all visits, made side by side, and the same runs without Slurm."""
    apart = ["unshare", "--net", "--mount", "--pid", "--fork", "true"]
    if subprocess.run(apart, check=False).returncode:
        reason = "the tests of sites need namespaces; in a container: docker run --privileged"
        pytest.skip(reason)
    # Not below pytest's own folder, which only root may enter.
    with tempfile.TemporaryDirectory(prefix="sites-") as folder:
        root = Path(folder)
        root.chmod(0o755)
        names = filter(possible, SITES)
        made = {name: Visit(fresh_project(root / f"{name} site").folder, name) for name in names}
        local = Visit(fresh_project(root / "local").folder, "limits")
        local.configure(MLP, seeds=LOCAL_SEEDS)
        with ThreadPoolExecutor(len(made)) as pool:
            ends = {}
            for name, visit in made.items():
                ends[name] = pool.submit(visit.go)
            local.snakemake(config="slurm.yaml")
            yield ends, made, local


@pytest.fixture
def visit(visits, name) -> Visit:
    """The visit of one site; the test waits for its end."""
    ends, made, _ = visits
    if name not in made:
        pytest.skip(NO_ACCOUNTING.read_text())
    ends[name].result()
    return made[name]


@pytest.fixture
def local(visits) -> Visit:
    """The runs without Slurm."""
    return visits[2]


def sites(*names: str):
    """Run a test for sites, or for all."""
    return pytest.mark.parametrize("name", names or SITES)


WITH_GPU = [name for name, site in SITES.items() if "cuda" in site.experiments]


@sites()
def test_the_site_has_its_rules(visit):
    for number, (rule, answer) in enumerate(visit.site.rules.items()):
        assert answer in visit.answer(f"rule{number}"), rule


@sites()
def test_the_profile_of_the_site_is_found_and_checked(visit):
    said = visit.answer("profile")
    for finding in visit.site.findings:
        assert finding in said
    lines = set((visit.folder / CONFIG).read_text().splitlines()) - set(visit.cloned.splitlines())
    assert sorted(line.split("  # ")[0].rstrip() for line in lines) == sorted(visit.site.profile)
    assert "Slurm would take the jobs" in said
    assert "Next: .venv/bin/snakemake --profile profiles/slurm" in said
    assert visit.code("profile") == 0


@sites("alliance", "department", "center")
def test_the_documentation_shows_what_is_printed(visit):
    text = (ROOT / "docs/cluster.md").read_text().split("## From clone to report")[1]
    said = visit.answer("profile").partition("--- profiles/slurm/config.yaml")[0].splitlines()
    lines = [line for line in said if not line.startswith("make")]
    assert len(lines) > 4
    # The cluster of the documentation is that of one release of Debian.
    assert re.sub(r"Slurm [\d.]+", "Slurm 22.05.8", "\n".join(lines)) in text


@sites("alliance")
def test_of_two_accounts_the_user_chooses_one(visit):
    said = visit.answer("choice")
    key = "profiles/slurm/config.yaml: default-resources.slurm_account"
    assert f"choose in {key}: def-prof or rrg-prof" in said
    assert visit.code("choice") != 0


@sites()
def test_slurm_would_take_the_job_script_that_is_submitted_by_hand(visit):
    assert "to start at" in visit.answer("by_hand")
    assert visit.code("by_hand") == 0


@sites()
def test_the_results_are_those_of_a_local_run(visit, local):
    here, there = local.report(), visit.report()
    assert set(there) == set(visit.site.seeds)
    assert all(row["slurm_job_id"] for row in there.values())
    for seed in set(there) & set(here):
        assert visit.files(seed) == local.files(seed)
        assert result(there[seed]) == result(here[seed])


@sites(*(name for name, site in SITES.items() if site.driver))
def test_the_driver_gives_the_same_results(visit, local):
    assert "The driver is Slurm job" in visit.answer("submit")
    assert "RUNNING on" in visit.answer("driver")
    driven = visit.folder / "results/driven/runs/mlp/seed1"
    names = ("model.safetensors", "predictions.csv.gz", "accuracy.csv")
    assert [(driven / name).read_bytes() for name in names] == local.files(1)
    assert (visit.folder / "results/driven/report.csv").exists()


@sites(*WITH_GPU)
def test_a_gpu_that_torch_does_not_see_is_a_loud_failure(visit):
    assert visit.code("run") == 1
    assert "device cuda: torch sees no GPU" in visit.answer("run")
    assert not (visit.run_folder("gpu") / "model.safetensors").exists()


@sites("limits")
def test_without_a_failure_the_exit_status_is_0(visit):
    assert visit.code("run") == 0


@sites()
def test_status_shows_each_run(visit):
    lines = [line.split() for line in visit.answer("status").splitlines()]
    states = {tuple(line[:2]): " ".join(line[2:]) for line in lines}
    for seed in visit.site.seeds:
        assert states["mlp", str(seed)].startswith("done")
    if "gpu" in visit.site.experiments:
        assert "fail" in states["gpu", "1"].lower()


@sites()
def test_why_explains(visit):
    text = "torch sees no GPU" if "gpu" in visit.site.experiments else "This run is done"
    assert text in visit.answer("why")
    assert visit.code("why") == 0
