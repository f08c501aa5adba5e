"""What needs a GPU: the same bits each time, with and without a CUDA graph, and clear ends.

It needs neither Slurm nor a network: `make test-gpu`, or `pytest tests/gpu` with the packages of
`requirements-dev.txt` but Snakemake.
"""

import csv
import json
import os
import re
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from conftest import ROOT, run_job
from own_models import net
from safetensors.torch import load_file

from lib.core.plain import PLAIN

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU here")

NO_GPU = {"CUDA_VISIBLE_DEVICES": ""}
SEEDS = range(1, 6)
ON_CPU = ("--set", "device=cpu")
RECIPES = {
    "MLP": ["model.name=MLP"],
    "CNN": ["model.name=CNN"],
    "MLP, shuffled": ["model.name=MLP", "shuffle=true"],
    "CNN, Adam": ["model.name=CNN", "shuffle=true", "optimizer={name: Adam, lr: 0.001}"],
    "CNN, SGD": [
        "model.name=CNN", "shuffle=true", "optimizer={name: SGD, lr: 0.05, momentum: 0.9}",
    ],
    "MLP, Adagrad": ["model.name=MLP", "optimizer={name: Adagrad, lr: 0.02}"],
    "MLP, bf16": ["model.name=MLP", "precision=bf16"],
    "CNN, bf16": ["model.name=CNN", "precision=bf16"],
}  # fmt: skip
RECIPES = {name: ("--set", *words) for name, words in RECIPES.items()}
RESUMED = ["MLP, shuffled", "CNN", "CNN, Adam", "CNN, SGD", "CNN, bf16"]
MOVED = ["CNN", "CNN, Adam", "CNN, SGD"]
CAPTURED = [name for name in RECIPES if "Adagrad" not in name]


def start(data, output, *options, root=ROOT, **environment) -> subprocess.Popen:
    """Start a training on the GPU."""
    command = [sys.executable, "scripts/train.py", "--data", data, "--output", output]
    command += ["--set", "device=cuda", *options]
    return subprocess.Popen(
        [str(word) for word in command],
        cwd=root,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    )


def run(data, output, *options, status=0, **keywords) -> str:
    """Train; return what is printed, errors first."""
    process = start(data, output, *options, **keywords)
    printed, errors = process.communicate(timeout=300)
    assert process.returncode == status, errors + printed
    assert "Traceback" not in errors, errors
    return errors + printed


def interrupted(data, output, moment, *options, **keywords) -> None:
    """Train until a line of the log has a text, then ask the process to stop."""
    process = start(data, output, "--log-interval", 1, *options, **keywords)
    for line in process.stdout:
        if moment in line:
            process.send_signal(signal.SIGTERM)
            break
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 128 + signal.SIGTERM, errors
    assert "the checkpoint is saved" in errors


def record(folder) -> dict:
    return json.loads((folder / "run.json").read_text())


def results(folder) -> tuple[bytes, list[dict]]:
    """Return what two equal trainings have in common: the weights' bytes, the history's numbers."""
    with (folder / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        del row["train_seconds"], row["eval_seconds"]
    return (folder / "model.safetensors").read_bytes(), rows


def accuracy(folder) -> float:
    return float(results(folder)[1][-1]["accuracy"])


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """The small data set, prepared."""
    folder = tmp_path_factory.mktemp("data")
    listing, prepared = folder / "files.json", folder / "MNIST-small.safetensors"
    dataset = ("--dataset", "MNIST-small", "--datasets-file", "tests/data/datasets.yaml")
    for command in (
        ("scripts/download.py", "--data-dir", folder, "--mirrors", "tests/data",
         "--output", listing),
        ("scripts/prepare.py", "--files", listing, "--output", prepared),
    ):  # fmt: skip
        subprocess.run([sys.executable, *command, *dataset], cwd=ROOT, check=True)
    return prepared


def resumed(data, output, *options) -> None:
    """Train with two interruptions in the middle of an epoch."""
    interrupted(data, output, "Train Epoch: 1 [640/", *options)
    interrupted(data, output, "Train Epoch: 2 [1280/", *options)
    run(data, output, *options)


def moved(data, output, *options) -> None:
    """Begin on the GPU, go on on the CPU, and end on the GPU."""
    options = (*options, "--set", "device=auto")
    interrupted(data, output, "Train Epoch: 1 [640/", *options)
    interrupted(data, output, "Train Epoch: 2 [640/", *options, **NO_GPU)
    assert "resuming at epoch 2" in run(data, output, *options)


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """Trainings by name, several at once on the one GPU."""
    root = tmp_path_factory.mktemp("trained")
    wanted = {}
    for name, options in RECIPES.items():
        wanted[name] = wanted[f"{name}, again"] = run, options, {}
        wanted[f"{name}, no graph"] = run, options, {PLAIN: "1"}
    for network in ("MLP", "CNN"):
        for seed in SEEDS:
            options = (*RECIPES[network], f"seed={seed}")
            wanted[f"{network}, GPU, {seed}"] = run, options, {}
            wanted[f"{network}, CPU, {seed}"] = run, (*options, *ON_CPU), {}
    wanted |= {f"{name}, resumed": (resumed, RECIPES[name], {}) for name in RESUMED}
    wanted |= {f"{name}, moved": (moved, RECIPES[name], {}) for name in MOVED}
    with ThreadPoolExecutor(min(12, os.cpu_count())) as pool:
        runs = {
            name: pool.submit(function, data, root / name, *options, **environment)
            for name, (function, options, environment) in wanted.items()
        }

        def finished(name: str) -> Path:
            runs[name].result()
            return root / name

        yield finished


@pytest.mark.parametrize("recipe", RECIPES)
def test_two_runs_are_equal(trained, recipe):
    assert results(trained(recipe)) == results(trained(f"{recipe}, again"))
    assert accuracy(trained(recipe)) > 0.7


@pytest.mark.parametrize("recipe", CAPTURED)
def test_a_graph_changes_no_bit(trained, recipe):
    captured, plain = trained(recipe), trained(f"{recipe}, no graph")
    assert (record(captured)["cuda_graph"], record(plain)["cuda_graph"]) == (True, False)
    assert results(captured) == results(plain)


def test_an_optimizer_that_counts_in_python_is_not_captured(trained):
    assert record(trained("MLP, Adagrad"))["cuda_graph"] is False


def test_the_record_says_on_which_gpu_and_how(trained):
    found = record(trained("CNN"))
    assert found["device"] == found["device_asked"] == "cuda"
    assert found["gpu"] == torch.cuda.get_device_name()
    assert found["cuda_version"] == torch.version.cuda
    assert (found["tf32"], found["deterministic"]) == (False, True)
    assert 10 < found["gpu_peak_memory_mb"] < 2000
    assert found["images_per_second"] > 0
    on_cpu = record(trained("CNN, CPU, 1"))
    assert (on_cpu["gpu"], on_cpu["cuda_graph"], on_cpu["gpu_peak_memory_mb"]) == (None,) * 3


@pytest.mark.parametrize("network", ["MLP", "CNN"])
def test_accuracies_are_those_of_the_cpu(trained, network):
    """Within what chance makes of the mean of so many seeds, three standard errors of it."""
    on_cpu, on_gpu = (
        [accuracy(trained(f"{network}, {device}, {seed}")) for seed in SEEDS]
        for device in ("CPU", "GPU")
    )
    error = statistics.stdev(on_cpu) * (2 / len(SEEDS)) ** 0.5
    difference = statistics.mean(on_gpu) - statistics.mean(on_cpu)
    print(f"{network}: CPU {on_cpu}, GPU {on_gpu}")
    assert abs(difference) <= 3 * error


@pytest.mark.parametrize("network", ["MLP", "CNN"])
def test_bf16_changes_the_numbers_but_not_the_weights_type(trained, network):
    fp32, bf16 = trained(network), trained(f"{network}, bf16")
    assert results(fp32)[0] != results(bf16)[0]
    for tensor in load_file(bf16 / "model.safetensors").values():
        assert tensor.dtype == torch.float32
    assert accuracy(bf16) == pytest.approx(accuracy(fp32), abs=0.05)


def test_a_run_of_the_gpu_is_evaluated_on_the_cpu(trained, data, tmp_path):
    folder = shutil.copytree(trained("CNN"), tmp_path / "run")
    command = [sys.executable, "scripts/evaluate.py", "--run", folder, "--data", data]
    subprocess.run(command, cwd=ROOT, check=True, env=os.environ | NO_GPU)
    rows = list(csv.DictReader((folder / "accuracy.csv").read_text().splitlines()))
    assert float(rows[-1]["accuracy"]) == pytest.approx(accuracy(folder), abs=0.002)


@pytest.mark.parametrize("recipe", RESUMED)
def test_a_training_that_resumes_has_the_same_bits(trained, recipe):
    folder = trained(f"{recipe}, resumed")
    assert record(folder)["resumes"] == 2
    assert results(folder) == results(trained(recipe))


@pytest.mark.parametrize("recipe", MOVED)
def test_a_checkpoint_moves_from_the_gpu_to_the_cpu_and_back(trained, recipe):
    found = record(trained(f"{recipe}, moved"))
    assert (found["device"], found["device_asked"], found["resumes"]) == ("cuda", "auto", 2)
    assert accuracy(trained(f"{recipe}, moved")) == pytest.approx(
        accuracy(trained(recipe)), abs=0.05
    )


def test_auto_falls_back_to_the_cpu_and_cuda_does_not(data, tmp_path):
    options = ("--set", "model.name=MLP", "epochs=1")
    run(data, tmp_path / "auto", *options, "device=auto", **NO_GPU)
    assert record(tmp_path / "auto")["device"] == "cpu"
    printed = run(data, tmp_path / "cuda", *options, status=1, **NO_GPU)
    assert "device cuda: torch sees no GPU here" in printed


@pytest.mark.parametrize("network", ["MLP", "CNN"])
def test_a_training_that_diverges_says_where(data, tmp_path, network):
    options = ("--set", f"model.name={network}", "optimizer={name: SGD, lr: 1e30}")
    printed = run(data, tmp_path, *options, status=1)
    assert "at epoch 1, step " in printed
    assert "training has diverged; a smaller learning rate" in printed
    assert "(known from" in run(data, tmp_path, *options, status=1)


def memory(mib: int) -> dict[str, str]:
    """Return the environment in which torch takes no more than that of the GPU's memory."""
    share = mib * 2**20 / torch.cuda.get_device_properties(0).total_memory
    return {"PYTORCH_CUDA_ALLOC_CONF": f"per_process_memory_fraction:{share:.6f}"}


def test_too_little_memory_says_what_there_is_and_what_to_lower(data, tmp_path):
    options = ("--set", "model.name=CNN", "epochs=1")
    printed = run(data, tmp_path, *options, "batch_size=2000", status=1, **memory(700))
    total = torch.cuda.get_device_properties(0).total_memory / 2**30
    has = f"{torch.cuda.get_device_name()} has {total:.1f} GiB of memory, "
    assert f"the GPU's memory is too small for this training: {has}" in printed
    assert float(re.search(r"had allocated (\S+) GiB at most", printed)[1]) < 0.7
    assert "Lower batch_size, make the model smaller, or ask for another GPU" in printed
    run(data, tmp_path, *options, "batch_size=500", **memory(700))
    assert record(tmp_path)["cuda_graph"] is False  # which would need as much again


def test_a_model_too_large_for_the_gpu_says_so(data, tmp_path):
    options = ("--set", "model.name=MLP", "model.hidden=400000")
    printed = run(data, tmp_path, *options, status=1, **memory(500))
    assert "the GPU's memory is too small for this training" in printed
    assert "make the model smaller, or ask for another GPU" in printed


def pack(runs: dict[str, str], at_once: int) -> str:
    """Run the commands of runs in one job, which share the GPU; return what it prints."""
    done = run_job(runs, "--at-once", at_once, "--share-gpu")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_runs_that_share_the_gpu_in_one_job_have_the_same_bits(trained, data, tmp_path):
    names = ("MLP", "CNN", "MLP, shuffled", "CNN, Adam")
    runs = {
        name: shlex.join(
            ["python", "scripts/train.py", "--data", str(data), "--output", str(tmp_path / name),
             *RECIPES[name], "device=cuda"]
        )
        for name in names
    }  # fmt: skip
    printed = pack(runs, at_once=4)
    assert printed.endswith("4 of 4 runs are done\n")
    assert re.match("the runs (use the GPU at the same time|take turns on the GPU)", printed)
    for name in names:
        assert results(tmp_path / name) == results(trained(name))


def test_a_run_that_finds_no_room_beside_others_is_tried_again_alone(data, tmp_path):
    taken = tmp_path / "taken"
    hold = (
        "import pathlib, time, torch; "
        "hold = torch.empty(torch.cuda.mem_get_info()[0] - 1200 * 2**20, dtype=torch.uint8, "
        f"device='cuda'); pathlib.Path({str(taken)!r}).touch(); time.sleep(30)"
    )
    train = ["python", "scripts/train.py", "--data", str(data), "--output", str(tmp_path / "run")]
    train += ["--set", "device=cuda", "model.name=MLP", "model.hidden=200000", "epochs=1"]
    wait = f"until [ -e {shlex.quote(str(taken))} ]; do sleep 0.2; done; "
    log = tmp_path / "log"
    runs = {
        "other": shlex.join([sys.executable, "-c", hold]),
        "run": f"{wait} {shlex.join(train)} 2>> {shlex.quote(str(log))}",
    }
    printed = pack(runs, at_once=2)
    assert "run: exit status 75: run.log, tried again when the others have ended" in printed
    assert "no memory left for this training beside the other processes on it" in log.read_text()
    assert printed.endswith("2 of 2 runs are done\n")


def own(folder: Path, source: str) -> Path:
    """Return a copy of the scripts with a model `Net`."""
    shutil.copytree(ROOT / "scripts", folder / "scripts")
    (folder / "scripts" / "models" / "net.py").write_text(source)
    return folder


def test_a_model_that_does_not_declare_it_is_not_captured(data, tmp_path):
    root = own(tmp_path, net(forward="x = x if x.sum().item() else x"))
    run(data, tmp_path / "run", "--set", "model.name=Net", "loss=cross_entropy", root=root)
    assert record(tmp_path / "run")["cuda_graph"] is False


def test_a_model_that_declares_it_wrongly_is_named(data, tmp_path):
    broken = net(forward="x = x if x.sum().item() else x", more="cuda_graph = True")
    root = own(tmp_path, broken)
    options = ("--set", "model.name=Net", "loss=cross_entropy")
    printed = run(data, tmp_path / "run", *options, root=root, status=1)
    assert "net.py, line " in printed
    assert "Remove `cuda_graph = True` from its class if it has to" in printed
