"""Clusters that others have published, as a joblib or pickle file of scikit-learn, into an .npz of plain arrays.

    python import_kmeans.py --kmeans mhubert_base_vp_en_es_fr_it3_L11_km1000.bin --features hubert:11 --out kmeans.npz

A pickle can run any program when it is loaded the usual way. This reader makes no object of any real class: the few
names that a saved k-means holds stand for inert shells, any other name ends the reading, and from what was read only
the array of centroids is used. Neither scikit-learn nor joblib is needed, whatever version wrote the file.
"""

from __future__ import annotations

import argparse
import pickle
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from scripts.units.units import UnitModel

MAX_ELEMENTS = 2**28  # 1 GiB of float32, far above any k-means of speech
KINDS = "fiub"  # float, integer, unsigned, boolean: never objects
COMPRESSIONS = {b"\x1f\x8b": "gzip", b"BZ": "bzip2", b"\xfd7": "xz", b"x\x9c": "zlib", b"x\x01": "zlib", b"x^": "zlib"}


class _Shell:
    """Takes any arguments and any state, and does nothing with them."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _KMeans(_Shell):
    """Stands for a k-means of any version of scikit-learn."""


class _DType:
    """Stands for numpy.dtype; becomes one only if it is numeric."""

    def __init__(self, code: str, *_: Any) -> None:
        self._code, self._order = str(code), "="

    def __setstate__(self, state: tuple) -> None:
        self._order = state[1] if len(state) > 1 and state[1] in ("<", ">") else "="

    def numpy(self) -> np.dtype:
        try:
            dtype = np.dtype(self._code).newbyteorder(self._order)
        except (TypeError, ValueError) as error:
            raise pickle.UnpicklingError(f"an array of type {self._code!r}") from error
        if dtype.kind not in KINDS:
            raise pickle.UnpicklingError(f"an array of type {self._code!r}")
        return dtype


class _Array(_Shell):
    """Stands for an array in a plain pickle: shape, type and bytes are its state."""

    def numpy(self) -> np.ndarray:
        _, shape, dtype, is_fortran, data = self.state
        if not isinstance(data, bytes):
            raise pickle.UnpicklingError("an array whose data are not bytes")
        return _to_array(data, shape, dtype, "F" if is_fortran else "C")


def _count(shape: tuple) -> int:
    if not all(isinstance(size, int) and 0 <= size <= MAX_ELEMENTS for size in shape):
        raise pickle.UnpicklingError(f"an array of shape {shape}")
    count = int(np.prod(np.array(shape, dtype=np.float64)))
    if count > MAX_ELEMENTS:
        raise pickle.UnpicklingError(f"an array of shape {shape}")
    return count


def _to_array(data: bytes, shape: tuple, dtype: _DType, order: str) -> np.ndarray:
    _count(shape)
    return np.frombuffer(data, dtype.numpy()).reshape(shape, order=order)


def _joblib_array(file: BinaryIO) -> type:
    """A class that stands for joblib's mark in the pickle: the array's bytes follow in the file right after it."""

    class JoblibArray(_Shell):
        def __setstate__(self, state: dict) -> None:
            shape, dtype, order = tuple(state["shape"]), state["dtype"], state["order"]
            data_bytes = _count(shape) * dtype.numpy().itemsize
            if state.get("numpy_array_alignment_bytes") is not None:
                file.read(file.read(1)[0])  # padding, its length first
            data = file.read(data_bytes)
            self._array = _to_array(data, shape, dtype, "F" if order == "F" else "C")

        def numpy(self) -> np.ndarray:
            return self._array

    return JoblibArray


def _from_buffer(data: bytes, dtype: _DType, shape: tuple, order: str, *_: Any) -> _Array:
    """How arrays are written in pickles of protocol 5."""
    array = _Array()
    array.state = (1, shape, dtype, order == "F", bytes(data))
    return array


def _nothing(*args: Any, **kwargs: Any) -> _Shell:
    return _Shell()


class _Reader(pickle._Unpickler):  # the reader in Python, as joblib uses it: it never reads ahead in the file
    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        modules = ("numpy.core.multiarray", "numpy._core.multiarray")
        kmeans = ("sklearn.cluster._kmeans", "sklearn.cluster.k_means_")
        generators = ("numpy.random", "numpy.random._pickle", "numpy.random.mtrand")
        self._shells: dict[tuple[str, str], Any] = {
            ("joblib.numpy_pickle", "NumpyArrayWrapper"): _joblib_array(file),
            ("numpy", "ndarray"): _Shell,
            ("numpy", "dtype"): _DType,
            **{(module, "_reconstruct"): lambda *_: _Array() for module in modules},
            **{(module, "scalar"): _nothing for module in modules},
            **{(module, name): _KMeans for module in kmeans for name in ("KMeans", "MiniBatchKMeans")},
            # The random state that a mini-batch k-means keeps.
            **{(module, "__randomstate_ctor"): _nothing for module in generators},
            **{(module, "__bit_generator_ctor"): _nothing for module in generators},
            ("numpy.random._mt19937", "MT19937"): _Shell,
            ("numpy.core.numeric", "_frombuffer"): _from_buffer,
            ("numpy._core.numeric", "_frombuffer"): _from_buffer,
            ("_codecs", "encode"): _encode,
        }

    def find_class(self, module: str, name: str) -> Any:
        shell = self._shells.get((module, name))
        if shell is None:
            raise pickle.UnpicklingError(f"{module}.{name}, which no k-means needs")
        return shell


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """How bytes are written in old pickles."""
    return str(text).encode("latin1")


def read_centroids(path: Path) -> np.ndarray:
    """Centroids `(clusters, D)`, float32, of an .npz or .npy of plain arrays, or of a joblib or pickle file.

    An .npz may be one of ours, or hold an array `centroids` or `cluster_centers_`.

    Raises:
        ValueError: no such file, one that holds anything but a k-means, or no centroids in it.
    """
    if not path.is_file():
        raise ValueError(f"no k-means file {path}")
    try:
        centroids = _from_numpy(path) if path.suffix in (".npz", ".npy") else _from_pickle(path)
    except pickle.UnpicklingError as error:
        raise ValueError(f"{path} is refused: it holds {error}") from error
    except (AttributeError, EOFError, LookupError, OSError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{path} is not a readable k-means: {' '.join(str(error).split())}") from error
    centroids = np.ascontiguousarray(centroids, dtype=np.float32)
    if centroids.ndim != 2 or not centroids.size or not np.isfinite(centroids).all():
        raise ValueError(
            f"{path}: centroids of shape {centroids.shape}, expected finite numbers (clusters, dimensions)"
        )
    return centroids


def _from_numpy(path: Path) -> np.ndarray:
    loaded = np.load(path, allow_pickle=False)
    if isinstance(loaded, np.ndarray):
        return loaded
    with loaded as arrays:
        for name in ("centroids", "cluster_centers_"):
            if name in arrays:
                return arrays[name]
        raise ValueError(f"no array 'centroids' or 'cluster_centers_', only {', '.join(arrays)}")


def _from_pickle(path: Path) -> np.ndarray:
    with path.open("rb") as file:
        start = file.read(2)
        if start in COMPRESSIONS:
            raise ValueError(f"it is compressed ({COMPRESSIONS[start]}); decompress it first")
        file.seek(0)
        loaded = _Reader(file).load()
    if not isinstance(loaded, _KMeans) or not isinstance(loaded.state, dict):
        raise pickle.UnpicklingError("something else than one scikit-learn KMeans")
    centroids = loaded.state.get("cluster_centers_")
    if centroids is None:
        raise ValueError("a k-means that was never fitted")
    return centroids.numpy()


def _is_unit_model(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return "features.npy" in archive.namelist()
    except (OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is no .npz file: {error}") from error


def import_model(path: Path, features: str) -> UnitModel:
    """Clusters of `features`, from a file of `UnitModel.save` or one that `read_centroids` reads.

    Raises:
        ValueError: as `read_centroids`, or clusters of other features.
    """
    if path.suffix == ".npz" and path.is_file() and _is_unit_model(path):
        model = UnitModel.load(path)
        if str(model.features) != features:
            raise ValueError(f"{path} clusters {model.features}, not {features}")
        return model
    return UnitModel.of_centroids(read_centroids(path), features)


def main() -> None:
    parser = argparse.ArgumentParser(description="Turn a published k-means into plain arrays, running nothing of it.")
    parser.add_argument("--kmeans", type=Path, required=True, help="joblib, pickle, .npz or .npy file")
    parser.add_argument("--features", required=True, help="what it clusters: hubert:LAYER, e.g. hubert:11")
    parser.add_argument("--out", type=Path, required=True, help=".npz to write")
    args = parser.parse_args()
    try:
        model = import_model(args.kmeans, args.features)
    except ValueError as error:
        raise SystemExit(f"error: {error}") from error
    model.save(args.out)
    print(f"clusters: {model.num_units} of {args.features} ({len(model.mean)} dimensions)", flush=True)


if __name__ == "__main__":
    main()
