"""What scripts/judging/long_form.py found in long streams, as rows of a table."""

from __future__ import annotations

from typing import Any

LATENCIES = ("stream_laal", "long_yaal")
HEADS = (
    "pause", "segment", "BLEU", "of alone", "chrF", "BLEU of the first / last part", "StreamLAAL", "LongYAAL",
    "both counting computation", "spoken lag, most", "its drift a minute", "words due, said",
)  # fmt: skip


def cells(result: dict[str, Any]) -> list[str | None]:
    """A row about one entry of ``results.json``."""
    scores, own, parts = result["scores"], result["alone"], result["by_position"]
    lag = result.get("spoken_lag", {}).get("lag", {})
    return [
        f"{result['pause_ms'] / 1000:g} s",
        f"{result['segment_ms']} ms" if result["segment_ms"] else "offline",
        f"{scores['bleu']:.1f}",
        f"{scores['bleu'] / own['bleu']:.2f}" if own and own["bleu"] else None,
        f"{scores['chrf']:.1f}",
        " / ".join(f"{part['bleu']:.1f}" for part in (parts[0], parts[-1])),
        *(_seconds(scores[name]) for name in LATENCIES),
        " / ".join(_seconds(scores[f"ca_{name}"]) or "–" for name in LATENCIES),
        _seconds(lag.get("most_ms")),
        _seconds(lag.get("drift_ms_a_minute")),
        f"{result['words_due']}, {result['words_said']}",
    ]


def _seconds(milliseconds: float | None) -> str | None:
    return None if milliseconds is None else f"{milliseconds / 1000:.2f} s"
