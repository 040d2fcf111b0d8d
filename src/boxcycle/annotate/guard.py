"""What every request must pass: a known token, our own Host and Origin, a small body; and every reply's headers."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LARGEST_BODY = 64 * 1024  # bytes; an answer has a few hundred
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Guard:
    """Refuses what is not for us, before any route is looked for, and strips the token from the path.

    ``tokens``: annotator by token, the first part of every path. ``hosts``: what a request may name as Host, with its
    port; a page of another name that leads to our address is refused by it, as is one of another Origin.
    """

    def __init__(self, app: ASGIApp, *, tokens: Mapping[str, str], hosts: Sequence[str]) -> None:
        self.app, self.tokens, self.hosts = app, tokens, tuple(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request (ASGI)."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send) if scope["type"] == "lifespan" else None
        headers = [(name.lower(), value.decode("latin-1")) for name, value in scope["headers"]]
        _, token, rest = (scope["path"] + "//").split("/", 2)
        annotator = self.annotator_of(token)
        refused = self.refusal(headers) or (None if annotator else (403, "the address lacks the token of this start"))
        if refused is not None:
            code, sentence = refused
            return await JSONResponse({"detail": sentence}, code, HEADERS)(scope, receive, send)
        path = "/" + rest.removesuffix("/").removesuffix("/")
        inner = {**scope, "path": path, "raw_path": path.encode(), "state": {"annotator": annotator}}
        return await self.app(inner, _limited(receive), _with_headers(send))

    def annotator_of(self, token: str) -> str | None:
        """Whose token it is, in a time that does not depend on how much of it is right."""
        names = [name for own, name in self.tokens.items() if secrets.compare_digest(own.encode(), token.encode())]
        return names[0] if names else None

    def refusal(self, headers: Sequence[tuple[bytes, str]]) -> tuple[int, str] | None:
        """Status and sentence for a request whose headers are not in order."""
        hosts = [value for name, value in headers if name == b"host"]
        if len(hosts) != 1 or hosts[0].lower() not in self.hosts:
            return 421, "the request is for another host"
        origins = [value for name, value in headers if name == b"origin"]
        if any(origin.lower() not in {f"http://{host}" for host in self.hosts} for origin in origins):
            return 403, "the request comes from another page"
        lengths = [value for name, value in headers if name == b"content-length"]
        if any(not length.isdecimal() or int(length) > LARGEST_BODY for length in lengths):
            return 413, f"the body has more than {LARGEST_BODY} bytes"
        if any(name == b"transfer-encoding" for name, _ in headers):
            return 411, "the length of the body is not given"
        return None


def _limited(receive: Receive) -> Receive:
    """Stops reading a body that is longer than was said."""
    total = 0

    async def checked() -> Message:
        nonlocal total
        message = await receive()
        total += len(message.get("body", b""))
        return message if total <= LARGEST_BODY else {"type": "http.disconnect"}

    return checked


def _with_headers(send: Send) -> Send:
    async def complete(message: Message) -> None:
        if message["type"] == "http.response.start":
            given = {name.lower() for name, _ in message["headers"]}
            ours = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
            message = {**message, "headers": [*message["headers"], *(pair for pair in ours if pair[0] not in given)]}
        await send(message)

    return complete
