"""What a process without torch is told of constructors, by a child process that it starts once."""

import json
import shutil
import subprocess
import sys

import pytest
from conftest import BIN, ROOT
from own_models import net

from lib.core import signatures
from lib.core.errors import UserError

# Prints the signatures that are asked for, or why there is none, in a process without torch.
ASK = """
import json, sys
from dataclasses import asdict

sys.path.insert(0, sys.argv[1])
from lib.core import signatures
from lib.core.errors import UserError

questions = [each.split(":") for each in sys.argv[2:]]
found = []
try:
    signatures.learn(map(tuple, questions))
    for question in questions:
        try:
            found.append(asdict(signatures.signature(*question)))
        except UserError as error:
            found.append(str(error))
except UserError as error:
    found = str(error)
assert "torch" not in sys.modules and not any(name.startswith("models.") for name in sys.modules)
print(json.dumps(found))
"""
NO_CHILD = "import subprocess\nsubprocess.run = None\n"


@pytest.fixture
def scripts(tmp_path, monkeypatch):
    """A copy of the scripts, for models of one's own; nothing is known of any yet."""
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "scripts"


def ask(scripts, *questions, before=""):
    command = [sys.executable, "-c", before + ASK, scripts, *questions]
    done = subprocess.run(command, capture_output=True, text=True, cwd=scripts.parent)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def model(scripts, name, source):
    path = scripts / "models" / f"{name.lower()}.py"
    path.write_text(source)
    return path


def test_answers_are_kept_until_a_file_changes(scripts):
    helper = scripts / "models" / "helper.py"
    helper.write_text("WIDTH = 3\n")
    path = model(
        scripts, "Net", "from models.helper import WIDTH\n\n\ndef Net(width=WIDTH, **rest): pass\n"
    )
    questions = ("models.net:Net", "models.mlp:MLP", "torch.optim:SGD", "torchvision.models:vgg11")
    answers = ask(scripts, *questions)
    net, mlp, sgd, vgg = answers
    assert net["defaults"] == {"width": 3}
    assert net["open_ended"]
    assert mlp["output"] == "log_softmax"
    assert sgd["required"] == ["params"]
    assert vgg["open_ended"]
    assert ask(scripts, *questions, before=NO_CHILD) == answers

    helper.write_text("WIDTH = 4\n")
    assert ask(scripts, "models.net:Net")[0]["defaults"] == {"width": 4}
    assert ask(scripts, *questions[1:], before=NO_CHILD) == answers[1:]
    path.write_text("def Net(): pass\n")
    assert ask(scripts, "models.net:Net")[0]["defaults"] == {}


def cached(scripts):
    return scripts.parent / "cache/slurm-classifiers/signatures.json"


DAMAGE = {
    "truncated": lambda text: text[: len(text) // 2],
    "empty": lambda text: "",
    "a list": lambda text: f"[{text}]",
    "no signatures": lambda text: '{"signatures": [1]}',
    "other types": lambda text: text.replace('"names": [', '"names": 3, "x": ['),
    "no answer": lambda text: json.dumps({"signatures": dict.fromkeys(read(text))}),
}


def read(text):
    return json.loads(text)["signatures"]


def test_a_damaged_cache_is_ignored(scripts):
    model(scripts, "Net", "def Net(width=3): pass\n")
    answers = ask(scripts, "models.net:Net")
    text = cached(scripts).read_text()
    for name, damage in DAMAGE.items():
        cached(scripts).write_text(damage(text))
        assert ask(scripts, "models.net:Net") == answers, name
        assert read(cached(scripts).read_text()) == read(text), name


def test_a_cache_that_cannot_be_written(scripts, monkeypatch):
    model(scripts, "Net", "def Net(width=3): pass\n")
    cached(scripts).parent.parent.write_text("a file in the place of the folder")
    assert ask(scripts, "models.net:Net")[0]["defaults"] == {"width": 3}
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.delenv("HOME")
    assert ask(scripts, "models.net:Net")[0]["defaults"] == {"width": 3}


def test_models_that_fail_or_print_on_import(scripts):
    raising = model(scripts, "Raising", "import os\n\nraise RuntimeError('no such thing')\n")
    model(scripts, "Printing", "import os\nprint('[]')\nos.system('echo []')\n" + net())
    model(scripts, "Asking", "input()\n")
    threaded = "import threading, time\nthreading.Thread(target=time.sleep, args=[999]).start()\n"
    model(scripts, "Threaded", threaded + net())
    answers = ask(
        scripts, "models.raising:Raising", "models.printing:Net", "models.asking:Asking",
        "models.threaded:Net", "models.threaded:Nit",
    )  # fmt: skip
    assert answers[0] == f"model Raising: {raising}, line 3: RuntimeError: no such thing"
    assert answers[1]["output"] == answers[3]["output"] == "logits"
    assert "asking.py, line 1: EOFError" in answers[2]
    assert "AttributeError: module 'models.threaded' has no attribute 'Nit'" in answers[4]
    assert all(":Net " in key for key in read(cached(scripts).read_text()))


@pytest.mark.parametrize(
    ("statement", "why"),
    [("sys.exit('an odd wish')", "an odd wish"), ("os._exit(3)", "exit status 3")],
)
def test_a_model_that_ends_the_process(scripts, statement, why):
    model(scripts, "Net", f"import os, sys\n{statement}\n")
    model(scripts, "Fine", "def Fine(): pass\n")
    said = ask(scripts, "models.net:Net", "models.fine:Fine", "torch.optim:SGD")
    assert said == f"models.net cannot be imported: {why}"


def test_a_model_that_hangs(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    answering = "import time; print('{}', flush=True); time.sleep(999)"
    monkeypatch.setattr(signatures, "CHILD", answering)
    monkeypatch.setattr(signatures, "TIMEOUT", 2.0)
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    with pytest.raises(UserError, match=r"^models\.mlp cannot be imported: no answer within 2 s$"):
        signatures.learn([("models.mlp", "MLP"), ("models.cnn", "CNN")])


STUDY = """
training: {validation_size: 100}
experiments:
  one: {model: {name: MLP}, sweep: {model: [{name: CNN}, {name: MLP, hidden: 3}]}}
"""


def test_the_snakefile_imports_neither_torch_nor_a_model(project, monkeypatch):
    """With an empty cache it starts one process for all questions, later none."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(project.folder / "cache"))
    (project.folder / "study.yaml").write_text(STUDY)
    with (project.folder / "Snakefile").open("a") as snakefile:
        snakefile.write("assert not {'torch', 'models.mlp', 'models.cnn'} & sys.modules.keys()\n")
    start = "    done = subprocesses.run("
    count = "    with open('started', 'a') as file: file.write('one ')\n"
    project.edit("scripts/lib/core/signatures.py", start, count + start)
    for _ in range(2):
        project.run(BIN / "snakemake", "-n", "--configfile", "study.yaml")
        assert (project.folder / "started").read_text() == "one "
