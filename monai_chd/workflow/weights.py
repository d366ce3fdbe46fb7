"""Reads a model's weights, and says of a file that holds none, or those of another network, what it is.

How they are written is `handlers.checkpoints`' part; what else lies beside them is that of `settings`.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monai_chd.errors import UserError, UserFileError
from monai_chd.wording import some_of

if TYPE_CHECKING:
    from torch import nn

_AGAIN = "take it again from where the model was trained"


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """What `torch.save` wrote, tensors and plain data only, on the CPU.

    Raises:
        UserFileError: no such file.
        UserError: a Git LFS pointer, something else, cut or damaged, or objects besides tensors; names the file.
    """
    import torch  # what is refused before weights are read takes no second

    path = Path(path)
    try:
        with path.open("rb") as file:
            if file.read(64).startswith(b"version https://git-lfs"):
                raise UserError(f"{path}: a Git LFS pointer in place of the weights; fetch them with git lfs pull")
            file.seek(0)
            content = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserFileError(f"{path}: no such file") from None
    except (RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        if isinstance(error, UserError):
            raise
        if "Unsupported global" in str(error):
            raise UserError(
                f"{path}: holds objects besides tensors, which are not loaded since they could run code; save the state "
                f"dict of the network alone"
            ) from None
        raise UserError(f"{path}: no weights, or cut or damaged ones; {_AGAIN}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a state dict, got {type(content).__name__}; {_AGAIN}")
    return content


def load_weights(network: nn.Module, path: str | Path) -> None:
    """Give a network its weights, those of `model.pt` or of the network in `last.pt`.

    Raises:
        UserFileError, UserError: see `read_checkpoint`.
        UserError: weights of another network; names tensors that it lacks, or has too many or in another shape. Or weights
            that are not finite.
    """
    content = read_checkpoint(path)
    weights = content["network"] if isinstance(content.get("network"), dict) else content
    own = network.state_dict()
    wrong = [f"{name} (missing)" for name in own if name not in weights]
    wrong += [f"{name} (unknown)" for name in weights if name not in own]
    for name in own.keys() & weights.keys():
        came, expected = getattr(weights[name], "shape", None), own[name].shape
        if came != expected:
            wrong.append(f"{name} ({'no tensor' if came is None else tuple(came)}, expected {tuple(expected)})")
    if wrong:
        raise UserError(
            f"{path}: weights of another network: {len(wrong)} tensors do not fit, {some_of(sorted(wrong), 3)}; ask for the "
            f"settings it was trained with (--encoder, --hidden_size, …), or name other weights with --checkpoint"
        )
    if spoilt := [name for name, value in weights.items() if value.is_floating_point() and not value.isfinite().all()]:
        raise UserError(
            f"{path}: weights that are not finite, as a training leaves that diverged: {some_of(spoilt, 3)}; train again with a "
            f"smaller learning_rate"
        )
    network.load_state_dict(weights)
