"""The folder of one run: its files, and what is known of a training that failed for good."""

from pathlib import Path

import torch
from safetensors.torch import save_file

from cli import Failure
from files import atomic_path, read_json, write_csv, write_json

OUTPUTS = ("model.safetensors", "history.csv", "run.json")
FAILURE = "failure.json"
HISTORY = "epoch,learning_rate,train_loss,split,loss,accuracy,train_seconds,eval_seconds".split(",")


class RunFolder:
    """The folder of a run with a given identity: its settings, and the digests of data and code."""

    def __init__(self, path: Path, identity: dict):
        self.path, self.identity = path, identity

    def is_complete(self) -> bool:
        """Whether it holds a whole run of the same identity."""
        if not all((self.path / name).is_file() for name in OUTPUTS):
            return False
        record = read_json(self.path / "run.json")
        return all(record.get(key) == value for key, value in self.identity.items())

    def refuse_known_failure(self) -> None:
        """Fail at once if this very training has failed in a way that no retry can cure.

        Raises:
            Failure: it has; the message is the one of then.
        """
        path = self.path / FAILURE
        if not path.is_file():
            return
        known = read_json(path)
        if known["identity"] == self.identity:
            raise Failure(
                f"{known['message']} (known from {path}: nothing has changed since; a change of "
                "config, data or code makes it void)"
            )
        path.unlink()

    def remember_failure(self, message: str) -> None:
        """Write down that this training fails whenever it is tried."""
        write_json(self.path / FAILURE, {"identity": self.identity, "message": message})

    def write(self, model: torch.nn.Module, history: list[dict], record: dict) -> None:
        """Write the files of a run, `run.json` last: where it stands, the others do."""
        with atomic_path(self.path / "model.safetensors") as temporary:
            save_file({name: value.cpu() for name, value in model.state_dict().items()}, temporary)
        write_csv(self.path / "history.csv", HISTORY, history)
        write_json(self.path / "run.json", record)
