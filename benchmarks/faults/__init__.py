"""The campaign: artifacts are corrupted, runs are killed and endpoints fail, and no wrong result may get through.

`python -m benchmarks.faults` runs all of it; docs/reliability.md says what is tried and what counts as wrong.
"""

from __future__ import annotations

import sys
from pathlib import Path

# The small project and the stand-in for an endpoint are those of the tests.
sys.path.append(str(Path(__file__).resolve().parents[2] / "tests"))
