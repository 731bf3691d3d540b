"""Discrete units of speech: cluster 50 Hz features, name each frame by its cluster.

With Whisper features, frames are first projected by linear discriminant analysis onto what tells phones apart; the
phones come from a forced alignment. Clusters are then close to phones (88 % of the frames of a cluster share one),
which makes short unit sequences and an intelligible vocoder from minutes of speech. `--features mfcc` needs no model
and no alignment, at the price of a clearly worse voice.

    python units.py --texts pairs.tsv extra.tsv --data-root DIR --audio audio/en --clusters 100

writes DIR/kmeans.npz (plain arrays) and DIR/units.tsv (`id`, `audio` relative to DIR, `units`: one per 20 ms).
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from audio import read_speech
from phone_alignment import PhoneAligner
from recipe import INSTALL_HINT, atomic_path, parallel_map, positive, require, write_text
from speech_synthesis import Utterance, read_table
from unit_features import EXTRACTORS, PACKAGES, FeatureExtractor, stack_context

PROJECTED_SIZE = 30
CONTEXT_FRAMES = 1
SEED = 0


@dataclass
class UnitModel:
    """Features `(T, D)` -> units `(T,)`: stack context, normalise, project, find the nearest centroid."""

    features: np.ndarray  # name of the extractor, a string array of shape ()
    context: np.ndarray  # frames joined on either side, shape ()
    mean: np.ndarray  # (D,)
    std: np.ndarray  # (D,)
    projection: np.ndarray  # (D, P)
    centroids: np.ndarray  # (clusters, P)

    @property
    def num_units(self) -> int:
        return len(self.centroids)

    def project(self, features: np.ndarray) -> np.ndarray:
        """The space of the centroids: `(T, D / (2 * context + 1))` -> `(T, P)`."""
        return (stack_context(features, int(self.context)) - self.mean) / self.std @ self.projection

    def encode(self, features: np.ndarray) -> np.ndarray:
        """Unit of each frame, int64 `(T,)`."""
        points = self.project(features)
        # |x - c|^2 without |x|^2, which is the same for all centroids.
        return np.argmin((self.centroids**2).sum(1) - 2 * points @ self.centroids.T, axis=1)

    def save(self, path: Path) -> None:
        with atomic_path(path) as temporary:
            np.savez(temporary, **asdict(self))

    @classmethod
    def load(cls, path: Path) -> UnitModel:
        with np.load(path, allow_pickle=False) as arrays:
            return cls(**arrays)


def fit_units(
    features: list[np.ndarray], labels: list[list[str] | None], name: str, clusters: int, context: int = CONTEXT_FRAMES
) -> UnitModel:
    """Fit projection and clusters.

    Args:
        features: `(T, D)` for each utterance.
        labels: phone of each frame, None where there is no alignment. Without any, nothing is projected.

    Raises:
        SystemExit: fewer frames than clusters.
    """
    cluster = require("sklearn.cluster")
    stacked = [stack_context(utterance, context) for utterance in features]
    frames = np.concatenate(stacked)
    if len(frames) < clusters:
        raise SystemExit(f"error: {len(frames)} frames of speech cannot make {clusters} clusters; lower --clusters")
    mean, std = frames.mean(0), frames.std(0) + 1e-5
    projection = np.eye(frames.shape[1], dtype=np.float32)
    aligned = [(x, y) for x, y in zip(stacked, labels, strict=True) if y is not None]
    if aligned:
        discriminant = require("sklearn.discriminant_analysis")
        phones = [phone for _, y in aligned for phone in y]
        size = min(PROJECTED_SIZE, len(set(phones)) - 1)
        analysis = discriminant.LinearDiscriminantAnalysis(solver="eigen", shrinkage=1e-3, n_components=size)
        analysis.fit((np.concatenate([x for x, _ in aligned]) - mean) / std, phones)
        projection = analysis.scalings_[:, :size].astype(np.float32)
    points = (frames - mean) / std @ projection
    kmeans = cluster.KMeans(clusters, n_init=1, random_state=SEED).fit(points)
    return UnitModel(np.array(name), np.array(context), mean, std, projection, kmeans.cluster_centers_)


def remove_repeats(units: np.ndarray) -> list[int]:
    """Each run of the same unit becomes one."""
    return [int(unit) for unit, _ in groupby(units)]


_extract: FeatureExtractor | None = None
_align: PhoneAligner | None = None


def _start(features: str, align: bool) -> None:
    global _extract, _align
    torch.set_num_threads(1)
    _extract = EXTRACTORS[features]()
    _align = PhoneAligner() if align else None


def _analyse(utterance: Utterance) -> tuple[np.ndarray, list[str] | None]:
    assert _extract is not None
    samples = read_speech(utterance.path)
    return _extract(samples), _align(samples, utterance.text) if _align else None


def main() -> None:
    parser = argparse.ArgumentParser(description="Make discrete units of speech.")
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--texts", type=Path, nargs="+", required=True, help="tab-separated tables with a column id")
    parser.add_argument("--column", default="en", help="column of the spoken text (default: %(default)s)")
    parser.add_argument("--audio", default="audio/en", help="folder of <id>.wav under the data root")
    parser.add_argument("--features", choices=sorted(EXTRACTORS), default="whisper")
    parser.add_argument("--clusters", type=int, default=100)
    parser.add_argument("--kmeans", type=Path, help="use these clusters instead of making some")
    parser.add_argument("--jobs", type=positive, default=1, help="processes, one thread each")
    args = parser.parse_args()

    model = UnitModel.load(args.kmeans) if args.kmeans else None
    name = str(model.features) if model else args.features
    align = model is None and name == "whisper"
    for package in PACKAGES[name]:
        require(package, f"{INSTALL_HINT}, or use --features mfcc" if name != "mfcc" else INSTALL_HINT)
    rows = [row for table in args.texts for row in read_table(table, args.column)]
    utterances = [Utterance(r["id"], r[args.column], args.data_root / args.audio / f"{r['id']}.wav") for r in rows]
    analysed = {
        u.id: result for u, result in parallel_map(_analyse, utterances, args.jobs, "units", _start, (name, align))
    }
    features = {u.id: analysed[u.id][0] for u in utterances}
    labels = {u.id: analysed[u.id][1] for u in utterances}

    if model is None:
        model = fit_units(list(features.values()), list(labels.values()), name, args.clusters)
        model.save(args.data_root / "kmeans.npz")
    lines = ["id\taudio\tunits"]
    count = reduced = 0
    for utterance in utterances:
        units = model.encode(features[utterance.id])
        count, reduced = count + len(units), reduced + len(remove_repeats(units))
        audio = utterance.path.relative_to(args.data_root).as_posix()
        lines.append(f"{utterance.id}\t{audio}\t{' '.join(map(str, units))}")
    write_text(args.data_root / "units.tsv", "\n".join(lines) + "\n")
    aligned = sum(label is not None for label in labels.values())
    print(
        f"units: {model.num_units} clusters, {count / 50 / 60:.1f} min of speech, {aligned} of {len(utterances)} "
        f"aligned, {50 * reduced / count:.1f} units a second without repeats",
        flush=True,
    )


if __name__ == "__main__":
    main()
