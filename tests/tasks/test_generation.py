"""``fairseq-generate``: whole batches get what the streaming runtime gives for each utterance alone, offline."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import sacrebleu
import soundfile
import torch
from fairseq.dataclass.configs import GenerationConfig
from test_training import train
from tiny_translator import VOCODERS, fill, make_translator, noise

from echostream.checkpoints.vocoder_files import load_vocoder, save_vocoder
from echostream.decoding import offline
from echostream.decoding.ngram import no_language_model
from echostream.decoding.prefix_beam_search import SourceTranscriber
from echostream.decoding.repetition import heard_repetition, repeating
from echostream.modules.ctc import greedy_collapse
from echostream.streaming import StreamingTranslator
from echostream.tasks.generation import GenerationError, OfflineGenerator, PieceJoiner, unit_dictionary
from echostream.tasks.texts import dictionary_from_symbols
from echostream.vocoders.registry import build_vocoder
from scripts.vocoder import speak_units

REPOSITORY = Path(__file__).parents[2]
SPECIALS = [1, 2, 3]


def one_sentence(translator: StreamingTranslator) -> StreamingTranslator:
    """A translator that takes each recording as one sentence, as ``fairseq-generate`` does.

    Its policy has no budget for the end of a sentence: offline, nothing is held against the ST CTC.
    """
    translator.segment_ms, translator.policy = 0, "stride"
    translator.recomposer.end_silence_ms = translator.writer.overdue_tokens = math.inf
    return translator


def record_units(translator: StreamingTranslator, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Units that the translator's vocoder is given from now on."""
    spoken: list[int] = []
    step = translator.vocoder.step_batch

    def recording_step(inputs):
        spoken.extend(unit for one in inputs for unit in one.units.tolist())
        return step(inputs)

    monkeypatch.setattr(translator.vocoder, "step_batch", recording_step)
    return spoken


def joined(tokens, symbols: list[str]) -> str:
    return PieceJoiner().decode(" ".join(symbols[token] for token in tokens if token != offline.END))


@pytest.mark.parametrize("beam", [1, 4])
@torch.inference_mode()
def test_a_batch_gets_what_its_utterances_get_alone(beam, monkeypatch):
    translator = one_sentence(make_translator(beam=beam))
    model = translator.model
    for head in (model.asr_head, model.st_head):
        head.output.bias[SPECIALS] = -100.0  # the runtime would show them as words
    source, target = translator.detector.symbols, translator.writer.symbols
    transcriber = SourceTranscriber(source, no_language_model(0, 2), 0.0, 0.0, beam) if beam > 1 else None
    translator.recogniser.transcriber = transcriber
    waves = [noise(seconds, seed) for seed, seconds in enumerate((1.3, 2.1, 0.4, 1.7))]
    features = [model.fbank(torch.from_numpy(wave))[0] for wave in waves]
    batch = torch.nn.utils.rnn.pad_sequence(features, batch_first=True)
    encoded = model.encode(batch, torch.tensor([len(f) for f in features]))
    recognised = offline.read_ctc(encoded["asr_logits"], encoded["frame_lengths"], transcriber)
    translated = [hypotheses[0].tokens for hypotheses in offline.translate(model, encoded, source, target, beam)]
    spoken = [units for units, _ in offline.speak(model, encoded, translated, translator.writer.starts_word)]
    recorded = record_units(translator, monkeypatch)
    for wave, (heard, _), tokens, units in zip(waves, recognised, translated, spoken, strict=True):
        recorded.clear()
        output = translator.step(wave, translator.init_state(), is_last=True)
        assert joined(heard, source) == " ".join(output.source_text.split())
        assert joined(tokens, target) == " ".join(output.text.split())
        assert units == recorded
    assert len(set(translated)) == len(waves) and all(spoken)


@torch.inference_mode()
def test_silence_is_not_translated():
    translator = make_translator()
    model, symbols = translator.model, translator.writer.symbols
    for head in (model.asr_head, model.st_head):
        head.output.bias[0] += 1000.0
    encoded = model.encode(torch.zeros(1, 80, 80), torch.tensor([80]))
    (hypotheses,) = offline.translate(model, encoded, symbols, symbols, beam=2)
    assert [h.tokens for h in hypotheses] == [()]
    assert offline.speak(model, encoded, [()], [False] * 60) == [([], [])]


def test_scores_and_length_penalty_are_fairseqs():
    translator = make_translator()
    model, symbols = translator.model, translator.writer.symbols
    features = model.fbank(torch.from_numpy(noise(1.0)))[0]
    with torch.no_grad():
        encoded = model.encode(features[None], torch.tensor([len(features)]))
        penalties = (0.0, 1.0, 3.0)
        found = {p: offline.translate(model, encoded, symbols, symbols, 6, p)[0] for p in penalties}
        read = greedy_collapse(encoded["asr_logits"].argmax(dim=-1), encoded["frame_lengths"])[0]
        heard = heard_repetition(joined(read, symbols).split())
        for penalty, hypotheses in found.items():
            scores = [h.normalised_score(penalty) for h in hypotheses]
            assert scores == sorted(scores, reverse=True)
        for hypothesis in found[1.0]:
            previous = torch.tensor([[offline.END, *hypothesis.tokens[:-1]]])
            _, logits, _ = model.mt_decoder(previous, encoded["encoder_out"])
            for place in range(previous.size(1)):  # what must not be written takes no part
                repeated = repeating(hypothesis.tokens[:place], translator.writer.starts_word, heard)
                logits[0, place, [0, 1, 3, *repeated]] = -math.inf
            scores = logits[0].log_softmax(-1)[range(previous.size(1)), list(hypothesis.tokens)]
            assert hypothesis.token_scores == pytest.approx(scores.tolist(), abs=1e-3)
            assert hypothesis.normalised_score() == pytest.approx(float(scores.mean()), abs=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"sampling": True}, "--sampling is not"), ({"min_len": 3}, "--min-len is not"), ({"beam": 0}, "--beam is 0")],
)
def test_options_of_other_searches_are_refused(options, message):
    dictionary = dictionary_from_symbols(make_translator().writer.symbols)
    arguments = (GenerationConfig(**options), "s2tt", dictionary, dictionary, unit_dictionary(30))
    with pytest.raises(GenerationError, match=message):
        OfflineGenerator([make_translator().model], *arguments)
    with pytest.raises(GenerationError, match="names 2 checkpoints"):
        OfflineGenerator([None, None], *arguments)


@pytest.fixture
def checkpoint(corpus, tmp_path) -> Path:
    """A training's checkpoint, but with weights that say different things for different sounds."""
    _, _, trainer = train(corpus.folder, tmp_path / "run", 1, "--batch-size", "3")
    path = tmp_path / "run" / "checkpoint_last.pt"
    state = torch.load(path, weights_only=True)
    model = trainer.model
    fill(model, {"cross_attention": 5.0, "embedding": 0.5, "": 1.7})
    with torch.no_grad():
        for head in (model.asr_head, model.st_head):
            head.output.bias[SPECIALS] = -100.0
    torch.save({**state, "model": model.state_dict()}, path)
    return path


def generate(corpus, checkpoint: Path, *options: str) -> subprocess.CompletedProcess:
    command = [Path(sys.executable).with_name("fairseq-generate"), corpus.folder, "--path", checkpoint]
    command += ["--user-dir", REPOSITORY / "echostream", "--task", "echostream", "--gen-subset", "dev", "--cpu"]
    command += ["--max-tokens", "10000", "--num-workers", "0", *options]
    return subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)


def lines(text: str, kind: str) -> dict[int, list[str]]:
    """Fields of the lines ``KIND-ID`` by id."""
    found = re.findall(rf"^{kind}-(\d+)\t(.*)$", text, re.MULTILINE)
    return {int(number): rest.split("\t") for number, rest in sorted(found)}


@pytest.mark.integration
def test_fairseq_generate_prints_and_scores_all_three(corpus, checkpoint, tmp_path, monkeypatch):
    save_vocoder(build_vocoder(VOCODERS["istft"] | {"num_embeddings": 20}).eval(), tmp_path / "vocoder")
    translator = one_sentence(StreamingTranslator.from_checkpoint(checkpoint, tmp_path / "vocoder", beam=2))
    recorded = record_units(translator, monkeypatch)
    alone = []
    for row in range(3):
        recorded.clear()
        samples, _ = soundfile.read(corpus.folder / f"audio/dev_{row}.wav", dtype="float32")
        output = translator.step(samples, translator.init_state(), is_last=True)
        alone.append((output.source_text, output.text, " ".join(map(str, recorded))))
    assert len(set(alone)) == 3
    results = tmp_path / "results"
    printed = {}
    for output, *options in (
        ("asr", "--beam", "1", "--scoring", "wer"),
        ("s2tt", "--beam", "2", "--scoring", "sacrebleu"),
        ("s2ut", "--beam", "1", "--beam-mt", "2", "--scoring", "sacrebleu"),
    ):
        done = generate(corpus, checkpoint, "--generate", output, "--results-path", str(results), *options)
        assert done.returncode == 0, done.stderr[-2000:]
        printed[output] = (results / "generate-dev.txt").read_text(encoding="utf-8")
        assert [len(lines(printed[output], kind)) for kind in "STHDP"] == [3] * 5
    for column, output in enumerate(printed):
        found = lines(printed[output], "D")
        assert [found[row][1].split() for row in range(3)] == [alone[row][column].split() for row in range(3)]
    source = (corpus.folder / "source/dev.tsv").read_text(encoding="utf-8").splitlines()[1:]
    transcripts = [PieceJoiner().decode(line.split("\t")[1]) for line in source]
    for output in printed:
        assert [lines(printed[output], "S")[row][0] for row in range(3)] == transcripts
    assert [lines(printed["asr"], "T")[row][0] for row in range(3)] == transcripts
    assert (results / "generate-dev.unit").read_text().splitlines() == [units for _, _, units in alone]
    speech = (corpus.folder / "dev.tsv").read_text().splitlines()[1:]
    assert [lines(printed["s2ut"], "T")[row][0] for row in range(3)] == [line.split("\t")[3] for line in speech]
    said, references = ([fields[-1] for fields in lines(printed["s2tt"], kind).values()] for kind in "DT")
    bleu = sacrebleu.corpus_bleu(said, [references]).score
    assert f"Generate dev with beam=2: BLEU = {bleu:.2f}" in printed["s2tt"]
    assert re.search(r"^Generate dev with beam=1: WER: \d+\.\d\d$", printed["asr"], re.MULTILINE)

    # the units as speech: that of the runtime's vocoder
    arguments = ["--vocoder", str(tmp_path / "vocoder"), "--output", str(tmp_path / "wavs"), "--dur-prediction"]
    speak_units.main(["--units", str(results / "generate-dev.unit"), *arguments])
    for row, (_, _, units) in enumerate(alone):
        samples, rate = soundfile.read(tmp_path / f"wavs/{row}_pred.wav", dtype="float32")
        vocoder = load_vocoder(tmp_path / "vocoder")
        expected = speak_units.speak(vocoder, [int(unit) for unit in units.split()]).numpy()
        assert rate == 16000 and np.allclose(samples, expected, atol=1e-4)


def test_generation_without_an_output_or_with_other_texts_ends_in_one_line(corpus, tmp_path):
    _, _, trainer = train(corpus.folder, tmp_path / "run", 1, "--batch-size", "3")
    task = trainer.task
    with pytest.raises(SystemExit, match=r"^echostream: fairseq-generate needs --generate with one of asr, "):
        task.build_generator([trainer.model], GenerationConfig())
    state = dict(task.state.state_dict)
    task.load_state_dict(state)
    with pytest.raises(SystemExit, match=r"is not the dictionary that the checkpoint was trained with \(12 and 13"):
        task.load_state_dict(state | {"target_symbols": [*state["target_symbols"], "▁more"]})


@pytest.mark.parametrize(
    ("content", "message"), [("1 2\n1 x\n", "line 2: 'x' is not a unit"), ("4 20\n", "line 1: '20' is not a unit")]
)
def test_what_is_no_unit_is_named(tmp_path, content, message):
    (tmp_path / "a.unit").write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        speak_units.read_units(tmp_path / "a.unit", 20)
    (tmp_path / "a.unit").write_text("1 1 2\n\n3\n", encoding="utf-8")
    assert speak_units.read_units(tmp_path / "a.unit", 20) == [[1, 2], [], [3]]
