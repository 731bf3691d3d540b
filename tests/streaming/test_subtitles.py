"""WebVTT files that are valid at any time: complete cues in order, and finally all words."""

import re

import numpy as np
import pytest
import torch

from echostream.decoding.word_boundary import WordBoundaryDetector
from echostream.modules.ctc import BLANK
from echostream.streaming import OutputWord, StepOutput, StreamingTranslator
from echostream.streaming.cues import LINE_CHARACTERS
from echostream.streaming.subtitles import HEADER, SubtitleWriter

CUE = re.compile(
    r"(source|translation) (\d+)\n(\d\d):(\d\d):(\d\d\.\d{3}) --> (\d\d):(\d\d):(\d\d\.\d{3})( line:0)?\n"
    r"(\S[^\n]*(?:\n[^\n]+)?)\n"
)


@pytest.fixture(scope="module")
def translator() -> StreamingTranslator:
    translator = StreamingTranslator.random(arch="echostream_tiny", seed=0, policy="fixed-rate", segment_ms=160)
    with torch.inference_mode():
        translator.model.asr_head.output.bias[BLANK] += 1.5  # a trained head emits blanks in silence
    return translator


def cues(text: str) -> list[tuple[str, float, float, str]]:
    """Track, start, end and text of each cue; checks that the file contains nothing else."""
    assert text.startswith(HEADER)
    before, *blocks = text.removeprefix(HEADER.rstrip("\n")).split("\n\n")
    assert not before.strip()
    found = []
    for block in blocks:
        match = CUE.fullmatch(block.rstrip("\n") + "\n")
        assert match, block
        track, _, *numbers, _, words = match.groups()
        start, end = (3600 * int(h) + 60 * int(m) + float(s) for h, m, s in (numbers[:3], numbers[3:]))
        assert 0 <= start < end
        found.append((track, start, end, re.sub(r"</?c(\.doubtful)?>", "", words)))
    assert [cue[1] for cue in found] == sorted(cue[1] for cue in found)
    return found


def text_of(words) -> str:
    return "".join(word.text if word.joined else f" {word.text}" for word in words).split()


@pytest.mark.parametrize("task", ["s2tt", "asr"])
def test_subtitles_have_all_words_in_order_and_are_always_valid(translator, tmp_path, task):
    translator.task = task
    state = translator.init_state()
    rng = np.random.default_rng(0)
    writer = SubtitleWriter(tmp_path / "new" / "a.vtt", translator.recomposer)
    source, target, counts = [], [], []
    for step in range(200):
        loud = step % 100 < 60  # the pause ends a sentence
        samples = (rng.normal(0, 0.1, 640) * loud).astype(np.float32)
        output = translator.step(samples, state, is_last=step == 199)
        source += output.source_words
        target += output.words
        writer.add(output, state)
        counts.append(len(cues((tmp_path / "new" / "a.vtt").read_text(encoding="utf-8"))))
    writer.close()
    assert 0 < counts[150] <= counts[-1]
    found = cues((tmp_path / "new" / "a.vtt").read_text(encoding="utf-8"))
    for track, words in (("source", source), ("translation", target)):
        mine = [cue for cue in found if cue[0] == track]
        if track == "source":
            assert " ".join(cue[3] for cue in mine).split() == text_of(words)
        # This policy continues to write parts of words during silence, where each part is a separate cue.
        assert "".join("".join(cue[3].split()) for cue in mine) == "".join(text_of(words))
        assert all(len(line) <= LINE_CHARACTERS for cue in mine for line in cue[3].split("\n"))
    assert bool(target) == (task != "asr") and source


def test_unfinished_sentence_is_written_on_close(translator, tmp_path):
    translator.task = "s2tt"
    state = translator.init_state()
    writer = SubtitleWriter(tmp_path / "a.vtt", translator.recomposer)
    output = translator.step(np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32), state)
    writer.add(output, state)
    assert output.words and not cues((tmp_path / "a.vtt").read_text(encoding="utf-8"))
    writer.close()
    assert cues((tmp_path / "a.vtt").read_text(encoding="utf-8"))


def test_times_of_the_speech(translator, tmp_path):
    translator.task = "s2st"
    state = translator.init_state()
    writer = SubtitleWriter(tmp_path / "a.vtt", translator.recomposer, clock="speech")
    output = translator.step(np.random.default_rng(0).normal(0, 0.1, 32_000).astype(np.float32), state, is_last=True)
    writer.add(output, state)
    writer.close()
    found = cues((tmp_path / "a.vtt").read_text(encoding="utf-8"))
    assert {cue[0] for cue in found} == {"translation"}
    assert found[0][1] == pytest.approx(output.words[0].start_s, abs=1e-3)


def test_text_is_escaped(translator, tmp_path):
    detector = WordBoundaryDetector(["<s>", "<pad>", "</s>", "<unk>", "▁a<b>", "▁&", "▁-->"])
    state = translator.init_state()
    writer = SubtitleWriter(tmp_path / "a.vtt", translator.recomposer)
    words, _, _ = detector.process_segment([4, 5, 6], detector.init_state(), is_last=True)
    writer.add(StepOutput(source_words=words), state)
    writer.close()
    assert "\na&lt;b&gt; &amp; --&gt;\n" in (tmp_path / "a.vtt").read_text(encoding="utf-8")


@pytest.mark.parametrize("clock", ["source", "speech"])
def test_doubtful_words_are_marked(translator, tmp_path, clock):
    translator.task = "s2tt"
    said = [("I", 0.9), ("have", 0.49), ("n't", 0.9), ("<seen>", 0.1), ("it.", 0.5)]
    words = [
        OutputWord(text, 1.0, index, index + 0.5, joined=text == "n't", confidence=confidence)
        for index, (text, confidence) in enumerate(said)
    ]
    for suffix in ("vtt", "srt"):
        writer = SubtitleWriter(tmp_path / f"a.{suffix}", translator.recomposer, clock)
        writer.add(StepOutput(words=words), translator.init_state())
        writer.close()
    assert "\nI <c.doubtful>haven't &lt;seen&gt;</c> it.\n" in (tmp_path / "a.vtt").read_text(encoding="utf-8")
    assert "\nI haven't <seen> it.\n" in (tmp_path / "a.srt").read_text(encoding="utf-8"), "SubRip has no classes"
