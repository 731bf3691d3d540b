"""States of streams as bytes, so that a stream goes on in another process.

A state says which model it is of: continued by another one, it would go on with nonsense instead of an error. The
format is that of :mod:`echostream.checkpoints.state_files`.
"""

from __future__ import annotations

import hashlib
import json

import torch
from torch import Tensor, nn

from echostream.checkpoints.state_files import StateError, pack, unpack
from echostream.streaming.state import EchoStreamState
from echostream.streaming.translator import StreamingTranslator


def model_fingerprint(translator: StreamingTranslator) -> str:
    """A short text that is the same for translators that continue each other's states: weights and dictionaries."""
    digest = hashlib.blake2b(digest_size=16)
    modules: list[nn.Module] = [translator.model]
    if isinstance(translator.vocoder, nn.Module):
        modules.append(translator.vocoder)
    for module in modules:
        digest.update(type(module).__name__.encode())
        for name, tensor in sorted(module.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(_bytes_of(tensor))
    for symbols in (translator.detector.symbols, translator.writer.symbols):
        digest.update(json.dumps(symbols).encode())
    digest.update(f"{translator.writer.beam} {translator.transcriber is not None}".encode())
    if translator.gate is not None:
        digest.update(b"speech gate")
    return digest.hexdigest()


def state_to_bytes(state: EchoStreamState, fingerprint: str) -> bytes:
    """Serialise the state of a stream.

    Args:
        state: between two steps; not changed.
        fingerprint: :func:`model_fingerprint` of the translator that made it.

    Raises:
        TypeError: the state of a vocoder or policy of one's own holds something other than tensors, arrays,
            dataclasses derived from ``State`` or ``StatePart``, lists, tuples, dicts with text keys, numbers and texts.
    """
    return pack({"state": state}, {"model": fingerprint})


def state_from_bytes(data: bytes, fingerprint: str, device: str | torch.device = "cpu") -> EchoStreamState:
    """Read the state that :func:`state_to_bytes` has written; it continues identically.

    Args:
        data: the bytes.
        fingerprint: of the translator that is to continue it.
        device: of that translator's model.

    Raises:
        StateError: damaged, of another version, or of another model.
    """
    content, _ = unpack(data, {"model": fingerprint}, device)
    state = content.get("state")
    if not isinstance(state, EchoStreamState):
        raise StateError("it holds no state of a stream")
    return state


def _bytes_of(tensor: Tensor) -> bytes:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""
