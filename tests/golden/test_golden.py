"""The output of a tiny seeded model equals stored results, so that changes between versions are noticed."""

import json

import numpy as np
import torch
from make_golden import NUMBERS, WORDS, numbers, words

# Other processors, BLAS libraries or torch versions add in another order; float32 rounding grows through a few layers.
CLOSE = {"rtol": 1e-4, "atol": 2e-5}
FEATURES_CLOSE = 1e-5  # of the energy of a frame's loudest band


def test_numbers_are_unchanged(record_property):
    torch.set_num_threads(1)
    with np.load(NUMBERS) as golden:
        made = numbers(torch.from_numpy(golden["features"]))
        assert set(golden.files) == set(made)
        energies, expected = np.exp(made.pop("features")), np.exp(golden["features"])
        assert (np.abs(energies - expected) <= FEATURES_CLOSE * expected.max(axis=1, keepdims=True)).all()
        worst = max(float(np.abs(made[name] - golden[name]).max()) for name in made)
        record_property("largest drift from the golden numbers", f"{worst:.1e}")
        for name, array in made.items():
            assert golden[name].std() > 0.01, f"{name} says nothing"
            np.testing.assert_allclose(array, golden[name], err_msg=name, **CLOSE)


def test_words_and_times_are_unchanged():
    golden = json.loads(WORDS.read_text(encoding="utf-8"))
    assert sum(len(said) for _, said, _ in golden.values()) > 50, "there is something to compare"
    assert words() == golden


def test_small_changes_of_weights_are_detected():
    """A change of one weight in a thousand by a hundredth is larger than the tolerance for rounding."""
    from tiny_translator import make_model

    model = make_model()
    with torch.inference_mode(), np.load(NUMBERS) as golden:
        features = torch.from_numpy(golden["features"])[None]
        weight = model.encoder.emformer.layers[0].ffn_in.weight
        weight.view(-1)[::1_000] += 0.01
        moved = model.asr_head(model.encoder(features, segment=8, right_context=1)[0])[0][0, ::4].numpy()
        assert not np.allclose(moved, golden["asr_logits_8"], **CLOSE)
