"""From scores to words: policies, word boundaries, prefix beam search, sentence breaks, beam search, repetition."""
