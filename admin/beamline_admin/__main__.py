"""``python -m beamline_admin``."""

import sys

from beamline_admin.app import main

sys.exit(main())
