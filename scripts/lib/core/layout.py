"""Where everything below `results_dir` is: the one place that spells a file's name.

The rules, the commands and the modules that they share all ask here.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from lib.core import seeds
from lib.core.seeds import Run, Seed

# What each stage writes for a run, in the order of the stages.
TRAINED = ("model.safetensors", "history.csv", "run.json")
EVALUATED = ("predictions.csv.gz", "probabilities.safetensors", "accuracy.csv", "evaluation.json")
STAGES = {"train": TRAINED, "evaluate": EVALUATED}
# Those that Snakemake knows of. It keeps a file below `.snakemake` for each, and the records name
# the digests of the others.
SNAKEMAKE_OUTPUTS = {
    "train": ("model.safetensors", "run.json"),
    "evaluate": ("accuracy.csv", "evaluation.json"),
}

# What was searched, and what was chosen.
SEARCH_TABLE = "sweep.csv"
ADOPTIONS = "adoptions.json"
REPORT_TABLES = ("report.csv", "summary.csv", "comparisons.csv")
FIGURES = (
    "accuracy", "learning-curves", "confusion", "class-accuracy", "roc", "calibration", "cost"
)  # fmt: skip


def run_name(experiment: str, seed: Seed | str) -> str:
    """Return the name of a run, such as `cnn/seed1`, or `cnn/seed1-fold2`."""
    return f"{experiment}/seed{seed}"


def prepared_record(prepared: Path) -> Path:
    """Return the record beside a prepared file."""
    return prepared.with_name(f"{prepared.stem}.prepared.json")


def images_file(prepared: Path) -> Path:
    """Return the list of images beside a prepared file."""
    return prepared.with_name(f"{prepared.stem}.images.csv.gz")


def audit_file(prepared: Path) -> Path:
    """Return what was found in the data, beside a prepared file."""
    return prepared.with_name(f"{prepared.stem}.audit.json")


@dataclass(frozen=True)
class RunFiles:
    """The files of one run, in its folder."""

    folder: Path

    @property
    def weights(self) -> Path:
        """The trained weights."""
        return self.folder / "model.safetensors"

    @property
    def history(self) -> Path:
        """The table with one row per epoch."""
        return self.folder / "history.csv"

    @property
    def validation(self) -> Path:
        """The probabilities of the validation images, and their labels, where there are any."""
        return self.folder / "validation.safetensors"

    @property
    def earlier_validation(self) -> Path:
        """What earlier versions have kept: a table of the winners only, like the predictions."""
        return self.folder / "validation.csv.gz"

    @property
    def record(self) -> Path:
        """What was trained, on what, by what. It is written last."""
        return self.folder / "run.json"

    @property
    def predictions(self) -> Path:
        """The table with one row per test image."""
        return self.folder / "predictions.csv.gz"

    @property
    def probabilities(self) -> Path:
        """The probability of each class for each test image."""
        return self.folder / "probabilities.safetensors"

    @property
    def accuracy(self) -> Path:
        """The table with one row per class."""
        return self.folder / "accuracy.csv"

    @property
    def evaluation(self) -> Path:
        """The record of the evaluation. It is written last."""
        return self.folder / "evaluation.json"

    # The files below exist only until the run is evaluated.

    @property
    def checkpoint(self) -> Path:
        """From where an interrupted training resumes."""
        return self.folder / "checkpoint.pt"

    @property
    def progress(self) -> Path:
        """How far the training is."""
        return self.folder / "progress.json"

    @property
    def log(self) -> Path:
        """What the training has said so far, before and after each requeue."""
        return self.folder / "train.log"

    @property
    def lease(self) -> Path:
        """Who is training into the folder."""
        return self.folder / "lease.json"

    @property
    def failure(self) -> Path:
        """Why the training fails whenever it is tried."""
        return self.folder / "failure.json"

    @property
    def adoptions(self) -> Path | None:
        """The list of adoptions of the study; None where the folder is not in a study's results."""
        parents = self.folder.absolute().parents
        in_study = len(parents) > 2 and parents[1].name == "runs"
        return parents[2] / ADOPTIONS if in_study else None

    @property
    def temporary(self) -> list[Path]:
        """What is removed once the run is evaluated. The log is kept elsewhere, see `log_link`."""
        old = self.checkpoint.with_suffix(".safetensors")  # of version 0.2
        return [self.checkpoint, old, self.progress]

    @property
    def seed(self) -> Seed | None:
        """The seed, and the fold, that the folder's name names, if it names one."""
        seed = seeds.parse(self.folder.name.removeprefix("seed"))
        return seed if self.folder.name.startswith("seed") else None

    def has_all(self, stage: str) -> bool:
        """Return whether all files of a stage exist. `run_state` says whether it is done."""
        folder = str(self.folder)  # not a Path per file: asked for all files of a thousand runs
        return all(os.path.isfile(f"{folder}/{name}") for name in STAGES[stage])  # noqa: PTH113


@dataclass(frozen=True)
class Layout:
    """The files below one `results_dir`."""

    results: Path

    def run_path(self, experiment: str, seed: Seed | str) -> str:
        """Return a run's folder relative to `results_dir`, as report.csv names it."""
        return f"runs/{run_name(experiment, seed)}"

    def run(self, experiment: str, seed: Seed | str) -> RunFiles:
        """Return the files of a run. Both arguments may be Snakemake wildcards in braces."""
        return RunFiles(self.results / self.run_path(experiment, seed))

    def by_hand(self, experiment: str, seed: Seed) -> RunFiles:
        """Return the files of a run whose job script is submitted by hand (make sbatch)."""
        return RunFiles(self.results / "by-hand" / run_name(experiment, seed))

    def by_hand_output(self, experiment: str, seed: Seed) -> Path:
        """Return what that job prints, in a folder that is there; Slurm knows its %j, the id."""
        return self.results / f"{experiment}-seed{seed}-%j.out"

    def runs(self) -> list[Run]:
        """Return experiment and seed of each run folder that exists, sorted."""
        folders = map(RunFiles, self.results.glob("runs/*/seed*/"))
        found = [(files.folder.parent.name, files.seed) for files in folders]
        named = [run for run in found if run[1] is not None]
        return sorted(named, key=lambda run: (run[0], seeds.order(run[1])))

    def outputs(self, stage: str, experiment: str, seed: Seed | str) -> list[str]:
        """Return the paths of the files of a stage of a run that Snakemake knows of."""
        folder = self.run(experiment, seed).folder.as_posix()
        return [f"{folder}/{name}" for name in SNAKEMAKE_OUTPUTS[stage]]

    @property
    def study(self) -> Path:
        """The config of the study whose results these are."""
        return self.results / "study.yaml"

    @property
    def study_dataset(self) -> Path:
        """The entry of its data set, in a file of data sets."""
        return self.results / "data" / "datasets.yaml"

    def listing(self, dataset: str) -> Path:
        """Return the list of a data set's raw files."""
        return self.results / "data" / f"{dataset}.json"

    def prepared(self, dataset: str) -> Path:
        """Return a data set's prepared file."""
        return self.results / "data" / f"{dataset}.safetensors"

    def prepared_record(self, dataset: str) -> Path:
        """Return the record of a data set's prepared file."""
        return prepared_record(self.prepared(dataset))

    @property
    def adoptions(self) -> Path:
        """Which runs stay valid for other code than they were trained by, and why."""
        return self.results / ADOPTIONS

    @property
    def replays(self) -> Path:
        """The folder of what is known of runs whose first steps were done again."""
        return self.results / "replays"

    def replay(self, experiment: str, seed: Seed | str, whole: bool = False) -> Path:
        """Return whether the current code computes what a run has computed, or its first steps."""
        return self.replays / ("whole" if whole else "first") / f"{experiment}-seed{seed}.json"

    def code(self, digest: str) -> Path:
        """Return the archive of a state of the code that runs have used."""
        return self.results / "code" / f"{digest}.tar.gz"

    def environment(self, digest: str) -> Path:
        """Return the list of the packages that were installed where runs were made."""
        return self.results / "environments" / f"{digest}.json"

    @property
    def reproductions(self) -> Path:
        """The folder of what is known of runs that were repeated."""
        return self.results / "reproduction"

    def reproduction(self, experiment: str, seed: Seed | str) -> Path:
        """Return whether a run gave the same when it was repeated."""
        return self.reproductions / f"{experiment}-seed{seed}.json"

    @property
    def reproduction_table(self) -> Path:
        """The table with one row for each run that was repeated."""
        return self.results / "reproduction.csv"

    def table(self, name: str) -> Path:
        """Return one of the tables of the report."""
        return self.results / name

    @property
    def page(self) -> Path:
        """The report as a page."""
        return self.results / "report.html"

    def figure(self, name: str) -> Path:
        """Return a figure of the report."""
        return self.results / "figures" / f"{name}.svg"

    @property
    def resources(self) -> Path:
        """The table of what each job asked for and used."""
        return self.results / "resources.csv"

    @property
    def logs(self) -> Path:
        """The folder of all logs."""
        return self.results / "logs"

    def log(self, *words: int | str) -> Path:
        """Return a log: `report`, or a stage and its data set, or a stage and its run."""
        stage, *rest = words
        if len(rest) == 2:
            rest[1] = f"seed{rest[1]}"
        return self.logs / f"{'-'.join([str(stage), *map(str, rest)])}.log"

    def log_link(self, experiment: str, seed: Seed | str) -> str:
        """Return what the log of a training links to, relative to the log's folder.

        While a run is not evaluated yet, the text of its training's log is in the run's folder. A
        symbolic link, since some cluster file systems refuse hard links across folders.
        """
        return f"../{self.run_path(experiment, seed)}/{RunFiles(Path()).log}"

    @property
    def slurm_logs(self) -> Path:
        """The folder of Slurm's own logs of failed jobs."""
        return self.logs / "slurm"

    @property
    def submissions(self) -> Path:
        """The list of all Slurm jobs that this study has submitted."""
        return self.slurm_logs / "jobs.csv"
