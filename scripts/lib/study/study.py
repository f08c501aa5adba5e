"""A study as typed objects: its experiments and their runs."""

from dataclasses import dataclass
from pathlib import Path

from lib.core.command_line import to_cli_args

from lib.core.errors import UserError
from lib.core.layout import Layout
from lib.core.settings import COMPONENTS


@dataclass(frozen=True)
class Experiment:
    """One entry of `experiments`, with the defaults of `training` filled in."""

    model: dict
    device: str
    cpus: int
    mem_mb: int  # MiB
    runtime: int  # minutes
    seeds: list[int]
    training: dict

    @property
    def model_file(self) -> str:
        """The source file of the model."""
        return f"scripts/models/{self.model['name'].lower()}.py"

    def settings(self, seed: int) -> dict:
        """Return the settings of a run, as its record is to hold them."""
        return {"model": self.model, "seed": seed, "device": self.device} | self.training

    @property
    def train_options(self) -> list[str]:
        """The options of `scripts/train.py` that the config decides, except for the seed."""
        options = ["--model", *to_cli_args(self.model), "--device", self.device]
        for key, value in self.training.items():
            option = f"--{key.replace('_', '-')}"
            if key == "shuffle":
                options += [option] if value else []
            elif key in COMPONENTS:
                options += [option, *(to_cli_args(value) if value else ["none"])]
            else:
                options += [option, str(value)]
        return options


@dataclass(frozen=True)
class Study:
    """A whole config: where the data is, and which runs there are."""

    results_dir: str
    dataset: str
    datasets_file: str
    dataset_entry: dict
    data_dir: str
    mirrors: list[str]
    experiments: dict[str, Experiment]
    check: bool | str = True  # whether to ask Slurm before a run; `only` that, or `print` the jobs

    @property
    def layout(self) -> Layout:
        """Where the study's files are."""
        return Layout(Path(self.results_dir))

    @property
    def runs(self) -> list[tuple[str, int]]:
        """Experiment and seed of each run, in the config's order."""
        return [
            (name, seed) for name, each in self.experiments.items() for seed in sorted(each.seeds)
        ]

    def run_named(self, name: str) -> tuple[str, int]:
        """Return experiment and seed of a run by its name, such as `cnn/seed1`.

        Raises:
            UserError: the config has no such run.
        """
        runs = {f"{experiment}/seed{seed}": (experiment, seed) for experiment, seed in self.runs}
        if name not in runs:
            raise UserError(f"there is no run {name!r}; there are: {', '.join(runs)}")
        return runs[name]

    @property
    def report_options(self) -> list[str]:
        """The runs as `scripts/report.py --runs` reads them."""
        return [
            f"{name}={','.join(map(str, sorted(each.seeds)))}"
            for name, each in self.experiments.items()
        ]
