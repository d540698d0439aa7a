"""``python -m beamline_cli``: the same as the command ``beamline``."""

import sys

from beamline_cli.main import main

sys.exit(main())
