"""Values and names that trip up stores, for all suites."""

from __future__ import annotations

VALUES: tuple[object, ...] = (
    None, True, False, 0, 1, -1, 2**53 + 1, 2**63 - 1, -(2**63), 2**64 - 1, 10**30, 0.0, 2.0, 0.1, -1.5, 1e300, 5e-324,
    "", "123", "text", "null", "naïve 鍵 🦊 \x00 \n", [], {}, [None], [[[]]], {"": None},
    {"a": {"b": [1, 2.5, "c", None, True, {"d": []}]}}, ["x"] * 1000,
)  # fmt: skip
"""What JSON carries, of all kinds."""

NAMES = (
    "a/b", "/", "..", "../../etc/passwd", "trail/", "with space", " ", "ends in newline\n", "\r\n", "nul\x00inside",
    "".join(map(chr, range(32))), "percent%2Fsign", "?query&a=1#hash", "naïve — ключ 鍵", "🦊👩‍👩‍👧", "e\u0301",
    "\u00e9", "\U0010ffff", "quote'\"`\\;--", "{braces}", "*", "colon::x", "dot.ted", ".dead.x", "Key", "key",
    "q" * 200, "鍵" * 200,
)  # fmt: skip
"""Names that trip up paths, queries, files, SQL, patterns, subjects and case."""
