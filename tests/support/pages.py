"""Pages as their readers see them."""

import re
from html import unescape
from pathlib import Path

__all__ = ["text_of"]


def text_of(page: Path) -> str:
    """The page's words, without its tags, its style, its script and its pictures."""
    found = page.read_text(encoding="utf-8")
    found = re.sub(r"<(style|script|svg)\b.*?</\1>", " ", found, flags=re.DOTALL)
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", "", found)))
