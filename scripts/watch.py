"""Show how far the runs of a study are while they train, on this machine or on Slurm.

It reads the runs' own files, so it needs neither Snakemake nor Slurm, and disturbs nothing. On a
terminal there is one bar per run that trains; in a pipe, one line per epoch of each run. It ends
when all runs are done, or with Ctrl-C, which stops no run.

With a command after --, it runs that command, shows its errors and its results, and ends with its
exit status:

    python scripts/watch.py -- snakemake --profile profiles/local
"""

import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress

from tqdm import tqdm

from lib.cluster import driver
from lib.core import command_line, durations
from lib.core.errors import UserError
from lib.core.run_state import RunState
from lib.core.seeds import Run
from lib.study import choice
from lib.study.config import add_argument, read_study
from lib.study.run_states import RunStates
from lib.study.study import Study

MOST_BARS = 12
PERMILLE = 1000  # a bar's length
# In a study of more than FEW_RUNS, the runs that are done are looked at again every so many looks.
FEW_RUNS, SETTLED_LOOKS = 50, 10
SETTLED = ("done", "failed")  # the statuses in which a run waits for nothing
# What Snakemake prints where something goes wrong, and where that ends.
ERROR = re.compile(
    r"(Error in |\w*(Error|Exception)\b|Traceback|Trying to restart|(?i:error|warning):|Nothing to)"
)
END = re.compile(
    r"(\[\w{3} \w{3} +\d+ [\d:]+ \d{4}\]|Select jobs|Execute \d|Finished jobid|\d+ of \d)"
)
LAST_LINES = 30  # shown of a command that failed and printed nothing that looks like an error


def main() -> None:
    """Run the command line."""
    parser = command_line.parser(__doc__)
    add_argument(parser)
    add = parser.add_argument
    add(
        "--interval",
        type=command_line.duration,
        default=1.0,
        metavar="SECONDS",
        help="time between two updates (default: %(default)s)",
    )
    add("command", nargs="*", metavar="-- COMMAND", help="a command to run (default: none)")
    args = parser.parse_args()
    study = read_study(args.configfile, {})
    if args.command:
        sys.exit(run_and_watch(args.command, Display(study), args.interval))
    if line := driver.line(study.layout):
        print(line, flush=True)
    watch(study, args.interval)


def watch(study: Study, interval: float) -> None:
    """Show the progress of the runs until all are done, or until Ctrl-C."""
    # Python may raise KeyboardInterrupt where nothing can catch it, as where a bar is deleted.
    interrupts: queue.SimpleQueue[int] = queue.SimpleQueue()
    signal.signal(signal.SIGINT, lambda number, _: interrupts.put(number))
    display = Display(study)
    try:
        while display.update():
            with suppress(queue.Empty):
                interrupts.get(timeout=interval)
                break
    finally:
        display.close()


class Display:
    """What is shown of a study's runs: bars on a terminal, else lines."""

    def __init__(self, study: Study):
        self.study, self.states = study, RunStates(study)
        self.on_terminal = sys.stdout.isatty()
        # Of each run, how many epochs were shown, and of which results.
        self.shown: dict[Run, tuple[int, str | None]] = {}
        self.statuses: dict[Run, str] = {}  # of each run, when it was last looked at
        self.looks = 0
        self.bars: dict[Run, tqdm] = {}
        self.headline = ""
        self.headline_bar = self._bar(bar_format="{desc}") if self.on_terminal else None
        for run in study.runs:  # what was done before is not news
            state = self.states.of(*run)
            self.shown[run] = len(state.epochs), state.results

    def update(self, all_runs: bool = False) -> bool:
        """Show what has changed; return whether there is anything left to wait for.

        A run that is done may be trained again. In a large study its files are read only now and
        then, unless `all_runs` is set.
        """
        self._look_at_choice()
        runs = self.study.runs
        everything = all_runs or len(runs) <= FEW_RUNS or self.looks % SETTLED_LOOKS == 0
        self.looks += 1
        if not everything:
            runs = [run for run in runs if self.statuses.get(run) not in SETTLED]
        states = {run: self.states.of(*run) for run in runs}
        self.statuses |= {run: state.status for run, state in states.items()}
        for run, state in states.items():
            self._show_epochs(run, state)
        if self.on_terminal:
            self._draw_bars({r: s for r, s in states.items() if s.status == "training"})
        self._show_headline()
        stages = set(self.statuses.values())
        to_choose = self.study.undecided and "failed" not in stages
        return bool(stages.difference(SETTLED) or to_choose)

    def _look_at_choice(self) -> None:
        """Show what a search trains again, too, once it has chosen."""
        decided = choice.with_search_results(self.study)
        if decided.chosen != self.study.chosen:
            self.study, self.states = decided, RunStates(decided)

    def write(self, text: str) -> None:
        """Print a line above the bars."""
        tqdm.write(text, file=sys.stdout)
        sys.stdout.flush()

    def close(self) -> None:
        """Remove the bars."""
        for bar in [*self.bars.values(), self.headline_bar]:
            if bar is not None:
                bar.close()
        self.bars.clear()

    def _bar(self, **options) -> tqdm:
        return tqdm(leave=False, file=sys.stdout, dynamic_ncols=True, **options)

    def _show_epochs(self, run: Run, state: RunState) -> None:
        """Print the epochs that are new: each of them in a pipe, the last one on a terminal."""
        shown, results = self.shown.get(run, (0, None))
        if results is not None and state.results != results:  # it is trained again
            shown = 0
        epochs = self.study.experiments[run[0]].settings(run[1]).epochs  # in all
        done = state.training is None or len(state.epochs) == epochs
        last = len(state.epochs) if done else None  # it may end before all epochs are done
        for each in state.epochs[shown:]:
            if not self.on_terminal or each.epoch == last:
                left = state.training.remaining_seconds if state.training else None
                more = each.epoch == len(state.epochs) < epochs and left
                self.write(
                    f"{run[0]}, seed {run[1]}: epoch {each.epoch} of {epochs}, "
                    f"{each.split} accuracy {100 * each.accuracy:.2f}%"
                    + (f", about {durations.in_words(left)} left" if more else "")
                )
        all_shown = done or not self.on_terminal
        self.shown[run] = len(state.epochs) if all_shown else shown, state.results

    def _draw_bars(self, training: dict[Run, RunState]) -> None:
        for run in [run for run in self.bars if run not in training]:
            self.bars.pop(run).close()
        for run, state in training.items():
            if run not in self.bars and len(self.bars) < MOST_BARS:
                # A bar's unit is the one field that may be any text.
                self.bars[run] = self._bar(
                    desc=f"{run[0]}, seed {run[1]}",
                    total=PERMILLE,
                    bar_format="{desc} |{bar:20}| {percentage:3.0f}%  {unit}",
                )
            if run in self.bars:
                self.bars[run].n = round(PERMILLE * state.training.fraction)
                self.bars[run].unit = progress_text(state)
                self.bars[run].refresh()

    def _show_headline(self) -> None:
        """Say how many runs are done: below the bars, or in a line when it changes."""
        count = Counter(self.statuses.values())
        headline = f"{count['done']} of {len(self.statuses)} runs are done"
        headline += f", {count['training']} are training"
        headline += f", {count['failed']} have failed" if count["failed"] else ""
        if self.headline_bar is not None:
            self.headline_bar.set_description_str(headline)
        elif headline != self.headline:
            self.write(headline)
        self.headline = headline


def progress_text(state: RunState) -> str:
    """Return epoch, accuracy so far and time left of a run that trains."""
    epochs = state.training.epochs
    parts = [f"epoch {min(state.training.epoch, epochs)} of {epochs}"]
    for last in state.epochs[-1:]:
        parts.append(f"{last.split} accuracy {100 * last.accuracy:.2f}%")
    if state.training.remaining_seconds is not None:
        parts.append(f"about {durations.in_words(state.training.remaining_seconds)} left")
    return ", ".join(parts)


def run_and_watch(command: list[str], display: Display, interval: float) -> int:
    """Run a command and show the study's progress meanwhile; return the command's exit status.

    What it prints on standard output is shown. Of standard error, which Snakemake fills with what
    it is about to do, the errors are shown.

    Raises:
        UserError: the command cannot be started.
    """
    try:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace"
        )
    except OSError as error:
        raise UserError(f"cannot start {command[0]}: {error.strerror}") from None
    # Ctrl-C reaches the command too, which needs time to end. (A handler, as it would inherit
    # that a signal is ignored.)
    signal.signal(signal.SIGINT, lambda *_: None)
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    lines: queue.Queue[tuple[str, str] | None] = queue.Queue()
    for name, stream in (("out", process.stdout), ("err", process.stderr)):
        threading.Thread(target=read_lines, args=(name, stream, lines), daemon=True).start()

    errors = ErrorFilter()
    try:
        for name, line in until_both_end(lines, display, interval):
            if name == "out" or errors.shows(line):
                display.write(line)
    except BaseException:
        process.terminate()  # nobody would see how it goes on
        raise
    finally:
        status = process.wait()
        display.close()
    if status and not errors.shown:
        display.write("\n".join(errors.lines[-LAST_LINES:]))
    return status


def read_lines(name: str, stream, lines: queue.Queue) -> None:
    """Put the lines of a stream into a queue, and None at its end."""
    for line in stream:
        lines.put((name, line.rstrip("\n")))
    lines.put(None)


def until_both_end(
    lines: queue.Queue, display: Display, interval: float
) -> Iterator[tuple[str, str]]:
    """Yield the lines of two streams as they come; update the display at every interval."""
    open_streams, next_look = 2, time.monotonic()
    while open_streams:
        if time.monotonic() >= next_look:
            display.update()
            next_look = time.monotonic() + interval
        try:
            item = lines.get(timeout=max(0.0, next_look - time.monotonic()))
        except queue.Empty:
            continue
        if item is None:
            open_streams -= 1
        else:
            yield item
    display.update(all_runs=True)


class ErrorFilter:
    """Tells the errors in what Snakemake prints from what it is about to do."""

    def __init__(self):
        self.lines: list[str] = []  # all of them
        self.inside = self.shown = False

    def shows(self, line: str) -> bool:
        """Return whether the next line belongs to an error."""
        self.lines.append(line)
        if ERROR.match(line):
            self.inside = self.shown = True
        elif END.match(line):
            self.inside = False
        return self.inside


if __name__ == "__main__":
    command_line.run(main)
