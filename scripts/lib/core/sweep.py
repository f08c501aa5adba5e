"""A search over settings: which points it has, and what each of them is named.

A `sweep` has every combination of its lists of values, or `samples` random points of its
distributions. A point's name says its values, and depends on nothing else. So a new value or one
more sample changes no other point:

- A sample's value is drawn from a hash of the seed, the sample's number and the key, not from a
  generator that has drawn others before.
- A sample chooses the value whose hash is the largest (rendezvous hashing: D. G. Thaler and C. V.
  Ravishankar, IEEE/ACM Trans. Networking 6 (1998) 1-14). Of a list with one more value, only the
  samples that choose that value change.
"""

import copy
import hashlib
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

from lib.core.errors import UserError
from lib.core.settings import COMPONENTS, SHARED, canonical, loss_of
from lib.core.spelling import nearest

OPTIONS = ("samples", "seed", "refit")  # the keys of a sweep that are no settings
DISTRIBUTIONS = ("choice", "uniform", "log_uniform")
SEARCHED = [key for key in SHARED if key != "validation_size"]
DIGITS = 4  # significant ones of a number that is drawn
MOST_POINTS = 100_000
LONGEST_NAME = 80  # characters


@dataclass(frozen=True)
class Point:
    """One point of a search.

    Attributes:
        name: of the experiment that it is.
        values: the searched settings, by their dotted keys.
        settings: all settings that an experiment may set, with the values in them.
    """

    name: str
    values: dict[str, Any]
    settings: dict[str, Any]


def points(name: str, settings: dict[str, Any], sweep: dict[str, Any]) -> list[Point]:
    """Return the points of a search, without those that mean the same as an earlier one.

    Args:
        name: of the experiment that is searched.
        settings: `model`, and those of `training`, resolved: where a point sets nothing else.
        sweep: of the config.

    Raises:
        UserError: it is wrong; the message names the key.
    """
    searched = {key: each for key, each in sweep.items() if key not in OPTIONS}
    problems = _problems(searched, settings, sweep.get("samples"))
    if problems:
        raise UserError("\n".join(problems))
    found: dict[str, Point] = {}
    for values in _combinations(searched, sweep):
        changed = with_values(settings, values)
        meaning = json.dumps(_plain(canonical(changed)), sort_keys=True)
        found.setdefault(meaning, Point(point_name(name, values), values, changed))
    return list(found.values())


def _problems(searched: dict, settings: dict, samples: int | None) -> list[str]:
    """Return what is wrong with the keys of a sweep and their values."""
    if not searched:
        return ["there is nothing to search: give a key a list of values"]
    problems = []
    size = 1
    for key, values in searched.items():
        first, dot, argument = key.partition(".")
        if key == "validation_size":
            problems.append(f"{key}: the points would be compared on different images")
        elif first not in ("model", *SEARCHED) or (dot and first not in COMPONENTS):
            problems.append(f"{key}: no such setting{nearest(key, ['model.', *SEARCHED])}")
        elif dot and not argument:
            problems.append(f"{key}: no such setting")
        elif dot and not all(isinstance(each, dict) for each in bases(first, searched, settings)):
            part = " at some of the points" if first in searched else ""
            problems.append(f"{key}: the experiment has no {first}{part}")
        if samples and not isinstance(values, dict):
            problems.append(f"{key}: with samples, name a distribution: {{choice: [...]}}")
        elif isinstance(values, dict) and not samples:
            problems.append(f"{key}: a distribution needs samples, their number")
        elif isinstance(values, dict):
            problems += [f"{key}.{problem}" for problem in _distribution_problems(values)]
        size *= len(values)
    size = samples or size
    if size > MOST_POINTS:
        problems.append(f"it has {size:,} points; {MOST_POINTS:,} is the limit")
    return problems


def bases(component: str, searched: dict, settings: dict) -> list:
    """Return what a dotted key changes an argument of: what is searched, or the experiment's."""
    values = searched.get(component, [settings[component]])
    values = next(iter(values.values())) if isinstance(values, dict) else values
    return [loss_of(each) if is_name_of_loss(component, each) else each for each in values]


def is_name_of_loss(component: str, value: Any) -> bool:
    """Return whether a value is a loss that is given by its name alone."""
    return component == "loss" and isinstance(value, str)


def _distribution_problems(distribution: dict) -> list[str]:
    ((kind, bounds),) = distribution.items()
    if kind == "choice":
        return []
    low, high = bounds
    if not low < high:
        return [f"{kind}: {low} is not less than {high}"]
    if kind == "log_uniform" and low <= 0:
        return [f"{kind}: {low} is not more than 0"]
    return []


def _combinations(searched: dict, sweep: dict) -> Iterator[dict[str, Any]]:
    if "samples" not in sweep:
        for values in product(*searched.values()):
            yield dict(zip(searched, values, strict=True))
        return
    seed = sweep.get("seed", 0)
    for number in range(sweep["samples"]):
        yield {key: _drawn(each, f"{seed}/{number}/{key}") for key, each in searched.items()}


def _drawn(distribution: dict, place: str) -> Any:
    """Return the value of a sample at a place: the seed, the sample's number, and the key."""
    ((kind, of),) = distribution.items()
    if kind == "choice":
        return max(of, key=lambda value: _hash(f"{place}/{_text(value)}"))
    share = _hash(place) / 2**256
    low, high = of
    if kind == "log_uniform":
        number = math.exp(math.log(low) + share * (math.log(high) - math.log(low)))
    else:
        number = low + share * (high - low)
    return min(max(float(f"{number:.{DIGITS}g}"), low), high)


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest(), "big")


def with_values(settings: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """Return settings with those of a point: a whole `optimizer` first, then its arguments."""
    changed = copy.deepcopy(
        settings | {key: each for key, each in values.items() if "." not in key}
    )
    for key, value in values.items():
        first, dot, argument = key.partition(".")
        if dot:
            if is_name_of_loss(first, changed[first]):
                changed[first] = {"name": changed[first]}
            changed[first][argument] = value
    return changed


def point_name(name: str, values: dict[str, Any]) -> str:
    """Return the name of a point, such as `mlp_hidden32_lr0.3`."""
    last = [key.rpartition(".")[2] for key in values]
    words = [
        (short if last.count(short) == 1 else key.replace(".", "-")) + _text(value)
        for (key, value), short in zip(values.items(), last, strict=True)
    ]
    full = "_".join([name, *words])
    if len(full) <= LONGEST_NAME:
        return full
    return f"{full[: LONGEST_NAME - 9]}-{_digest(full, 8)}"


def _text(value: Any) -> str:
    """Return a value as a part of a name; no two values have the same."""
    value = _plain(value)
    if value is None or isinstance(value, bool | int | float):
        return str(value).lower().replace("+", "")
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z][A-Za-z0-9-]*", value):
        return value if value not in ("none", "true", "false") else f"{value}-"
    return f"-{_digest(json.dumps(value, sort_keys=True), 6)}"


def _digest(text: str, length: int) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def _plain(value: Any) -> Any:
    """Return a value in which equal numbers are spelled alike: 1 for 1.0."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    return value
