"""What a user types on clusters with other rules, and what is answered: see slurm/test_sites.py."""

import csv
import os
import pwd
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from conftest import NO_ACCOUNTING, ROOT
from slurm_project import SlurmProject

USER = pwd.getpwnam("nobody")
CONFIG = "profiles/slurm/config.yaml"
MLP = "mlp: {model: {name: MLP}, epochs: 1, mem_mb: 1024, runtime: 10}"
STUDY = f"{MLP}\ngpu: {{model: {{name: MLP}}, epochs: 1, mem_mb: 1024, runtime: 10, device: cuda}}"
LOCAL_SEEDS = [1, 5]  # two are enough to compare bytes


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
            "  mem_mb: 0",
            '    gpu_constraint: "gpu"',
            "  evaluate:",
            "    mem_mb: 0",
        ],
        findings=[
            "memory: the site refuses --mem, so mem_mb is 0",
            "GPU: --gpus=1 --constraint=gpu",
            "whole nodes: in nodes",
        ],
        rules={
            SBATCH: "--constraint=cpu or --constraint=gpu",
            f"{SBATCH} --constraint=cpu --mem=10": "Please do not use --mem",
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
        super().__init__(folder, data=name != "alliance")
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
        # At the usual priority: the other tests of Slurm go on meanwhile, and come first.
        run = ["nice", "-n", "5", ROOT / "tests/cluster/slurm.py", "run"]
        command = [*run, *options, "--", "bash", "-ec", inside]
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


def possible(name: str) -> bool:
    """Return whether this machine can simulate a site: some run Slurm only without accounting."""
    rules = ROOT / "tests/cluster/sites" / name / "slurm.conf"
    without = rules.exists() and "AccountingStorageType=\n" in rules.read_text()
    return without or not NO_ACCOUNTING.exists()


@contextmanager
def visits() -> Iterator[tuple[dict[str, Future], dict[str, Visit], Visit]]:
    """Visit all sites side by side; yield their ends, the visits, and a run without Slurm."""
    # Not below pytest's own folder, which only root may enter.
    with tempfile.TemporaryDirectory(prefix="sites-") as folder:
        root = Path(folder)
        root.chmod(0o755)
        made = {name: Visit(root / f"{name} site", name) for name in filter(possible, SITES)}
        local = Visit(root / "local", "limits")
        local.configure(MLP, seeds=LOCAL_SEEDS)
        with ThreadPoolExecutor(len(made) + 1) as pool:
            ends = {name: pool.submit(visit.go) for name, visit in made.items()}
            ends["local"] = pool.submit(local.snakemake, config="slurm.yaml")
            yield ends, made, local
