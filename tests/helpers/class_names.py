"""Ways in which one class name is written."""

from __future__ import annotations

import unicodedata

CAFE = unicodedata.normalize("NFC", "café")
# Spellings that look like `CAFE` to a reader.
TWINS = {
    "two code points": unicodedata.normalize("NFD", CAFE),
    "byte order mark": f"\ufeff{CAFE}",
    "zero-width space": "ca\u200bf\u00e9",
    "soft hyphen": "ca\u00adf\u00e9",
    "full width": "".join(chr(ord(letter) + 0xFEE0) for letter in "caf") + "é",
    "case": "CAFÉ",
    "spaces": " ca\u00a0fé",
    "hyphen": "ca-f_é",
}
# Names that a page, a terminal or a table would obey if they were not text.
HOSTILE_NAMES = (
    "<script>alert(1)</script>",
    "\"'><img src=x>",
    "a|b`c*d_e",
    "\x1b[31mred\x07",
    "{{ 7 * 7 }}",
    "]]>&amp;",
)
