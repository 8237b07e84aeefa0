"""HTTP to model servers: questions go to the configured address alone, replies have a size limit, failures have a name.

`openai`'s client speaks over `httpx2`, with `aiohttp` underneath. A response hook guards what it receives.
"""

from __future__ import annotations

import errno
import socket
import ssl
import zlib
from collections.abc import AsyncIterator, Iterator
from functools import partial

import aiohttp
import httpx2
from openai import DefaultAioHttpClient

LARGEST_REPLY = 64 * 2**20  # bytes, after decompression
REPEATED = (307, 308)  # redirects that repeat a POST; the others turn it into a GET
DEFAULT_PORTS = {"http": 80, "https": 443}


class OversizedReplyError(ValueError):
    """A reply is larger than its limit, or is compressed in a way whose size cannot be limited."""


class ForeignRedirectError(ValueError):
    """A server redirects to another server, or to where the question would not be sent along."""


def http_client(timeout: httpx2.Timeout, largest_reply: int = LARGEST_REPLY) -> httpx2.AsyncClient:
    """Return a client that follows redirects within one server only and reads at most `largest_reply` bytes of a reply.

    One connection pool serves up to 1,000 connections. httpx2's own transport looks at every idle connection before each
    request and takes twice the processor time of aiohttp's.
    """
    return DefaultAioHttpClient(timeout=timeout, event_hooks={"response": [partial(_guard, largest_reply=largest_reply)]})


async def _guard(response: httpx2.Response, largest_reply: int) -> None:
    """Check a response before its redirect is followed or its body is read.

    Raises:
        ForeignRedirectError: it leads to another server.
    """
    if response.has_redirect_location:
        target = response.request.url.join(response.headers["location"])
        if not _same_server(response.request.url, target):
            raise ForeignRedirectError(f"it redirects to another server, {target.scheme}://{target.netloc.decode()}")
        if response.request.method != "GET" and response.status_code not in REPEATED:
            raise ForeignRedirectError(f"it redirects to {target.path} (HTTP {response.status_code}), without the question")
    encoding = response.headers.pop("content-encoding", "identity").strip().lower()
    assert isinstance(response.stream, httpx2.AsyncByteStream)
    # Decompressed here, where the output is limited: httpx2 would expand each chunk in full, at most a thousandfold.
    response.stream = _LimitedStream(response.stream, encoding, largest_reply)


def _same_server(asked: httpx2.URL, target: httpx2.URL) -> bool:
    """Whether two URLs have one host and port; http may become https there, and never the other way."""
    ports = [url.port or DEFAULT_PORTS.get(url.scheme) for url in (asked, target)]
    upgrade = (asked.scheme, target.scheme, *ports) == ("http", "https", 80, 443)
    return asked.host == target.host and (upgrade or (asked.scheme == target.scheme and ports[0] == ports[1]))


class _LimitedStream(httpx2.AsyncByteStream):
    """A reply's body, decompressed, up to a limit."""

    def __init__(self, stream: httpx2.AsyncByteStream, encoding: str, limit: int) -> None:
        self._stream, self._encoding, self._limit = stream, encoding, limit

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self._encoding not in ("identity", "gzip", "x-gzip", "deflate"):
            raise OversizedReplyError(f"the reply is compressed by {self._encoding!r}, which was not asked for")
        decompress = None if self._encoding == "identity" else zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)  # gzip or zlib
        size = 0
        try:
            async for chunk in self._stream:
                # One byte beyond the limit is enough to know that there is more.
                data = chunk if decompress is None else decompress.decompress(chunk, self._limit - size + 1)
                size += len(data)
                if size > self._limit:
                    raise OversizedReplyError(f"the reply is larger than {self._limit:,} bytes")
                yield data
        except zlib.error as error:
            raise ValueError(f"the reply cannot be decompressed ({error})") from error

    async def aclose(self) -> None:
        await self._stream.aclose()


def never_sent(error: BaseException) -> bool:
    """Return whether no connection came about, so that nothing can be billed.

    httpx2's classes for it do not tell, since they stand for connections that broke later too.
    """
    return any(isinstance(cause, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError) for cause in _causes(error))


def failure_in_words(error: BaseException, timeout_seconds: float) -> str:
    """Return why a request failed, by its first cause that has a name of its own."""
    for cause in _causes(error):
        if _refused(cause):
            return "connection refused: no server listens there"
        if isinstance(cause, socket.gaierror | aiohttp.ClientConnectorDNSError):
            return "the host's name cannot be resolved"
        if isinstance(cause, ssl.SSLError | aiohttp.ClientConnectorCertificateError):
            return f"no TLS connection ({cause})"
        if isinstance(cause, aiohttp.ConnectionTimeoutError):
            return "no connection in time"
    if any(isinstance(cause, TimeoutError | httpx2.TimeoutException) for cause in _causes(error)):
        return f"time-out: no answer within {timeout_seconds:g} seconds"
    innermost = list(_causes(error))[-1]
    return f"{type(innermost).__name__}: {innermost}"


def _refused(error: BaseException) -> bool:
    """Return whether an error is a refused connection; where several addresses were tried, only its text says so."""
    number = f"[Errno {errno.ECONNREFUSED}]"
    return isinstance(error, OSError) and (error.errno == errno.ECONNREFUSED or number in str(error))


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__
