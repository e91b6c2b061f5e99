from __future__ import annotations

from collections.abc import Iterator

import pytest
from bad_server import BadServer


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[BadServer]:
    """A server on a free port, past any proxy of the machine."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    made = BadServer()
    yield made
    made.shutdown()
    made.server_close()
