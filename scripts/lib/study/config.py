"""Read the config: every key checked, defaults filled in, the result a `Study`.

The Snakefile uses this module, and so do the commands that look at a whole study. The scripts of a
stage get what they need as options.
"""

import argparse
import copy
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import models
from lib.core import checked_settings, strict_yaml, sweep
from lib.core.errors import UserError
from lib.core.files import check_folder
from lib.core.layout import Layout
from lib.core.metric import parse, positive_class
from lib.core.seeds import in_folds
from lib.core.settings import (
    COMPONENTS,
    OPTIMIZERS,
    SCHEDULERS,
    SCHEMAS,
    SHARED,
    Settings,
    loss_of,
)
from lib.core.signatures import MODULES, learn
from lib.data import catalog
from lib.data.facts import facts_of
from lib.data.prepared_record import Facts
from lib.data.splits import held_out_size
from lib.study import choice
from lib.study.study import Experiment, Search, Study

DEFAULT_CONFIG = Path("config/config.yaml")
MOST_SHOWN = 10  # problems with the points of one search


def add_argument(parser: argparse.ArgumentParser) -> None:
    """Add the option that names the config."""
    parser.add_argument(
        "--configfile",
        type=Path,
        nargs="*",
        default=[],
        metavar="FILE",
        help=f"the config, as for snakemake (default: {DEFAULT_CONFIG})",
    )


def read_study(files: Iterable[Path], command_line: dict[str, Any]) -> Study:
    """Read the config.

    Args:
        files: those of `--configfile`, a later one over an earlier; none: `config/config.yaml`.
        command_line: Snakemake's reading of `--config`, which leaves nested values strings.

    Raises:
        UserError: something is wrong in it; one line for each thing, naming the key.
    """
    files = [Path(file) for file in files] or [DEFAULT_CONFIG]
    config: dict = {}
    for file in files:
        update(config, require_mapping(strict_yaml.load(file), str(file)))
    options = {key: reread(key, value) for key, value in command_line.items()}
    for key, value in options.items():
        if is_path(key) and isinstance(value, int | float):
            raise UserError(
                f"--config {key}: Snakemake reads a number here, {value}: begin the path with ./"
            )
    strict_yaml.check_plain(options, "--config")
    update(config, options)
    where = ", ".join(map(str, files)) + (" and --config" if command_line else "")

    strict_yaml.check(config, config_schema(), where)
    config = with_defaults(config)
    learn_signatures(config["experiments"])
    for key in ("results_dir", "data_dir"):
        config[key] = expanded(config[key], f"{where}: {key}")
    entry, facts = read_dataset(config, where)
    check_metric(config["metric"], facts.classes, where)
    whole = copy.deepcopy(config)
    config["experiments"], searches = with_points(config, where)
    study = replace(make_study(config, entry, facts, searches), config=whole)
    problems = [
        f"{where}: experiments.{each.search or name}: {problem}"
        for name, each in study.experiments.items()
        for problem in experiment_problems(each, facts)
    ]
    problems += pack_problems(config, where)
    if problems:
        raise UserError("\n".join(dict.fromkeys(problems)))  # many points may have the same one
    check_folders(study, where)
    return choice.with_search_results(study)


def read_dataset(config: dict, where: str) -> tuple[dict, Facts]:
    """Return the entry of the data set of a config, and what is known of the data.

    Raises:
        UserError: there is no such entry, it is wrong, or the data is not there.
    """
    file, name = Path(config["datasets_file"]), config["dataset"]
    try:
        entry = catalog.load(file, name)
        with catalog.errors_of(file, name):
            facts = facts_of(Layout(Path(config["results_dir"])).prepared(name), entry)
            positive_class(entry.get("positive"), facts.classes)
            return entry, facts
    except UserError as error:
        raise UserError(
            "\n".join(f"{where}: {line}" for line in str(error).splitlines())
        ) from error


def check_metric(name: str, classes: list[str], where: str) -> None:
    """Check that there is a metric of this name for a data set of these classes.

    Raises:
        UserError: there is none.
    """
    try:
        parse(name, classes)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error


def check_folders(study: Study, where: str) -> None:
    """Check that no file is in the place of a folder that will be written to.

    Raises:
        UserError: one is.
    """
    check_folder(Path(study.data_dir), f"{where}: data_dir")
    check_folder(study.layout.logs, f"{where}: results_dir")
    check_folder(study.layout.results / "runs", f"{where}: results_dir")
    folders = [study.layout.run(*run).folder for run in study.runs]
    for place in {folder.parent for folder in folders}.union(folders):
        if place.is_file():
            raise UserError(f"{where}: results_dir: {place} is a file, not a folder")


def require_mapping(content: Any, where: str) -> dict:
    """Return what a config file holds; an empty one holds an empty mapping."""
    if content is not None and not isinstance(content, dict):
        raise UserError(f"{where}: a config is a mapping of keys to values, not {content!r}")
    return content or {}


def is_path(key: str) -> bool:
    """Return whether the value of a key of the config is a path."""
    return config_schema()["properties"].get(key, {}).get("$ref") == "#/$defs/path"


def reread(key: str, value: Any) -> Any:
    """Read as YAML what Snakemake has turned into strings: nested `--config` values."""
    if isinstance(value, dict):
        return {inner: reread(f"{key}.{inner}", each) for inner, each in value.items()}
    if isinstance(value, list):
        return [reread(key, each) for each in value]
    if isinstance(value, str):
        return strict_yaml.read(value, f"--config {key}")
    return value


def update(config: dict, other: dict) -> None:
    """Merge `other` into `config`, mapping by mapping.

    A component is replaced as a whole: the arguments of Adadelta mean nothing to SGD.
    """
    for key, value in other.items():
        if isinstance(value, dict) and isinstance(config.get(key), dict) and key not in COMPONENTS:
            update(config[key], value)
        else:
            config[key] = value


@cache
def config_schema() -> dict:
    """Return the schema of the config: that of the file, with the settings in it."""
    schema = copy.deepcopy(strict_yaml.schema("config"))
    shared = {key: SCHEMAS[key] for key in SHARED}
    schema["properties"]["training"]["properties"] = shared
    schema["$defs"]["seeds"]["items"] = SCHEMAS["seed"]
    experiment = schema["$defs"]["experiment"]
    own = {key: SCHEMAS[key] for key in ("model", "device")}
    experiment["properties"] = own | experiment["properties"] | shared
    return schema


def with_defaults(config: dict) -> dict:
    """Return a valid config with the defaults of the schema filled in."""
    config = _fill(config, config_schema())
    config["experiments"] = {
        name: _fill(experiment, config_schema()["$defs"]["experiment"])
        for name, experiment in config["experiments"].items()
    }
    if "prepare" in config:
        config["prepare"] = _fill(config["prepare"], config_schema()["properties"]["prepare"])
    return config


def _fill(mapping: dict, schema: dict) -> dict:
    properties = schema["properties"].items()
    return {key: each["default"] for key, each in properties if "default" in each} | mapping


def learn_signatures(experiments: dict[str, dict]) -> None:
    """Ask for the signatures of a study all at once."""
    torch = {"optimizer": OPTIMIZERS, "scheduler": SCHEDULERS}
    questions = [(MODULES[kind], name) for kind, names in torch.items() for name in names]
    for each in experiments.values():
        for model in sweep.bases("model", each.get("sweep", {}), each):
            with suppress(UserError, TypeError, KeyError, AttributeError):  # found later, and named
                questions.append((models.module_of(model["name"]), model["name"]))
    learn(questions)


def with_points(config: dict, where: str) -> tuple[dict[str, dict], dict[str, Search]]:
    """Return the experiments, with the points of a search in the place of it, and the searches.

    Raises:
        UserError: a search is wrong; one line for each thing, naming the key.
    """
    experiments, searches, problems = {}, {}, []
    for name, each in config["experiments"].items():
        if "sweep" not in each:
            experiments[name] = each
            continue
        recipe = recipe_of(each, config["training"])
        settings = {key: getattr(recipe, key) for key in (*SHARED, "model")}
        at = f"{where}: experiments.{name}.sweep"
        if not settings["validation_size"]:
            problems.append(
                f"{at}: the points are compared on images that are held out of the training set, "
                f"since the test set is for the one that is chosen: set validation_size"
            )
        if each["sweep"].get("refit") and "best" in kept_epochs(settings, each["sweep"]):
            problems.append(
                f"{at}.refit: what is chosen is trained again on all training images, so none are "
                "left that keep: best could find an epoch by: leave out one of the two"
            )
        try:
            found = sweep.points(name, settings, each["sweep"])
        except UserError as error:
            problems += [f"{at}.{line}" for line in str(error).splitlines()]
            continue
        own = {key: value for key, value in each.items() if key != "sweep"}
        points = {point.name: own | point.settings for point in found}
        problems += [f"{at}: {line}" for line in value_problems(points, where)]
        problems += [
            f"{at}: there is an experiment {point} already, the name of one of its points"
            for point in points
            if point in config["experiments"]
        ]
        experiments |= points
        searches[name] = Search(
            {point.name: point.values for point in found}, each["sweep"], settings
        )
    if problems:
        raise UserError("\n".join(problems))
    return experiments, searches


def kept_epochs(settings: dict, searched: dict) -> list:
    """Return which epochs the points of a search keep: `last`, `best`, or both."""
    return sweep.bases("keep", searched, settings)


def value_problems(points: dict[str, dict], where: str) -> list[str]:
    """Return what the schema says of the values of points: each value once, and of many a few."""
    try:
        strict_yaml.check({"experiments": points}, config_schema(), where)
    except UserError as error:
        lines = [line.removeprefix(f"{where}: experiments.") for line in str(error).splitlines()]
        once: dict[tuple[str, str], str] = {}
        for line in lines:
            place, _, problem = line.partition(": ")
            once.setdefault((place.rpartition(".")[2], problem), line)
        shown = list(once.values())[:MOST_SHOWN]
        more = len(once) - len(shown)
        return [*shown, f"and {more} more like these"] if more else shown
    return []


def recipe_of(
    experiment: dict, training: dict, metric: str | None = None, positive: str | None = None
) -> Settings:
    """Return the settings of an experiment: its own over those of `training`.

    The metric of the study, and the positive class, are among them where the best epoch is kept.
    """
    recipe = Settings.of(training | experiment)
    best = recipe.keep == "best"
    return replace(recipe, metric=metric, positive=positive) if best else recipe


def experiment_problems(experiment: Experiment, facts: Facts) -> list[str]:
    """Return what is wrong with an experiment that the schema cannot see."""
    problems = checked_settings.problems(experiment.recipe)
    held_out = held_out_size(experiment.recipe.validation_size, facts.train_size)
    if held_out >= facts.train_size:
        problems.append(
            f"validation_size: {held_out} of {facts.train_size} training images would leave none "
            "to train on"
        )
    weight, classes = loss_of(experiment.recipe.loss).get("weight"), len(facts.classes)
    if isinstance(weight, list) and len(weight) != classes:
        problems.append(f"loss.weight: {len(weight)} numbers for {classes} classes")
    return problems


def pack_problems(config: dict, where: str) -> list[str]:
    """Return what is wrong with the cores of the jobs that train many runs."""
    most = max(each["cpus"] for each in config["experiments"].values())
    cpus = config.get("cpus_per_job")
    if cpus is None or cpus >= most:
        return []
    return [f"{where}: cpus_per_job: {cpus} is less than the {most} cores of one run (cpus)"]


def make_study(
    config: dict, dataset_entry: dict, facts: Facts, searches: dict[str, Search]
) -> Study:
    """Return the study of a checked config, and of the points of its searches."""
    search_of = {point: name for name, search in searches.items() for point in search.points}
    experiments = {
        name: Experiment(
            recipe_of(each, config["training"], config["metric"], dataset_entry.get("positive")),
            **{key: each[key] for key in ("cpus", "mem_mb", "runtime")},
            seeds=in_folds(each.get("seeds", config["seeds"]), dataset_entry.get("folds")),
            search=search_of.get(name),
            strict_versions=config["versions"] == "strict",
        )
        for name, each in config["experiments"].items()
    }
    return Study(
        results_dir=config["results_dir"],
        dataset=config["dataset"],
        datasets_file=config["datasets_file"],
        dataset_entry=dataset_entry,
        facts=facts,
        config=config,
        data_dir=config["data_dir"],
        mirrors=config["mirrors"],
        metric=config["metric"],
        experiments=experiments,
        searches=searches,
        runs_per_job=config["runs_per_job"],
        cpus_per_job=config.get("cpus_per_job"),
        stage=config["stage"],
        prepare=config.get("prepare", {}),
        check=config["check"],
    )


def expanded(path: str, where: str) -> str:
    """Return a path with `~` replaced by the folder that it means; `where` names its key."""
    try:
        return Path(path).expanduser().as_posix()
    except RuntimeError as error:
        raise UserError(f"{where}: {path!r}: {error}") from error
