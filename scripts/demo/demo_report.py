"""The demo's report: one HTML file that holds everything, sound included, and asks no network for anything."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
import soundfile

from scripts.demo.demo_takes import SAMPLE_RATE, PlacedWord, Take, silences
from scripts.demo.demo_timeline import time_line

HERE = Path(__file__).resolve().parent
LANGUAGE_NAMES = {"de": "German", "en": "English", "es": "Spanish", "fr": "French", "it": "Italian", "ru": "Russian"}
LOSSLESS_S = 60.0  # sound of longer recordings is compressed
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; media-src data:"
# Name in the scores, what it is, its unit, what it means.
FIGURES = (
    ("BLEU", "Text: BLEU", "", "the words it meant to say against the reference, 100 is best"),
    ("chrF", "Text: chrF", "", "the same by letters, kinder to other forms of a word"),
    ("ASR_BLEU", "Speech: ASR-BLEU", "", "what a recogniser hears in the spoken translation against the reference"),
    ("ASR_WER", "Speech: word errors", "%", "the same, words that are wrong, missing or too many"),
    ("StartOffset", "First speech", "ms", "after the source began (StartOffset)"),
    ("StartOffset_CA", "… computing included", "ms", "on this machine"),
    ("LAAL", "Lag of a word", "ms", "when the end of a spoken word is heard, behind an ideal interpreter (LAAL)"),
    ("LAAL_CA", "… computing included", "ms", "on this machine"),
    ("ATD", "Average token delay", "ms", "of the speech behind the source, in pieces of 300 ms (ATD)"),
    ("EndOffset", "Last speech", "ms", "after the source ended (EndOffset)"),
    ("RTF", "Real-time factor", "", "time to compute over time to listen; below 1 keeps up"),
    ("StepP95", "Slowest steps", "ms", "95 of 100 steps are computed in less"),
)


@dataclass(frozen=True)
class Report:
    """What the page is about.

    ``model``: its name. ``languages``: tags of source and target. ``scores``: by segment size in ms. ``reader``: the
    recogniser that has read the speech, or None.
    """

    model: str
    languages: tuple[str, str]
    takes: Sequence[Take]
    scores: dict[int, dict[str, float | None]]
    reader: str | None = None

    @property
    def names(self) -> list[str]:
        """The languages as words."""
        return [
            LANGUAGE_NAMES.get(tag, tag or fallback)
            for tag, fallback in zip(self.languages, ("source", "translation"), strict=True)
        ]


def number(value: float | None, unit: str = "") -> str:
    """A figure as people read it."""
    if value is None:
        return "–"
    digits = 0 if unit == "ms" or abs(value) >= 100 else 2 if abs(value) < 1 and not unit else 1
    return f"{value:.{digits}f}{chr(160) + unit if unit else ''}"


def figures_of(scores: dict[int, dict[str, float | None]]) -> list[tuple[str, str, str, str]]:
    """The rows of the table of scores that there are values for."""
    return [figure for figure in FIGURES if any(figure[0] in row for row in scores.values())]


def text_table(scores: dict[int, dict[str, float | None]]) -> str:
    """Scores for the terminal, segment sizes across."""
    lines = [f"{'':24}" + "".join(f"{size:>9} ms" for size in scores)]
    for key, label, unit, meaning in figures_of(scores):
        cells = "".join(f"{number(row.get(key), unit).replace(chr(160), ' '):>12}" for row in scores.values())
        lines.append(f"{label:24}{cells}   {meaning}")
    return "\n".join(lines)


def page(report: Report) -> str:
    """The whole page."""
    source, target = (escape(name) for name in report.names)
    sections = "".join(section(take, index, report) for index, take in enumerate(report.takes, 1))
    style, script = ((HERE / f"demo_report.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    heard_s = sum(take.source_s for take in report.takes)
    count = "1 recording" if len(report.takes) == 1 else f"{len(report.takes)} recordings"
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<title>EchoStream: {source} to {target}</title>
<style>
{style}</style>
</head>
<body>
<header>
<h1>{source} to {target}, while the speaker still talks</h1>
<p>{count}, {heard_s:.1f} s, translated by {escape(report.model)} in segments of {next(iter(report.scores))} ms.
Each time line shows the {source} as it was spoken and the {target} as a listener beside this machine heard it, waiting
and computing included; where it is grey, there was nothing to play yet.</p>
</header>
<main>
<section aria-labelledby="figures">
<h2 id="figures">Figures</h2>
{score_table(report)}
</section>
{sections}</main>
<script>
{script}</script>
</body>
</html>
"""


def score_table(report: Report) -> str:
    """Scores over all recordings."""
    sizes = "".join(f'<th scope="col">{size} ms</th>' for size in report.scores)
    rows = ""
    for key, label, unit, meaning in figures_of(report.scores):
        cells = "".join(f"<td>{number(row.get(key), unit)}</td>" for row in report.scores.values())
        rows += f'<tr><th scope="row">{escape(label)} <small>{escape(meaning)}</small></th>{cells}</tr>\n'
    reader = f" The speech was read by {escape(report.reader)}." if report.reader else ""
    notes = {
        (True, True): reader,
        (True, False): " No recogniser has read the speech.",
    }
    has_references = any("BLEU" in row for row in report.scores.values())
    note = notes.get((has_references, report.reader is not None), " Without references there are no scores of quality.")
    return f"""<div class="wide" role="region" aria-label="Table of figures" tabindex="0">
<table class="scores"><caption>Over all recordings.{note}</caption>
<thead><tr><th scope="col">Segments of</th>{sizes}</tr></thead>
<tbody>
{rows}</tbody></table>
</div>"""


def section(take: Take, index: int, report: Report) -> str:
    """A recording: its time line, its sound, its texts and figures."""
    name, group = escape(take.recording.name), escape(take.recording.group)
    tag = f' <span class="tag">{group}</span>' if group else ""
    return f"""<section class="take" id="recording-{index}" aria-labelledby="name-{index}">
<h2 id="name-{index}">{name}{tag}</h2>
{time_line(take, report.names, report.languages)}
{players(take, report)}
<div class="facts">
{texts(take, report)}
{take_figures(take)}
</div>
{word_table(take, report)}
</section>
"""


def texts(take: Take, report: Report) -> str:
    """What was said, meant and understood."""
    source_tag, target_tag = (escape(tag) for tag in report.languages)
    rows = [
        ("Source text", take.recording.source_text, source_tag),
        ("Recognised", " ".join(word.text for word in take.source_words), source_tag),
        ("Translation", take.record.text, target_tag),
        ("Reference", take.recording.reference, target_tag),
        (f"Speech as {report.reader} reads it", take.transcript, target_tag),
    ]
    items = "".join(
        f'<dt>{escape(label)}</dt><dd lang="{tag}">{escape(text) or "<em>nothing</em>"}</dd>\n'
        for label, text, tag in rows
        if text is not None
    )
    return f'<dl class="texts">\n{items}</dl>'


def take_figures(take: Take) -> str:
    """Latency of a recording."""
    rows = [
        ("First speech", take.latency("StartOffset"), "after the source began"),
        ("Lag of a word", take.latency("LAAL"), "LAAL"),
        ("Average token delay", take.latency("ATD"), "ATD"),
        ("Last speech", take.latency("EndOffset"), "after the source ended"),
    ]
    items = "".join(
        f"<div><dt>{label}</dt><dd>{number(value, 'ms')} <small>{note}</small></dd></div>\n"
        for label, value, note in rows
    )
    pauses = silences(take)
    waited = sum(end - start for start, end in pauses)
    items += f"<div><dt>Pauses to wait</dt><dd>{len(pauses)} <small>{waited:.1f} s in all</small></dd></div>\n"
    items += f"<div><dt>Real-time factor</dt><dd>{number(take.real_time_factor)}</dd></div>\n"
    return f'<dl class="figures">\n{items}</dl>'


def players(take: Take, report: Report) -> str:
    """Three players; ``data-offset``: where on the time line their sound begins."""
    source, target = report.names
    offset = take.chunks[0].start / 1000 if take.chunks else 0.0
    sounds = [(f"{source} left, {target} right", take.both, 0.0), (f"{source} alone", take.source, 0.0)]
    if take.chunks:
        sounds.append((f"{target} alone", take.played[round(offset * SAMPLE_RATE) :], offset))
    items = "".join(
        f"<figure><figcaption>{escape(label)}</figcaption>"
        f'<audio controls preload="metadata" data-offset="{start:.3f}" src="{sound_uri(samples)}" '
        f'aria-label="{escape(label)}, {escape(take.recording.name)}"></audio></figure>\n'
        for label, samples, start in sounds
    )
    return f'<div class="players">\n{items}</div>'


def sound_uri(samples: np.ndarray) -> str:
    """float32 ``(n,)`` or ``(n, 2)`` at 16 kHz as a data URI: FLAC, or Ogg Vorbis where that would be large."""
    samples = np.clip(samples, -1, 1)
    lossless = len(samples) <= LOSSLESS_S * SAMPLE_RATE
    file = io.BytesIO()
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    kind = ("FLAC", "PCM_16") if lossless else ("OGG", "VORBIS")
    with soundfile.SoundFile(file, "w", SAMPLE_RATE, channels, kind[1], format=kind[0]) as sound:
        for start in range(0, len(samples), SAMPLE_RATE):  # libsndfile's Vorbis encoder fails on very long writes
            sound.write(samples[start : start + SAMPLE_RATE])
    data = base64.b64encode(file.getvalue()).decode()
    return f"data:audio/{'flac' if lossless else 'ogg'};base64,{data}"


def word_table(take: Take, report: Report) -> str:
    """Every word with its times, for those who don't see the time line."""
    source, target = (escape(name) for name in report.names)
    rows = [
        (word.decided_s, word_row(word, "{0}<td></td>", report.languages[0], ("in the source", "recognised")))
        for word in take.source_words
    ]
    rows += [
        (word.start_s, word_row(word, "<td></td>{0}", report.languages[1], ("spoken", "written")))
        for word in take.words
    ]
    body = "\n".join(row for _, row in sorted(rows))
    return f"""<details><summary>All words and their times</summary>
<div class="wide" role="region" aria-label="Words of {escape(take.recording.name)}" tabindex="0">
<table><thead><tr><th scope="col">{source}</th><th scope="col">{target}</th><th scope="col">When</th>
<th scope="col">On what evidence</th></tr></thead>
<tbody>
{body}
</tbody></table></div></details>"""


def word_row(word: PlacedWord, cells: str, language: str, verbs: tuple[str, str]) -> str:
    """A row of :func:`word_table`; ``cells``: the columns of the languages, ``verbs``: what was done when, and why."""
    text = cells.format(f'<td lang="{escape(language)}">{escape(word.text)}</td>')
    times = f"<td>{verbs[0]} {word.start_s:.2f} to {word.end_s:.2f} s</td>"
    return f"<tr>{text}{times}<td>{verbs[1]} with {word.source_s:.2f} s heard</td></tr>"
