"""Units of any list of recordings, by clusters that are there already; in shards, and resuming where it stopped.

    python apply_units.py --kmeans kmeans.npz --list speech.tsv --audio-root DIR --out DIR/units.tsv --jobs 2
    python apply_units.py ... --hubert mhubert.pt --device cuda --num-shards 8 --shard 3

Finished utterances are lines of the tables in `<out>.parts`; whichever shard ends last joins them to `<out>`, in the
order of the list. Clusters and checkpoint are part of the name of the parts, so other ones begin anew; a recording that
has changed is done again.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import BinaryIO

from scripts.files import digest, write_text
from scripts.speech.recordings import Recording, list_recordings, read_recording
from scripts.units.unit_features import FeatureExtractor, make_extractor, one_thread
from scripts.units.units import UnitModel
from scripts.work import add_share_arguments, parallel_map, share

HEADER = "id\taudio\tunits"
Key = tuple[str, str, str]

_encode: tuple[UnitModel, FeatureExtractor] | None = None


def _work(task: tuple[Recording, Path, Path, Path | None, str]) -> str:
    global _encode
    recording, root, kmeans, hubert, device = task
    # Made by the first task, not when the process starts: from here an error is reported in one line.
    if _encode is None:
        one_thread()
        model = UnitModel.load(kmeans)
        _encode = model, make_extractor(str(model.features), hubert, device)
    model, extract = _encode
    try:
        return " ".join(map(str, model.encode(extract(read_recording(recording, root)))))
    except ValueError as error:
        raise ValueError(f"{recording.id}: {error}") from error


class Parts:
    """Tables `id, audio, digest of the recording, units`, one for each shard, that only grow.

    Args:
        folder: where the tables are.
        shard: number of this shard and of all shards; what other shards did counts as done too.
    """

    def __init__(self, folder: Path, shard: tuple[int, int]) -> None:
        self._own = folder / f"{shard[0]}of{shard[1]}.tsv"
        self._file: BinaryIO | None = None
        self.units: dict[Key, str] = {}
        self.read(folder)

    def read(self, folder: Path) -> None:
        """Take note of every whole line in the folder; a line that was cut short is not one."""
        for table in sorted(folder.glob("*of*.tsv")):
            *whole, _ = table.read_text(encoding="utf-8", errors="replace").split("\n")
            for line in whole:
                fields = line.split("\t")
                if len(fields) == 4:
                    self.units[fields[0], fields[1], fields[2]] = fields[3]

    def add(self, key: Key, units: str) -> None:
        """Write down the units of one recording."""
        self.units[key] = units
        if self._file is None:
            self._own.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._own.open("ab", buffering=0)
            if self._file.tell():
                self._file.write(b"\n")  # ends a line that a crash may have cut short; empty lines do not count
        self._file.write(("\t".join((*key, units)) + "\n").encode())


def key_of(recording: Recording, root: Path) -> Key:
    """What units belong to: a file that has changed has none yet.

    Raises:
        SystemExit: no such file.
    """
    try:
        return recording.id, recording.audio, digest(root / recording.audio)
    except OSError as error:
        raise SystemExit(
            f"error: no recording {root / recording.audio}; run the earlier stages for all shards"
        ) from error


def main() -> None:
    parser = argparse.ArgumentParser(description="Name the unit of each 20 ms of speech.")
    parser.add_argument(
        "--kmeans", type=Path, required=True, help="clusters (.npz) of learn_units.py or import_kmeans.py"
    )
    parser.add_argument("--list", type=Path, required=True, help=".tsv with id and audio, list of files, or folder")
    parser.add_argument("--audio-root", type=Path, required=True, help="folder that audio paths are relative to")
    parser.add_argument("--hubert", type=Path, help="fairseq checkpoint, for clusters of HuBERT features")
    parser.add_argument("--device", default="cpu", help="cpu or cuda, for HuBERT (default: %(default)s)")
    parser.add_argument("--out", type=Path, required=True, help="table to write: id, audio, units")
    add_share_arguments(parser)
    args = parser.parse_args()
    if args.dry_run and not (args.kmeans.exists() and args.list.exists()):
        print("units: would be found, once there are recordings and clusters", flush=True)
        return
    if args.num_shards > 1 and not args.kmeans.exists():
        raise SystemExit(f"error: no clusters {args.kmeans}; a run of this stage without --shard makes them first")
    for path in (args.kmeans, *([args.hubert] if args.hubert else [])):
        if not path.is_file():
            raise SystemExit(f"error: no such file: {path}")

    recordings = list_recordings(args.list, args.audio_root)
    keys = {recording.id: key_of(recording, args.audio_root) for recording in recordings}
    folder = (
        args.out.with_name(f"{args.out.name}.parts") / digest(args.kmeans, *([args.hubert] if args.hubert else []))[:16]
    )
    parts = Parts(folder, (args.shard, args.num_shards))
    own = share(recordings, args)
    missing = [recording for recording in own if keys[recording.id] not in parts.units]
    print(f"units: {len(missing)} recordings to do, {len(own) - len(missing)} already done", flush=True)
    if args.dry_run:
        return
    tasks = [(recording, args.audio_root, args.kmeans, args.hubert, args.device) for recording in missing]
    for task, units in parallel_map(_work, tasks, args.jobs, "units"):
        parts.add(keys[task[0].id], units)

    parts.read(folder)
    left = sum(key not in parts.units for key in keys.values())
    if left:
        print(f"units: {left} recordings are left to other shards", flush=True)
        return
    lines = [f"{recording.id}\t{recording.audio}\t{parts.units[keys[recording.id]]}" for recording in recordings]
    table = "\n".join([HEADER, *lines]) + "\n"
    if not args.out.is_file() or args.out.read_text(encoding="utf-8") != table:
        write_text(args.out, table)
    print(f"units: {len(lines)} recordings in {args.out}", flush=True)


if __name__ == "__main__":
    main()
