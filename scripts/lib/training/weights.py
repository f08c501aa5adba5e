"""A model's weights as a safetensors file: tensors as tensors, all else as JSON in its metadata.

No pickle, so that a file from elsewhere can do no harm.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from lib.core.errors import UserError, errors_named

# The metadata of a file with a state that is no tensor, and the mark of the tensors within it.
EXTRA, EXTRA_TENSOR = "extra", "+"


def save_weights(model: torch.nn.Module, path: Path) -> None:
    """Write a model's `state_dict` into a file.

    Raises:
        UserError: a part of it cannot be saved (see `pack`).
        OSError, SafetensorError: the file cannot be written.
    """
    tensors, metadata = pack(model)
    save_file(tensors, path, metadata)


def load_weights(model: torch.nn.Module, path: Path) -> None:
    """Load weights into a model.

    Raises:
        UserError: the file is missing or corrupt, or holds the weights of another model.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            state = unpack(tensors, file.metadata())
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    name = type(model).__name__
    with errors_named(name):
        try:
            load_state(model, state)
        except RuntimeError as error:
            raise UserError(
                f"{path} holds the weights of a different model than {name}: {error}"
            ) from error


def load_state(model: torch.nn.Module, state: dict[str, Any]) -> None:
    """Load a `state_dict` into a model, also into buffers that were made by `expand`.

    Several elements of those are one place in memory, which cannot be written to.
    """
    for module in model.modules():
        own = list(module.named_buffers(recurse=False, remove_duplicate=False))
        for name, buffer in own:
            if 0 in buffer.stride() and buffer.numel() > 1:
                setattr(module, name, buffer.clone(memory_format=torch.contiguous_format))
    model.load_state_dict(state)


def pack(model: torch.nn.Module) -> tuple[dict[str, torch.Tensor], dict[str, str] | None]:
    """Return a model's `state_dict` as the tensors and the metadata of a safetensors file.

    Tied weights are saved under each of their names. The metadata is None for a model that has
    nothing but tensors, of types that safetensors has.

    Raises:
        UserError: a part is neither a dense tensor nor something that JSON can hold; the message
            has its name.
    """
    plain: dict[str, torch.Tensor] = {}
    extra: dict[str, torch.Tensor] = {}
    others = {}
    for name, value in model.state_dict().items():
        with errors_named(f"{type(model).__name__}: {name} cannot be saved"):
            flat = flatten(value, extra)
        match flat:
            case {"tensor": number} if not name.startswith(EXTRA_TENSOR):
                plain[name] = extra.pop(number)
            case _:
                others[name] = flat
    if not others:
        return plain, None
    plain |= {f"{EXTRA_TENSOR}{number}": tensor for number, tensor in extra.items()}
    return plain, {EXTRA: json.dumps(others)}


def unpack(tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None) -> dict[str, Any]:
    """Return the `state_dict` that `pack` was given."""
    state = {name: each for name, each in tensors.items() if not name.startswith(EXTRA_TENSOR)}
    others = json.loads((metadata or {}).get(EXTRA, "{}"))
    return state | {name: unflatten(each, tensors) for name, each in others.items()}


def flatten(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """Return `value` in a form that JSON can hold, its tensors copied to `tensors`.

    Raises:
        ValueError: there is something in it that is none of dense tensor, mapping, list, tuple,
            string, number, boolean and None.
    """
    match value:
        case None | str() | int() | float():
            return value
        case list():
            return [flatten(each, tensors) for each in value]
        case tuple():
            return {"tuple": flatten(list(value), tensors)}
        case dict():  # its keys may be numbers
            return {"pairs": flatten([list(pair) for pair in value.items()], tensors)}
        case torch.Tensor(layout=torch.strided, is_quantized=False):
            # A copy: safetensors refuses tensors that share memory, or are not contiguous.
            copy = value.detach().cpu().resolve_conj().resolve_neg()
            copy = copy.clone(memory_format=torch.contiguous_format)
            # Of the complex types, it has only complex64.
            as_real = copy.is_complex() and copy.dtype != torch.complex64
            number = str(len(tensors))
            tensors[number] = torch.view_as_real(copy) if as_real else copy
            return {"complex" if as_real else "tensor": number}
        case torch.Tensor():
            raise ValueError(f"a tensor of layout {value.layout} is not dense")
    raise ValueError(f"a {type(value).__name__} is neither a tensor nor of a type that JSON has")


def unflatten(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """Return what `flatten` was given; `tensors` are those of the file."""
    match value:
        case list():
            return [unflatten(each, tensors) for each in value]
        case {"tuple": items}:
            return tuple(unflatten(items, tensors))
        case {"pairs": pairs}:
            return dict(unflatten(pairs, tensors))
        case {"tensor": number}:
            return tensors[EXTRA_TENSOR + number]
        case {"complex": number}:
            return torch.view_as_complex(tensors[EXTRA_TENSOR + number])
    return value
