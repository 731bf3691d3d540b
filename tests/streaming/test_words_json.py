"""Words as JSON: a document that is whole at any time, and lines that say the same."""

import json

import numpy as np
import pytest
from tiny_translator import make_translator, noise

from echostream.streaming.words_json import JsonLines, JsonWriter


@pytest.mark.parametrize("task", ["s2st", "asr"])
def test_the_document_is_whole_after_every_step_and_has_all_words(tmp_path, task):
    translator = make_translator(policy="fixed-rate", segment_ms=160, task=task)
    path, about = tmp_path / "new" / "a.json", {"recording": "é.wav", "task": task}
    writer, lines = JsonWriter(path, about), JsonLines({"recording": "é.wav"})
    assert json.loads(path.read_text(encoding="utf-8")) == {**about, "words": []}
    state, printed, words, source_words, ended = translator.init_state(), "", [], [], []
    translator.recomposer.ends_sentence = lambda silence_ms, word: word.endswith(("1", "3", "5", "7", "9"))
    for chunk in np.array_split(noise(3.0), 9):
        output = translator.step(chunk, state)
        ended += [len(words) + end for end in output.sentence_ends]
        writer.add(output, state)
        printed += lines.add(output, state, 0.0)
        words, source_words = words + output.words, source_words + output.source_words
        assert len(json.loads(path.read_text(encoding="utf-8"))["words"]) == len(words) + len(source_words)
    writer.close()
    document = json.loads(path.read_text(encoding="utf-8"))
    assert [{"recording": "é.wav", **entry} for entry in document["words"]] == [*map(json.loads, printed.splitlines())]
    said = [entry for entry in document["words"] if entry["track"] == "translation"]
    heard = [entry for entry in document["words"] if entry["track"] == "source"]
    assert [entry["text"] for entry in heard] == [word.text for word in source_words] != []
    assert [(entry["text"], entry["start_s"], entry["source_s"]) for entry in said] == [
        (word.text, round(word.start_s, 3), round(word.source_time_s, 3)) for word in words
    ]
    assert [entry["sentence"] for entry in said] == [sum(end <= place for end in ended) for place in range(len(words))]
    assert bool(said) == bool(ended) == (task == "s2st")
