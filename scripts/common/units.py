"""Discrete units of speech: cluster 50 Hz features, name each frame by its cluster.

With Whisper features, frames are first projected by linear discriminant analysis onto what tells phones apart; the
phones come from a forced alignment. Clusters are then close to phones (88 % of the frames of a cluster share one),
which makes short unit sequences and an intelligible vocoder from minutes of speech. `--features mfcc` needs no model
and no alignment, at the price of a clearly worse voice.

    python units.py --texts pairs.tsv extra.tsv --data-root DIR --audio audio/en --clusters 100

writes DIR/kmeans.npz (plain arrays) and DIR/units.tsv (`id`, `audio` relative to DIR, `units`: one per 20 ms), with all
features in memory: for minutes to a few hours of one voice. `scripts/units/run.sh` does the same for any amount.
"""

from __future__ import annotations

import argparse
import zipfile
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
from audio import read_speech
from phone_alignment import PhoneAligner
from recipe import INSTALL_HINT, atomic_path, parallel_map, positive, require, write_text
from speech_synthesis import Utterance, read_table
from unit_features import EXTRACTORS, HUBERT, PACKAGES, FeatureExtractor, one_thread, split_name, stack_context

PROJECTED_SIZE = 30
CONTEXT_FRAMES = 1
SEED = 0
# Points times dimensions times clusters: 2 hours of speech, 30 dimensions, 100 clusters have 1e9.
MAX_LLOYD_PRODUCTS = 1e10


@dataclass
class UnitModel:
    """Features `(T, D)` -> units `(T,)`: stack context, normalise, project, find the nearest centroid."""

    features: np.ndarray  # name of the extractor, a string array of shape ()
    context: np.ndarray  # frames joined on either side, shape ()
    mean: np.ndarray  # (D,)
    std: np.ndarray  # (D,)
    projection: np.ndarray  # (D, P)
    centroids: np.ndarray  # (clusters, P)

    @classmethod
    def of_centroids(cls, centroids: np.ndarray, features: str) -> UnitModel:
        """Clusters `(clusters, D)` of bare features, such as published ones of HuBERT.

        Raises:
            ValueError: no such features.
        """
        split_name(features)
        size = centroids.shape[1]
        mean, std, projection = np.zeros(size, np.float32), np.ones(size, np.float32), np.eye(size, dtype=np.float32)
        return cls(np.array(features), np.array(0), mean, std, projection, centroids.astype(np.float32))

    @property
    def num_units(self) -> int:
        return len(self.centroids)

    def project(self, features: np.ndarray) -> np.ndarray:
        """The space of the centroids: `(T, D / (2 * context + 1))` -> `(T, P)`."""
        return (stack_context(features, int(self.context)) - self.mean) / self.std @ self.projection

    def encode(self, features: np.ndarray) -> np.ndarray:
        """Unit of each frame, int64 `(T,)`.

        Raises:
            ValueError: features of another size than those that were clustered.
        """
        expected = len(self.mean) // (2 * int(self.context) + 1)
        if features.shape[1] != expected:
            raise ValueError(f"the clusters are of {expected}-dimensional features, these have {features.shape[1]}")
        points = self.project(features)
        # |x - c|^2 without |x|^2, which is the same for all centroids.
        return np.argmin((self.centroids**2).sum(1) - 2 * points @ self.centroids.T, axis=1)

    def save(self, path: Path) -> None:
        with atomic_path(path) as temporary:
            np.savez(temporary, **asdict(self))

    @classmethod
    def load(cls, path: Path) -> UnitModel:
        """Read what `save` wrote.

        Raises:
            ValueError: no such file, or another kind of file.
        """
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return cls(**arrays)
        except (OSError, ValueError, TypeError, zipfile.BadZipFile) as error:
            raise ValueError(f"cannot read the clusters {path} ({error}); import_kmeans.py converts others'") from error


def fit_units(
    features: list[np.ndarray],
    labels: list[list[str] | None],
    name: str,
    clusters: int,
    context: int = CONTEXT_FRAMES,
    normalise: bool = True,
    seed: int = SEED,
) -> UnitModel:
    """Fit projection and clusters.

    Args:
        features: `(T, D)` for each utterance.
        labels: phone of each frame, None where there is no alignment. Without any, nothing is projected. Extractors
            differ by a frame at the end of an utterance; what has no counterpart is not used for the projection.
        name: name of the extractor.
        clusters: number of units.
        context: frames joined on either side.
        normalise: whether each feature is brought to mean 0 and deviation 1 first.
        seed: of the first centroids.

    Raises:
        SystemExit: fewer frames than clusters.
    """
    stacked = [stack_context(utterance, context) for utterance in features]
    frames = np.concatenate(stacked)
    if len(frames) < clusters:
        raise SystemExit(f"error: {len(frames)} frames of speech cannot make {clusters} clusters; lower --clusters")
    mean, std = np.zeros(frames.shape[1], np.float32), np.ones(frames.shape[1], np.float32)
    if normalise:
        mean, std = frames.mean(0), frames.std(0) + 1e-5
    projection = np.eye(frames.shape[1], dtype=np.float32)
    pairs = [(x, y) for x, y in zip(stacked, labels, strict=True) if y is not None]
    aligned = [(x[: len(y)], y[: len(x)]) for x, y in pairs]
    if aligned:
        discriminant = require("sklearn.discriminant_analysis")
        phones = [phone for _, y in aligned for phone in y]
        size = min(PROJECTED_SIZE, len(set(phones)) - 1)
        analysis = discriminant.LinearDiscriminantAnalysis(solver="eigen", shrinkage=1e-3, n_components=size)
        analysis.fit((np.concatenate([x for x, _ in aligned]) - mean) / std, phones)
        projection = analysis.scalings_[:, :size].astype(np.float32)
    points = (frames - mean) / std
    if aligned:
        points = points @ projection
    return UnitModel(np.array(name), np.array(context), mean, std, projection, find_centroids(points, clusters, seed))


def find_centroids(points: np.ndarray, clusters: int, seed: int) -> np.ndarray:
    """Centroids `(clusters, D)` of points `(N, D)`: Lloyd's algorithm, or mini-batches where that would take hours.

    The mini-batches are those of fairseq's HuBERT recipe.
    """
    cluster = require("sklearn.cluster")
    if points.size * clusters <= MAX_LLOYD_PRODUCTS:
        kmeans = cluster.KMeans(clusters, n_init=1, random_state=seed)
    else:
        kmeans = cluster.MiniBatchKMeans(
            clusters, max_iter=100, batch_size=10_000, tol=0.0, max_no_improvement=100, n_init=3,
            reassignment_ratio=0.0, compute_labels=False, random_state=seed,
        )  # fmt: skip
    return kmeans.fit(points).cluster_centers_.astype(points.dtype)


def remove_repeats(units: np.ndarray) -> list[int]:
    """Each run of the same unit becomes one."""
    return [int(unit) for unit, _ in groupby(units)]


_extract: FeatureExtractor | None = None
_align: PhoneAligner | None = None


def _start(features: str, align: bool) -> None:
    global _extract, _align
    one_thread()
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

    try:
        model = UnitModel.load(args.kmeans) if args.kmeans else None
    except ValueError as error:
        raise SystemExit(f"error: {error}") from error
    name = str(model.features) if model else args.features
    if split_name(name)[0] == HUBERT:
        raise SystemExit(f"error: {args.kmeans} clusters {name} features; use scripts/units/run.sh for those")
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
