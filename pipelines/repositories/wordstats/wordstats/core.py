"""Counting words."""

import re
from collections import Counter

WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")


def words(text):
    """The words of a text in their order, in lower case."""
    return [match.group().lower() for match in WORD.finditer(text)]


def top_words(text, count=3):
    """The most frequent words with how often they occur; words of equal frequency are in alphabetical order."""
    counted = Counter(words(text))
    return sorted(counted.items(), key=lambda item: (-item[1], item[0]))[:count]


def median_length(text):
    """The median length of the words of a text."""
    lengths = sorted(len(word) for word in words(text))
    return lengths[len(lengths) // 2]
