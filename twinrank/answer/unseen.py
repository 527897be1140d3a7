"""Characters that people do not see and models read: zero-width ones, those that turn the writing direction, tags."""

from __future__ import annotations

import re
import sys
import unicodedata
from functools import cache

_JOINERS = "\u200c\u200d"
"""Persian, Hindi and emoji need one, behind a character of theirs."""


@cache
def _pattern() -> re.Pattern[str]:
    formats = [chr(code) for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)) == "Cf"]
    others = "\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0"  # fillers and blanks that are no white space
    selectors = "\ufe00-\ufe0d\U000e0100-\U000e01ef"  # variation selectors, but those for text and emoji
    unseen = re.escape("".join(character for character in formats if character not in _JOINERS) + others) + selectors
    return re.compile(rf"[{unseen}]|(?<![^\u0000-\u05ff{_JOINERS}])[{_JOINERS}]")


def without_unseen(text: str) -> str:
    r"""The text without characters that nobody sees.

    >>> without_unseen("pay\u200b \u202enow\U000e0041")
    'pay now'
    """
    return text if text.isascii() else _pattern().sub("", text)
