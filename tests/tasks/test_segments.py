"""Segment sizes are reproducible and equal on all ranks, and all of them are drawn."""

from collections import Counter

import pytest
import torch

from echostream.tasks import EchoStreamTask, EchoStreamTaskConfig
from echostream.tasks.segments import MultiChunkSampler, parse_segment_sizes, segment_name

SIZES = (1, 2, 4, 8, 16, 32, 0)


def make_task(**options) -> EchoStreamTask:
    cfg = EchoStreamTaskConfig(data="", seed=options.pop("seed", 1), train_subset="train", **options)
    return EchoStreamTask.setup_task(cfg, from_checkpoint=True)


def batch_of(frames: int) -> dict:
    return {"net_input": {"src_lengths": torch.tensor([frames, frames // 2])}}


def draw(task: EchoStreamTask, updates: range, micro_batches: int = 2, frames: int = 400) -> list[int]:
    return [task.draw_segment(batch_of(frames), u) for u in updates for _ in range(micro_batches)]


def test_ranks_draw_the_same_size_for_different_batches():
    """Ranks have different batches and do not communicate."""
    ranks = [draw(make_task(), range(50), frames=frames) for frames in (400, 77)]
    assert ranks[0] == ranks[1]


def test_resumed_run_draws_the_same_sizes():
    whole = draw(make_task(), range(50))
    assert draw(make_task(), range(20)) + draw(make_task(), range(20, 50)) == whole


def test_draws_depend_on_seed_update_and_micro_batch():
    base = draw(make_task(), range(50))
    assert base != draw(make_task(seed=2), range(50))
    assert len(set(base)) == len(SIZES)
    assert base[0::2] != base[1::2]


def test_listed_sizes_are_equally_likely():
    counts = Counter(MultiChunkSampler(SIZES, 1).sample_segment_length(update, 0, 100) for update in range(7000))
    assert set(counts) == set(SIZES)
    assert max(counts.values()) < 1.2 * min(counts.values())


def test_uniform_covers_one_to_the_longest():
    counts = Counter(MultiChunkSampler(None, 1).sample_segment_length(update, 0, 10) for update in range(5000))
    assert set(counts) == set(range(1, 11))
    assert max(counts.values()) < 1.4 * min(counts.values())
    task = make_task(segment_sizes="uniform")
    assert all(1 <= size <= 3 for size in draw(task, range(50), frames=12))


def test_warm_up_adds_larger_sizes_step_by_step():
    drawn = [
        set(draw(make_task(segment_warmup_updates=700), range(start, start + 100), 4)) for start in range(0, 800, 100)
    ]
    assert [len(sizes) for sizes in drawn] == [1, 1, 2, 3, 4, 5, 6, 7]
    assert drawn[0] == {1} and drawn[3] == {1, 2, 4} and drawn[7] == set(SIZES)
    longest = [
        max(draw(make_task(segment_sizes="uniform", segment_warmup_updates=10), range(u, u + 1), 50))
        for u in (0, 5, 10)
    ]
    assert longest[0] == 1 and longest[1] <= 50 and longest[2] > 50


def test_sizes_are_parsed():
    assert parse_segment_sizes("1, 8,0") == (1, 8, 0)
    assert parse_segment_sizes("uniform", allow_uniform=True) is None
    for text in ("", "a", "-1", "1;2", "1.5"):
        with pytest.raises(ValueError, match="segment sizes"):
            parse_segment_sizes(text)
    assert [segment_name(size) for size in (1, 8, 0)] == ["40ms", "320ms", "full"]
