"""fairseq's batches, and what a training says of a recording that can't be read when its turn comes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from fairseq.data.iterators import CountingIterator, EpochBatchIterator

from echostream.tasks.features import FeatureError


class ExplainedBatches(EpochBatchIterator):
    """An EpochBatchIterator that ends the training with one line if an utterance can't be read.

    The data set can't do so itself: fairseq reads ahead in a thread, and with ``--num-workers`` in processes, which
    pass on ordinary exceptions only and leave the training waiting for ever after a SystemExit.
    """

    @property
    def first_batch(self) -> Any:
        """fairseq's; the training reads it to begin with."""
        with _named():
            return super().first_batch

    def _get_iterator_for_epoch(self, *args: Any, **kwargs: Any) -> CountingIterator | None:
        batches = super()._get_iterator_for_epoch(*args, **kwargs)
        if batches is not None:
            batches._itr = _until_unreadable(batches._itr)
        return batches


def _until_unreadable(batches: Iterable[Any]) -> Iterator[Any]:
    with _named():
        yield from batches


@contextmanager
def _named() -> Iterator[None]:
    try:
        yield
    except FeatureError as error:
        # From a worker process it comes with that one's traceback, of which the last line is its own.
        message = str(error).strip().splitlines()[-1].removeprefix(f"{FeatureError.__module__}.FeatureError: ")
        raise SystemExit(
            f"echostream: {message} -- mend it or take its row out; the same command goes on from the last checkpoint"
        ) from None
