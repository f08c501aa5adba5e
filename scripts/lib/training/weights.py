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
        try:
            flat = flatten(value, extra)
        except TypeError as error:
            raise UserError(
                f"model {type(model).__name__}: {name} cannot be saved: {error}"
            ) from error
        if isinstance(flat, dict) and "tensor" in flat and not name.startswith(EXTRA_TENSOR):
            plain[name] = extra.popitem()[1]
        else:
            others[name] = flat
    if not others:
        return plain, None
    plain |= {f"{EXTRA_TENSOR}{name}": tensor for name, tensor in extra.items()}
    return plain, {EXTRA: json.dumps(others)}


def unpack(tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None) -> dict[str, Any]:
    """Return the `state_dict` that `pack` was given."""
    state = {name: each for name, each in tensors.items() if not name.startswith(EXTRA_TENSOR)}
    extra = {name[1:]: each for name, each in tensors.items() if name.startswith(EXTRA_TENSOR)}
    others = json.loads((metadata or {}).get(EXTRA, "{}"))
    return state | {name: unflatten(each, extra) for name, each in others.items()}


def flatten(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """Return `value` in a form that JSON can hold, its tensors moved to `tensors`.

    A mapping becomes a list of pairs, since its keys may be numbers, as an optimizer's are.

    Raises:
        TypeError: there is something in it that is none of tensor, mapping, list, tuple, string,
            number, boolean and None.
    """
    if isinstance(value, torch.Tensor):
        return _flatten_tensor(value, tensors)
    if isinstance(value, dict):
        if not all(_is_plain(key) for key in value):
            raise TypeError("a key is neither a string nor a number")
        return {"pairs": [[key, flatten(each, tensors)] for key, each in value.items()]}
    if isinstance(value, list | tuple):
        items = [flatten(each, tensors) for each in value]
        return items if isinstance(value, list) else {"tuple": items}
    if not _is_plain(value):
        raise TypeError(f"a {type(value).__name__} is neither a tensor nor of a type that JSON has")
    return value


def unflatten(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """Return what `flatten` was given."""
    if isinstance(value, list):
        return [unflatten(each, tensors) for each in value]
    if not isinstance(value, dict):
        return value
    if "complex" in value:
        return torch.view_as_complex(tensors[value["complex"]])
    if "tensor" in value:
        return tensors[value["tensor"]]
    if "tuple" in value:
        return tuple(unflatten(each, tensors) for each in value["tuple"])
    return {key: unflatten(each, tensors) for key, each in value["pairs"]}


def _flatten_tensor(value: torch.Tensor, tensors: dict[str, torch.Tensor]) -> dict[str, str]:
    if value.layout != torch.strided or value.is_quantized or value.is_meta:
        raise TypeError(
            f"a tensor of layout {value.layout} on {value.device} is not dense, and cannot be saved"
        )
    name = str(len(tensors))
    # A copy: safetensors refuses tensors that share memory, or are not contiguous.
    copy = value.detach().cpu().resolve_conj().resolve_neg()
    copy = copy.clone(memory_format=torch.contiguous_format)
    if copy.is_complex() and copy.dtype != torch.complex64:  # the one that safetensors has
        tensors[name] = torch.view_as_real(copy)
        return {"complex": name}
    tensors[name] = copy
    return {"tensor": name}


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float)
