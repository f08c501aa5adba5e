"""A study as typed objects: its experiments and their runs."""

from dataclasses import dataclass, field, replace
from pathlib import Path

from lib.core.errors import UserError
from lib.core.layout import Layout, run_name
from lib.core.seeds import Run, Seed, parts
from lib.core.settings import Settings
from lib.data.prepared_record import Facts


@dataclass(frozen=True)
class Experiment:
    """One entry of `experiments`, with the defaults of `training` filled in."""

    recipe: Settings  # of all its runs, apart from seed and fold
    cpus: int
    mem_mb: int  # MiB
    runtime: int  # minutes
    seeds: list[Seed]
    search: str | None = None  # of which it is a point
    recipes: dict[int, Settings] = field(default_factory=dict)  # by fold, where a search chose them
    strict_versions: bool = False  # whether packages of other versions are other code

    @property
    def gpus(self) -> int:
        """The GPUs that a job asks for. A device of `auto` uses one if there is one."""
        return 1 if self.recipe.device == "cuda" else 0

    def settings(self, seed: Seed) -> Settings:
        """Return the settings of a run."""
        number, fold = parts(seed)
        return replace(self.recipes.get(fold, self.recipe), seed=number, fold=fold)

    def train_options(self, seed: Seed) -> list[str]:
        """Return the options of `scripts/train.py` for a run that the config decides."""
        keep = ["--keep-diverged"] if self.search else []
        strict = ["--strict-versions"] if self.strict_versions else []
        return [*self.settings(seed).options(), *keep, *strict]


@dataclass(frozen=True)
class Search:
    """A search over settings: its points are experiments, of which the best is chosen.

    Attributes:
        points: the searched settings of each point, by their dotted keys.
        sweep: as the config has it.
        settings: all other settings of the experiment that is searched.
    """

    points: dict[str, dict]
    sweep: dict
    settings: dict

    @property
    def refit(self) -> bool:
        """Whether the chosen point is trained again, on all training images."""
        return self.sweep.get("refit", False)


@dataclass(frozen=True)
class Study:
    """A whole config: where the data is, and which runs there are."""

    results_dir: str
    dataset: str
    datasets_file: str
    dataset_entry: dict
    facts: Facts  # of the data set
    config: dict = field(repr=False, compare=False)  # as it was read, with all defaults
    data_dir: str
    mirrors: list[str]
    metric: str  # by which the experiments are compared
    experiments: dict[str, Experiment]
    searches: dict[str, Search] = field(default_factory=dict)  # by the searched experiment's name
    # By search, and fold where there are folds, the best of its points.
    chosen: dict[tuple[str, int | None], str] = field(default_factory=dict)
    runs_per_job: int = 1  # trained by one job; more than one: in processes that are forked
    cpus_per_job: int | None = None  # cores of such a job; None: those of one run
    stage: bool = False  # whether jobs copy the data to their node's own disk
    prepare: dict = field(default_factory=dict)  # what a job that prepares the data asks for
    check: bool | str = True  # whether to ask Slurm before a run; `only` that, or `print` the jobs

    @property
    def layout(self) -> Layout:
        """Where the study's files are."""
        return Layout(Path(self.results_dir))

    @property
    def folds(self) -> list[int | None]:
        """The numbers of the data's folds, or None alone."""
        folds = self.dataset_entry.get("folds")
        return list(range(1, folds + 1)) if folds else [None]

    @property
    def undecided(self) -> list[str]:
        """The searches that have not chosen yet."""
        return [name for name in self.searches if (name, self.folds[0]) not in self.chosen]

    @property
    def runs(self) -> list[Run]:
        """Experiment and seed of each run, in the config's order."""
        return [
            (name, seed) for name, each in self.experiments.items() for seed in sorted(each.seeds)
        ]

    def is_evaluated(self, experiment: str, seed: Seed) -> bool:
        """Return whether a run is for the test set and the report.

        Of the points of a search, it is only the chosen one, or what is trained in its place.
        """
        search, fold = self.experiments[experiment].search, parts(seed)[1]
        if search is None:
            return True
        return self.chosen.get((search, fold)) == experiment and not self.searches[search].refit

    @property
    def evaluated_runs(self) -> list[Run]:
        """Experiment and seed of each run that is evaluated, as far as it is chosen."""
        return [run for run in self.runs if self.is_evaluated(*run)]

    def stages(self, experiment: str, seed: Seed) -> tuple[str, ...]:
        """Return the stages of a run."""
        return ("train", "evaluate") if self.is_evaluated(experiment, seed) else ("train",)

    def with_choice(self, chosen: dict[tuple[str, int | None], str]) -> "Study":
        """Return the study with a choice: the points of each search that has been decided.

        What a search trains again is an experiment of the name that the config gives to it.
        """
        experiments, searches = {}, self.searches
        for name, each in self.experiments.items():
            if each.search or name not in searches:
                experiments[name] = each
            if each.search and searches[each.search].refit and name in chosen.values():
                experiments[each.search] = self._again(each.search, chosen)
        return replace(self, experiments=experiments, chosen=chosen)

    def _again(self, search: str, chosen: dict[tuple[str, int | None], str]) -> Experiment:
        """Return the experiment of what a search has chosen, on all training images."""
        points = {fold: self.experiments[chosen[search, fold]] for fold in self.folds}
        recipes = {fold: replace(point.recipe, validation_size=0) for fold, point in points.items()}
        first = self.folds[0]
        own = {fold: recipe for fold, recipe in recipes.items() if fold}
        return replace(points[first], recipe=recipes[first], search=None, recipes=own)

    def run_named(self, name: str) -> Run:
        """Return experiment and seed of a run by its name, such as `cnn/seed1`.

        Raises:
            UserError: the config has no such run.
        """
        runs = {run_name(*run): run for run in self.runs}
        if name not in runs:
            raise UserError(f"there is no run {name!r}; there are: {', '.join(runs)}")
        return runs[name]

    @property
    def search_options(self) -> dict[str, dict]:
        """The searches as `scripts/choose.py --searches` reads them."""
        return {
            name: {
                "sweep": each.sweep,
                "settings": each.settings,
                "seeds": sorted(self.experiments[next(iter(each.points))].seeds),
            }
            for name, each in self.searches.items()
        }

    @property
    def metric_options(self) -> list[str]:
        """The metric as `scripts/report.py` and `scripts/choose.py` read it."""
        positive = self.dataset_entry.get("positive")
        return [f"--metric={self.metric}", *([f"--positive={positive}"] if positive else [])]

    @property
    def report_options(self) -> list[str]:
        """The runs as `scripts/report.py --runs` reads them."""
        seeds: dict[str, list[str]] = {}
        for name, seed in self.evaluated_runs:
            seeds.setdefault(name, []).append(str(seed))
        return [f"{name}={','.join(some)}" for name, some in seeds.items()]
