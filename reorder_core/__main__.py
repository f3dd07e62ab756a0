"""`python -m reorder_core` does the same as `reorder` (and is what `torchrun -m` starts)."""

from __future__ import annotations

import sys

from reorder_core.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
