"""How far each run of a study is, by the config, the data, and the code as they are now.

The runs' own records decide, not Snakemake's: those are in `.snakemake`, which a fresh clone does
not have, and they know what was planned, not what was done. So settings that mean the same are the
same, however they are written, and results that are copied with their folder count as they are.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

from lib.core import code_digests, provenance
from lib.core.errors import UserError
from lib.core.files import read_json
from lib.core.run_state import OTHER_CODE, Expected, RunState, run_state
from lib.core.seeds import Run, Seed
from lib.data import prepared_record, readers
from lib.study.study import Study

SHOWN = 5  # reasons; the others are counted


class RunStates:
    """Tells the state of each run of a study.

    It looks at the data when it is made, and reads each file of the code once, when a record names
    it. Of a run, it reads small files, and the weights only where they are newer than their record.

    Attributes:
        data_problem: why the prepared data has to be made again; None if it has not.
    """

    def __init__(self, study: Study):
        self.study = study
        data = study.layout.prepared(study.dataset)
        self.data_problem = prepared_record.damage(data)
        names = None if self.data_problem else prepared_record.names_in_record(data)
        if not prepared_record.is_of(data, study.dataset_entry):
            self.data_problem = (
                f"{data} was made of another entry of {study.datasets_file}, or its images have "
                "changed since"
            )
            names = ()  # all results are of other data
        self.expected = Expected(data=names, is_same=cache(code_digests.is_same))

    def of(self, experiment: str, seed: Seed) -> RunState:
        """Return the state of a run."""
        files, stages = self.study.layout.run(experiment, seed), self.study.stages(experiment, seed)
        return run_state(files, self.expected_of(experiment, seed), stages)

    def expected_of(self, experiment: str, seed: Seed) -> Expected:
        """Return what a run should be of."""
        each = self.study.experiments[experiment]
        return replace(self.expected, settings=each.settings(seed), versions=each.strict_versions)


@dataclass
class Outdated:
    """What must be made again, and why. The runs' states are by experiment and seed.

    It says nothing of files that are not there yet: Snakemake sees those.
    """

    download: str | None = None
    prepare: str | None = None
    states: dict[Run, RunState] = field(default_factory=dict)
    incomplete: bool = False  # whether anything is left to do for a run or a search

    def __bool__(self) -> bool:
        return bool(self.download or self.prepare or any(s.why for s in self.states.values()))

    def lines(self) -> list[str]:
        """Return what there is to say about it, in a few lines."""
        found = [reason for reason in (self.download, self.prepare) if reason]
        for stage in ("train", "evaluate"):
            again = [(run, s.why) for run, s in self.states.items() if s.why and s.left == stage]
            found += [
                f"{stage} {name}, seed {seed} again: {why}" for (name, seed), why in again[:SHOWN]
            ]
            others = Counter(why for _, why in again[SHOWN:])
            found += [f"{stage} {count} more: {why}" for why, count in others.most_common(SHOWN)]
        if any(each.left and each.why.startswith(OTHER_CODE) for each in self.states.values()):
            found.append("if the new code computes the same, keep them: make adopt")
        return found


def find_outdated(study: Study) -> Outdated:
    """Look at the records of all runs.

    It reads small files only, and the data where it has another time than when it was last read.
    """
    data, states = study.layout.prepared(study.dataset), RunStates(study)
    outdated = Outdated(prepare=states.data_problem)
    if outdated.prepare or not data.is_file():
        outdated.download = raw_files_problem(study)
    outdated.states = {run: states.of(*run) for run in study.runs}
    outdated.incomplete = bool(study.undecided) or any(
        each.left for each in outdated.states.values()
    )
    missing = study.layout.prepared_record(study.dataset).is_file() and not data.is_file()
    if missing and outdated.incomplete:
        outdated.prepare = f"{data} is missing, and needed"
    return outdated


def other_versions(states: Iterable[RunState]) -> str | None:
    """Return which trained networks are of other versions of the packages than those installed."""
    found = Counter()
    for state in states:
        if "train" in state.done:
            found["; ".join(provenance.other_versions(state.record["versions"]))] += 1
    here = found.pop("", 0)
    if not found:
        return None
    others = ", and ".join(f"{count} with {each}" for each, count in found.items())
    return f"trained with other versions: {others}; {here} with those that are here"


def raw_files_problem(study: Study) -> str | None:
    """Return why the raw files of the data set must be looked for again, or None."""
    listing = study.layout.listing(study.dataset)
    wanted = readers.downloads(study.dataset_entry)
    if not listing.is_file():
        return None
    try:
        listed = read_json(listing)["files"]
        if listed.keys() != wanted.keys():
            return f"{listing} is of another entry of {study.datasets_file}"
        for role, file in listed.items():
            expected = wanted[role]
            if file["sha256"] != expected.get("sha256", file["sha256"]):
                return f"{listing} is of another entry of {study.datasets_file}"
            path = Path(file["path"])
            if path.name != expected["name"]:
                return f"{listing} is of another entry of {study.datasets_file}"
            # Of an archive, only the most bytes are known before it is there.
            if not path.is_file() or path.stat().st_size != file.get("size", expected["size"]):
                return f"{path} is missing, truncated or corrupt"
    except (UserError, KeyError, TypeError, AttributeError):
        return f"{listing} is truncated or corrupt"
    return None
