"""Train a unit vocoder: from audio and its units to a directory that the translator loads.

    python scripts/vocoder/train.py --units units.tsv --audio-root DIR --config configs/vocoder/istft_small.json \
        --out DIR --minutes 5

The learning rate runs one cycle over ``--minutes`` (or ``--max-steps``). Interrupt it when you like: the same command
goes on where it stopped. The finished vocoder, ``config.json`` and its weights, lies in ``--out``.
"""

from __future__ import annotations

import argparse
import math
import signal
import sys
import time
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from unit_corpus import UnitCorpus

from echostream.modules.discriminators import Discriminators
from echostream.modules.spectral_loss import SpectralLoss
from echostream.modules.vocoder import (
    UnitVocoder,
    VocoderError,
    build_vocoder,
    read_config,
    save_vocoder,
    write_atomically,
)

CHECKPOINT_NAME = "training.pt"
SAVE_EVERY_S = 60.0
REPORT_EVERY_S = 5.0
WARMUP = 0.05  # share of the training
EMA_DECAY = 0.999
SPECTRAL_WEIGHT = 15.0  # beside the adversarial losses, which are of order one
FEATURE_WEIGHT = 2.0


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
        runs = self.corpus.unit_runs(self.settings["duration_batch_size"], 64, self.generator)
        units, durations = (x.to(self.device) for x in runs)
        return F.mse_loss(self.vocoder.log_durations(units), torch.log1p(durations.float()))

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
        """All that a later run needs to go on."""
        return {
            "config": self.config,
            "vocoder": self.vocoder.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "discriminators": self.discriminators and self.discriminators.state_dict(),
            "disc_optimizer": self.disc_optimizer and self.disc_optimizer.state_dict(),
            "random": self.generator.get_state(),
            "steps": self.steps,
            "seconds": self.seconds,
        }

    def load_state_dict(self, state: dict) -> None:
        """Go on from another run's :meth:`state_dict`.

        Raises:
            VocoderError: if that run had another configuration.
        """
        if state["config"] != self.config or (state["discriminators"] is None) != (self.discriminators is None):
            raise VocoderError("--out holds a training run with another config or --gan setting; choose another --out")
        self.vocoder.load_state_dict(state["vocoder"])
        self.average = [value.to(self.device) for value in state["average"]]
        self.optimizer.load_state_dict(state["optimizer"])
        if self.discriminators is not None:
            self.discriminators.load_state_dict(state["discriminators"])
            self.disc_optimizer.load_state_dict(state["disc_optimizer"])
        self.generator.set_state(state["random"])
        self.steps, self.seconds = state["steps"], state["seconds"]

    def averaged(self) -> UnitVocoder:
        """The vocoder with the moving average of the weights, which sounds better than the last ones."""
        vocoder = build_vocoder({k: v for k, v in self.config.items() if k != "training"})
        for parameter, value in zip(vocoder.parameters(), self.average, strict=True):
            parameter.data.copy_(value)
        return vocoder.eval()


def one_cycle(progress: float) -> float:
    """Learning rate relative to its peak: up in a straight line, down along a cosine."""
    if progress < WARMUP:
        return max(progress / WARMUP, 0.01)
    return 0.5 + 0.5 * math.cos(math.pi * min((progress - WARMUP) / (1 - WARMUP), 1.0))


def train(trainer: Trainer, out: Path, minutes: float, max_steps: int | None) -> bool:
    """Train until time or steps are up; False if a signal came first. Saves as it goes."""
    stopped: list[int] = []
    handlers = {
        number: signal.signal(number, lambda received, _: stopped.append(received))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    last = saved = reported = time.monotonic()
    report_s = 0.0  # the first step reports at once, so that one sees that it runs
    steps_reported, budget_s = trainer.steps, 60 * minutes

    def progress() -> float:
        return max(trainer.seconds / budget_s, trainer.steps / max_steps if max_steps else 0.0)

    while progress() < 1 and not stopped:
        losses = trainer.step(progress())
        now = time.monotonic()
        trainer.seconds, last = trainer.seconds + now - last, now
        if now - reported >= report_s or progress() >= 1:
            rate = (trainer.steps - steps_reported) / (now - reported)
            left_s = trainer.seconds * (1 / progress() - 1)
            parts = "  ".join(f"{name} {loss:.3f}" for name, loss in losses.items())
            print(
                f"step {trainer.steps}  {rate:.2f} steps/s  loss {sum(losses.values()):.3f}  {parts}  "
                f"ETA {int(left_s) // 60}:{int(left_s) % 60:02d}",
                flush=True,
            )
            reported, steps_reported, report_s = now, trainer.steps, REPORT_EVERY_S
        if now - saved >= SAVE_EVERY_S:
            write_atomically(out / CHECKPOINT_NAME, trainer.state_dict())
            saved = now
    write_atomically(out / CHECKPOINT_NAME, trainer.state_dict())
    for number, handler in handlers.items():
        signal.signal(number, handler)
    return not stopped


def read_checkpoint(path: Path) -> dict:
    """The :meth:`Trainer.state_dict` that an earlier run left.

    Raises:
        VocoderError: if the file is damaged.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, UnpicklingError) as error:
        raise VocoderError(f"cannot go on from {path}, which is damaged; remove it to start again") from error


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--units", type=Path, required=True, help="TSV: id, audio, units (one a frame, with repeats)")
    parser.add_argument("--audio-root", type=Path, required=True, help="folder that the audio paths start from")
    parser.add_argument("--config", type=Path, required=True, help="vocoder configuration, JSON")
    parser.add_argument("--num-units", type=int, help="number of units, where it is not the config's num_embeddings")
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoint and finished vocoder")
    parser.add_argument("--minutes", type=float, default=20.0, help="training time, earlier runs included")
    parser.add_argument("--max-steps", type=int, help="stop after this many steps at the latest")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", default="cpu", help="torch device, such as cuda")
    parser.add_argument("--gan", action="store_true", help="adversarial training as well: slower, less buzzy")
    args = parser.parse_args(argv)
    if args.minutes <= 0 or (args.max_steps is not None and args.max_steps < 1):
        parser.error("--minutes and --max-steps must be above zero")
    return args


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    torch.set_num_threads(args.threads)
    try:
        config = read_config(args.config)
        if args.num_units is not None:
            config["num_embeddings"] = args.num_units
        trainer = Trainer(config, (args.units, args.audio_root), args.seed, args.device, args.gan)
        checkpoint = args.out / CHECKPOINT_NAME
        if checkpoint.exists():
            trainer.load_state_dict(read_checkpoint(checkpoint))
            print(f"going on from step {trainer.steps}", flush=True)
    except VocoderError as error:
        raise SystemExit(f"error: {error}") from error
    args.out.mkdir(parents=True, exist_ok=True)
    size = sum(p.numel() for p in trainer.vocoder.parameters()) / 1e6
    print(f"{trainer.corpus.seconds / 60:.1f} min of speech, {size:.2f} M parameters", flush=True)
    if not train(trainer, args.out, args.minutes, args.max_steps):
        print(f"stopped at step {trainer.steps}; the same command goes on from there", flush=True)
        return 130
    path = save_vocoder(trainer.averaged(), args.out, trainer.steps)
    print(f"wrote {path} after {trainer.steps} steps", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
