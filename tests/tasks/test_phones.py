"""Source phones: reading and checking the table, conversion to encoder frames, and training with the phone loss."""

import numpy as np
import pytest
import torch
from test_training import train

from echostream.criterions.targets import UNKNOWN_PHONE
from echostream.tasks import EchoStreamTask, EchoStreamTaskConfig
from echostream.tasks.manifests import ManifestError, read_utterances
from echostream.tasks.phones import read_source_phones
from scripts.units.phones_table import write_phones


def test_frame_has_the_phone_of_its_second_half(tmp_path):
    write_phones(tmp_path / "phones.tsv", {"a": ["SIL", "b", "b", "SIL", "o"], "c": ["o", "o"]})
    inventory, phones = read_source_phones(tmp_path / "phones.tsv")
    assert inventory == ["SIL", "b", "o"]
    assert phones.of("a").tolist() == [1, 0] and phones.of("c").tolist() == [2]
    assert not len(phones.of("d"))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (None, "no such manifest"),
        ("id\tphone\na\tb b", "line 1: column 'phones' is missing"),
        ("id\tphones\na\tb b\nc\tb", "line 3: 'c' has not 40 ms of phones"),
        ("id\tphones\na\tb b\na\tb b", "line 3: id 'a' was used before, in line 2"),
    ],
)
def test_errors_name_invalid_tables(tmp_path, table, message):
    if table is not None:
        (tmp_path / "phones.tsv").write_text(table)
    with pytest.raises(ManifestError, match=message):
        read_source_phones(tmp_path / "phones.tsv")


@pytest.fixture
def with_phones(corpus):
    """The corpus with phones for all training utterances except the last one."""
    generator = np.random.default_rng(0)
    rows = read_utterances(corpus.folder / "train.tsv", corpus.folder / "audio")
    phones = {row.id: list(generator.choice(["a", "b", "SIL"], row.n_frames // 2)) for row in list(rows)[:-1]}
    write_phones(corpus.folder / "phones.tsv", phones)
    return corpus.folder, rows, phones


def test_batch_has_phones_where_they_are_known(with_phones):
    folder, rows, phones = with_phones
    task = EchoStreamTask.setup_task(EchoStreamTaskConfig(data=str(folder), num_units=20, source_phones="phones.tsv"))
    task.load_dataset("train")
    dataset = task.dataset("train")
    batch = dataset.collater([dataset[index] for index in range(len(rows))])
    assert batch["phones"].shape == (len(rows), (batch["net_input"]["src_tokens"].size(1) + 3) // 4)
    for row, found in zip(rows, batch["phones"].tolist(), strict=True):
        expected = [task.phone_inventory.index(phone) for phone in phones.get(row.id, [])[1::2]]
        assert found == expected + [UNKNOWN_PHONE] * (len(found) - len(expected))


def test_phone_loss_falls_and_resumes_and_does_not_change_the_model(with_phones, tmp_path):
    folder, *_ = with_phones
    options = ["--batch-size", "2", "--source-phones", "phones.tsv", "--phone-weight", "2"]
    whole, expected, _ = train(folder, tmp_path / "whole", 7, *options)
    first, _, trainer = train(folder, tmp_path / "parts", 4, *options)
    head = trainer.get_criterion().phone_head.weight.clone()
    second, weights, trainer = train(folder, tmp_path / "parts", 3, *options)
    assert first + second == whole
    assert not torch.equal(trainer.get_criterion().phone_head.weight, head)
    assert all(torch.equal(weights[name], value) for name, value in expected.items())
    _, without, _ = train(folder, tmp_path / "without", 1, "--batch-size", "2")
    assert without.keys() == expected.keys()


def test_phone_weight_needs_a_table(corpus, tmp_path):
    with pytest.raises(SystemExit, match="--phone-weight needs a table"):
        train(corpus.folder, tmp_path, 1, "--phone-weight", "2")
    with pytest.raises(SystemExit, match=r"nowhere.tsv: no such manifest"):
        train(corpus.folder, tmp_path, 1, "--source-phones", "nowhere.tsv", "--phone-weight", "2")
