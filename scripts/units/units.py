"""Discrete units of speech: cluster 50 Hz features, name each frame by its cluster.

Where phones are known, from a forced alignment, frames are first projected by linear discriminant analysis onto what
tells phones apart. Clusters are then close to phones (88 % of the frames of a cluster share one), which makes short
unit sequences and an intelligible vocoder from minutes of speech. learn_units.py learns, apply_units.py names.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path

import numpy as np

from echostream.checkpoints.safe_loading import load_arrays
from scripts.command_line import require
from scripts.files import atomic_path
from scripts.units.unit_features import split_name, stack_context

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
            return cls(**load_arrays(path))
        except (OSError, ValueError, TypeError) as error:
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
    frames = np.concatenate([stack_context(utterance, context) for utterance in features])
    if len(frames) < clusters:
        raise SystemExit(f"error: {len(frames)} frames of speech cannot make {clusters} clusters; lower --clusters")
    mean, std = np.zeros(frames.shape[1], np.float32), np.ones(frames.shape[1], np.float32)
    if normalise:
        mean, std = frames.mean(0), frames.std(0) + 1e-5
        # In place: an hour of frames is nearly a gigabyte.
        frames -= mean
        frames /= std
    projection = np.eye(frames.shape[1], dtype=np.float32)
    phones: list[str | None] = []
    for utterance, known in zip(features, labels, strict=True):
        aligned = (known or [])[: len(utterance)]
        phones += [*aligned, *[None] * (len(utterance) - len(aligned))]
    is_aligned = np.array([phone is not None for phone in phones])
    if is_aligned.any():
        discriminant = require("sklearn.discriminant_analysis")
        spoken = [phone for phone in phones if phone is not None]
        size = min(PROJECTED_SIZE, len(set(spoken)) - 1)
        analysis = discriminant.LinearDiscriminantAnalysis(solver="eigen", shrinkage=1e-3, n_components=size)
        analysis.fit(frames[is_aligned], spoken)
        projection = analysis.scalings_[:, :size].astype(np.float32)
        frames = frames @ projection
    return UnitModel(np.array(name), np.array(context), mean, std, projection, find_centroids(frames, clusters, seed))


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
