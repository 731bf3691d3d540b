"""One training run of a unit vocoder: what it optimises, and what it needs to go on after a stop."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from echostream.vocoders.discriminators import Discriminators
from echostream.vocoders.interface import UnitVocoder, VocoderError
from echostream.vocoders.registry import build_vocoder
from echostream.vocoders.spectral_loss import SpectralLoss
from scripts.vocoder.unit_corpus import UnitCorpus

WARMUP = 0.05  # share of the training
EMA_DECAY = 0.999
SPECTRAL_WEIGHT = 15.0  # beside the adversarial losses, which are of order one
FEATURE_WEIGHT = 2.0
DURATION_RUN_UNITS = 64
# A stream is flushed where words end: about every tenth unit.
FLUSH_RATE = 0.1


class Trainer:
    """One training run: model, its moving average, optimisers, and how far it got.

    Args:
        config: the vocoder's JSON configuration; its optional ``training`` object sets ``learning_rate``,
            ``batch_size``, ``piece_frames`` and ``duration_batch_size``.
        corpus_args: table and folder of the training data.
        seed: of weights and data.
        device: torch device.
        gan: train discriminators as well.
    """

    def __init__(self, config: dict, corpus_args: tuple[Path, Path], seed: int, device: str, gan: bool) -> None:
        torch.manual_seed(seed)
        self.config, self.device = config, torch.device(device)
        options = {"learning_rate": 2e-3, "batch_size": 8, "piece_frames": 48, "duration_batch_size": 16}
        settings = config.get("training", {})
        if unknown := settings.keys() - options.keys():
            raise VocoderError(f"unknown training setting {sorted(unknown)[0]!r}; known: {', '.join(options)}")
        self.settings = options | settings
        self.vocoder = build_vocoder(config).to(self.device).train()
        self.corpus = UnitCorpus(*corpus_args, self.vocoder)
        self.average = [p.detach().clone() for p in self.vocoder.parameters()]
        self.spectral_loss = SpectralLoss(self.vocoder.sample_rate).to(self.device)
        self.optimizer = self._make_optimizer(self.vocoder)
        self.discriminators = Discriminators().to(self.device) if gan else None
        self.disc_optimizer = self._make_optimizer(self.discriminators) if gan else None
        self.generator = torch.Generator().manual_seed(seed)
        self.steps, self.seconds = 0, 0.0

    def _make_optimizer(self, module: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.AdamW(
            module.parameters(), self.settings["learning_rate"], (0.8, 0.99), weight_decay=0.01, fused=True
        )

    def step(self, progress: float) -> dict[str, float]:
        """Train on one batch; ``progress`` from 0 to 1 sets the learning rate. Returns the losses by name."""
        rate = self.settings["learning_rate"] * one_cycle(progress)
        for optimizer in filter(None, (self.optimizer, self.disc_optimizer)):
            for group in optimizer.param_groups:
                group["lr"] = rate
        batch_size, length = self.settings["batch_size"], self.settings["piece_frames"]
        pieces = self.corpus.pieces(batch_size, length, self.generator)
        frames, remaining, wanted = (x.to(self.device) for x in pieces)
        made = self.vocoder.synthesise(frames, remaining=remaining)
        losses = {"spectral": self.spectral_loss(made, wanted)}
        if weight := self.config.get("dur_prediction_weight", 1.0):
            losses["duration"] = weight * self._duration_loss()
        if self.discriminators is not None:
            losses["spectral"] = SPECTRAL_WEIGHT * losses["spectral"]
            losses |= self._adversarial_losses(made, wanted)
        self._descend(self.vocoder, self.optimizer, sum(losses.values()))
        self.steps += 1
        decay = min(EMA_DECAY, (1 + self.steps) / (10 + self.steps))
        with torch.no_grad():
            torch._foreach_lerp_(self.average, list(self.vocoder.parameters()), 1 - decay)
        return {name: loss.item() for name, loss in losses.items()}

    def _duration_loss(self) -> Tensor:
        """See :func:`duration_deviance`; the look-ahead is cut at random places, as flushes of a stream will cut it."""
        runs = self.corpus.unit_runs(self.settings["duration_batch_size"], DURATION_RUN_UNITS, self.generator)
        units, durations = (x.to(self.device) for x in runs)
        cut = torch.rand(units.size(1), generator=self.generator) < FLUSH_RATE
        return duration_deviance(self.vocoder.log_durations(units, cut.nonzero().flatten().tolist()), durations)

    def _adversarial_losses(self, made: Tensor, wanted: Tensor) -> dict[str, Tensor]:
        """Least-squares GAN and feature matching, after a step of the discriminators (Kong et al. 2020)."""
        disc = self.discriminators
        real, fake = disc(wanted), disc(made.detach())
        loss = sum((1 - r.score).square().mean() + f.score.square().mean() for r, f in zip(real, fake, strict=True))
        self._descend(disc, self.disc_optimizer, loss)
        disc.requires_grad_(False)
        real, fake = disc(wanted), disc(made)
        disc.requires_grad_(True)
        features = sum(
            F.l1_loss(a, b)
            for r, f in zip(real, fake, strict=True)
            for a, b in zip(f.features, r.features, strict=True)
        )
        return {"gan": sum((1 - f.score).square().mean() for f in fake), "features": FEATURE_WEIGHT * features}

    def _descend(self, module: nn.Module, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(module.parameters(), 10.0)
        optimizer.step()

    def state_dict(self) -> dict:
        """All that a later run needs to go on as if there had been no stop."""
        return {
            "config": self.config,
            "data": self.corpus.digest,
            "vocoder": self.vocoder.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "discriminators": self.discriminators and self.discriminators.state_dict(),
            "disc_optimizer": self.disc_optimizer and self.disc_optimizer.state_dict(),
            "random": self.generator.get_state(),
            "dropout": torch.get_rng_state(),
            "steps": self.steps,
            "seconds": self.seconds,
        }

    def load_state_dict(self, state: dict) -> None:
        """Go on from another run's :meth:`state_dict`.

        Raises:
            VocoderError: if that run had another configuration or other data, or was one of another version of this
                trainer.
        """
        if missing := self.state_dict().keys() - state.keys():
            raise VocoderError(f"--out holds a run of another version, without {min(missing)!r}; choose another --out")
        if state["config"] != self.config or (state["discriminators"] is None) != (self.discriminators is None):
            raise VocoderError("--out holds a training run with another config or --gan setting; choose another --out")
        if state["data"] != self.corpus.digest:
            raise VocoderError("--out holds a training run on other recordings or units; choose another --out")
        self.vocoder.load_state_dict(state["vocoder"])
        self.average = [value.to(self.device) for value in state["average"]]
        self.optimizer.load_state_dict(state["optimizer"])
        if self.discriminators is not None:
            self.discriminators.load_state_dict(state["discriminators"])
            self.disc_optimizer.load_state_dict(state["disc_optimizer"])
        self.generator.set_state(state["random"])
        torch.set_rng_state(state["dropout"])
        self.steps, self.seconds = state["steps"], state["seconds"]

    def averaged(self) -> UnitVocoder:
        """The vocoder with the moving average of the weights, which sounds better than the last ones."""
        with torch.random.fork_rng(devices=[]):  # an evaluation must not change the training after it
            vocoder = build_vocoder({k: v for k, v in self.config.items() if k != "training"})
        for parameter, value in zip(vocoder.parameters(), self.average, strict=True):
            parameter.data.copy_(value)
        return vocoder.eval()


def one_cycle(progress: float) -> float:
    """Learning rate relative to its peak: up in a straight line, down along a cosine."""
    if progress < WARMUP:
        return max(progress / WARMUP, 0.01)
    return 0.5 + 0.5 * math.cos(math.pi * min((progress - WARMUP) / (1 - WARMUP), 1.0))


def duration_deviance(log_durations: Tensor, durations: Tensor) -> Tensor:
    """How badly ``log(frames + 1)`` ``(B, T)`` tell durations ``(B, T)``, zero at best.

    The deviance of a gamma distribution: like a squared error of logarithms it counts a frame of a short unit for more
    than one of a long pause. But it is smallest for the mean duration, not for the mean of the logarithms, which is
    shorter and would make all speech too fast.
    """
    ratio = torch.log1p(durations.float()) - log_durations
    return (ratio.exp() - 1 - ratio).mean()
