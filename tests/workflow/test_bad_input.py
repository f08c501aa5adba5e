"""Bad input ends the workflow with one clear message before anything runs, and nothing is lost."""

import pytest
from conftest import cases

HEAD = "dataset: MNIST-small\ndatasets_file: tests/data/datasets.yaml\n"

WRONG = {
    "misspelled key": ("trainng: {}", "unknown key 'trainng'; did you mean 'training'?"),
    "duplicate key": ("seeds: [1]\nseeds: [2]", "duplicate key"),
    "negative epochs": ("training: {epochs: -1}", "training.epochs: -1 is less than"),
    "a path as a name": ("experiments: {../x: {model: {name: MLP}}}", "'../x' is not valid"),
    "a command as a seed": ("seeds: [$(reboot)]", "seeds.0"),
    "no such model": ("experiments: {x: {model: {name: VGG}}}", "no 'VGG' in scripts/models"),
    "no such data set": ("dataset: ImageNet", "'ImageNet' is not an entry of"),
    "loss and output": (
        "training: {loss: binary_cross_entropy}",
        "loss binary_cross_entropy does not fit the model's output log_softmax",
    ),
}


@pytest.mark.parametrize(("text", "message"), cases(WRONG, "misspelled key", "no such model"))
def test_a_wrong_config(project, text, message):
    head = "" if text.startswith("dataset") else HEAD
    (project.folder / "wrong.yaml").write_text(head + text)
    done = project.snakemake(config="wrong.yaml", check=False)
    assert done.returncode == 1
    assert message in done.stdout
    assert "wrong.yaml" in done.stdout or text.startswith("dataset")
    assert "config/README.md" in done.stdout
    for words in ("Traceback", "WorkflowError", 'File "'):  # the message alone
        assert words not in done.stdout
    assert len(done.stdout.splitlines()) < 6
    assert not project.results.exists()


def test_a_wrong_key_on_the_command_line(project):
    done = project.snakemake("--config", "epochs=1", check=False)
    assert done.returncode == 1
    assert "--config: unknown key 'epochs'" in done.stdout


@pytest.mark.extended
def test_a_failed_rerun_loses_no_other_run(finished):
    """Of a run that fails when it is done again, the others keep every byte."""
    kept = {path: path.read_bytes() for path in finished.run_folder("cnn").iterdir()}
    finished.edit("tests/data/config.yaml", "{name: MLP},", "{name: MLP}, device: cuda,")
    done = finished.snakemake(
        check=False, env={"PATH": "/usr/bin:/bin", "CUDA_VISIBLE_DEVICES": ""}
    )
    assert done.returncode == 1
    assert "device cuda: torch sees no GPU here" in done.stdout
    assert "mlp, seed 1: train is not done" in done.stdout
    assert {path: path.read_bytes() for path in finished.run_folder("cnn").iterdir()} == kept


@pytest.mark.extended
def test_damaged_data_is_fixed_by_the_next_run(finished):
    raw = finished.results / "data" / "MNIST-small" / "raw" / "t10k-labels-idx1-ubyte"
    raw.write_bytes(raw.read_bytes()[:-5])
    prepare = ("--forcerun", "prepare", "--until", "prepare")
    done = finished.snakemake(*prepare, check=False)
    assert done.returncode == 1
    listing = "results/small/data/MNIST-small.json"
    assert f"has changed since it was downloaded; remove {listing} and run again" in done.stdout
    (finished.folder / listing).unlink()
    finished.snakemake(*prepare)
    assert raw.stat().st_size == 1008


@pytest.mark.extended
def test_data_that_is_nowhere(project):
    """The download's output goes through a pipe, which must not hide that it failed."""
    project.edit("tests/data/config.yaml", "mirrors: [tests/data]", "mirrors: [/nowhere]")
    done = project.snakemake(check=False)
    assert done.returncode == 1
    assert "error: cannot get train-images-idx3-ubyte. Tried:" in done.stdout
    assert 'mirrors: ["/path/to/the/folder"]' in done.stdout
    log = project.results / "logs" / "download-MNIST-small.log"
    assert "no such folder" in log.read_text()
