"""The token and the type of the clients of a viewer that tests ask."""

from __future__ import annotations

from collections.abc import Callable

from starlette.testclient import TestClient

TOKEN = "a-token-of-this-test"
Connect = Callable[..., TestClient]  # of a folder; see the fixture `connect`
