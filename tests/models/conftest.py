from __future__ import annotations

import pytest

from bmcli import inputs
from tests.models import fakes


@pytest.fixture(autouse=True)
def _fake_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "kind_of", fakes.kind_of)
