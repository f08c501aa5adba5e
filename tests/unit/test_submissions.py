"""What is read out of Slurm's words."""

import dataclasses
import json
from types import SimpleNamespace

import pytest

from lib.cluster import slurm, submissions
from lib.cluster.job_end import Cause, End, JobReport
from lib.cluster.submissions import Job
from lib.core.layout import Layout

KILLED = Job(
    job_id="7",
    rule="train",
    experiment="cnn",
    seed=1,
    state="FAILED",
    exit_code="1:0",
    partition="cpu",
    node="n1",
    submit="2026-01-31T23:59:50",
    start="2026-02-01T00:00:20",
    elapsed_seconds=100,
    limit_minutes=15,
    cpus=2,
    cpus_allocated=2,
    mem_asked_mb=800.0,
    mem_used_mb=801.5,
    cpu_seconds=50.0,
    reason="None",
)


@pytest.mark.parametrize(
    ("text", "megabytes"),
    [("3072M", 3072), ("1.5G", 1536), ("512K", 0.5), ("2Gn", 2048), ("1000Mc", 1000), ("", None)],
)
def test_memory(text, megabytes):
    assert submissions._megabytes(text) == megabytes


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("00:05:00", 300), ("1-02:03:04", 93784), ("04:05.678", 245.678), ("UNLIMITED", 0), ("", 0)],
)
def test_time(text, seconds):
    assert submissions.slurm_seconds(text) == pytest.approx(seconds)


def test_submissions_are_remembered_by_experiment_and_seed(tmp_path):
    files = Layout(tmp_path)
    for number, wildcards in enumerate([{"experiment": "my,mlp", "seed": "12"}, {}]):
        job = SimpleNamespace(name="train", wildcards=wildcards)
        submissions.record(files, str(7 + number), "a-run", job)
    rows = submissions._submissions(files)
    assert list(rows) == ["7", "8"]
    assert (rows["7"][0]["experiment"], rows["7"][0]["seed"]) == ("my,mlp", "12")
    assert rows["8"][0]["slurm_job_name"] == "a-run"


def test_the_runs_of_a_pack_are_jobs_with_the_same_number(tmp_path, programs):
    files = Layout(tmp_path)
    for seed in "12":
        job = SimpleNamespace(name="train", wildcards={"experiment": "cnn", "seed": seed})
        submissions.record(files, "7", "a-run", job)
    programs(
        sacct="echo '7|COMPLETED|0:0|cpu|n1|2026-01-01T00:00:00|2026-01-01T00:00:10|60|30|2|2|"
        "2000M|00:50||None'",
        squeue="",
    )
    found = submissions.jobs(files)
    assert [(job.experiment, job.seed, job.job_id, job.runs) for job in found] == [
        ("cnn", 1, "7", 2),
        ("cnn", 2, "7", 2),
    ]


def test_a_row_that_is_cut_off_is_left_out(tmp_path):
    files = Layout(tmp_path)
    for number in ("7", "8"):
        job = SimpleNamespace(name="train", wildcards={"experiment": "cnn", "seed": "1"})
        submissions.record(files, number, "a-run", job)
    files.submissions.write_text(files.submissions.read_text()[:-12])
    assert list(submissions._submissions(files)) == ["7"]


def test_a_study_without_submissions_asks_slurm_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert submissions.jobs(Layout(tmp_path)) == []


def test_what_slurm_says_alone(tmp_path):
    assert KILLED.cause is Cause.UNKNOWN
    assert "its log says why" in KILLED.what
    for state, words in {
        "OUT_OF_MEMORY": "it was killed for using more memory than it asked for",
        "CANCELLED": "it was canceled (scancel, or Ctrl-C in Snakemake)",
    }.items():
        assert dataclasses.replace(KILLED, state=state).what == words
    log = tmp_path / "7.log"  # Slurm cancels what has no time left
    log.write_text("slurmstepd: error: *** JOB 7 ON n1 CANCELLED AT T DUE TO TIME LIMIT ***")
    canceled = dataclasses.replace(KILLED, state="CANCELLED", end=End("CANCELLED", log, log))
    assert canceled.what == "it reached its time limit"
    log.write_text("slurmstepd: error: *** JOB 7 ON n1 CANCELLED AT T DUE TO PREEMPTION ***")
    forgotten = dataclasses.replace(
        KILLED, state=submissions.UNKNOWN, end=End("", log, log, status=143)
    )
    assert forgotten.what == "it was preempted or canceled, or its node failed"


def test_what_a_job_has_reported_says_why_it_has_ended(tmp_path, programs):
    """As the executor saw it, also where Slurm has forgotten the job, or says only FAILED."""
    files = Layout(tmp_path)
    ends = {"7": (143, Cause.TIME), "8": (1, Cause.DETERMINISTIC), "9": (69, Cause.NODE)}
    for seed, (job_id, (status, cause)) in enumerate(ends.items()):
        job = SimpleNamespace(name="train", wildcards={"experiment": "cnn", "seed": str(seed)})
        submissions.record(files, job_id, "a-run", job)
        runs = {f"cnn/seed{seed}": {"train": {"status": status, "cause": cause.name}}}
        report = JobReport(job_id, 0, "cpu1", "", "", runs)
        path = files.slurm_logs / "rule_train" / f"{job_id}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(dataclasses.asdict(report)))
        path.with_suffix(".log").touch()
    row = "FAILED|1:0|cpu|n1|2026-01-01T00:00:00|2026-01-01T00:00:10|60|30|2|2|2000M|00:50||None"
    programs(sacct=f"echo '7|{row}'; echo '8|{row}'", squeue="")
    found = submissions.jobs(files)
    assert [job.cause for job in found] == [cause for _, cause in ends.values()]
    assert [job.state for job in found] == ["FAILED", "FAILED", submissions.UNKNOWN]
    assert found[0].what == "it reached its time limit"


def test_a_training_whose_evaluation_failed_in_the_same_job_has_succeeded(tmp_path, programs):
    files = Layout(tmp_path)
    job = SimpleNamespace(name="train", wildcards={"experiment": "cnn", "seed": "1"})
    submissions.record(files, "7", "a-run", job)
    ends = {"train": {"status": 0, "cause": None}, "evaluate": {"status": 1, "cause": "UNKNOWN"}}
    report = JobReport("7", 0, "cpu1", "", "", {"cnn/seed1": ends})
    (files.slurm_logs / "7.json").write_text(json.dumps(dataclasses.asdict(report)))
    (files.slurm_logs / "7.log").touch()
    programs(sacct="", squeue="")
    (found,) = submissions.jobs(files)
    assert (found.what, found.cause) == ("it succeeded", None)


@pytest.mark.parametrize(("state", "cause"), [("FAILED", Cause.NODE), ("", None)])
def test_a_job_that_has_failed_without_a_report_could_not_begin(tmp_path, programs, state, cause):
    """As the executor says. Of one that is forgotten, nothing is known."""
    files = Layout(tmp_path)
    job = SimpleNamespace(name="train", wildcards={"experiment": "cnn", "seed": "1"})
    submissions.record(files, "7", "a-run", job)
    (files.slurm_logs / "7.log").write_text("couldn't chdir to the folder")
    row = f"7|{state}|1:0|cpu|n1|2026-01-01T00:00:00|2026-01-01T00:00:10|60|30|2|2|2000M|00:50||"
    programs(sacct=f"echo '{row if state else ''}'", squeue="")
    assert [job.cause for job in submissions.jobs(files)] == [cause]


def test_efficiency_and_wait():
    assert KILLED.cpu_efficiency == 0.25
    assert KILLED.queue_seconds == 30
    assert dataclasses.replace(KILLED, start="Unknown").queue_seconds is None
    assert dataclasses.replace(KILLED, elapsed_seconds=0).cpu_efficiency is None
    assert dataclasses.replace(KILLED, cpus_allocated=8).cpu_efficiency == 0.0625


GARBAGE = {
    "binary": b"\xff\xfe\x00\n",
    "nul": b"7,train,cnn,1,2026-01-31T00:00:00,a\0run\n",
    "no date": b"7,train,cnn,1,yesterday,a-run\n",
    "early date": b"7,train,cnn,1,0001-01-01,a-run\n",
    "zone": b"7,train,cnn,1,2026-01-31T00:00:00+01:00,a-run\n",
    "no seed": b"7,train,cnn,x,2026-01-31T00:00:00,a-run\n",
    "no number": b"x;y,train,cnn,1,2026-01-31T00:00:00,a-run\n",
    "more": b"7,train,cnn,1,2026-01-31T00:00:00,a-run,and,more\n",
    "long": b"7," + b"x" * 200_000 + b"\n",
    "quote": b'7,"train\n',
}


@pytest.mark.parametrize("line", GARBAGE.values(), ids=GARBAGE)
@pytest.mark.parametrize("first", [True, False])
def test_a_row_that_is_none_is_left_out(tmp_path, line, first):
    files = Layout(tmp_path)
    job = SimpleNamespace(name="train", wildcards={"experiment": "cnn", "seed": "1"})
    submissions.record(files, "8", "a-run", job)
    good = files.submissions.read_bytes()
    files.submissions.write_bytes(line + good if first else good + line)
    assert list(submissions._submissions(files)) == ["8"]
    submissions.jobs(files)


# Printed by Slurm 22.05 on a cluster that gives whole nodes, whatever is asked for.
WHOLE_NODES = """\
1|COMPLETED|0:0|compute|cpu1|2026-11-26T00:44:44|2026-11-26T00:44:45|1|15|1|8|12288M|00:00.505||None
1.batch|COMPLETED|0:0||cpu1|2026-11-26T00:44:45|2026-11-26T00:44:45|1||8|8||00:00.505|125.82M|
2|RUNNING|0:0|compute|cpu2|2026-11-26T00:44:44|2026-11-26T00:44:45|12|15|1|8|12288M|00:00:00||None
2.batch|RUNNING|0:0||cpu2|2026-11-26T00:44:45|2026-11-26T00:44:45|12||8|8||00:00:00||
"""
WHOLE_NODES_QUEUE = """\
1|COMPLETED|compute|cpu1|2026-11-26T00:44:44|2026-11-26T00:44:45|0:01|15:00|1|8|0|None
2|RUNNING|compute|cpu2|2026-11-26T00:44:44|2026-11-26T00:44:45|0:12|15:00|1|8|0|None
"""
PENDING = "2|PENDING|cpu||2026-11-26T00:43:29|N/A|0:00|15:00|1|1|3G|JobHeldUser\n"
SUBMITTED = {
    number: [{"slurm_job_id": number, "rule": "train", "experiment": "cnn", "seed": "1"}]
    for number in ("1", "2")
}


def test_whole_nodes():
    """The cores that were allocated were paid for, not those that were asked for."""
    done, running = submissions._from_sacct(WHOLE_NODES, SUBMITTED).values()
    assert (done.cpus, done.cpus_allocated, done.mem_used_mb) == (1, 8, 125.82)
    assert done.cpu_efficiency == pytest.approx(0.505 / 8)
    assert (running.cpus_allocated, running.cpu_efficiency) == (8, None)
    queue = submissions._from_squeue(WHOLE_NODES_QUEUE, SUBMITTED)
    assert (queue["2"].cpus, queue["2"].cpus_allocated, queue["2"].mem_asked_mb) == (1, 8, None)
    assert (queue["2"].elapsed_seconds, queue["2"].limit_minutes) == (12, 15)


def test_a_job_that_waits_has_no_cores_and_no_start():
    waiting = submissions._from_squeue(PENDING, SUBMITTED)["2"]
    assert (waiting.cpus, waiting.cpus_allocated, waiting.queue_seconds) == (1, None, None)
    assert waiting.what == "it is pending (JobHeldUser)"
    assert waiting.cause is None


def test_slurm_before_21_08_asks_for_memory_per_node_or_core():
    row = "1|FAILED|1:0|cpu|n1|t|t|5|15|4|4|{}|0|1|None\n"
    for text, megabytes in (("1000Mc", 4000), ("1000Mn", 1000), ("0n", None), ("16?", None)):
        (job,) = submissions._from_sacct(row.format(text), SUBMITTED).values()
        assert job.mem_asked_mb == megabytes


def test_a_line_of_slurm_that_is_no_row_is_left_out():
    text = f"sacct: warning\n\n||||\n{'|' * 14}\n{WHOLE_NODES}"
    assert submissions._from_sacct(text, SUBMITTED) == submissions._from_sacct(
        WHOLE_NODES, SUBMITTED
    )


def test_the_environment_of_slurms_commands(monkeypatch):
    """What chooses the cluster stays; what changes the output does not."""
    monkeypatch.setenv("SLURM_CONF", "/etc/slurm/other.conf")
    monkeypatch.setenv("SLURM_TIME_FORMAT", "relative")
    monkeypatch.setenv("SQUEUE_PARTITION", "gpu")
    monkeypatch.setenv("SBATCH_ACCOUNT", "mine")
    found = slurm.environment()
    assert (found["SLURM_CONF"], found["SBATCH_ACCOUNT"]) == ("/etc/slurm/other.conf", "mine")
    assert found["SLURM_TIME_FORMAT"] == "standard"
    assert "SQUEUE_PARTITION" not in found
