"""Stage 3 with --transcribe: what is said in recordings that came without a text, by a local Whisper model.

    python transcribe.py --texts ROOT/texts/checked.tsv --side source --language fr --audio ROOT/audio/source \
      --out ROOT/texts/transcripts/source

writes one <id>.txt for each row whose text is empty.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "common"))
import numpy as np
from audio import read_speech
from recipe import Ledger, add_share_arguments, digest, parallel_map, share, write_text
from table import read_checked


@dataclass(frozen=True)
class Work:
    """A recording and where its transcript belongs."""

    id: str
    recording: Path
    transcript: Path


_transcriber: Callable[[np.ndarray], str] | None = None


def _start(model: Path, language: str) -> None:
    from echostream.simuleval.asr import Transcriber

    global _transcriber
    _transcriber = Transcriber(model, language)


def _transcribe(work: Work) -> None:
    assert _transcriber is not None
    write_text(work.transcript, " ".join(_transcriber(read_speech(work.recording)).split()) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description="Write down what is said.")
    parser.add_argument("--texts", type=Path, required=True, help="checked.tsv")
    parser.add_argument("--side", choices=("source", "target"), required=True)
    parser.add_argument("--language", required=True, help="two-letter code")
    parser.add_argument("--audio", type=Path, required=True, help="folder of <id>.wav")
    parser.add_argument("--model", help="base, tiny.en or a CTranslate2 Whisper directory (default: the best)")
    parser.add_argument("--out", type=Path, required=True, help="folder for <id>.txt")
    parser.add_argument("--dry-run", action="store_true", help="only say how much there is to do")
    add_share_arguments(parser)
    args = parser.parse_args()

    name = f"{args.side} transcripts"
    if args.dry_run and not args.texts.is_file():
        print(f"{name}: would be written, once the table is checked", flush=True)
        return
    needed = [r for r in read_checked(args.texts) if r[f"{args.side}_wav"] and not r[f"{args.side}_text"]]
    rows = share(needed, args)
    works = [Work(row["id"], args.audio / f"{row['id']}.wav", args.out / f"{row['id']}.txt") for row in rows]
    absent = [work.recording for work in works if not work.recording.is_file()]
    if args.dry_run and absent:
        print(f"{name}: {len(works)} to be written, once there are recordings", flush=True)
        return
    if absent:
        raise SystemExit(f"error: no recording {absent[0]}; run stage 2 first, all of its shards")
    if not works:
        print(f"{name}: all are there", flush=True)
        return
    # Imported only where there is work: it brings fairseq and torch.
    from echostream.simuleval.asr import find_model, model_name

    try:
        model = find_model(args.model, args.language)
    except ValueError as error:
        raise SystemExit(f"error: {error}") from error
    ledger = Ledger(args.out / ".done.tsv", (args.shard, args.num_shards))
    digests = {work.id: digest(model_name(model), args.language, work.recording) for work in works}
    missing = [work for work in works if not ledger.is_done(work.id, digests[work.id], [work.transcript])]
    if args.dry_run:
        print(f"{name}: {len(missing)} to be written, {len(works) - len(missing)} already done", flush=True)
        return
    for work, _ in parallel_map(_transcribe, missing, args.jobs, name, _start, (model, args.language)):
        ledger.mark(work.id, digests[work.id])
    print(f"{name}: {len(missing)} written, {len(works) - len(missing)} already done", flush=True)


if __name__ == "__main__":
    main()
