"""Which profile fits a cluster, for kinds of clusters that tests/slurm/test_sites.py does not have.

The programs of Slurm are scripts here that answer as those of such a cluster.
"""

import re
import sys

import pytest

import make_profile
from lib.cluster import partitions_file, site_profile
from lib.cluster.site import Site
from lib.core import strict_yaml
from lib.core.errors import UserError

CONFIG = """
ClusterName             = beluga
JobSubmitPlugins        = (null)
MinJobAge               = 300 sec
SelectType              = select/cons_tres
SelectTypeParameters    = CR_CORE_MEMORY
SLURM_VERSION           = 24.11.5
"""
NODES = "all|4|8|16000|(null)|(null)"
GPU_NODES = "all|4|8|16000|gpu:a100:4(S:0-1),gpu:h100:2|big"
NAMED = ("slurm-partition-config",)


def refuses(why: str) -> str:
    return f"echo 'sbatch: error: {why}' >&2; exit 1"


def answers(text: str) -> str:
    return f"cat <<'E'\n{text}\nE\n"


def partition(name, default="NO", tier=1, **more) -> str:
    words = {"MaxTime": "2-00:00:00", "MaxMemPerNode": "UNLIMITED"} | more
    pairs = " ".join(f"{key}={value}" for key, value in words.items())
    return f"PartitionName={name}\n   Default={default} PriorityTier={tier}\n   {pairs}\n"


@pytest.fixture
def cluster(programs):
    """Return a function that puts the programs of a cluster on the PATH."""

    def put(partitions: str, nodes: str, **others: str):
        show = f'case "$*" in *config*)\n{answers(CONFIG)};; *)\n{answers(partitions)};; esac'
        scripts = {"scontrol": show, "sinfo": answers(nodes), "sbatch": ""}
        return programs(**scripts | {"sacct": "", "sacctmgr": "exit 1"} | others)

    return put


def plan(content: str = "", known=None) -> site_profile.Plan:
    profile = strict_yaml.parse(content) or {}
    return site_profile.Plan(Site(), profile, known or {}).make()


def test_the_files_are_those_that_snakemake_reads(cluster, tmp_path, monkeypatch, capsys):
    cluster(partition("debug", "YES"), "debug|4|8|16000|(null)|(null)")
    (tmp_path / "config.v9+.yaml").write_text("slurm-partition-config: mine.yaml\n")
    (tmp_path / "config.yaml").write_text("executor: other\n")
    monkeypatch.setattr(sys, "argv", ["make_profile.py", "--profile", str(tmp_path)])
    make_profile.main()
    changed = re.findall(r"^\+\+\+ (\S+)", capsys.readouterr().out, re.MULTILINE)
    assert changed == [str(tmp_path / name) for name in ("config.v9+.yaml", "mine.yaml")]


def test_one_partition_is_used_whatever_its_name(cluster):
    cluster(partition("debug", "YES"), "debug|4|8|16000|(null)|(null)")
    made = plan()
    limits = {"max_runtime": 2880, "max_mem_mb": 16000, "max_cpus_per_task": 8}
    assert made.partitions == {"debug": limits}
    assert made.settings == {NAMED: None}
    assert "GPU: there is none (sinfo)" in made.findings


def test_without_a_default_a_partition_is_named(cluster):
    cluster(
        partition("short", MaxTime="1:00:00") + partition("long", MaxCPUsPerNode=4),
        "short|4|8|16000|(null)|(null)\nlong|4|8|16000|(null)|(null)\nlong|1|64|8000|(null)|x",
        sbatch=f'case "$*" in *--partition*) ;; *) {refuses("no default partition")} ;; esac',
    )
    made = plan("slurm-partition-config: mine.yaml\n")
    assert made.partitions["short"]["max_runtime"] == 60
    assert made.partitions["long"]["max_mem_mb"] == 16000
    assert made.partitions["long"]["max_cpus_per_task"] == 4
    assert made.settings == {NAMED: "mine.yaml"}


def test_partitions_for_other_work_are_left_out_unless_they_are_in_the_file(cluster):
    names = ("cpu", "interactive", "latest")
    nodes = "\n".join(f"{name}|4|8|16000|(null)|(null)" for name in (*names, "urgent"))
    text = "".join(partition(name, "YES" if name == "cpu" else "NO") for name in names)
    others = partition("urgent", tier=9) + partition("old", State="DOWN")
    cluster(text + others, f"{nodes}\nold|4|8|16000|(null)|(null)")
    assert set(plan().partitions) == {"cpu", "latest"}
    assert set(plan(known={"urgent": {}}).partitions) == {"cpu", "latest", "urgent"}


def test_a_site_that_refuses_mem(cluster):
    sbatch = f'case "$*" in *--mem*) {refuses("do not ask for memory")} ;; esac'
    cluster(partition("all", "YES"), GPU_NODES, sbatch=sbatch)
    made = plan()
    assert made.settings["default-resources", "mem_mb"] == 0
    for rule in ("train", "evaluate"):
        assert made.settings["set-resources", rule, "mem_mb"] == 0
    assert made.partitions["all"]["max_gpu"] == 6


def test_what_the_user_has_set_is_asked_for_and_kept(cluster):
    sbatch = f'case "$*" in *--account=mine*) ;; *) {refuses("no account")} ;; esac'
    called = cluster(partition("all", "YES"), GPU_NODES, sbatch=sbatch)
    made = plan(
        """
default-resources: {slurm_account: mine, qos: "'fast'", constraint: big}
set-resources: {train: {gpu_model: h100}}
jobs: 20
"""
    )
    assert made.settings == {NAMED: None, ("set-resources", "train", "gpu_model"): "h100"}
    asked = [line for line in called() if line.startswith("sbatch")]
    assert asked
    assert all("--account=mine --qos=fast --constraint=big" in line for line in asked)


def test_the_limits_are_those_of_the_account_and_the_qos(cluster):
    accounts = answers("one|one|normal,big|5|50\none|two|big|1|2")
    qos = answers("normal|||\nbig|1-00:00:00||30")
    sacctmgr = f'case "$*" in *withassoc*)\n{accounts};; *)\n{qos};; esac'
    cluster(partition("all", "YES"), NODES, sacctmgr=sacctmgr)
    assert plan("jobs: 100").settings["jobs",] == 50
    assert ("jobs",) not in plan("jobs: 10").settings
    assert plan("{jobs: 100, slurm-qos: big}").settings["jobs",] == 30
    made = plan("{jobs: 100, default-resources: {slurm_account: two}}")
    assert made.settings["jobs",] == 2
    assert "  `make submit` cannot work here: the driver would be the one job" in made.findings


def test_where_slurm_takes_no_job_its_reason_is_told(cluster):
    cluster(partition("all", "YES"), NODES, sbatch=refuses("no such user"))
    with pytest.raises(UserError, match="Slurm takes no job of yours: no such user"):
        plan()


def test_of_what_is_tried_only_what_is_needed_is_set(cluster):
    needs = 'case "$*" in *--mem*) false ;; *=cpu*=long* | *=gpu*=long*) ;; *) false ;; esac'
    accounts = answers("one|one|normal,short,long||")
    qos = answers("normal|1-00:00:00||\nshort|60||\nlong|||")
    called = cluster(
        partition("all", "YES"),
        "all|4|8|16000|gpu:2|gpu\nall|2|8|16000|(null)|big,cpu",
        sbatch=f"{needs} || {{ {refuses('no')}; }}",
        sacctmgr=f'case "$*" in *withassoc*)\n{accounts};; *)\n{qos};; esac',
    )
    made = plan()
    memory = dict.fromkeys(site_profile.MEMORY, 0)
    needed = {site_profile.QOS: "long", site_profile.CONSTRAINT: "cpu"}
    assert made.settings == memory | needed | {NAMED: None}
    assert "qos: needed, long; others: normal, short (sbatch --test-only)" in made.findings
    assert "account: none has to be named, one is charged (sbatch --test-only)" in made.findings
    asked = [line for line in called() if line.startswith("sbatch")]
    assert len(asked) == len(set(asked)) < 25


def test_of_many_values_those_that_a_refusal_names_are_tried(cluster):
    features = ",".join(f"f{number}" for number in range(300))
    why = "say --constraint=f99 or --constraint=f98"
    sbatch = f'case "$*" in *=f99*) ;; *) {refuses(why)} ;; esac'
    cluster(partition("all", "YES"), f"all|4|8|16000|(null)|{features}", sbatch=sbatch)
    assert plan().settings[site_profile.CONSTRAINT] == "f99"


def test_questions_have_an_end(cluster):
    features = ",".join(f"f{number}" for number in range(300))
    accounts = answers("one|one|" + ",".join(f"q{number}" for number in range(300)) + "||")
    called = cluster(
        partition("all", "YES"),
        f"all|4|8|16000|(null)|{features}",
        sbatch=refuses("no"),
        sacctmgr=f'case "$*" in *withassoc*)\n{accounts};; esac',
    )
    with pytest.raises(UserError, match=r"Slurm takes no job of yours: no\. If it has to name"):
        plan()
    asked = [line for line in called() if line.startswith("sbatch")]
    assert len(asked) == len(set(asked)) < 60


def test_a_file_of_partitions_keeps_what_the_user_has_written():
    found = {"cpu": {"max_runtime": 2880, "max_mem_mb": 16000}}
    text = partitions_file.updated("", "beluga", found)
    assert partitions_file.is_about(text, "beluga")
    assert not partitions_file.is_about(text, "bel")
    assert strict_yaml.parse(text)["partitions"] == found
    assert text.splitlines()[-2:] == [
        "    max_runtime: 2880            # minutes",
        "    max_mem_mb: 16000            # MiB per node",
    ]
    mine = text.replace("2880 ", "600  ").replace(
        "16000", "16000   # mine\n    supports_mpi: false"
    )
    found = {"cpu": {"max_runtime": 1440, "max_mem_mb": 32000}}
    assert partitions_file.updated(mine, "beluga", found) == mine
    again = partitions_file.updated(mine, "beluga", found | {"gpu": {"max_gpu": 2}})
    assert again.startswith(mine)
    limits = {"max_runtime": 600, "max_mem_mb": 16000, "supports_mpi": False}
    assert strict_yaml.parse(again)["partitions"] == {"cpu": limits, "gpu": {"max_gpu": 2}}
    fewer = partitions_file.updated(again, "beluga", {"gpu": {"max_gpu": 1}})
    assert strict_yaml.parse(fewer)["partitions"] == {"gpu": {"max_gpu": 1}}
    assert partitions_file.updated(mine, "another", found).splitlines()[-1] == (
        "    max_mem_mb: 32000            # MiB per node"
    )
