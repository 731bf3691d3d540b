"""What stands for operators of torch in a graph computes what they compute."""

from __future__ import annotations

import pytest
import torch

from echostream.export.operators import real_to_spectrum, running_maximum, spectrum_to_real

NOISE = torch.randn(5, 640, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("dim", [0, 1, -1])
@pytest.mark.parametrize("kind", [torch.float32, torch.int64])
def test_running_maxima(dim, kind):
    x = (10 * NOISE[:, :7]).to(kind)
    assert torch.equal(running_maximum(x, dim)[0], x.cummax(dim=dim).values)


@pytest.mark.parametrize(("size", "n"), [(400, None), (400, 512), (512, 512)])
def test_spectra(size, n):
    expected = torch.fft.rfft(NOISE[:, :size], n=n)
    found = real_to_spectrum(NOISE[:, :size], n)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < 1e-6 * expected.abs().max()


def test_samples_of_spectra():
    # The imaginary parts of the first and the last frequency mean nothing; a vocoder predicts them all the same.
    spectra = torch.complex(NOISE[:, :321], NOISE[:, 300:621])
    expected = torch.fft.irfft(spectra, n=640)
    found = spectrum_to_real(spectra, 640)
    assert (found - expected).abs().max() < 1e-6 * expected.abs().max()


def test_other_transforms_are_refused():
    with pytest.raises(NotImplementedError, match="rfft over the whole last dimension"):
        real_to_spectrum(NOISE, dim=0)
    with pytest.raises(NotImplementedError, match="irfft over the whole last dimension to an even size"):
        spectrum_to_real(torch.fft.rfft(NOISE), 639)
