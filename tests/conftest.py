"""What the tests share: copies of the project, and one finished run of the small data set."""

import fcntl
import functools
import io
import json
import os
import pwd
import re
import shutil
import stat
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, redirect_stderr, redirect_stdout, suppress
from pathlib import Path

# Several tests run at once on a few processors, where more threads would only wait for each other.
# This must be set before numpy and torch are imported.
for library in ("OMP", "OPENBLAS"):
    os.environ.setdefault(f"{library}_NUM_THREADS", "1")

import preloaded  # noqa: E402
import pytest  # noqa: E402
from cluster import namespaces  # noqa: E402

from lib.core import command_line  # noqa: E402
from lib.core.subprocesses import shell_prefix  # noqa: E402
from lib.forks.start import VARIABLE, use_until_exit  # noqa: E402

ROOT = Path(__file__).parents[1]
SMALL_CONFIG = "tests/data/config.yaml"
# Where the small data set is, and its results: how the config of a study of it begins.
SMALL_STUDY = """
results_dir: results/small
dataset: MNIST-small
datasets_file: tests/data/datasets.yaml
data_dir: results/small/data
mirrors: [tests/data]
"""
# A search of four points, and an experiment that is not searched.
SEARCH = f"""{SMALL_STUDY}seeds: [1, 2]
runs_per_job: 20
training: {{epochs: 1, validation_size: 500}}
experiments:
  searched:
    model: {{name: MLP}}
    sweep: {{model.hidden: [8, 128], optimizer.lr: [0.001, 1.0]}}
  plain: {{model: {{name: MLP}}}}
"""
# Where `slurm.py up` says why its cluster has no accounting, on a release of Debian that cannot.
NO_ACCOUNTING = Path("/var/lib/slurm-throwaway/no-accounting")
IN_CI = os.environ.get("CI") == "true"
# Files that take a minute or more.
LONGEST = {"test_readme", "test_commands", "test_page", "test_searches", "test_run", "test_forks"}
# Seconds after which nobody expects any more what a test waits for; machines may be slow.
PATIENCE = 900
# The suite may run below `make test`: a make that a test starts is not a part of that one.
for name in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS"):
    os.environ.pop(name, None)
# As the README says: snakemake is called by its path, nothing is activated.
BIN = Path(sys.executable).parent


def cluster(*arguments) -> subprocess.CompletedProcess:
    """Run the command of the throw-away cluster."""
    command = [ROOT / "tests" / "cluster" / "slurm.py", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)


@functools.cache
def ordinary_user() -> pwd.struct_passwd | None:
    """Return who runs the workflow in the Slurm tests.

    None is who runs the tests: where that is not root, or where nobody else can see this Python.
    """
    user = pwd.getpwnam("nobody")
    if os.geteuid():
        return None
    parents = [*Path(sys.prefix).resolve().parents, *Path(sys.base_prefix).resolve().parents]
    closed = {folder for folder in parents if not folder.stat().st_mode & stat.S_IXOTH}
    # Such as root's home. The jobs of a cluster that is up already would not see it opened.
    was_up = bool(closed) and cluster("status").returncode == 0
    try:
        for folder in sorted(closed):
            namespaces.open_folder(folder)
    except PermissionError:
        return None
    return None if was_up else user


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items):
    """Give each file to one worker, and all Slurm tests to one: they share the cluster.

    Those of the cluster itself come first, while there is none, then the other Slurm tests, and of
    the other files those that take longest. Fuzz tests are for `make test-all`.
    """
    items.sort(
        key=lambda item: (
            item.path.stem != "test_cluster",
            item.path.parent.name != "slurm",
            item.path.stem not in LONGEST,
        )
    )
    for item in items:
        folder = item.path.parent.name
        item.add_marker(pytest.mark.xdist_group("slurm" if folder == "slurm" else item.path.stem))
        if folder == "fuzz":
            item.add_marker(pytest.mark.extended)


def cases(table: dict | Iterable[str], *first: str) -> list:
    """Return the cases of a test, by name; all are for `make test-all` but those that are named.

    Words are their own names.
    """
    table = table if isinstance(table, dict) else {word: word for word in table}
    assert set(first) <= set(table)
    return [
        pytest.param(
            *(case if isinstance(case, tuple) else (case,)),
            id=name,
            marks=() if name in first else pytest.mark.extended,
        )
        for name, case in table.items()
    ]


@functools.cache
def fork_server() -> Path:
    """Start a fork server for this worker's tests of the scripts, and return its sockets' folder.

    It forks the code of this project: a copy may use it that has the same.
    """
    use_until_exit()
    return Path(os.environ.pop(VARIABLE))


def forked(script: str, *arguments) -> list:
    """Return the command line of a training or evaluation that is forked, as in a pack."""
    client = [sys.executable, "-IS", "scripts/lib/forks/client.py"]
    return [*client, fork_server() / f"{script}.socket", f"scripts/{script}.py", *arguments]


def in_process(script, *arguments) -> subprocess.CompletedProcess:
    """Run an imported script in this process: its imports may take longer than its work."""
    status, out, errors = 0, io.StringIO(), io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        warnings.catch_warnings(record=True) as warned,
        redirect_stdout(out),
        redirect_stderr(errors),
    ):
        patch.setattr(sys, "argv", [script.__file__, *map(str, arguments)])
        try:
            command_line.run(script.main)
        except SystemExit as end:
            status = end.code
    shown = [f"{each.category.__name__}: {each.message}\n" for each in warned]
    said = "".join([errors.getvalue(), *shown])
    return subprocess.CompletedProcess(sys.argv, status, out.getvalue(), said)


class Project:
    """A copy of the project in a folder of its own."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.results = folder / "results" / "small"

    def run(self, *command, check=True, **options) -> subprocess.CompletedProcess:
        """Run a command in the folder; fail with what it printed if it fails."""
        words = [str(word) for word in command]
        options = {"cwd": self.folder, "timeout": PATIENCE} | options
        if preloaded.can_run(words, **options):
            done = preloaded.run(words, **options)
        else:
            done = subprocess.run(
                words,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                **options,
            )
        assert not check or done.returncode == 0, done.stdout
        return done

    def script(self, name: str, *arguments, **options) -> subprocess.CompletedProcess:
        """Run a script as a user would by hand."""
        return self.run(sys.executable, f"scripts/{name}.py", *arguments, **options)

    def snakemake(self, *arguments, config=SMALL_CONFIG, **options):
        """Run the workflow with the local profile on the small data set.

        Where the copy's scripts are as they were, trainings and evaluations are forked.
        """
        configfile = ("--configfile", config) if config else ()
        profile = ("--profile", "profiles/local")
        if code_of(self.folder) == code_of(ROOT):
            options["env"] = options.get("env", os.environ) | {VARIABLE: str(fork_server())}
        return self.run(BIN / "snakemake", *profile, *arguments, *configfile, **options)

    def planned(self, *arguments, **options) -> set[str]:
        """Return the jobs that a dry run names, as `train mlp 1` or `report`."""
        output = self.snakemake("-n", *arguments, **options).stdout
        words = {
            "Download": "download",
            "Prepare": "prepare",
            "Report": "report",
            "Choose": "choose",
        }
        jobs = set()
        for message in re.findall(r"^Job \d+: (.+)$", output, flags=re.MULTILINE):
            run = re.match(r"(Train|Evaluate) (\S+), seed ([0-9a-z-]+)", message)
            jobs.add(" ".join(run.groups()).lower() if run else words[message.split()[0]])
        assert jobs or "Nothing to be done" in output, output
        return jobs

    def edit(self, file: str, old: str, new: str) -> None:
        """Replace text in a file that must hold it."""
        path = self.folder / file
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    def edit_everything(self) -> dict[Path, str]:
        """Change what is trained, break all else; return what was in the files that are broken."""
        loop = "scripts/lib/training/loop.py"
        self.edit(loop, "batch_loss.backward()", "(2 * batch_loss).backward()")
        names = ("Snakefile", "workflow/functions.sh", "scripts/evaluate.py", "scripts/job.py")
        broken = {}
        for name in (*names, "scripts/models/cnn.py", "scripts/lib/core/files.py"):
            path = self.folder / name
            broken[path] = path.read_text()
            path.write_text("this is no Python\n")
        return broken

    def run_folder(self, experiment: str, seed: int = 1) -> Path:
        return self.results / "runs" / experiment / f"seed{seed}"

    def record(self, experiment: str, seed: int = 1) -> dict:
        return json.loads((self.run_folder(experiment, seed) / "run.json").read_text())

    @property
    def data(self) -> Path:
        return self.results / "data" / "MNIST-small.safetensors"

    def copy(self, folder: Path) -> "Project":
        """Return a copy with the same times of change, which Snakemake looks at."""
        shutil.copytree(self.folder, folder, symlinks=True)
        return Project(folder)


def run_job(commands: dict[str, str], *options, cwd=ROOT, **more) -> subprocess.CompletedProcess:
    """Run commands, by the names of their runs, as a Slurm job does."""
    runs = [
        {"name": name, "stages": [stage_of(shell_prefix() + command)]}
        for name, command in commands.items()
    ]
    return subprocess.run(
        [sys.executable, "scripts/job.py", *map(str, options)], cwd=cwd,
        input="\n".join(map(json.dumps, runs)), capture_output=True, text=True, timeout=PATIENCE,
        **more,
    )  # fmt: skip


def stage_of(command: str, **more) -> dict:
    """Return a stage of a run as `scripts/job.py` reads it."""
    return {"name": "train", "command": command, "inputs": [], "outputs": [], "log": ""} | more


def code_of(folder: Path) -> dict[str, bytes]:
    """Return the scripts of a copy of the project."""
    scripts = folder / "scripts"
    return {str(path.relative_to(scripts)): path.read_bytes() for path in scripts.rglob("*.py")}


def untouched(folder: Path) -> dict:
    """Return what changes of the files below a folder when one of them is written."""
    return {
        path: (path.stat().st_mtime_ns, path.stat().st_ino, path.stat().st_size)
        for path in folder.rglob("*")
        if path.is_file()
    }


def fresh_project(folder: Path, data: bool = False) -> Project:
    """Copy what git has, or would have, into a new folder; with the prepared data, if asked to."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, files.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    project = Project(folder)
    if data:
        copy_data(project)
    return project


def copy_data(project: Project) -> None:
    """Put the prepared small data set into a copy of the project."""
    shutil.copytree(prepared_data(), project.results / "data")


@functools.cache
def prepared_data() -> Path:
    """Prepare the small data set once for this worker, and return its folder."""
    project = fresh_project(preloaded.folder_until_exit("small-data-") / "project")
    project.snakemake("--until", "prepare")
    return project.results / "data"


@pytest.fixture
def project(tmp_path) -> Project:
    """A fresh copy of the project."""
    return fresh_project(tmp_path / "project")


@pytest.fixture
def with_data(project) -> None:
    """Put the prepared small data set into the fresh copy of the project."""
    copy_data(project)


def shared(tmp_path_factory, worker_id: str, name: str, run: Callable) -> Project:
    """Return a copy of the project in which one worker has run something for all of them.

    Its attribute `printed` is what `run`, which is called with the project, has returned.
    """
    own = tmp_path_factory.getbasetemp()
    folder = (own if worker_id == "master" else own.parent) / name
    printed = folder / "printed.txt"
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not printed.exists():
            printed.write_text(run(fresh_project(folder / "project")))
    project = Project(folder / "project")
    project.printed = printed.read_text()
    return project


@pytest.fixture(scope="session")
def finished_once(tmp_path_factory, worker_id) -> Project:
    """The project after a complete run on the small data set. Only for looking at."""
    command = (BIN / "snakemake", "--profile", "profiles/local", "--configfile", SMALL_CONFIG)
    return shared(tmp_path_factory, worker_id, "finished", lambda made: made.run(*command).stdout)


@pytest.fixture
def finished(finished_once, tmp_path) -> Project:
    """A copy of the finished project, to change as one likes."""
    return finished_once.copy(tmp_path / "finished")


@pytest.fixture(scope="session")
def small_data(finished_once) -> Path:
    """The prepared small data set."""
    return finished_once.data


@pytest.fixture(scope="session")
def slurm_machine():
    """A machine that can have a throw-away Slurm."""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        reason = "the Slurm tests need root on Debian or Ubuntu: sudo make test, or a container"
        pytest.fail(reason) if IN_CI else pytest.skip(reason)


@pytest.fixture(scope="session")
def slurm(slurm_machine, request):
    """A real Slurm on this machine. One that runs already is used, and left running.

    Its processes come first, as these tests take the longest. If other sites are tested too, they
    are visited meanwhile.
    """
    was_up = cluster("status").returncode == 0
    with priority(-5):
        done = cluster("up", *(["--user", ordinary_user().pw_name] if ordinary_user() else []))
        assert done.returncode == 0, done.stdout + done.stderr
        if any(item.path.stem == "test_sites" for item in request.session.items):
            request.getfixturevalue("visits")
        yield
    if not was_up:
        assert cluster("down").returncode == 0


@contextmanager
def priority(nice: int):
    """Raise the priority of this process and of what it starts, until the end of the block."""
    before = os.getpriority(os.PRIO_PROCESS, 0)
    with suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, nice)
    try:
        yield
    finally:
        os.setpriority(os.PRIO_PROCESS, 0, before)


@pytest.fixture(scope="session")
def visits(slurm_machine):
    """What users type on other sites, each with a cluster of its own: `site_visits.visits`.

    None where there can be no such clusters.
    """
    from site_visits import visits

    apart = ["unshare", "--net", "--mount", "--pid", "--fork", "true"]
    possible = subprocess.run(apart, check=False).returncode == 0
    with visits() if possible else nullcontext() as visited:
        yield visited


@pytest.fixture(scope="session")
def accounting(slurm):
    """The cluster's accounting, which that of one release of Debian does without, and says why."""
    if NO_ACCOUNTING.exists():
        pytest.skip(NO_ACCOUNTING.read_text())


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory):
    """Return a function that gives the bytes of the Slurm tests' networks, by their epochs."""
    from slurm_project import NETWORK, SlurmProject

    project = SlurmProject(tmp_path_factory.mktemp("undisturbed") / "project")
    at_once = NETWORK.replace("Slow", "Slow, pause: 0")
    lengths = {2: "brief", 12: "short", 50: "long"}
    lines = [f"{name}: {{{at_once}, epochs: {epochs}}}" for epochs, name in lengths.items()]
    lengths[3] = "large"
    lines.append(f"large: {{{NETWORK.replace('Slow', 'CNN')}, epochs: 3}}")
    project.configure("\n".join(lines))
    with ThreadPoolExecutor(1) as pool:
        # Beside the tests that will ask for it: they wait for Slurm most of the time.
        run = pool.submit(project.snakemake, config="slurm.yaml")
        yield lambda epochs: run.result() and project.outcome(lengths[epochs])


@pytest.fixture(scope="session")
def stage(request, slurm, undisturbed, tmp_path_factory):
    """Return a function that waits for a scene: it gives its project, and what it returned.

    The scenes of all modules are started together: none disturbs another, and each waits most of
    its time. A module whose scenes would disturb others has a stage of its own.
    """
    from slurm_project import staged

    items = [item for item in request.session.items if not hasattr(item.module, "stage")]
    with staged(named_scenes(items), tmp_path_factory) as found:
        yield found


def named_scenes(items) -> list:
    """Return the scenes that tests name with the mark `scenes`, each once."""
    possible = [
        item
        for item in items
        if "accounting" not in item.fixturenames or not NO_ACCOUNTING.exists()
    ]
    marks = [mark for item in possible for mark in item.iter_markers("scenes")]
    return list(dict.fromkeys(scene for mark in marks for scene in mark.args))


@pytest.fixture(scope="session")
def finished_search(tmp_path_factory, worker_id) -> Project:
    """A finished run of the study `SEARCH`, in search.yaml. Only for looking at."""

    def search(project):
        copy_data(project)
        (project.folder / "search.yaml").write_text(SEARCH)
        return project.snakemake(config="search.yaml").stdout

    return shared(tmp_path_factory, worker_id, "searched", search)


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """Put shell scripts on the PATH, before the system's programs or alone; each logs its call.

    Calling the fixture returns what was called.
    """
    folder, log = tmp_path / "bin", tmp_path / "calls"
    folder.mkdir()
    log.touch()

    def put(path: bool = True, **scripts):
        for name, script in scripts.items():
            (folder / name).write_text(f'#!/bin/sh\necho "{name} $*" >> {log}\n{script}\n')
            (folder / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin" if path else str(folder))
        return lambda: log.read_text().splitlines()

    return put
