"""For all tests: nothing that the user has installed takes part."""

from __future__ import annotations

import os
import tempfile

# Before anything asks for it, and inherited by every process that a test starts.
os.environ["XDG_DATA_HOME"] = tempfile.mkdtemp(prefix="realtime-sep-tests-")
