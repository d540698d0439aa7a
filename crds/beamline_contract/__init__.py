"""What two components of Beamline must agree on, and nothing else.

The custom resources (:mod:`.extension`, :mod:`.policy`), their projection into the registry
(:mod:`.projection`), the words on the wire (:mod:`.wire`, :mod:`.reports`), the closed list of errors
(:mod:`.errors`) and of condition and event reasons (:mod:`.conditions`), and the names everything goes by
(:mod:`.names`).

This package does no I/O and imports no other Beamline package: operator, router, extensions and registry meet
here.
"""

__version__ = "0.1.0"
