"""Batch iterator that ends a training with a one-line message when a recording can't be read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from fairseq.data.iterators import CountingIterator, EpochBatchIterator

from echostream.tasks.features import FeatureError


class ErrorReportingBatchIterator(EpochBatchIterator):
    """An EpochBatchIterator that turns a FeatureError into a SystemExit with a one-line message.

    The data set can't raise SystemExit itself: fairseq reads ahead in a thread or, with ``--num-workers``, in worker
    processes. These pass ordinary exceptions on, but after a SystemExit the training would wait for ever.
    """

    @property
    def first_batch(self) -> Any:
        """The first batch with anything in it, which the training reads before it starts to iterate.

        fairseq also uses it in place of empty ones, to which ``--on-length-mismatch skip`` can lead.

        Raises:
            SystemExit: all recordings have other lengths than the manifest says, or one can't be read.
        """
        with _exit_on_feature_error():
            batch = super().first_batch
            for rows in self.frozen_batches:
                if batch:
                    return batch
                batch = self.collate_fn([self.dataset[row] for row in rows])
        if not batch:
            raise SystemExit("echostream: no recording is as long as src_n_frames of its row says: mend the manifest")
        return batch

    def _get_iterator_for_epoch(self, *args: Any, **kwargs: Any) -> CountingIterator | None:
        batches = super()._get_iterator_for_epoch(*args, **kwargs)
        if batches is not None:
            batches._itr = _with_error_reporting(batches._itr)
        return batches


def _with_error_reporting(batches: Iterable[Any]) -> Iterator[Any]:
    with _exit_on_feature_error():
        yield from batches


@contextmanager
def _exit_on_feature_error() -> Iterator[None]:
    try:
        yield
    except FeatureError as error:
        # The message of an error from a worker process is its whole traceback, which ends with the original message.
        message = str(error).strip().splitlines()[-1]
        message = re.sub(rf"^{re.escape(FeatureError.__module__)}\.\w+: ", "", message)
        raise SystemExit(
            f"echostream: {message} -- mend it or take its row out; the same command goes on from the last checkpoint"
        ) from None
