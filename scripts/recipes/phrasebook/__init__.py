"""Sentences of a bilingual grammar, for everyday situations."""
