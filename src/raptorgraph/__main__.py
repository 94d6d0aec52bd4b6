"""``python -m raptorgraph``, the same as ``raptorgraph``."""

import sys

from raptorgraph.cli._supervisor import main

if __name__ == "__main__":
    sys.exit(main())
