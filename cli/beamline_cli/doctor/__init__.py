"""What ``beamline check`` looks at: one check is one function and one line in :mod:`.checks`."""
