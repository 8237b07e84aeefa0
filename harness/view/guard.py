"""Refuse requests that are not from this machine's own browser with the token."""

from __future__ import annotations

import hmac
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HOSTS = ("127.0.0.1", "localhost")
POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@dataclass
class Guard:
    """Checks the method, the Host header and the token, which is the first part of the path; and adds security headers.

    A page of another site could make a browser ask 127.0.0.1 under a name of its own (DNS rebinding), so only this machine's
    names are answered. The port is not compared: an SSH tunnel may have another one at its near end.
    """

    app: ASGIApp
    token: str

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on without the token in its path."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # no web sockets
            return
        if (refusal := self._refusal(scope)) is not None:
            await PlainTextResponse(refusal[1], refusal[0], headers=HEADERS)(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        prefix = f"/{self.token}"
        await self.app({**scope, "root_path": prefix}, receive, with_headers)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        """Return status and reason of a request that is not answered."""
        if scope["method"] not in ("GET", "HEAD"):
            return 405, "only reading is possible here\n"
        hosts = Headers(scope=scope).getlist("host")
        if len(hosts) != 1 or hosts[0].partition(":")[0] not in HOSTS:
            return 421, "this page is served to 127.0.0.1 and localhost only\n"
        token = scope["path"].split("/")[1]
        if not hmac.compare_digest(token.encode("utf-8", "replace"), self.token.encode()):
            return 403, "the token is missing or wrong: open the address that `harness view` printed\n"
        return None
