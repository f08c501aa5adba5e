"""Keep results across a change of the code that computes the same, and prove that it does.

    python scripts/adopt.py
    python scripts/adopt.py --force "only the names of variables have changed"

Of the runs that are out of date because of their code alone, one of each network and recipe is
replayed with the current code: its first steps, and the evaluation of its weights. Where all is
equal to the last bit, its runs are adopted: they are valid for the current code, and nothing is
trained again. RESULTS/adoptions.json says so. No other file is changed.

Exit status: 0 if all are adopted, or there is nothing to adopt; else 1.
"""

import argparse
import difflib
import json
import shutil
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import lib.core.command_line as command_line  # first, for Ctrl-C

import models
from lib.cluster import profile, snakemake_command
from lib.core import adoptions, code_digests, packages, provenance, records
from lib.core.adoptions import Adoption
from lib.core.errors import UserError
from lib.core.files import read_object
from lib.core.layout import RunFiles, run_name
from lib.core.seeds import Run
from lib.core.settings import canonical
from lib.core.snapshot import Snapshot
from lib.reporting.reproduction import valid_evaluation
from lib.study.config import add_argument, read_study
from lib.study.run_states import RunStates
from lib.study.study import Study

MOST_LINES = 40  # of the changes of one file
REPLAY = {
    "difference": str, "proof": str, "machine": list, "code": dict, "git_commit": str | None,
}  # fmt: skip


@dataclass(frozen=True)
class OtherCode:
    """A run that is out of date because of its code alone."""

    run: Run
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
        """What is equal for the runs that one replay speaks for: all but seed and fold."""
        settings = canonical(self.record["settings"]) | {"seed": None, "fold": None}
        keys = ("data_sha256", "code", "device", "gpu", "cuda_graph")
        same = [self.record[key] for key in keys] + [bool(self.record["diverged"])]
        evaluation = self.evaluation and self.evaluation["code"]
        return json.dumps([settings, *same, evaluation], sort_keys=True)


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
    profile.add_argument(parser, "profiles/local")
    args = parser.parse_args()
    if args.force is not None and not args.force.strip():
        raise UserError("--force: say why these results are valid for the current code")
    study = read_study(args.configfile, {})
    found = list(of_other_code(study))
    if not found:
        print("Nothing to adopt: no run is out of date because of its code alone")
        return
    print("\n".join(changes(study, found)))
    if args.force:
        adopt(study, found, None, args.force.strip())
    elif not prove(study, found, args):
        sys.exit(1)


def prove(study: Study, found: list[OtherCode], args: argparse.Namespace) -> bool:
    """Replay a run of each recipe, adopt those that come out the same; return whether all do."""
    groups, proven = defaultdict(list), True
    for each in found:
        groups[each.recipe].append(each)
    replayed = {recipe: min(runs, key=comparable) for recipe, runs in groups.items()}
    outputs = {
        recipe: study.layout.replay(*each.run, whole=args.whole)
        for recipe, each in replayed.items()
    }
    print(f"Replaying {', '.join(each.name for each in replayed.values())}", flush=True)
    status = snakemake_command.make(args.profile, args.configfile, list(outputs.values()))
    if status and (status > 128 or not any(path.exists() for path in outputs.values())):
        print("Nothing was replayed, and nothing is adopted", file=sys.stderr)
        sys.exit(status)
    for recipe, runs in groups.items():
        replay, one = read_object(outputs[recipe], REPLAY), replayed[recipe]
        if replay and not replay["difference"]:
            adopt(study, runs, f"{replay['proof']} of {one.name}", None, replay)
        else:
            proven = False
            print(refusal(study, one, runs, replay))
    shutil.rmtree(study.layout.replays, ignore_errors=True)
    return proven


def comparable(each: OtherCode) -> tuple[bool, bool, bool]:
    """Return a key by which that run comes first with which bits can be compared best, and soon."""
    elsewhere = each.record.get("processor") != provenance.processor()
    return elsewhere, bool(each.record["resumes"]), not each.record.get("fingerprint")


def of_other_code(study: Study) -> Iterator[OtherCode]:
    """Yield the runs that are out of date because of their code alone."""
    states = RunStates(study)
    for run in study.runs:
        files, expected = study.layout.run(*run), states.expected_of(*run)
        record = states.of(*run).record
        if record is None:
            continue  # it is not done
        evaluation = valid_evaluation(files, record)
        differs = expected.difference(record, files)
        changed = differs.code
        if evaluation:
            changed = sorted({*changed, *expected.changed_code(evaluation, files)})
        if changed and not (differs.settings or differs.data or differs.versions):
            yield OtherCode(run, files, record, evaluation, changed)


def changes(study: Study, found: list[OtherCode]) -> list[str]:
    """Say which runs would be made again, and what has changed in the code since."""
    lines = [f"{len(found)} runs are of other code: {', '.join(each.name for each in found)}"]
    files = defaultdict(dict)  # of each kept code, those that have changed
    for each in found:
        files[each.record.get("snapshot")] |= dict.fromkeys(each.changed)
    for digest, names in files.items():
        before = kept_code(study, digest)
        lines += [f"scripts/{name}\n{change_of(name, before)}" for name in names]
    return list(dict.fromkeys(lines))


def kept_code(study: Study, digest: str | None) -> dict[str, bytes]:
    """Return the files of the code that was kept; none if it was not."""
    with suppress(UserError):
        return Snapshot.read(study.layout.code(digest), digest).files if digest else {}
    return {}


def change_of(name: str, before: dict[str, bytes]) -> str:
    """Say how a file of the code has changed."""
    was, path = before.get(f"scripts/{name}"), code_digests.SCRIPTS / name
    if was is None:
        return "  (the code that it was trained with was not kept)"
    now = path.read_text(encoding="utf-8") if path.is_file() else ""
    return "\n".join(diff_lines(was.decode(errors="replace"), now))


def diff_lines(was: str, now: str) -> list[str]:
    """Return the lines in which a file has changed, of many the first ones."""
    diff = list(difflib.unified_diff(was.splitlines(), now.splitlines(), "then", "now", "", "", 1))
    more = len(diff) - MOST_LINES
    return [f"  {line.rstrip()}" for line in diff[2:][:MOST_LINES]] + (
        [f"  ... and {more} lines more"] if more > 0 else []
    )


def adopt(
    study: Study,
    runs: list[OtherCode],
    proof: str | None,
    reason: str | None,
    replay: dict | None = None,
) -> None:
    """Adopt runs for the code that was replayed, or, without a replay, for the current code."""
    state, new = replay or provenance.code_state(), []
    for each in runs:
        seals = [record[records.SEAL] for record in (each.record, each.evaluation) if record]
        model = models.file_of(each.record["settings"]["model"]["name"])
        code = replay["code"] if replay else code_digests.computing_digests(model)
        about = (provenance.now(), packages.version(), state["git_commit"])
        new.append(Adoption(each.name, seals, code, proof, reason, *about))
    adoptions.add(study.layout.adoptions, new)
    names = ", ".join(each.name for each in runs)
    print(f"adopted by {proof}: {names}" if proof else f"adopted without proof: {names}")


def refusal(study: Study, first: OtherCode, runs: list[OtherCode], replay: dict | None) -> str:
    """Say why runs are not adopted, and what can be done; `first` is the one that was replayed."""
    names = ", ".join(each.name for each in runs)
    if replay is None:
        return f"not adopted: {names}: not replayed: see {study.layout.log('replay', *first.run)}"
    said = f"not adopted: {names}: the replay of {first.name} differs: {replay['difference']}"
    if not replay["machine"]:
        return f"{said}. So the current code computes something else: they are to be trained again"
    where = first.record["slurm"] or {}
    partition = f" (partition {where['partition']})" if where.get("partition") else ""
    return (
        f"{said}. Bits cannot be compared here, as this machine differs from that of the record: "
        f"{'; '.join(replay['machine'])}. Replay them where they were trained{partition}: "
        "make adopt PROFILE=profiles/slurm"
    )


if __name__ == "__main__":
    command_line.run(main)
