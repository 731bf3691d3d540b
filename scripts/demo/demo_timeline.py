"""The time line of the demo's report: both waveforms and the words of both languages on one axis, as HTML."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

import numpy as np

from scripts.demo.demo_takes import SAMPLE_RATE, PlacedWord, Take, silences

PIXELS_PER_S = 110  # of the time line at least; a wide window stretches it
LETTER_PIXELS, WORD_MARGIN_PIXELS, ROW_PIXELS = 7.5, 12, 24
PEAKS_PER_S = 50
END_MARGIN_S = 0.7  # so that the last word can be read


def time_line(take: Take, names: Sequence[str], languages: Sequence[str]) -> str:
    """Both waveforms and all words.

    Args:
        take: what to show.
        names: of the two languages, for people.
        languages: their tags, for programs.
    """
    length_s = take.end_s + END_MARGIN_S
    source, target = (escape(name) for name in names)
    end = 100 * take.source_s / length_s
    gaps = "".join(span(start, stop, length_s, "gap") for start, stop in silences(take))
    first_s = take.chunks[0].start / 1000 if take.chunks else take.source_s
    waiting = span(0, first_s, length_s, "gap")
    return f"""<div class="wide scroller" role="region" tabindex="0"
 aria-label="Time line of {escape(take.recording.name)}; all its words are in the table below">
<div class="line" data-length="{length_s:.3f}" style="min-width:{length_s * PIXELS_PER_S:.0f}px" aria-hidden="true">
<div class="axis">{ticks(length_s)}</div>
<p class="lane">{source}, as heard</p>
{words(take.source_words, length_s, "heard", languages[0])}
<div class="wave heard">{wave(take.source, length_s)}</div>
{links(take, length_s)}
<div class="wave said">{waiting}{gaps}{wave(take.played, length_s)}</div>
{words(take.words, length_s, "said", languages[1])}
<p class="lane">{target}, as spoken</p>
<div class="end" style="left:{end:.3f}%"><span>source ends</span></div>
<div class="playhead" hidden></div>
</div></div>"""


def span(start_s: float, end_s: float, length_s: float, kind: str) -> str:
    left, width = 100 * start_s / length_s, 100 * (end_s - start_s) / length_s
    return f'<div class="{kind}" style="left:{left:.3f}%;width:{width:.3f}%"></div>'


def ticks(length_s: float) -> str:
    """Whole seconds."""
    return "".join(f'<span style="left:{100 * s / length_s:.3f}%">{s} s</span>' for s in range(int(length_s) + 1))


def wave(samples: np.ndarray, length_s: float) -> str:
    """Outline of float32 ``(n,)`` at 16 kHz, stretched to the time line."""
    size = SAMPLE_RATE // PEAKS_PER_S
    peaks = np.abs(np.pad(samples, (0, -len(samples) % size))).reshape(-1, size).max(axis=1, initial=0.0)
    heights = 48 * peaks / max(float(peaks.max(initial=0.0)), 0.02)
    points = [(i, height) for i, height in enumerate(heights)]
    outline = [f"{i},{50 - height:.0f}" for i, height in points] + [
        f"{i},{50 + height:.0f}" for i, height in reversed(points)
    ]
    box = f"0 0 {length_s * PEAKS_PER_S:.1f} 100"
    return f'<svg viewBox="{box}" preserveAspectRatio="none"><polygon points="{" ".join(outline)}"/></svg>'


def links(take: Take, length_s: float) -> str:
    """Lines from how much had been heard when a word was written to where it is spoken."""
    lines = "".join(
        f'<line x1="{1000 * word.source_s:.0f}" y1="0" x2="{1000 * word.start_s:.0f}" y2="100"/>' for word in take.words
    )
    return f'<svg class="links" viewBox="0 0 {1000 * length_s:.0f} 100" preserveAspectRatio="none">{lines}</svg>'


def words(placed: Iterable[PlacedWord], length_s: float, kind: str, language: str) -> str:
    """Words, heard ones where they end and said ones where they begin, in rows so that none covers another."""
    ends: list[float] = []  # of each row, pixels
    items = ""
    for at_s, word in sorted((word.end_s if kind == "heard" else word.start_s, word) for word in placed):
        left = at_s * PIXELS_PER_S
        row = next((row for row, end in enumerate(ends) if end <= left), len(ends))
        ends[row:] = [left + len(word.text) * LETTER_PIXELS + WORD_MARGIN_PIXELS, *ends[row + 1 :]]
        verb = "recognised" if kind == "heard" else "written"
        title = f"{word.text}: {word.start_s:.2f} to {word.end_s:.2f} s, {verb} with {word.source_s:.2f} s heard"
        place = f"left:{100 * at_s / length_s:.3f}%;top:{row * ROW_PIXELS}px"
        times = f'data-start="{word.start_s:.3f}" data-end="{word.end_s:.3f}"'
        items += f'<span style="{place}" {times} title="{escape(title)}">{escape(word.text)}</span>\n'
    height = max(len(ends), 1) * ROW_PIXELS
    return f'<div class="words {kind}" lang="{escape(language)}" style="height:{height}px">\n{items}</div>'
