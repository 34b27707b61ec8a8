"""Answers that are whole bytes of a known media type, which nearly all are."""

from __future__ import annotations

from functools import lru_cache

from starlette.responses import Response


class Answer(Response):
    """A success with a body; its headers are written without looking for ones that are there already.

    Args:
        content: The body.
        media_type: Its type; text is UTF-8.
    """

    def __init__(self, content: bytes, media_type: str) -> None:
        self.status_code = 200
        self.background = None
        self.media_type = media_type
        self.body = content
        self.raw_headers = [(b"content-length", b"%d" % len(content)), _content_type(media_type)]


@lru_cache(maxsize=64)
def _content_type(media_type: str) -> tuple[bytes, bytes]:
    plain = media_type.startswith("text/") and "charset=" not in media_type
    return b"content-type", (f"{media_type}; charset=utf-8" if plain else media_type).encode()
