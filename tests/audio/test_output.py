"""Speech in files of every format, written while it is produced."""

import sys

import numpy as np
import pytest
import soundfile

from echostream.audio.output import SPEECH_SUFFIXES, WavWriter, open_speech_file

RATE = 16_000
SPEECH = (0.3 * np.sin(np.arange(2 * RATE) / 9)).astype(np.float32)


@pytest.mark.parametrize("suffix", SPEECH_SUFFIXES)
def test_speech_in_pieces_is_in_the_file(tmp_path, suffix):
    path = tmp_path / "new" / f"a{suffix.upper()}"
    writer = open_speech_file(path, RATE)
    for piece in np.array_split(SPEECH, 50):
        writer.write(piece)
        writer.write(piece[:0])
    writer.close()
    writer.close()
    got, rate = soundfile.read(path, dtype="float32")
    assert rate == RATE and abs(len(got) - len(SPEECH)) < 0.05 * RATE
    size = 2 * len(SPEECH)
    product = np.fft.irfft(np.fft.rfft(got, size) * np.conj(np.fft.rfft(SPEECH, size)))
    assert product.max() > 0.95 * np.linalg.norm(got) * np.linalg.norm(SPEECH)


@pytest.mark.parametrize("suffix", SPEECH_SUFFIXES)
def test_a_file_without_speech_is_one_of_its_format(tmp_path, suffix):
    open_speech_file(tmp_path / f"a{suffix}", RATE).close()
    assert len(soundfile.read(tmp_path / f"a{suffix}")[0]) <= RATE // 10


def test_what_cannot_be_written_is_an_os_error_that_names_the_file(tmp_path):
    (tmp_path / "file").touch()
    for path, rate, message in (
        (tmp_path / "file" / "a.mp3", RATE, "file"),
        (tmp_path / "a.opus", 22_050, "OPUS can't be written at 22050 Hz"),
    ):
        with pytest.raises(OSError, match=message) as caught:
            open_speech_file(path, rate)
        assert caught.value.filename


def test_a_wav_file_that_is_interrupted_anywhere_counts_all_its_samples(tmp_path):
    interruptions = 0

    def interrupt_at(step):
        """Trace the writer's own lines and raise at the one of that number, as a signal's handler does."""

        def trace(frame, event, _):
            nonlocal interruptions, step
            frame.f_trace_opcodes = frame.f_code.co_filename.endswith("output.py")
            if event == "opcode" and frame.f_trace_opcodes:
                step -= 1
                if not step:
                    interruptions += 1
                    sys.settrace(None)
                    raise KeyboardInterrupt
            return trace

        return trace

    for step in range(1, 1000):
        writer = WavWriter(tmp_path / "a.wav", RATE)
        writer.write(SPEECH[:700])
        before = interruptions
        sys.settrace(interrupt_at(step))
        try:
            writer.write(SPEECH[700:1000])
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(None)
        writer.close()
        frames = soundfile.info(tmp_path / "a.wav").frames
        assert frames in (700, 1000) and 44 + 2 * frames == (tmp_path / "a.wav").stat().st_size, step
        if interruptions == before:  # the writer ended before that step
            break
    assert interruptions > 50
