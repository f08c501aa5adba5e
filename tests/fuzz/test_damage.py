"""Fuzzing of the report's reading: one file of a finished study is damaged, in many ways."""

import time
from pathlib import Path

import pytest
from budget import seconds
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_up import make_up

from lib.core.errors import UserError
from lib.core.layout import EVALUATED, TRAINED
from lib.reporting import finished_runs, tables

NAMES = [(f"made{number:02}", seed) for number in range(3) for seed in (1, 2)]
FILES = [*TRAINED, *EVALUATED]
places = st.floats(0, 1, exclude_max=True)  # in a file, as a share of its size


@pytest.fixture(scope="module")
def study(finished_once, tmp_path_factory):
    """The results of a made-up study, and its test set."""
    results = tmp_path_factory.mktemp("damaged")
    make_up(results, finished_once.run_folder("mlp"), experiments=3, seeds=2)
    return results, finished_runs.read_test_set(finished_once.data)


def rows_of(experiments) -> dict[tuple, str]:
    """Return the rows of all tables, with all digits, by what each row describes."""
    runs = [run for each in experiments for run in each.runs]
    comparisons = tables.comparison_rows(experiments)
    return (
        {(run.experiment, run.seed): repr(tables.report_row(run)) for run in runs}
        | {(each.name,): repr(tables.summary_row(each)) for each in experiments}
        | {(row["a"], row["b"]): repr(row) for row in comparisons}
    )


@st.composite
def damages(draw):
    """Return a function that damages a file, given the results."""
    place, bit = draw(places), draw(st.integers(0, 7))
    other = draw(st.sampled_from(NAMES))
    other_file = draw(st.sampled_from(FILES))
    inserted = draw(st.binary(min_size=1, max_size=5))

    def truncate(file: Path, _):  # to nothing if the place is 0
        content = file.read_bytes()
        file.write_bytes(content[: int(place * len(content))])

    def flip(file: Path, _):
        content = bytearray(file.read_bytes())
        content[int(place * len(content))] ^= 1 << bit
        file.write_bytes(content)

    def insert(file: Path, _):
        content = file.read_bytes()
        position = int(place * len(content))
        file.write_bytes(content[:position] + inserted + content[position:])

    def delete(file: Path, _):
        file.unlink()

    def replace_by_folder(file: Path, _):
        file.unlink()
        file.mkdir()

    def replace_by_file_of_another_run(file: Path, results: Path):
        file.write_bytes((folder_of(results, other) / file.name).read_bytes())

    def replace_by_any_file(file: Path, results: Path):
        file.write_bytes((folder_of(results, other) / other_file).read_bytes())

    replacements = [replace_by_folder, replace_by_file_of_another_run, replace_by_any_file]
    return draw(st.sampled_from([truncate, flip, insert, delete, *replacements]))


def folder_of(results: Path, run: tuple[str, int]) -> Path:
    return results / "runs" / run[0] / f"seed{run[1]}"


def restore(file: Path, content: bytes) -> None:
    if file.is_dir():
        file.rmdir()
    file.write_bytes(content)


def test_a_damaged_file_is_named_or_changes_nothing(study):
    results, test_set = study
    whole = rows_of(finished_runs.read(results, NAMES, test_set))

    @given(st.sampled_from(NAMES), st.sampled_from(FILES), damages())
    @settings(
        max_examples=30,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    def damage_one_file(run, name, damage):
        file = folder_of(results, run) / name
        content = file.read_bytes()
        damage(file, results)
        try:
            check(run)
        finally:
            restore(file, content)

    def check(run):
        partial = finished_runs.read(results, NAMES, test_set, incomplete=True)
        missing = [(each.name, seed) for each in partial for seed in each.missing]
        assert missing in ([], [run])
        rows = rows_of(partial)
        if not missing:
            assert rows == whole
            assert rows_of(finished_runs.read(results, NAMES, test_set)) == whole
            return
        assert run not in rows
        for key, row in rows.items():
            assert (row == whole[key]) == (run[0] not in key or key in NAMES)
        with pytest.raises(UserError) as error:
            finished_runs.read(results, NAMES, test_set)
        assert f"{folder_of(results, run)}/" in str(error.value)

    end = time.monotonic() + seconds()
    while time.monotonic() < end:
        damage_one_file()
