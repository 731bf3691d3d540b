"""Sessions that share their steps get what each would get alone, with the model that ships and real speech."""

import numpy as np
import pytest
from shipped_model import MODEL, short_samples

from echostream.streaming import StreamingTranslator

SESSIONS = 3
PIECE = 3_200  # samples pushed at a time
OFFSET_S = 0.9  # by which the sessions are apart


@pytest.fixture(scope="module")
def translator() -> StreamingTranslator:
    return StreamingTranslator.from_pretrained(MODEL)


@pytest.fixture(scope="module")
def waves() -> list[np.ndarray]:
    """Each session hears the same speech from another place on, and ends at another time."""
    tape = np.concatenate([sample.wave for sample in short_samples(6.0)])
    rolled = [np.roll(tape, -round(OFFSET_S * 16_000 * index)) for index in range(SESSIONS)]
    return [wave[: min(wave.size, 60_000) - 7_000 * index] for index, wave in enumerate(rolled)]


def merged(outputs):
    words = [word for output in outputs for word in output.words]
    heard = [word for output in outputs for word in output.source_words]
    ends = [len(output.words) and output.sentence_ends for output in outputs]
    return words, heard, "".join(output.evidence for output in outputs), ends


def alone(translator, wave):
    state = translator.init_state()
    starts = range(0, wave.size, PIECE)
    return [translator.step(wave[start : start + PIECE], state, start + PIECE >= wave.size) for start in starts]


def together(translator, waves):
    """The sessions join one after the other; some end in a step in which others go on."""
    states: dict[int, object] = {}
    outputs: list[list] = [[] for _ in waves]
    for tick in range(max(-(-wave.size // PIECE) + index for index, wave in enumerate(waves))):
        live = [index for index, wave in enumerate(waves) if 0 <= (tick - index) * PIECE < wave.size]
        starts = [(tick - index) * PIECE for index in live]
        pieces = [waves[index][start : start + PIECE] for index, start in zip(live, starts, strict=True)]
        last = [start + PIECE >= waves[index].size for index, start in zip(live, starts, strict=True)]
        for index in live:
            states.setdefault(index, translator.init_state())
        stepped = translator.step_batch(pieces, [states[index] for index in live], last)
        for index, output in zip(live, stepped, strict=True):
            outputs[index].append(output)
    return outputs


@pytest.mark.parametrize(
    ("task", "segment_ms", "beam", "options"),
    [
        ("s2st", 320, 4, {}),
        ("s2st", 640, 1, {"policy": "wait-k", "lag_k": 2}),
        ("s2tt", 160, 1, {"policy": "stride"}),
        ("s2st", 40, 4, {"policy": "alignment"}),
        ("asr", 320, 4, {}),
    ],
    ids=lambda value: str(value),
)
@pytest.mark.integration
def test_real_speech_is_translated_in_company_as_alone(translator, waves, task, segment_ms, beam, options, monkeypatch):
    monkeypatch.setattr(translator.writer, "beam", beam)
    viewed = translator.view(task=task, segment_ms=segment_ms, **options)
    spoken = 0
    for wave, outputs in zip(waves, together(viewed, waves), strict=True):
        expected = alone(viewed, wave)
        assert merged(outputs) == merged(expected)
        assert any(output.source_words for output in expected)
        for output, one in zip(outputs, expected, strict=True):
            np.testing.assert_allclose(output.samples, one.samples, atol=1e-5)
            spoken += output.samples.size
    assert bool(spoken) == (task == "s2st")


@pytest.mark.integration
def test_sessions_at_the_same_place_share_every_pass(translator, waves, monkeypatch):
    """Each of the networks is called as often for several sessions as for one."""
    model, calls = translator.model, []

    def watch(owner, method, name):
        call = getattr(owner, method)

        def watched(*args, **kwargs):
            calls.append(name)
            return call(*args, **kwargs)

        monkeypatch.setattr(owner, method, watched)

    for name in ("encoder", "asr_head", "st_head", "mt_decoder", "unit_decoder"):
        watch(getattr(model, name), "forward", name)
    watch(translator.vocoder, "_generate", "vocoder")
    wave, counts = waves[0], []
    for sessions in (1, SESSIONS):
        calls.clear()
        # With two steps, of which the second ends all sessions, everything is said.
        states = [translator.init_state() for _ in range(sessions)]
        for piece, is_last in ((wave[:30_000], False), (wave[30_000:], True)):
            outputs = translator.step_batch([piece] * sessions, states, [is_last] * sessions)
        counts.append({name: calls.count(name) for name in set(calls)})
        assert outputs[0].words and all(output.words == outputs[0].words for output in outputs)
    assert set(counts[0]) == {"encoder", "asr_head", "st_head", "mt_decoder", "unit_decoder", "vocoder"}
    for name in ("mt_decoder", "unit_decoder", "vocoder"):
        assert counts[1][name] == counts[0][name], name
