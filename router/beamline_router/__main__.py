"""``python -m beamline_router``."""

import os
import sys

from beamline_contract import lean

lean.load(os.environ)

from beamline_router import collector  # noqa: E402 -- as the next line
from beamline_router.app import main  # noqa: E402 -- what it imports has just been imported the lean way

collector.look_rarely()
sys.exit(main())
