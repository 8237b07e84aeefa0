"""A component as it stands in keys and on boards."""

from __future__ import annotations

from typing import Any

from harness.api.interfaces import Component


def describe(component: Component) -> dict[str, Any]:
    """What decides a component's behaviour: for keys and for the board."""
    described = {"name": component.name, "version": component.version, "fields": component.model_dump(mode="json")}
    fingerprint = component.fingerprint()
    return {**described, "fingerprint": fingerprint} if fingerprint else described
