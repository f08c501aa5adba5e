"""The driver: Snakemake itself as a Slurm job, by `make submit` and `make cancel`.

What happens to it happens to a project of its own; all of them at once.
"""

import re

import psutil
import pytest
from conftest import cluster, named_scenes
from slurm_project import NETWORK, PARTITIONS, scenes, staged, wait_for

BRIEF = f"brief: {{{NETWORK}, mem_mb: 1500, runtime: 20, epochs: 2}}"
SHORT = f"short: {{{NETWORK}, mem_mb: 1500, runtime: 20, epochs: 12}}"


def driver_of(project) -> str:
    """Return the driver's job as status says it; nothing if there is none."""
    found = re.search(r"Driver: Slurm job (\d+)", project.show("status"))
    return found[1] if found else ""


def kill(project, node: bool = False) -> None:
    """Kill the driver's process and its Snakemake; scancel would let them end in order.

    With its node, what would tell Slurm of its end is killed first.
    """
    for process in psutil.process_iter(["cwd", "cmdline"]):
        words = process.info["cmdline"] or []
        if process.info["cwd"] == str(project.folder) and "--drive" in words:
            daemons = [each for each in process.parents() if each.name() == "slurmstepd"]
            for each in [*(daemons if node else []), *process.children(recursive=True), process]:
                each.kill()


def no_driver(project) -> bool:
    return "Driver:" not in project.show("status")


def wait_for_its_end(project) -> None:
    if driver := driver_of(project):  # to ask squeue for it takes less than status does
        queue = ("squeue", "--noheader", "--format=%i")
        wait_for(lambda: driver not in project.run(*queue).stdout.split(), "the driver's end")
    wait_for(lambda: no_driver(project), "status to know that")


def locks(project) -> list:
    """Return what Snakemake has locked."""
    return list((project.folder / ".snakemake" / "locks").glob("*"))


def whole_study(project):
    """Whose lock is there is asked first. A second driver is refused. Cancel finds none after."""
    project.configure(BRIEF)
    lock = project.folder / ".snakemake" / "locks" / "0.output.lock"
    project.run("mkdir", "-p", lock.parent)
    lock.write_text("results/small/report.csv\n")
    locked = project.script("submit", "--configfile", "slurm.yaml", check=False)
    assert lock.exists()
    project.run("rm", lock)
    said = project.show("submit")
    again = project.script("submit", "--configfile", "slurm.yaml", check=False)
    wait_for_its_end(project)
    return locked, said, again, project.show("cancel")


def killed(project):
    """A killed driver's locks and jobs are cleared by the next one; cancel ends it in order."""
    project.configure(SHORT)
    project.show("submit")
    left = project.trained("short")
    kill(project)
    wait_for(lambda: no_driver(project), "the driver to be gone")
    assert project.job_ids("short") == [left]
    assert "was killed" in project.show("submit")
    (again,) = wait_for(lambda: project.job_ids("short"), "the next driver's job")
    assert again != left
    running, said = project.show("status"), project.show("cancel")
    assert no_driver(project)
    assert not project.job_ids("short")
    assert not locks(project)
    project.show("submit")
    wait_for_its_end(project)
    return running, said


def time_is_up(project):
    """At Slurm's warning the driver cancels its jobs, goes back into the queue, and goes on."""
    project.configure(SHORT)
    project.show("submit")
    first = project.trained("short")
    driver = driver_of(project)
    project.run("scancel", "--batch", "--signal=USR1", driver)

    def again():
        return [job for job in project.job_ids("short") if job != first]

    wait_for(again, "the requeued driver's job")
    assert driver_of(project) == driver
    assert first not in project.job_ids("short")
    wait_for_its_end(project)


def lost_node(project):
    """Slurm starts the driver again on another node; it clears what the lost one has left."""
    project.configure(SHORT)
    (project.folder / "profiles/slurm/partitions.yaml").write_text(PARTITIONS)
    project.show("submit")
    left = project.trained("short")
    driver = driver_of(project)
    assert "RUNNING on gpu1" in project.show("status")
    try:
        project.as_root("scontrol", "update", "PartitionName=gpu", "Nodes=gpu1,cpu1")
        assert cluster("stop", "slurmd-gpu1", "--kill").returncode == 0
        kill(project, node=True)
        project.as_root("scontrol", "update", "NodeName=gpu1", "State=DOWN", "Reason=lost")
        on_another = "RUNNING on cpu1"
        wait_for(lambda: on_another in project.show("status"), "the driver on another node")
        assert driver_of(project) == driver
        wait_for_its_end(project)
    finally:
        assert cluster("start", "slurmd-gpu1").returncode == 0
        project.as_root("scontrol", "update", "NodeName=gpu1", "State=RESUME", check=False)
        project.as_root("scontrol", "update", "PartitionName=gpu", "Nodes=gpu1")
    assert left not in project.job_ids("short")


def ctrl_c(project):
    """SIGINT ends it in order, as Ctrl-C ends Snakemake: nothing is left in the queue."""
    project.configure(SHORT)
    project.show("submit")
    project.trained("short")
    project.run("scancel", "--batch", "--signal=INT", driver_of(project))
    wait_for(lambda: no_driver(project), "the driver to end")
    # Slurm lets a canceled job save its checkpoint.
    wait_for(lambda: not project.job_ids("short"), "the canceled job to end")
    return locks(project)


@pytest.fixture(scope="module")
def stage(request, slurm, tmp_path_factory):
    """Return what gives the project to which something has happened, and what it returned.

    A node is lost here, which the scenes of other modules may need.
    """
    items = [item for item in request.session.items if item.module is request.module]
    with staged(named_scenes(items), tmp_path_factory) as found:
        yield found


@scenes(whole_study)
def test_a_whole_study(stage, undisturbed):
    project, (locked, said, again, canceled) = stage(whole_study)
    assert locked.returncode == 1
    assert "--unlock" in locked.stdout
    assert "nothing was submitted" in locked.stdout
    assert "make cancel" in said
    assert again.returncode == 1
    assert "has a driver already, Slurm job" in again.stdout
    assert project.outcome("brief") == undisturbed(2)
    assert "There was no driver." in canceled


@pytest.mark.extended
@scenes(killed)
def test_kill_and_cancel(stage, undisturbed):
    project, (running, said) = stage(killed)
    assert "RUNNING on cpu" in running
    assert "The driver has ended" in said
    assert project.outcome("short") == undisturbed(12)


@pytest.mark.extended
@scenes(time_is_up, lost_node)
@pytest.mark.parametrize("happens", [time_is_up, lost_node])
def test_it_goes_on(stage, undisturbed, happens):
    project, _ = stage(happens)
    assert project.outcome("short") == undisturbed(12)


@pytest.mark.extended
@scenes(ctrl_c)
def test_ctrl_c_of_the_driver(stage):
    _, locks = stage(ctrl_c)
    assert not locks
