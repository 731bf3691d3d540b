"""A source translated as it comes and as a whole: the same increments, whatever it is, and nothing heard is lost."""

import numpy as np
import pytest
import soundfile
from tiny_translator import make_translator, noise

from echostream import Translation, open_audio
from echostream.audio.errors import AudioError

SPEECH = noise(1.5)


@pytest.fixture(scope="module")
def translator():
    return make_translator(policy="fixed-rate", segment_ms=160)


def same(a: Translation, b: Translation) -> bool:
    return np.array_equal(a.samples, b.samples) and (a.words, a.source_words) == (b.words, b.source_words)


def test_increments_add_up_to_the_whole(translator):
    chunks = np.array_split(SPEECH, 7)
    outputs = list(translator.stream(iter(chunks)))
    whole = translator.translate(SPEECH)
    assert len(outputs) == len(chunks) + 1  # one for each chunk, and one for the end
    assert np.array_equal(np.concatenate([output.samples for output in outputs]), whole.samples)
    assert "".join(output.text for output in outputs).strip() == whole.text != ""
    assert "".join(output.source_text for output in outputs).strip() == whole.source_text != ""
    assert sum(bool(output.words) for output in outputs[:-1]) > 1  # they came while the source was going on
    state = translator.init_state()
    assert np.array_equal(translator.step(SPEECH, state, is_last=True).samples, whole.samples)
    assert whole.sample_rate == translator.output_sample_rate


def test_arrays_chunks_and_recordings_are_translated_alike(translator, tmp_path):
    soundfile.write(tmp_path / "a.wav", SPEECH, 16_000, subtype="FLOAT")
    whole = translator.translate(SPEECH)
    for source in (
        np.array_split(SPEECH, 5),
        tmp_path / "a.wav",
        str(tmp_path / "a.wav"),
        open_audio(tmp_path / "a.wav"),
    ):
        assert same(translator.translate(source), whole)
    assert not translator.translate([]).text and not translator.translate(SPEECH[:0]).samples.size


def test_what_was_heard_before_an_error_is_given_out_first(translator, tmp_path):
    soundfile.write(tmp_path / "a.wav", SPEECH, 16_000)
    (tmp_path / "a.wav").write_bytes((tmp_path / "a.wav").read_bytes()[:32_044])
    heard = np.round(SPEECH[:16_000] * 32768).astype(np.float32) / 32768
    outputs = []
    with pytest.raises(AudioError, match=r"is cut short after 1.00 s"):
        outputs.extend(translator.stream(tmp_path / "a.wav"))
    assert np.array_equal(np.concatenate([output.samples for output in outputs]), translator.translate(heard).samples)
    with pytest.raises(AudioError, match="no such file"):
        translator.translate(tmp_path / "nowhere.m4a")
    with pytest.raises(ValueError, match="divide integers by 32768"):
        translator.translate(np.zeros(100, dtype=np.int16))


def test_a_stream_that_is_left_early_ends_there(translator):
    given = []

    def chunks():
        for chunk in np.array_split(SPEECH, 10):
            given.append(chunk)
            yield chunk

    stream = translator.stream(chunks())
    next(stream)
    stream.close()
    assert len(given) == 1
