"""Do the first steps of a stored run again, with the current code, and evaluate its weights.

    python scripts/replay.py --run results/runs/cnn/seed1 --data results/data/MNIST.safetensors

It says whether all is equal to the last bit: the order of the images, the learning rates, the loss
of each step, the weights and the random generators after them, and the evaluation of the stored
weights. With --all, or where the record has no fingerprint of its first steps, as of version 0.2,
the whole training is done again, and its weights are compared.

`make adopt` does so for the runs that are out of date because of their code.
"""

import os
import socket
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import lib.core.command_line as command_line  # first, for Ctrl-C

import torch

import models
from lib.core import code_digests, provenance, records, snapshot
from lib.core.errors import NodeError, TemporaryError, UserError
from lib.core.files import write_json
from lib.core.layout import RunFiles
from lib.core.settings import Settings
from lib.data import image_list, prepared
from lib.reporting import reproduction
from lib.reporting.reproduction import INSTRUCTIONS, USE_INSTRUCTIONS, Stored
from lib.running import replay
from lib.training import device as devices
from lib.training import network


@dataclass(frozen=True)
class Replay:
    """How a replay compares with the run.

    Attributes:
        difference: what differs first; empty if nothing does.
        proof: what was done, in words.
        machine: in what this machine differs from that of the record.
    """

    difference: str
    proof: str
    machine: list[str]


WHOLE = "the whole training"


def main() -> None:
    """Run the command line."""
    parser = command_line.parser(__doc__)
    add = parser.add_argument
    add("--run", type=Path, required=True, metavar="DIR", help="a run's folder, from train.py")
    add("--data", type=Path, required=True, metavar="FILE", help="a .safetensors from prepare.py")
    add("--all", action="store_true", help="do all steps again (default: the first ones)")
    add("--output", type=Path, metavar="FILE", help="a JSON file for what came of it")
    args = parser.parse_args()

    stored = Stored.read(RunFiles(args.run.absolute()), stale=True)
    reproduction.check_data(stored.record, args.data)
    name = stored.record["settings"]["model"]["name"]
    # What is proven is proven for this code, whatever is edited meanwhile.
    code = code_digests.computing_digests(models.file_of(name))
    state = provenance.code_state()
    found = replayed(stored, args.data, args.all)
    if args.output:
        about = {"code": code, "git_commit": state["git_commit"]}
        write_json(args.output, asdict(found) | about)
    print(f"{args.run}: {found.difference or 'equal'} ({found.proof})")
    sys.exit(1 if found.difference and not args.output else 0)


def replayed(stored: Stored, data: Path, whole: bool) -> Replay:
    """Do a training again, or its first steps; that it fails is a difference, too.

    Raises:
        TemporaryError: it was interrupted.
    """
    fingerprint = stored.record.get("fingerprint")
    whole = whole or not fingerprint
    proof = WHOLE if whole else f"replay of {fingerprint['steps']} steps"
    try:
        return whole_training(stored, data) if whole else first_steps(stored, data, proof)
    except TemporaryError:
        raise
    except NodeError as error:
        return Replay(str(error), proof, [str(error)])
    except UserError as error:
        return Replay(f"it fails: {error}", proof, [])


def first_steps(stored: Stored, data: Path, proof: str) -> Replay:
    """Do the first steps again, and evaluate the stored weights."""
    record, settings = stored.record, Settings.of(stored.record["settings"])
    use_instructions(record)
    torch.set_num_threads(record["threads"])
    now = here(record)
    machine = reproduction.differing_machine(record, now) + reproduction.resumed(record)
    dataset, device = prepared.load(data, settings.fold), devices.choose(settings.device)
    splits = [part.to(device) for part in network.splits(dataset, settings)]
    rates, kept = stored.history["learning_rate"].tolist(), records.kept_row(record)
    difference = replay.rates_difference(settings, rates, len(splits[0]))
    difference = difference or replay.difference(
        record["fingerprint"], replay.first_steps(settings, *splits, dataset.classes, device)
    )
    where = (len(dataset.classes), device, stored.files)
    difference = difference or replay.held_out_difference(
        settings, splits[1], *where, stored.history.iloc[kept]
    )
    evaluation = stored.evaluation
    if not difference and evaluation:
        torch.set_num_threads(evaluation["threads"])
        loss = evaluation["test_loss"]
        names = image_list.names_of_test(data, settings.fold)
        difference = replay.evaluation_difference(settings, dataset, names, stored.files, loss)
        of_now = {"threads": evaluation["threads"], "versions": now["versions"]}
        machine = reproduction.differing_machine(evaluation, of_now)
        if evaluation["host"] != socket.gethostname():
            machine.append(f"it was evaluated on {evaluation['host']}")
    return Replay(difference, proof, machine)


def use_instructions(record: dict) -> None:
    """Let torch use the instructions that a record names. It is told so when it starts."""
    here = reproduction.instructions_here()
    fewer = reproduction.with_instructions(record["cpu_capability"], here)
    if fewer and USE_INSTRUCTIONS not in os.environ:
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | fewer)  # noqa: S606


def here(record: dict) -> dict:
    """Return what the record of the same training would say of this machine."""
    settings = Settings.of(record["settings"])
    device = devices.choose(settings.device)
    return {
        **devices.describe(settings.device, device, record["cuda_graph"]),
        "threads": record["threads"],
        "processor": provenance.processor(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "variables": provenance.variables(),
        "versions": provenance.versions(models.file_of(settings.model["name"]), settings.packages),
    }


def whole_training(stored: Stored, data: Path) -> Replay:
    """Do all of a training again, and evaluate it, if the run is evaluated."""
    folder, tried = reproduction.working_folder(stored.files, "replay"), []
    for each in possible_instructions(stored.record):
        tried.append(reproduction.repeat(stored, data, snapshot.ROOT, folder, each))
        if tried[-1].outcome == reproduction.REPRODUCED:
            return Replay("", WHOLE, [])
    machine = reproduction.differing_machine(stored.record, here(stored.record))
    machine += reproduction.resumed(stored.record)
    return Replay(tried[0].first_difference or tried[0].why, WHOLE, machine)


def possible_instructions(record: dict) -> Sequence[str]:
    """Return what torch may have used of the processor: version 0.2 has not recorded it."""
    known, here = record.get("cpu_capability"), reproduction.instructions_here()
    if known or here not in INSTRUCTIONS:
        return [known or here]
    return INSTRUCTIONS[INSTRUCTIONS.index(here) :: -1]


if __name__ == "__main__":
    command_line.run(main)
