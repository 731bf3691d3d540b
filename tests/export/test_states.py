"""States as tensors by name and back."""

from __future__ import annotations

import pytest
import torch
from tiny_translator import make_model, make_vocoder

from echostream.export.parts import encoder_parts, head_parts, mt_decoder_part, unit_decoder_part, vocoder_parts
from echostream.export.states import next_of, tensors_of, with_tensors


def test_a_state_is_made_again_from_its_tensors():
    state = make_model().encoder.init_state()
    tensors = tensors_of(state, "encoder")
    assert "encoder.emformer.left" in tensors and "encoder.emformer.pending" not in tensors  # which is empty
    changed = {name: tensor + 1 for name, tensor in tensors.items()}
    again = with_tensors(state, "encoder", changed)
    assert type(again) is type(state) and again.emformer.pending.shape == state.emformer.pending.shape
    assert all(torch.equal(tensor, changed[name]) for name, tensor in tensors_of(again, "encoder").items())
    assert not any(tensor.any() for tensor in tensors.values()), "the state itself was changed"
    assert list(next_of(state, "encoder")) == [f"next.{name}" for name in tensors]


@pytest.mark.parametrize(
    "make", [head_parts, lambda model: [mt_decoder_part(model)], lambda model: [unit_decoder_part(model)]]
)
def test_every_state_comes_out_as_it_goes_in(make):
    for part in make(make_model()):
        with torch.no_grad():
            outputs = part.function(part.inputs)
        assert {name: outputs[f"next.{name}"].shape for name in part.start} == {
            name: value.shape for name, value in part.start.items()
        }
        assert part.start.items() <= part.inputs.items()


@torch.no_grad()
def test_steps_with_states_by_name_give_the_frames_of_the_whole_input():
    model = make_model()
    parts = encoder_parts(model, segment=4, right_context=1)
    samples = 0.1 * torch.randn(
        parts.first_samples + 9 * parts.step_samples, generator=torch.Generator().manual_seed(0)
    )
    whole, _, _ = model.encoder(model.fbank(samples)[0][None], segment=4, right_context=1)
    outputs = parts.first.function({"samples": samples[: parts.first_samples]})
    pieces = [outputs["frames"]]
    for piece in samples[parts.first_samples :].split(parts.step_samples):
        states = {name.removeprefix("next."): value for name, value in outputs.items() if name.startswith("next.")}
        outputs = parts.step.function({"samples": piece} | states)
        pieces.append(outputs["frames"])
    streamed = torch.cat(pieces, dim=1)
    # The whole input knows the last frame to have no right context; a stream that goes on does not.
    assert torch.allclose(streamed, whole[:, : streamed.size(1)], atol=1e-5)


def test_no_two_inputs_are_one_tensor():
    """The exporter would take them for one input."""
    model = make_model()
    encoder = encoder_parts(model, segment=4, right_context=1)
    heads_and_decoders = [*head_parts(model), mt_decoder_part(model), unit_decoder_part(model)]
    for part in [encoder.first, encoder.step, *heads_and_decoders, *vocoder_parts(make_vocoder("istft"))]:
        places = [value.data_ptr() for value in part.inputs.values()]
        assert len(set(places)) == len(places), part.name
