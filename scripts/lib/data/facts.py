"""What is known of a data set before a run: how many images, of which shape, in which classes."""

from contextlib import suppress
from pathlib import Path

from lib.core import records
from lib.core.errors import UserError
from lib.core.layout import prepared_record
from lib.data.pixels import Form, shape_of
from lib.data.prepared_record import Facts, is_of
from lib.data.readers import kind_of, module, open_reader, raise_problems
from lib.data.survey import FIXED_SPLIT, survey

SOME = 5  # images that are looked at, until one can be read


def facts_of(prepared: Path, entry: dict) -> Facts:
    """Return what is known of a data set: from its record, or else by looking at its images.

    Raises:
        UserError: it is not prepared, and the data is not what the entry says; one line for each
            problem.
    """
    with suppress(UserError):
        record = records.read(prepared_record(prepared))
        if "facts" in record and is_of(prepared, entry):  # version 0.2 has not recorded them
            return Facts(**record["facts"])
    if hasattr(kind := module(kind_of(entry)), "facts"):  # it may be not downloaded yet
        if "folds" in entry:
            raise UserError(FIXED_SPLIT)
        return Facts(**kind.facts(entry))
    reader = open_reader(entry)
    found, form = survey(reader, entry), Form.of(entry)
    problems = []
    for item in found.items if entry.get("unreadable") == "skip" else found.items[:SOME]:
        try:
            channels, *image_size = shape_of(reader.read(item))
        except UserError as error:  # which others cannot be read is found when all are
            problems.append(f"{item.name} cannot be read: {error}")
            continue
        shape = [form.channels or channels, *(form.image_size or image_size)]
        return Facts(found.classes, *found.sizes, shape, found.fold_sizes)
    raise_problems(problems, f"{kind_of(entry)}: ")
    raise UserError("there is no image")
