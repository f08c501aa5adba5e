"""The workflow on clusters with other rules: what works on the throw-away one works there too.

Each site of tests/cluster/sites has a cluster of its own, all side by side. There an ordinary user
types what docs/cluster.md says: `make profile`, which ends with `make check`, Snakemake, `make
status`, `make why`, `make sbatch`. The profile is as it was cloned; only an account is named where
there are two. One experiment asks for a GPU that torch does not see, and fails loudly.
"""

import re

import pytest
from conftest import NO_ACCOUNTING, ROOT
from site_visits import CONFIG, SITES, Visit

pytestmark = pytest.mark.extended
# Columns of the report in which two runs with the same result differ.
CIRCUMSTANCES = {
    *("train_seconds", "images_per_second", "peak_memory_mb"),
    *("slurm_job_id", "partition", "host"),
}


def result(row: dict[str, str]) -> dict[str, str]:
    """Return what two runs with the same result have in common."""
    return {key: value for key, value in row.items() if key not in CIRCUMSTANCES}


@pytest.fixture
def visit(slurm, visits, name) -> Visit:
    """The visit of one site; the test waits for its end."""
    if visits is None:
        pytest.skip("the tests of sites need namespaces; in a container: docker run --privileged")
    ends, made, _ = visits
    if name not in made:
        pytest.skip(NO_ACCOUNTING.read_text())
    ends[name].result()
    return made[name]


@pytest.fixture
def local(visit, visits) -> Visit:
    """The runs without Slurm; the test waits for their end."""
    ends, _, local = visits
    ends["local"].result()
    return local


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


@sites()
def test_no_account_is_guessed(visit):
    """Where none is named, the plugin would ask sacct for one, with an option that there is not."""
    assert "invalid option" not in visit.answer("run")


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
