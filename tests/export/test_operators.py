"""What stands for operators of torch in a graph computes what they compute."""

from __future__ import annotations

import pytest
import torch

from echostream.export.operators import BACKWARD, real_to_spectrum, running_maximum, spectrum_to_real

NOISE = torch.randn(5, 640, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("dim", [0, 1, -1])
@pytest.mark.parametrize("kind", [torch.float32, torch.int64])
def test_running_maxima(dim, kind):
    x = (10 * NOISE[:, :7]).to(kind)
    assert torch.equal(running_maximum(x, dim)[0], x.cummax(dim=dim).values)


@pytest.mark.parametrize("size", [400, 512])
def test_spectra(size):
    x = NOISE[:, :size]
    expected = torch.fft.rfft(x)
    assert torch.equal(torch.ops.aten._fft_r2c(x, [1], 0, True), expected)  # the operator that it stands for
    found = real_to_spectrum(x, [1], 0, True)
    assert (found - expected).abs().max() < 1e-6 * expected.abs().max()


def test_samples_of_spectra():
    # The imaginary parts of the first and the last frequency mean nothing; a vocoder predicts them all the same.
    spectra = torch.complex(NOISE[:, :321], NOISE[:, 300:621])
    expected = torch.fft.irfft(spectra, n=640)
    assert torch.equal(torch.ops.aten._fft_c2r(spectra, [1], BACKWARD, 640), expected)
    found = spectrum_to_real(spectra, [1], BACKWARD, 640)
    assert (found - expected).abs().max() < 1e-6 * expected.abs().max()


def test_other_transforms_are_refused():
    with pytest.raises(NotImplementedError, match="rfft over the last dimension"):
        real_to_spectrum(NOISE, [0], 0, True)
    with pytest.raises(NotImplementedError, match="irfft of an even size"):
        spectrum_to_real(torch.fft.rfft(NOISE), [1], BACKWARD, 639)
