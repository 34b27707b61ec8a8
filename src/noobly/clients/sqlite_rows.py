"""Times and tokens in the rows of an SQLite file, where neither has a type of its own."""

from __future__ import annotations

__all__ = ["SECOND", "microseconds", "parsed", "seconds", "token"]

SECOND = 1_000_000
"""Microseconds, as times in the file are."""


def microseconds(time: float) -> int:
    """Return seconds as whole microseconds."""
    return round(time * SECOND)


def seconds(time: int) -> float:
    """Return microseconds as seconds."""
    return time / SECOND


def token(row: int, claim: int) -> str:
    """Return what stands for one claim of a row, by their numbers."""
    return f"{row}.{claim}"


def parsed(token: str) -> tuple[int, int]:
    """Return the row and the claim that a token stands for; 0, which no row has, for what is none."""
    row, _, claim = token.partition(".")
    # Eighteen digits are the most that any whole number of SQLite may have; ``int`` alone takes far more than digits.
    good = token.isascii() and row.isdigit() and claim.isdigit() and len(row) < 19 and len(claim) < 19
    return (int(row), int(claim)) if good else (0, 0)
