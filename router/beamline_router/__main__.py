"""``python -m beamline_router``."""

import sys

from beamline_router.app import main

sys.exit(main())
