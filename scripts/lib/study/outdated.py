"""Which results are out of date: not of the code, the config and the data as they are now.

The runs' own records decide, not Snakemake's: those are in `.snakemake`, which a fresh clone does
not have, and they know what was planned, not what was done. So settings that mean the same are the
same, however they are written, and results that are copied with their folder count as they are.

It says nothing of files that are not there yet: Snakemake sees those.
"""

from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from lib.core import code_digests, records
from lib.core.errors import UserError
from lib.core.files import read_json
from lib.core.layout import RunFiles
from lib.core.settings import difference
from lib.data import catalog, prepared_record
from lib.study.study import Study

SHOWN = 5  # reasons; the others are counted


@dataclass
class Outdated:
    """What must be made again, and why. The runs' reasons are by experiment and seed."""

    download: str | None = None
    prepare: str | None = None
    train: dict[tuple[str, int], str] = field(default_factory=dict)
    evaluate: dict[tuple[str, int], str] = field(default_factory=dict)
    incomplete: bool = False  # whether a run lacks files

    def __bool__(self) -> bool:
        return bool(self.download or self.prepare or self.train or self.evaluate)

    def lines(self) -> list[str]:
        """Return what there is to say about it, in a few lines."""
        found = [reason for reason in (self.download, self.prepare) if reason]
        for stage in ("train", "evaluate"):
            of_runs = getattr(self, stage)
            found += [
                f"{stage} {name}, seed {seed} again: {reason}"
                for (name, seed), reason in list(of_runs.items())[:SHOWN]
            ]
            others = Counter(list(of_runs.values())[SHOWN:])
            found += [f"{stage} {count} more: {why}" for why, count in others.most_common(SHOWN)]
        return found


def find(study: Study) -> Outdated:
    """Look at the records of all runs. It reads small files only, and changes nothing."""
    data, entry = study.layout.prepared(study.dataset), study.dataset_entry
    outdated = Outdated(prepare=prepared_record.damage(data))
    if not prepared_record.is_of(data, entry):
        outdated.prepare = f"{data} was made of another entry of {study.datasets_file}"
    if outdated.prepare or not data.is_file():
        outdated.download = raw_files_problem(study)
    check = RunCheck(study)
    for run in study.runs:
        stage, why = check.problem(*run) or (None, "")
        if stage:
            getattr(outdated, stage)[run] = why
        if not outdated.incomplete:
            files, last = study.layout.run(*run), study.stages(run[0])[-1]
            outdated.incomplete = not files.is_complete(last)
    outdated.incomplete = outdated.incomplete or len(study.chosen) < len(study.searches)
    missing = study.layout.prepared_record(study.dataset).is_file() and not data.is_file()
    if missing and (outdated.incomplete or outdated.train or outdated.evaluate):
        outdated.prepare = f"{data} is missing, and needed"
    return outdated


class RunCheck:
    """Holds the records of runs against the config, the data and the code as they are now."""

    def __init__(self, study: Study):
        """Look at the data; each file of the code is read once, when a record names it."""
        self.study = study
        data = study.layout.prepared(study.dataset)
        self.other_data = not prepared_record.is_of(data, study.dataset_entry)
        damaged = prepared_record.damage(data)
        self.data_sha256 = None if damaged else prepared_record.digest_in_record(data)
        self.digest_now = cache(code_digests.digest_now)

    def problem(self, experiment: str, seed: int) -> tuple[str, str] | None:
        """Return the stage of a run that must be run again, and why, or None.

        Nothing is said of a run that is not trained yet, or not evaluated yet.
        """
        files = self.study.layout.run(experiment, seed)
        if not files.is_complete("train"):
            gone = files.record.exists() or files.is_complete("evaluate")
            return ("train", "files of its training are missing") if gone else None
        settings = self.study.experiments[experiment].settings(seed)
        try:
            record = read_trained(files)
            why = self._training_problem(record, settings)
            if why:
                return "train", why
            why = self._evaluation_problem(files, record)
        except (UserError, OSError) as error:
            return "train", str(error)
        return ("evaluate", why) if why else None

    def _training_problem(self, record: dict, settings: dict) -> str | None:
        names = difference(record["settings"], settings)
        if names:
            return f"other settings ({', '.join(names)})"
        if self.other_data or self.data_sha256 not in (None, record["data_sha256"]):
            return "other data"
        return self._code_problem(record)

    def _evaluation_problem(self, files: RunFiles, trained: dict) -> str | None:
        if not files.is_complete("evaluate"):
            return "files of its evaluation are missing" if files.evaluation.exists() else None
        try:
            evaluation = records.read(files.evaluation)
        except UserError as error:
            return str(error)
        if evaluation["run_sha256"] != trained[records.SEAL]:
            return "it was trained since"
        return self._code_problem(evaluation)

    def _code_problem(self, record: dict) -> str | None:
        files = code_digests.changed(record["code"], self.digest_now)
        if not files:
            return None
        return f"other code ({', '.join(files[:3])}{', ...' if len(files) > 3 else ''})"


def raw_files_problem(study: Study) -> str | None:
    """Return why the raw files of the data set must be looked for again, or None."""
    listing, entry = study.layout.listing(study.dataset), study.dataset_entry
    if not listing.is_file():
        return None
    try:
        for role, file in read_json(listing)["files"].items():
            if "sha256" in entry["files"][role] and (
                file["sha256"] != entry["files"][role]["sha256"]
            ):
                return f"{listing} is of another entry of {study.datasets_file}"
            path = Path(file["path"])
            if not path.is_file() or path.stat().st_size != catalog.idx_size(entry, role):
                return f"{path} is missing, truncated or corrupt"
    except (UserError, KeyError, TypeError, AttributeError):
        return f"{listing} is truncated or corrupt"
    return None


def read_trained(files: RunFiles) -> dict:
    """Return the record of a trained run. Its weights are read only if they are newer.

    Raises:
        UserError: the record or the weights are not what was written, or are another run's.
    """
    record = records.read(files.record)
    records.check_seed(files, record)
    if files.weights.stat().st_mtime_ns > files.record.stat().st_mtime_ns:
        records.check_files(files.record, record)
    return record
