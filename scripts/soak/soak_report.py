"""The figures of a soak as tables, and whether they are good."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scripts.benchmarks.figures import markdown_table

Part = dict[str, Any]
SHOWN = 10  # of each kind of fault
WAYS = ("translator", "agent", "server")


def finished_parts(path: Path | None, options: dict[str, str], parts: Sequence[str]) -> dict[str, Part]:
    """Parts that a run with the same options has measured already.

    Raises:
        SystemExit: the file holds something else.
    """
    if path is None or not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        same = content["options"] == options
        found = {part: content["parts"][part] for part in parts if part in content["parts"]}
    except (ValueError, KeyError, TypeError) as error:
        raise SystemExit(f"error: {path} does not hold figures of a soak: give another --json") from error
    if not same:
        raise SystemExit(f"error: {path} holds figures of other options: give another --json, or delete it")
    for part in found:
        print(f"{part}: already done", file=sys.stderr)
    return found


def print_report(parts: dict[str, Part]) -> int:
    """Print what was measured; 1 if a limit is broken, else 0."""
    ways = [parts[way] for way in WAYS if way in parts]
    broken = [f"{part['part']}: {text}" for part in parts.values() for text in part["broken"]]
    if len({(way["text_digest"], way["speech_digest"]) for way in ways}) > 1:
        broken.append("the ways through the system do not say the same")
    if ways:
        header = [f"{ways[0]['audio_s'] / 60:g} minutes through", *(way["part"] for way in ways)]
        print("\n" + markdown_table(header, [[name, *map(cell, ways)] for name, cell in ROWS.items()]))
        kinds = ways[0]["words_by_kind"]
        print("\nWords said while hearing: " + ", ".join(f"{kind} {count}" for kind, count in kinds.items()))
        _print_words(ways[0])
        for way in ways:
            for title, texts in (("loop", way["loops"]), ("said in silence", way["silent_words"])):
                print("".join(f"  {way['part']}: {title}: {text}\n" for text in texts[:SHOWN]), end="")
    if visits := parts.get("sessions"):
        print(f"\n{visits['sessions']} sessions in turn, {visits['wall_s']:.0f} s: ", end="")
        print(", ".join(f"{way} {count}" for way, count in sorted(visits["ways"].items())))
        rows = [[name, value, visits["after"][name]] for name, value in visits["before"].items()]
        print("\n" + markdown_table(["with nobody there", "before", "after"], rows))
    for text in broken:
        print(f"FAILED: {text}")
    return 1 if broken else 0


def _print_words(way: Part) -> None:
    """By recording: the words that were due, which are those of the recording alone, and those that were said."""
    if not way.get("words_alone"):
        return
    rows: list[list[Any]] = []
    for number, (plays, said, alone) in enumerate(
        zip(way["plays"], way["words_said"], way["words_alone"], strict=True), 1
    ):
        rows.append([number, plays, alone * plays, said, f"{said / plays:.1f} of {alone}" if plays else "–"])
    rows.append(["all", *(sum(row[column] for row in rows) for column in (1, 2, 3)), ""])
    header = ["recording, by name", "played whole", "words due", "words said", "of one play"]
    print("\n" + markdown_table(header, rows))


def _ends(way: Part, key: str) -> tuple[list[float], list[float]]:
    """Values of the first and of the last third of the marks."""
    third, marks = len(way["marks"]) // 3, way["marks"]
    first, last = ([mark[key] for mark in part] for part in (marks[:third], marks[-third:]))
    return first, last


def _most(way: Part, key: str) -> str:
    first, last = _ends(way, key)
    return "–" if None in first else f"{max(first):.0f} / {max(last):.0f}"


def _compute(way: Part) -> str:
    first, last = _ends(way, "compute_s")
    span_s = way["audio_s"] / 3
    return f"{1000 * sum(first) / span_s:.0f} / {1000 * sum(last) / span_s:.0f}"


def _lag(way: Part) -> str:
    return "–" if way["lag_s"] is None else " to ".join(f"{1000 * lag:.0f}" for lag in way["lag_s"])


def _sentences(way: Part) -> str:
    played, heard, said = (way[key] for key in ("sentences", "sentences_heard", "sentences_said"))
    of_thirds = " / ".join(f"{100 * some / max(1, all_):.0f}" for some, all_ in zip(said, played, strict=True))
    return f"{sum(played)}: {sum(heard)}, {sum(said)} ({of_thirds} %)"


def _drift(way: Part) -> str:
    return "–" if way["drift_ms"] is None else f"{way['drift_ms']:.0f} ({way['drift_pairs']})"


ROWS = {
    "compute for a second of audio, first / last third (ms)": _compute,
    "memory, first / last third (MB)": lambda way: _most(way, "rss_mb"),
    "state at most, first / last third (kB)": lambda way: _most(way, "state_kb"),
    "encoder's clock behind the audio used (ms)": _lag,
    "same recordings heard later at the end by (ms; how many)": _drift,
    "words beyond the audio, going back in time": lambda way: f"{way['beyond_audio']}, {way['backwards']}",
    "output's clock against its samples (ms)": lambda way: f"{way['output_clock_ms']:.1f}",
    "words said / heard": lambda way: f"{way['words']} / {way['source_words'] or '–'}",
    "sentences: heard, said (of each third)": _sentences,
    "speech said (s)": lambda way: f"{way['speech_s']:.1f}",
    "repetition loops": lambda way: len(way["loops"]),
    "words said in silence, and how long (s)": lambda way: f"{len(way['silent_words'])}, {way['silent_speech_s']:.1f}",
    "words heard in silence": lambda way: len(way["silent_heard"]) if way["source_words"] else "–",
    "text and speech": lambda way: f"{way['text_digest'][:8]} {way['speech_digest'][:8]}",
}
