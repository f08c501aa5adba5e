"""A study as it is kept beside its results: its whole config, and the entry of its data set."""

import argparse
import shlex
from collections.abc import Sequence

from lib.core import strict_yaml
from lib.core.files import write_text
from lib.study.study import Study

ABOUT = "# The study whose results these are, with all defaults, as it was read the last time.\n"


def write(study: Study) -> None:
    """Keep a study: `results/study.yaml` is a config that says the same, whatever is edited later.

    Raises:
        TemporaryError: a file cannot be written; the message names it.
    """
    layout = study.layout
    config = study.config | {"datasets_file": layout.study_dataset.as_posix()}
    entry = strict_yaml.dump({study.dataset: study.dataset_entry})
    write_text(layout.study_dataset, ABOUT + entry)
    write_text(layout.study, ABOUT + strict_yaml.dump(config))


def command(study: Study, words: Sequence[str]) -> str:
    """Return the command that makes the study again from what is kept.

    Args:
        study: the study.
        words: of the command line of Snakemake, whose profiles are used again.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--profile", action="append", default=[])
    profiles = parser.parse_known_args(list(words))[0].profile
    options = [word for name in profiles for word in ("--profile", name)]
    return shlex.join(["snakemake", *options, "--configfile", study.layout.study.as_posix()])
