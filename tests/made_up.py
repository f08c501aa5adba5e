"""Creates many made-up runs from a finished run, for the tests and the benchmark.

python tests/made_up.py RESULTS RUN COUNT   COUNT runs, five seeds per experiment
"""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

from lib.core import records
from lib.running.run_results import write_evaluation
from lib.training.accuracy import accuracy_table
from lib.training.predictions import prediction_table


def make_up(results: Path, run: Path, experiments: int, seeds: int) -> None:
    """Write experiments `made00`, `made01`, ... with the records of a run and random mistakes."""
    random = np.random.default_rng(0)
    record = json.loads((run / "run.json").read_text())
    evaluation = json.loads((run / "evaluation.json").read_text())
    classes = record["classes"]
    labels = pd.read_csv(run / "predictions.csv.gz")["label"].to_numpy()
    for experiment in range(experiments):
        for seed in range(1, seeds + 1):
            folder = results / "runs" / f"made{experiment:02}" / f"seed{seed}"
            folder.mkdir(parents=True)
            for name in ("history.csv", "model.safetensors"):
                shutil.copy(run / name, folder)
            of_seed = record | {"settings": record["settings"] | {"seed": seed}}
            described = [folder / "history.csv", folder / "model.safetensors"]
            records.write(folder / "run.json", of_seed, described)
            run_sha256 = records.read(folder / "run.json")[records.SEAL]
            wrong = random.random(len(labels)) < 0.02 + 0.001 * experiment
            confidence = random.uniform(0.5, 1, (len(labels), 1)).astype(np.float32)
            chosen = np.where(wrong, (labels + 1) % len(classes), labels)[:, None]
            others = (1 - confidence) / (len(classes) - 1)
            sure = np.where(np.arange(len(classes)) == chosen, confidence, others)
            sure = torch.from_numpy(sure.astype(np.float32))
            table = prediction_table(sure, torch.tensor(labels))
            counts = accuracy_table(table, classes)
            of_run = evaluation | {"run_sha256": run_sha256}
            write_evaluation(folder, sure, table, counts, of_run)


def change_record(folder: Path, file: str, **values) -> None:
    """Write a record of a run again, with other values, for the files as they are now."""
    content = json.loads((folder / file).read_text()) | values
    records.write(folder / file, content, [folder / name for name in content["files"]])
    if file == "run.json" and (folder / "evaluation.json").exists():
        sealed = records.read(folder / file)[records.SEAL]
        change_record(folder, "evaluation.json", run_sha256=sealed)


if __name__ == "__main__":
    make_up(Path(sys.argv[1]), Path(sys.argv[2]), experiments=int(sys.argv[3]) // 5, seeds=5)
