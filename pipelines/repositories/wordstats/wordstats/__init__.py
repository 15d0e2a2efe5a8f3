"""Numbers about the words of a text."""

from wordstats.core import median_length, top_words, words

__all__ = ["median_length", "top_words", "words"]
