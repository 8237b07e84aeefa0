"""A page in the browser, and what it asked for and complained about."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

TALL, PATIENCE = 900, 30_000  # pixels; milliseconds, for machines that are busy


@dataclass
class Opened:
    """`requests`: addresses beyond the file itself. `complaints`: errors, the console's lines, and dialogs."""

    page: Page
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)


Open = Callable[..., Opened]


def watched(context: BrowserContext, path: Path) -> Opened:
    """The file in a new page of the context, watched before it loads."""
    found, address = Opened(context.new_page()), path.resolve().as_uri()

    def asked(url: str) -> None:
        if url.partition("#")[0] != address:
            found.requests.append(url)

    found.page.on("request", lambda request: asked(request.url))
    found.page.on("console", lambda message: found.complaints.append(message.text))
    found.page.on("pageerror", lambda error: found.complaints.append(str(error)))
    found.page.on("dialog", lambda dialog: found.complaints.append(dialog.message))
    found.page.goto(address)
    return found
