"""Where the development data lie; tests that need them skip without them (tests/conftest.py).

CRYOLITHE_TEST_DATA names another folder; empty, it hides the data, as on a machine that has none.
"""

import os
from pathlib import Path

import pytest

BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data"
NAMED = os.environ.get("CRYOLITHE_TEST_DATA")
SHARED = BESIDE if NAMED is None else Path(NAMED or "/no/development/data")
needs_shared = pytest.mark.shared
