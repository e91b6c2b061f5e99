"""The paired run that the gates which render again are tested on; its tests leave it as it is."""

from __future__ import annotations

import pytest
from rerender_cases import Made, make_paired_run


@pytest.fixture(scope="session")
def paired_run(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make_paired_run(tmp_path_factory.mktemp("gates") / "run", n_hosts=6)
