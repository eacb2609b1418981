"""`python tests/campaigns/cuts.py [TRIALS]`: break every file of a cache and of a run, again and again; default 1,000.

A file after the other is cut at a random place, loses a piece, is emptied or taken away; then the same commands are
given. It prints how often the result was right, how often one line told what was wrong, and everything else.
"""

import os
import sys
from pathlib import Path

import pytest

if __name__ == "__main__":
    os.environ["AUDITOR_CUTS"] = sys.argv[1] if len(sys.argv) > 1 else "1000"
    sys.exit(pytest.main(["-q", str(Path(__file__).parents[1] / "test_cuts.py")]))
