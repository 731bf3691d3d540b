"""Features of one layer of a HuBERT model (Hsu et al. 2021), read from a fairseq checkpoint.

Published checkpoints carry more than tensors: the training options and fairseq's label dictionaries. They are read by
torch's safe loader, which makes no object of any class that is not named here. fairseq's model evaluates one string of
the options as Python; it is checked to be plain numbers first.
"""

from __future__ import annotations

import ast
import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fairseq.data.dictionary import Dictionary
from omegaconf import nodes
from torch import Tensor

from echostream.checkpoints.errors import UnsafeFileError
from echostream.checkpoints.initialisation import CHECKPOINT_TYPES
from echostream.checkpoints.safe_loading import load_safely

LABELS = "label_embs_concat"  # only for the training loss
MAX_CHUNK_SAMPLES = 1_600_000  # 100 s at once, as in fairseq's own feature dump: attention grows with the square
HALF_PRECISION_KEYS = ("fp16", "bf16")
OPTION_TYPES = (nodes.StringNode, nodes.IntegerNode, nodes.FloatNode, nodes.BooleanNode, nodes.EnumNode)
ALLOWED_TYPES = (*CHECKPOINT_TYPES, Dictionary, *OPTION_TYPES, str)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a fairseq checkpoint of a HuBERT with torch's safe loader.

    Raises:
        ValueError: no such file, not a checkpoint, or one with objects of other classes than published ones have.
    """
    if not path.is_file():
        raise ValueError(f"no HuBERT checkpoint {path}; give one with --hubert")
    try:
        state = load_safely(path, ALLOWED_TYPES)
    except UnsafeFileError as error:
        raise ValueError(f"{path} is refused: {error}") from error
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror or error}") from error
    if not isinstance(state, dict) or not isinstance(state.get("model"), dict) or not state.get("cfg"):
        raise ValueError(f"{path} is not a fairseq checkpoint with the options (cfg) and tensors (model) of a HuBERT")
    return state


def check_layers(text: str) -> None:
    """Make sure that a description of convolutions, which fairseq evaluates as Python, holds numbers and nothing else.

    Raises:
        ValueError: anything but numbers, tuples, lists, `+` and `*`.
    """
    plain = (ast.Expression, ast.List, ast.Tuple, ast.Constant, ast.BinOp, ast.Add, ast.Mult, ast.Load)
    try:
        nodes = list(ast.walk(ast.parse(text.strip(), mode="eval")))
    except SyntaxError as error:
        raise ValueError(f"conv_feature_layers is not a list: {text!r}") from error
    for node in nodes:
        # A number of layers beyond 1000 is no model but an attempt to fill the memory.
        bad_number = isinstance(node, ast.Constant) and (type(node.value) is not int or not 0 < node.value <= 10_000)
        if not isinstance(node, plain) or bad_number:
            raise ValueError(f"conv_feature_layers holds more than small whole numbers in lists: {text!r}")


def build_hubert(state: dict[str, Any]) -> tuple[torch.nn.Module, bool]:
    """Make fairseq's HubertModel from a checkpoint of `load_checkpoint`.

    Returns:
        The model in evaluation mode, float32, and whether it wants its input normalised.

    Raises:
        ValueError: options of another model, or tensors that do not fit them.
    """
    from fairseq.dataclass.utils import merge_with_parent
    from fairseq.models.hubert.hubert import HubertConfig, HubertModel
    from fairseq.tasks.hubert_pretraining import HubertPretrainingConfig
    from omegaconf import OmegaConf, open_dict

    cfg = state["cfg"] if OmegaConf.is_config(state["cfg"]) else OmegaConf.create(state["cfg"])
    name = OmegaConf.select(cfg, "model._name")
    if name != "hubert" or OmegaConf.select(cfg, "task") is None:
        raise ValueError(f"the checkpoint holds a model of type {name!r}, not a pre-trained 'hubert'")
    task_cfg = merge_with_parent(HubertPretrainingConfig(), cfg.task, remove_missing=True)
    model_cfg = merge_with_parent(HubertConfig(), cfg.model, remove_missing=True)
    check_layers(model_cfg.conv_feature_layers)
    with open_dict(model_cfg):
        for key in HALF_PRECISION_KEYS:  # a choice of the training, and not possible on every device
            if key in model_cfg:
                model_cfg[key] = False
    logging.getLogger("fairseq").setLevel(logging.WARNING)  # it prints all options of each model that it makes
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # fairseq's way of normalising weights is an old one
        # Without dictionaries fairseq leaves out the label embeddings, and nothing else.
        model = HubertModel(model_cfg, task_cfg, [None] * len(task_cfg.labels))
    tensors = {key: value for key, value in state["model"].items() if key != LABELS}
    try:
        model.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"the checkpoint's tensors do not fit its options: {reason[:300]}") from error
    return model.float().eval(), bool(task_cfg.normalize)


class HubertFeatures:
    """Output of transformer layer `layer` (1: the first) of a HuBERT model, one utterance at a time.

    Utterances are not padded into batches: the first convolution of HuBERT-base normalises over time, so padding would
    change what an utterance gives.

    Raises:
        ValueError: the checkpoint does not load, has fewer layers, or `device` is not there.
    """

    def __init__(self, checkpoint: Path, layer: int, device: str = "cpu") -> None:
        model, self._normalize = build_hubert(load_checkpoint(checkpoint))
        count = len(model.encoder.layers)
        if not 1 <= layer <= count:
            raise ValueError(f"{checkpoint} has layers 1 to {count}, not {layer}; choose another --layer")
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise ValueError(f"--device {device}: torch sees no GPU here; use --device cpu")
        # Later layers would be computed and thrown away.
        del model.encoder.layers[layer:]
        self._layer, self._device = layer, torch.device(device)
        self._model = model.to(self._device)
        self.size = model.encoder.embedding_dim

    @torch.inference_mode()
    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """float32 `(n,)` at 16 kHz -> float32 `(frames, size)`, one frame for each 320 samples after the first 400.

        Raises:
            ValueError: the utterance is shorter than one frame.
        """
        source = torch.from_numpy(np.ascontiguousarray(samples, np.float32)).to(self._device)
        if self._normalize:
            source = torch.nn.functional.layer_norm(source, source.shape)
        chunks = [self._layer_output(chunk) for chunk in source.split(MAX_CHUNK_SAMPLES)]
        return torch.cat(chunks).cpu().numpy()

    def _layer_output(self, source: Tensor) -> Tensor:
        try:
            features, _ = self._model.extract_features(source[None], mask=False, output_layer=self._layer)
        except RuntimeError as error:
            if len(source) >= 1000:
                raise
            raise ValueError(f"an utterance or its rest of {len(source)} samples is too short for HuBERT") from error
        return features[0]
