"""What every unit vocoder has to keep, as checks that a vocoder of one's own can be put through.

A check takes a vocoder in inference mode and some units, and raises :class:`AssertionError` with what it found; with
pytest, all of them are one test::

    @pytest.mark.parametrize("check", CONTRACT)
    def test_contract(check):
        check(make_vocoder(), units)

The units are int64 ``(n,)`` with ``n`` at least 40, all below ``num_units - 1``.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from echostream.contract import require
from echostream.vocoders.interface import UnitVocoder, VocoderError, VocoderInput, VocoderOutput, VocoderState

LEAST_SNR_DB = 30.0  # of streamed speech against that of the whole utterance; the joins cannot be heard then
CLOSE = 1e-5  # between float32 results of the same sums in another order
Check = Callable[[UnitVocoder, Tensor], None]


def stream(vocoder: UnitVocoder, units: Tensor, size: int, state: VocoderState | None = None) -> tuple[Tensor, Tensor]:
    """Push ``units`` ``(n,)``, ``size`` at a time, and end the stream; returns all samples and all durations."""
    state = vocoder.init_state() if state is None else state
    pieces = units.split(size)
    outputs: list[VocoderOutput] = []
    for index, piece in enumerate(pieces):
        output, state = vocoder.step(piece, state, is_last=index == len(pieces) - 1)
        outputs.append(output)
    return torch.cat([output.samples for output in outputs]), torch.cat([output.durations for output in outputs])


def same(a: Any, b: Any) -> bool:
    """Whether two states, or parts of states, hold the same values, bit for bit."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if dataclasses.is_dataclass(a):
        fields = dataclasses.fields(a)
        return type(a) is type(b) and all(same(getattr(a, field.name), getattr(b, field.name)) for field in fields)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def check_streaming(vocoder: UnitVocoder, units: Tensor) -> None:
    """A stream gives the durations of the whole utterance exactly, and its samples to 30 dB, whatever the pushes."""
    (wave,), (durations,) = vocoder(units[None])
    require(wave.abs().max() > 0, "the whole utterance is silent")
    for size in (1, 4, 15, len(units)):
        streamed, settled = stream(vocoder, units, size)
        require(torch.equal(settled, durations), f"pushes of {size} units change the durations")
        require(streamed.shape == wave.shape, f"pushes of {size} units give {len(streamed)} samples, not {len(wave)}")
        snr_db = 10 * torch.log10(wave.square().sum() / (streamed - wave).square().sum()).item()
        require(snr_db >= LEAST_SNR_DB, f"pushes of {size} units differ from the whole utterance: {snr_db:.0f} dB")


def check_flushes(vocoder: UnitVocoder, units: Tensor) -> None:
    """A flush loses nothing, and neither does one without new units."""
    state, count = vocoder.init_state(), 0
    for word in (*units.split(5), units[:0]):
        output, state = vocoder.step(word, state, flush=True)
        count += len(output.durations)
    output, _ = vocoder.step(units[:0], state, is_last=True)
    require(count + len(output.durations) == len(units), "units are lost or said twice after a flush")


def check_batches(vocoder: UnitVocoder, units: Tensor) -> None:
    """Rows of a batch do not see each other, nor the padding."""
    size = len(units) // 2
    batch = torch.full((2, len(units)), -1)
    batch[0], batch[1, :size] = units, units[:size]
    waves, durations = vocoder(batch, lengths=torch.tensor([len(units), size]))
    for row, length in enumerate((len(units), size)):
        (wave,), (alone,) = vocoder(units[None, :length])
        require(torch.equal(durations[row, :length], alone), "a duration depends on the other rows of the batch")
        require(not durations[row, length:].any(), "padding has a duration")
        require(_close(waves[row, : len(wave)], wave), "samples depend on the other rows of the batch")
        require(not waves[row, len(wave) :].any(), "padding can be heard")


def check_durations(vocoder: UnitVocoder, units: Tensor) -> None:
    """Durations that are given are kept, and a unit frame has ``hop_samples`` samples."""
    durations = torch.arange(len(units))[None] % 4 + 1
    wave, used = vocoder(units[None], durations)
    require(torch.equal(used, durations), "given durations are changed")
    require(wave.shape == (1, int(durations.sum()) * vocoder.hop_samples), "a unit frame is not hop_samples long")


def check_empty_steps(vocoder: UnitVocoder, units: Tensor) -> None:
    """Steps without units change nothing; a stream may be empty, and a closed one takes no more units."""
    nothing = units[:0]
    closing, _ = vocoder.step(nothing, vocoder.init_state(), is_last=True)
    require(closing.samples.shape == closing.durations.shape == (0,), "an empty stream is not silent")
    require(vocoder(nothing[None])[0].shape == (1, 0), "an empty utterance is not silent")
    state = vocoder.init_state()
    pieces = [nothing, *(part for unit in units[:12].split(1) for part in (unit, nothing))]
    sent = []
    for piece, is_last in (*((piece, False) for piece in pieces), (nothing, True), (nothing, True)):
        output, state = vocoder.step(piece, state, is_last=is_last)
        sent.append(output)
    durations = torch.cat([output.durations for output in sent])
    require(torch.equal(durations, vocoder(units[None, :12])[1][0]), "steps without units change the durations")
    samples = sum(len(output.samples) for output in sent)
    require(samples == int(durations.sum()) * vocoder.hop_samples, "steps without units change the length")
    require(all(output.samples.dtype == torch.float32 for output in sent), "samples are not float32")
    _require_refusal(lambda: vocoder.step(units[:1], state), "a closed stream takes units")


def check_steps_repeat(vocoder: UnitVocoder, units: Tensor) -> None:
    """The same state stepped twice gives the same, and stays as it was."""
    state = vocoder.init_state()
    for piece, is_last in ((units[:10], False), (units[10:12], False), (units[12:30], False), (units[30:], True)):
        before = copy.deepcopy(state)
        first, following = vocoder.step(piece, state, is_last)
        kept = copy.deepcopy(following)
        again, repeated = vocoder.step(piece, state, is_last)
        require(same(before, state), "a step changes the state that it is given")
        require(same(first, again), "a second step from the same state gives another output")
        require(same(kept, repeated), "a second step from the same state leads to another state")
        require(same(kept, following), "a step changes a state that another one has returned")
        state = following


def check_failed_steps(vocoder: UnitVocoder, units: Tensor) -> None:
    """A step that fails, wherever it does, leaves its state usable."""
    _, state = vocoder.step(units[:20], vocoder.init_state())
    before = copy.deepcopy(state)
    expected = vocoder.step(units[20:], state, is_last=True)
    _require_refusal(lambda: vocoder.step(units.new_tensor([0, vocoder.num_units]), state), "an unknown unit is taken")
    for module in vocoder.modules():
        if module is vocoder or next(module.children(), None) is not None:
            continue
        handle = module.register_forward_pre_hook(_fail)
        try:
            vocoder.step(units[20:], state, is_last=True)
        except _FailedOnPurpose:
            pass
        finally:
            handle.remove()
        require(same(before, state), "a step that fails changes its state")
    require(same(expected, vocoder.step(units[20:], state, is_last=True)), "after a failed step the next one differs")


def check_forks(vocoder: UnitVocoder, units: Tensor) -> None:
    """A copied state continues identically, and streams do not see each other."""
    alone = stream(vocoder, units, 5)
    head, state = vocoder.step(units[:10], vocoder.init_state())
    vocoder.step(units[20:33], vocoder.init_state())  # of somebody else
    rest, fork = (stream(vocoder, units[10:], 5, kept) for kept in (state, copy.deepcopy(state)))
    require(same(rest, fork), "a copied state continues otherwise")
    require(torch.equal(torch.cat([head.durations, rest[1]]), alone[1]), "a stream depends on another one")


def check_shared_steps(vocoder: UnitVocoder, units: Tensor) -> None:
    """Streams that are stepped together, of any lengths and at any points of theirs, get what they would get alone."""
    size = len(units)
    # How many units each stream is given in each step; one joins later, one ends earlier, and some get none.
    plans = ([5, 0, 12, size], [0, 7, 1, size], [size], [0, 0, size // 2, 3])
    states, rests = [vocoder.init_state() for _ in plans], [units] * len(plans)
    for step in range(max(map(len, plans))):
        live = [stream for stream, plan in enumerate(plans) if step < len(plan)]
        inputs = []
        for stream in live:
            taken = plans[stream][step]
            piece, rests[stream] = rests[stream][:taken], rests[stream][taken:]
            inputs.append(VocoderInput(piece, states[stream], step == len(plans[stream]) - 1, flush=stream % 2 == 0))
        before = copy.deepcopy(inputs)
        alone = [vocoder.step(one.units, one.state, one.is_last, one.flush) for one in inputs]
        together = vocoder.step_batch(inputs)
        require(same(before, inputs), "a shared step changes a state that it is given")
        for stream, (output, state), (expected, _) in zip(live, together, alone, strict=True):
            require(torch.equal(output.durations, expected.durations), "a duration depends on the other streams")
            require(_close(output.samples, expected.samples), "samples depend on the other streams")
            states[stream] = state


def check_memory(vocoder: UnitVocoder, units: Tensor) -> None:
    """The state does not grow with the stream, and the model remembers nothing."""
    before = {name: repr(value) for name, value in vars(vocoder).items()}
    state, sizes = vocoder.init_state(), []
    for piece in units.repeat(-(-240 // len(units))).split(3):
        _, state = vocoder.step(piece, state)
        sizes.append(state.nbytes)
    require(max(sizes[40:]) <= max(sizes[15:40]) * 1.1, f"the state grows, from {sizes[15]} to {sizes[-1]} bytes")
    require({name: repr(value) for name, value in vars(vocoder).items()} == before, "the model remembers a stream")


def check_refusals(vocoder: UnitVocoder, units: Tensor) -> None:
    """Units and voices that the vocoder does not have are refused."""
    wrong = units.new_tensor([0, vocoder.num_units])
    _require_refusal(lambda: vocoder.step(wrong, vocoder.init_state()), "an unknown unit is taken")
    _require_refusal(lambda: vocoder.init_state(speaker=vocoder.num_speakers), "an unknown voice is taken")


CONTRACT: tuple[Check, ...] = (
    check_streaming,
    check_flushes,
    check_batches,
    check_durations,
    check_empty_steps,
    check_steps_repeat,
    check_failed_steps,
    check_forks,
    check_shared_steps,
    check_memory,
    check_refusals,
)


class _FailedOnPurpose(RuntimeError):
    """What :func:`check_failed_steps` lets a module raise."""


def _fail(*_: object) -> None:
    raise _FailedOnPurpose


def _close(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, atol=CLOSE, rtol=0)


def _require_refusal(action: Callable[[], object], otherwise: str) -> None:
    try:
        action()
    except VocoderError:
        return
    raise AssertionError(otherwise)
