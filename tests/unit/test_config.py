"""What a config may say, and what is said of one that is wrong."""

from dataclasses import replace

import pytest
from conftest import ROOT, SEARCH
from own_models import net, own_model

from lib.core import strict_yaml
from lib.core.errors import UserError
from lib.core.settings import SCHEMAS
from lib.study import stored
from lib.study.config import read_study
from models.layers import ACTIVATIONS, OUTPUTS

DATASETS = "datasets_file: tests/data/datasets.yaml\ndataset: MNIST-small\n"


@pytest.fixture(autouse=True)
def in_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture
def study(tmp_path):
    def read(text, command_line=None):
        path = tmp_path / "config.yaml"
        path.write_text(text)
        return read_study([path], command_line or {})

    return read


@pytest.fixture
def complaint(study):
    def read(text, command_line=None):
        with pytest.raises(UserError) as failure:
            study(text, command_line)
        return str(failure.value)

    return read


def test_the_default_config_is_what_the_schema_says(study):
    assert read_study([], {}) == study("")


def test_defaults_are_the_lesson(study):
    lesson = study("")
    assert lesson.runs == [("mlp", 1), ("cnn", 1)]
    mlp, cnn = lesson.experiments.values()
    assert (mlp.runtime, cnn.runtime) == (5, 15)
    assert (mlp.cpus, mlp.mem_mb, mlp.recipe.device) == (1, 3072, "cpu")
    expected = {
        "model": {"name": "CNN"},
        "seed": 1,
        "device": "cpu",
        "epochs": 3,
        "batch_size": 64,
        "evaluation_batch_size": 1000,
        "shuffle": False,
        "optimizer": {"name": "Adadelta", "lr": 1.0},
        "scheduler": {"name": "StepLR", "step_size": 1, "gamma": 0.7},
        "loss": "nll_loss",
        "validation_size": 0,
        "precision": "fp32",
    }
    found = cnn.settings(1).as_dict()
    assert {key: found[key] for key in expected} == expected


def test_a_file_stands_alone(study):
    only = study("experiments: {wide: {model: {name: MLP, hidden: 256}}}")
    assert list(only.experiments) == ["wide"]


def test_an_experiment_overrides_training_and_seeds(study):
    both = study(
        """
        seeds: [3, 1]
        training: {epochs: 2, batch_size: 32}
        experiments:
          a: {model: {name: MLP}, epochs: 5, seeds: [7]}
          b: {model: {name: MLP}}
        """
    )
    a, b = both.experiments.values()
    assert (a.recipe.epochs, a.recipe.batch_size) == (5, 32)
    assert (b.recipe.epochs, b.recipe.batch_size) == (2, 32)
    assert both.runs == [("a", 7), ("b", 1), ("b", 3)]


def test_an_optimizer_replaces_the_whole_mapping(study):
    text = """
        training: {optimizer: {name: Adadelta, lr: 1.0, rho: 0.8}}
        experiments: {a: {model: {name: MLP}, optimizer: {name: SGD, lr: 1e-3}}}
    """
    assert study(text).experiments["a"].recipe.optimizer == {"name": "SGD", "lr": 0.001}
    override = {"training": {"optimizer": {"name": "Adam"}}}
    assert study("", override).experiments["mlp"].recipe.optimizer == {"name": "Adam"}


def test_null_is_no_scheduler(study):
    experiment = study("training: {scheduler: null}").experiments["mlp"]
    assert experiment.recipe.scheduler is None
    assert "scheduler=null" in experiment.train_options(1)


def test_command_line_values_are_read_as_yaml(study):
    # Snakemake hands nested values over as strings.
    command_line = {"seeds": ["1", "2"], "training": {"epochs": "1", "shuffle": "true"}}
    experiment = study("", command_line).experiments["cnn"]
    assert experiment.seeds == [1, 2]
    assert (experiment.recipe.epochs, experiment.recipe.shuffle) == (1, True)


def test_only_cuda_asks_for_a_gpu(study):
    text = "experiments: {{{}}}".format(
        ", ".join(
            f"{device}: {{model: {{name: MLP}}, device: {device}}}"
            for device in ("cpu", "cuda", "auto")
        )
    )
    requests = list(study(text).experiments.values())
    assert [each.gpus for each in requests] == [0, 1, 0]


def one(line):
    return f"experiments: {{a: {{model: {{name: MLP}}, {line}}}}}"


WRONG = {
    "unknown key": ("trainig: {}", ["'trainig'", "'training'"]),
    "unknown key, nothing near": ("zzz: 1", ["'zzz'", "results_dir", "seeds"]),
    "unknown key in training": ("training: {epoch: 3}", ["'epoch'", "training", "'epochs'"]),
    "unknown key in experiment": (one("mem: 3"), ["'mem'", "experiments.a", "'mem_mb'"]),
    "duplicate key": ("seeds: [1]\nseeds: [2]", ["line 2", "seeds", "duplicate"]),
    "no YAML": ("seeds: [1", ["line", "not valid YAML"]),
    "no mapping": ("- 1", ["mapping"]),
    "wrong type": ("training: {epochs: three}", ["training.epochs", "'three'", "integer"]),
    "a fraction of an epoch": ("training: {epochs: 2.0}", ["training.epochs", "2.0", "integer"]),
    "true is no integer": ("training: {batch_size: true}", ["training.batch_size", "True"]),
    "negative epochs": ("training: {epochs: -1}", ["training.epochs", "-1", "minimum of 1"]),
    "negative seed": ("seeds: [-1]", ["seeds.0", "-1"]),
    "seed twice": ("seeds: [1, 1]", ["seeds", "non-unique"]),
    "seed with a path": ("seeds: ['../1']", ["seeds.0", "'../1'", "integer"]),
    "seed with a shell command": ("seeds: ['1; ls']", ["seeds.0", "integer"]),
    "no seed": ("seeds: []", ["seeds"]),
    "no experiment": ("experiments: {}", ["experiments"]),
    "no model": ("experiments: {a: {}}", ["experiments.a", "'model' is a required property"]),
    "experiment with a path": ("experiments: {a/b: {model: {name: MLP}}}", ["'a/b'", "letters"]),
    "experiment with a space": ("experiments: {a b: {model: {name: MLP}}}", ["'a b'", "letters"]),
    "experiment with a command": ("experiments: {a$(ls): {model: {name: MLP}}}", ["'a$(ls)'"]),
    "experiment named ..": ("experiments: {..: {model: {name: MLP}}}", ["'..'"]),
    "experiment like an option": ("experiments: {-x: {model: {name: MLP}}}", ["'-x'"]),
    "data set with a path": ("dataset: ../../evil", ["dataset", "'../../evil'", "letters"]),
    "braces in a path": ("results_dir: 'a{b}'", ["results_dir", "braces"]),
    "unknown data set": ("dataset: MNST", ["'MNST'", "'MNIST'"]),
    "no such datasets_file": ("datasets_file: nowhere.yaml", ["nowhere.yaml", "No such file"]),
    "unknown model": ("experiments: {a: {model: {name: CNNN}}}", ["'CNNN'", "did you mean 'CNN'"]),
    "unknown model, nothing near": ("experiments: {a: {model: {name: X}}}", ["'X'", "CNN, MLP"]),
    "unknown model argument": (
        "experiments: {a: {model: {name: MLP, hiden: 3}}}",
        ["MLP has no argument 'hiden'", "'hidden'"],
    ),
    "unknown activation": (
        "experiments: {a: {model: {name: MLP, activation: rely}}}",
        ["activation", "'rely'", "'relu'"],
    ),
    "unknown optimizer": ("training: {optimizer: {name: Adm}}", ["'Adm'", "'Adam'"]),
    "unknown optimizer, none near": ("training: {optimizer: {name: X}}", ["Adadelta", "SGD"]),
    "unknown optimizer argument": (
        "training: {optimizer: {name: SGD, momentun: 0.9}}",
        ["SGD has no argument 'momentun'", "'momentum'"],
    ),
    "learning rate is a word": ("training: {optimizer: {name: SGD, lr: big}}", ["lr", "'big'"]),
    "unknown scheduler": ("training: {scheduler: {name: Step}}", ["'Step'", "'StepLR'"]),
    "scheduler lacks an argument": (
        "training: {scheduler: {name: CosineAnnealingLR}}",
        ["CosineAnnealingLR needs T_max"],
    ),
    "scheduler is a word": ("training: {scheduler: StepLR}", ["training.scheduler", "'StepLR'"]),
    "unknown loss": ("training: {loss: nll}", ["'nll'", "nll_loss, cross_entropy"]),
    "loss does not fit": (
        "training: {loss: binary_cross_entropy}",
        ["binary_cross_entropy", "log_softmax", "needs softmax", "model MLP"],
    ),
    "logits do not fit nll_loss": (
        "experiments: {a: {model: {name: CNN, output: logits}}}",
        ["nll_loss", "logits", "cross_entropy"],
    ),
    "unknown device": (one("device: gpu"), ["device", "'gpu'", "cuda"]),
    "a date as a seed": ("seeds: [2020-01-01]", ["seeds.0", "2020-01-01", "quote"]),
    "a date as a name": ("dataset: 2024-01-01", ["dataset", "2024-01-01", "a date", "quote"]),
    "a date as a key": ("2024-01-01: 1", ["the key 2024-01-01", "a date", "quote"]),
    "a date that is none": ("dataset: 2024-13-01", ["not valid YAML", "month"]),
    "a number as a key": ("experiments: {1: {model: {name: MLP}}}", ["experiments", "the key 1"]),
    "a seed of 65 bits": (f"seeds: [{2**64}]", ["seeds.0", "65 bits is too large"]),
    "a seed of 64 bits": (f"seeds: [{2**63}]", ["seeds.0", "greater than the maximum"]),
    "a number of 5000 digits": (f"seeds: [{'9' * 5000}]", ["not valid YAML", "4300 digits"]),
    "a hexadecimal giant": (f"seeds: [0x{'f' * 5000}]", ["seeds.0", "20000 bits"]),
    "not a number": ("training: {optimizer: {name: SGD, lr: .nan}}", ["optimizer.lr: nan"]),
    "infinity": ("training: {optimizer: {name: SGD, lr: 1e999}}", ["lr: inf", "finite"]),
    "an alias of itself": ("mirrors: &x [*x]", ["mirrors.0: it contains itself"]),
    "aliases of aliases": (
        "".join(f"a{n + 1}: &a{n + 1} [{', '.join([f'*a{n}'] * 10)}]\n" for n in range(9)).replace(
            "*a0", "1"
        ),
        ["aliases"],
    ),
    "a tag": ("dataset: !!python/object:os.system ls", ["line 1", "python/object"]),
    "binary": ("dataset: !!binary aGVsbG8=", ["dataset: b'hello' (binary)"]),
    "a set": ("seeds: !!set {1, 2}", ["seeds: {", "(a set)"]),
    "half a character": ('dataset: "\\ud800"', ["dataset", "Unicode"]),
    "brackets without end": ("[" * 3000, ["not valid YAML", "recursion"]),
    "a NUL": ("seeds: [1]\ndataset: a\0b", ["line 2", "not valid YAML"]),
    "a line break in a name": ('dataset: "MNIST\\n"', ["dataset", "letters"]),
    "a home that is not there": ("results_dir: ~nosuchuser/x", ["results_dir", "~nosuchuser"]),
    "no step": (
        "training: {scheduler: {name: StepLR, step_size: 0}}",
        ["training.scheduler.step_size", "minimum of 1"],
    ),
    "no period": (
        "training: {scheduler: {name: CosineAnnealingLR, T_max: 0}}",
        ["training.scheduler.T_max", "minimum of 1"],
    ),
    "gamma is a word": (
        "training: {scheduler: {name: ExponentialLR, gamma: x}}",
        ["training.scheduler.gamma: 'x' is not of type number"],
    ),
    "one beta": (
        "training: {optimizer: {name: Adam, betas: [0.9]}}",
        ["training.optimizer.betas", "too short"],
    ),
    "an argument that is a mapping": (
        "training: {optimizer: {name: Adam, eps: {a: 1}}}",
        ["training.optimizer.eps", "number"],
    ),
    "an argument of a model with an equals sign": (
        "experiments: {a: {model: {name: MLP, a=b: 1}}}",
        ["'a=b'", "letters"],
    ),
    "more images than there can be": ("training: {batch_size: 1e40}", ["training.batch_size"]),
    "no time": (one("runtime: 0"), ["runtime", "0"]),
    "a folder whose name is a number": (
        "results_dir: 2024_11",
        ["results_dir: 202411 is not of type string; write it in quotes"],
    ),
    "more cores than a training can use": (one("cpus: 1025"), ["cpus", "1025", "1024"]),
    "all held out": (
        DATASETS + "training: {validation_size: 2000}",
        ["validation_size", "2000 of 2000"],
    ),
}


@pytest.mark.parametrize(("text", "words"), WRONG.values(), ids=WRONG.keys())
def test_wrong_configs(complaint, text, words):
    message = complaint(text)
    for word in [*words, "config.yaml" if "nowhere" not in text and "MNST" not in text else ""]:
        assert word in message


def test_a_duplicate_key_is_named_without_its_values(complaint):
    message = complaint("seeds: [secret]\ntraining: {}\nseeds: [2]")
    assert "config.yaml, line 3: duplicate key 'seeds'" in message
    assert "secret" not in message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("seeds: [1]\n# café\n".encode("latin-1"), "config.yaml, line 2: the file is not UTF-8"),
        ("seeds: [1]".encode("utf-16"), "config.yaml, line 1: the file is not UTF-8"),
    ],
)
def test_other_encodings(tmp_path, content, message):
    (tmp_path / "config.yaml").write_bytes(content)
    with pytest.raises(UserError) as failure:
        read_study([tmp_path / "config.yaml"], {})
    assert message in str(failure.value)


@pytest.mark.parametrize("content", [b"\xef\xbb\xbfseeds: [7]", b"seeds:\r\n  - 7\r\n"])
def test_files_of_other_editors(tmp_path, content):
    (tmp_path / "config.yaml").write_bytes(content)
    assert read_study([tmp_path / "config.yaml"], {}).runs[0] == ("mlp", 7)


def test_odd_values_on_the_command_line(complaint):
    assert "--config: seeds.0: 2020-01-01" in complaint("", {"seeds": ["2020-01-01"]})
    assert "--config training, line 1: not valid" in complaint("", {"training": "{epochs: "})
    said = "--config results_dir: Snakemake reads a number here, 202411: begin the path with ./"
    assert said in complaint("", {"results_dir": 202411})


OWN = "experiments: {a: {model: {name: Net}, loss: cross_entropy}}"


def test_a_model_of_ones_own_is_checked(tmp_path, complaint):
    with own_model(tmp_path, net(more="output = 'logit'")):
        message = complaint(OWN)
        assert "experiments.a: model: the output 'logit' of Net is not known" in message
        assert "did you mean 'logits'?" in message
    (tmp_path / "half").mkdir()
    with own_model(tmp_path / "half", "class Net(\n") as path:
        assert f"experiments.a: {path}, line 1: " in complaint(OWN)


def test_each_mistake_has_its_line(complaint):
    assert len(complaint("seed: 1\ntraining: {epochs: 0}").splitlines()) == 2


def test_numbers_as_yaml_1_2_has_them():
    assert strict_yaml.parse("[1e-3, 1E5, .5]") == [0.001, 100000.0, 0.5]


def test_settings_and_layers_know_the_same_names():
    model = SCHEMAS["model"]["properties"]
    assert model["activation"]["enum"] == list(ACTIVATIONS)
    assert model["output"]["enum"] == list(OUTPUTS)


def test_every_known_data_set_is_valid():
    from lib.data import catalog, readers

    for name in strict_yaml.load(ROOT / "config/datasets.yaml"):
        entry = catalog.load(ROOT / "config/datasets.yaml", name)
        if "files" in entry:
            wanted = readers.downloads(entry)
            assert wanted["train_images"]["size"] == 47040016
            assert wanted["test_labels"]["size"] == 10008


@pytest.mark.parametrize("place", ["", "logs", "runs", "runs/one", "runs/one/seed1"])
def test_a_file_in_the_place_of_a_folder(tmp_path, place):
    results = tmp_path / "results"
    path = results / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("not a folder")
    config = tmp_path / "config.yaml"
    config.write_text(f"results_dir: {results}\nexperiments: {{one: {{model: {{name: MLP}}}}}}\n")
    with pytest.raises(UserError, match=f"config.yaml: results_dir: {path} is a file"):
        read_study([config], {})


def test_a_file_in_the_place_of_the_data(tmp_path):
    (tmp_path / "data").write_text("not a folder")
    config = tmp_path / "config.yaml"
    config.write_text(f"data_dir: {tmp_path}/data\nresults_dir: {tmp_path}/results\n")
    with pytest.raises(UserError, match=r"config.yaml: data_dir: .*data is a file"):
        read_study([config], {})


def test_a_study_that_is_kept_is_the_same(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    path = tmp_path / "config.yaml"
    path.write_text(f"{SEARCH}versions: strict\n")
    study = read_study([path], {"results_dir": str(tmp_path / "out"), "seeds": "[3, 4]"})
    stored.write(study)
    kept = read_study([study.layout.study], {})
    assert replace(kept, datasets_file=study.datasets_file) == study
    assert kept.datasets_file == str(tmp_path / "out/data/datasets.yaml")
    assert stored.command(study, ["-n", "--profile=a b", "--config", "seeds=[1]"]) == (
        f"snakemake --profile 'a b' --configfile {study.layout.study}"
    )
