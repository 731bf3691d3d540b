"""Features are fairseq's, and so are the archives that hold them."""

import zipfile

import numpy as np
import soundfile
from fairseq.data.audio.audio_utils import get_features_or_waveform
from fairseq_features import fairseq_fbank

from scripts.data import fbank_archive
from scripts.speech.audio import read_speech


def test_features_are_fairseqs(tmp_path):
    path = tmp_path / "x.wav"
    soundfile.write(path, np.random.default_rng(0).normal(size=8000).clip(-1, 1) * 0.3, 16000)
    features = fbank_archive.log_mel(read_speech(path))
    np.testing.assert_allclose(features, fairseq_fbank(path), rtol=1e-6)
    stored = {"é": features, "b": features[:7] + 1}
    addresses = fbank_archive.write_archive(tmp_path / "x.zip", stored.items())
    for name, array in stored.items():
        np.testing.assert_array_equal(get_features_or_waveform(f"{tmp_path}/{addresses[name]}"), array)


def test_archives_are_split_by_size(tmp_path):
    stored = {f"é{i}": np.full((3, 80), i, np.float32) for i in range(5)}
    whole = fbank_archive.write_archive(tmp_path / "a/x.zip", stored.items())
    assert {address.split(":")[0] for address in whole.values()} == {"x.zip"}
    first_two = (tmp_path / "a/x.zip").stat().st_size // 2
    addresses = fbank_archive.write_archive(tmp_path / "b/x.zip", stored.items(), first_two)
    assert [address.split(":")[0] for address in addresses.values()] == ["x.zip"] * 2 + ["x.1.zip"] * 2 + ["x.2.zip"]
    for path in (tmp_path / "b").iterdir():
        assert path.stat().st_size <= first_two and zipfile.ZipFile(path).testzip() is None
    for name, array in stored.items():
        np.testing.assert_array_equal(get_features_or_waveform(f"{tmp_path}/b/{addresses[name]}"), array)
    # In one archive again, with the bytes it had; a member larger than the limit has an archive of its own.
    assert fbank_archive.write_archive(tmp_path / "b/x.zip", stored.items()) == whole
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["x.zip"]
    assert (tmp_path / "b/x.zip").read_bytes() == (tmp_path / "a/x.zip").read_bytes()
    fbank_archive.write_archive(tmp_path / "b/x.zip", stored.items(), 1)
    assert len(list((tmp_path / "b").iterdir())) == 5
