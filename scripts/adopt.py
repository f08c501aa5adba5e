"""Keep results across a change of the code that computes the same, and prove that it does.

    python scripts/adopt.py
    python scripts/adopt.py --force "only the names of variables have changed"

Of the runs that are out of date because of their code alone, one of each network and recipe is
replayed with the code of now: its first steps, and the evaluation of its weights. Where all is
equal to the last bit, its runs are adopted: they are valid for the code of now, and nothing is
trained again. RESULTS/adoptions.json says so. No other file is changed.

Exit status: 0 if all are adopted, or there is nothing to adopt; else 1.
"""

import difflib
import json
import shutil
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import lib.core.command_line as command_line  # first, for Ctrl-C

import models
from lib.cluster import snakemake_command
from lib.core import adoptions, code_digests, packages, provenance, records
from lib.core.adoptions import Adoption
from lib.core.errors import UserError
from lib.core.files import read_object
from lib.core.layout import RunFiles, run_name
from lib.core.run_state import read_trained
from lib.core.settings import canonical
from lib.core.snapshot import Snapshot
from lib.study.config import add_argument, read_study
from lib.study.run_states import RunStates
from lib.study.study import Study

MOST_LINES = 40  # of the changes of one file
REPLAY = {"difference": str, "proof": str, "machine": list}


@dataclass(frozen=True)
class OtherCode:
    """A run that is out of date because of its code alone."""

    run: tuple[str, int]
    files: RunFiles
    record: dict
    evaluation: dict | None
    changed: list[str]

    @property
    def name(self) -> str:
        """Its name, such as `cnn/seed1`."""
        return run_name(*self.run)

    @property
    def recipe(self) -> str:
        """What is equal for the runs that one replay speaks for: all but the seed."""
        settings = canonical(self.record["settings"]) | {"seed": None}
        code = adoptions.code_of(self.files, self.record)
        same = (settings, self.record["data_sha256"], code, self.evaluation is None)
        return json.dumps(same, sort_keys=True)


def main() -> None:
    """Run the command line."""
    parser = command_line.parser(__doc__)
    add_argument(parser)
    add = parser.add_argument
    add(
        "--force",
        metavar="REASON",
        help="adopt without a replay, for this reason, which the report will show",
    )
    add(
        "--whole",
        action="store_true",
        help="replay the whole trainings (default: their first steps)",
    )
    add(
        "--profile",
        type=Path,
        default=Path("profiles/local"),
        metavar="DIR",
        help="where to replay, as for snakemake (default: %(default)s)",
    )
    args = parser.parse_args()
    if args.force is not None and not args.force.strip():
        raise UserError("--force: say why these results are valid for the code of now")
    study = read_study(args.configfile, {})
    found = list(of_other_code(study))
    if not found:
        print("Nothing to adopt: no run is out of date because of its code alone")
        return
    print("\n".join(changes(study, found)))
    groups = defaultdict(list)
    for each in found:
        groups[each.recipe].append(each)
    if args.force:
        adopt(study, found, None, args.force.strip())
        return
    first = {recipe: runs[0] for recipe, runs in groups.items()}
    outputs = {
        recipe: study.layout.replay(*each.run, whole=args.whole) for recipe, each in first.items()
    }
    print(f"Replaying {', '.join(each.name for each in first.values())}", flush=True)
    snakemake_command.make(args.profile, args.configfile, list(outputs.values()))
    refused = False
    for recipe, runs in groups.items():
        replay = read_object(outputs[recipe], REPLAY)
        if replay and not replay["difference"]:
            adopt(study, runs, f"{replay['proof']} of {runs[0].name}", None)
        else:
            refused = True
            print(refusal(study, runs, replay))
        outputs[recipe].unlink(missing_ok=True)
    with suppress(OSError):
        shutil.rmtree(study.layout.replays)
    sys.exit(int(refused))


def of_other_code(study: Study) -> Iterator[OtherCode]:
    """Yield the runs that are out of date because of their code alone."""
    states = RunStates(study)
    for run in study.runs:
        files, expected = study.layout.run(*run), states.expected_of(*run)
        try:
            record = read_trained(files, "newer")
            evaluation = evaluation_of(files, record)
        except UserError:
            continue  # it is not done
        differs = expected.difference(record, files)
        changed = differs.code
        if evaluation:
            changed = sorted({*changed, *expected.changed_code(evaluation, files)})
        if changed and not (differs.settings or differs.data or differs.versions):
            yield OtherCode(run, files, record, evaluation, changed)


def evaluation_of(files: RunFiles, record: dict) -> dict | None:
    """Return the record of the evaluation of a training; None if there is none.

    Raises:
        UserError: it, or a file that it describes, is damaged.
    """
    if not files.has_all("evaluate"):
        return None
    evaluation = records.read(files.evaluation)
    records.check_files(files.evaluation, evaluation, newer=True)
    return evaluation if records.is_evaluation_of(evaluation, record) else None


def changes(study: Study, found: list[OtherCode]) -> list[str]:
    """Say which runs would be made again, and what has changed in the code since."""
    lines = [f"{len(found)} runs are of other code: {', '.join(each.name for each in found)}"]
    shown = set()
    for each in found:
        before = kept_code(study, each.record.get("snapshot"))
        for name in each.changed:
            path = code_digests.SCRIPTS / name
            now = path.read_text(encoding="utf-8") if path.is_file() else ""
            was = before.get(f"scripts/{name}") if before else None
            diff = ["  (the code that it was trained with was not kept)"]
            if was is not None:
                diff = diff_lines(was.decode(errors="replace"), now)
            text = "\n".join([f"scripts/{name}", *diff])
            if text not in shown:
                shown.add(text)
                lines.append(text)
    return lines


@cache
def _kept(path: Path, digest: str) -> dict[str, bytes] | None:
    try:
        return Snapshot.read(path, digest).files
    except UserError:
        return None


def kept_code(study: Study, digest: str | None) -> dict[str, bytes] | None:
    """Return the files of the code that was kept; None if there are none."""
    return _kept(study.layout.code(digest), digest) if digest else None


def diff_lines(was: str, now: str) -> list[str]:
    """Return the lines in which a file has changed, of many the first ones."""
    diff = list(difflib.unified_diff(was.splitlines(), now.splitlines(), "then", "now", "", "", 1))
    more = len(diff) - MOST_LINES
    return [f"  {line.rstrip()}" for line in diff[2:][:MOST_LINES]] + (
        [f"  ... and {more} lines more"] if more > 0 else []
    )


def adopt(study: Study, runs: list[OtherCode], proof: str | None, reason: str | None) -> None:
    """Adopt runs, and say so."""
    state, new = provenance.code_state(), []
    for each in runs:
        files = code_digests.computing_files_of(
            models.file_of(each.record["settings"]["model"]["name"])
        )
        seals = [record[records.SEAL] for record in (each.record, each.evaluation) if record]
        code = code_digests.file_digests(files)
        about = (provenance.now(), packages.version(), state["git_commit"])
        new.append(Adoption(each.name, seals, code, proof, reason, *about))
    adoptions.add(study.layout.adoptions, new)
    names = ", ".join(each.name for each in runs)
    print(f"adopted by {proof}: {names}" if proof else f"adopted without proof: {names}")


def refusal(study: Study, runs: list[OtherCode], replay: dict | None) -> str:
    """Say why runs are not adopted, and what can be done."""
    names, first = ", ".join(each.name for each in runs), runs[0]
    if replay is None:
        return f"not adopted: {names}: not replayed: see {study.layout.log('replay', *first.run)}"
    said = f"not adopted: {names}: the replay of {first.name} differs: {replay['difference']}"
    if not replay["machine"]:
        return f"{said}. So the code of now computes something else: they are to be trained again"
    where = first.record["slurm"] or {}
    partition = f" (partition {where['partition']})" if where.get("partition") else ""
    return (
        f"{said}. Bits cannot be compared here, as this machine differs from that of the record: "
        f"{'; '.join(replay['machine'])}. Replay them where they were trained{partition}: "
        "make adopt PROFILE=profiles/slurm"
    )


if __name__ == "__main__":
    command_line.run(main)
