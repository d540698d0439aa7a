"""``beamline up``: the laptop world. :mod:`.plan` says what, :mod:`.world` holds the parts, :mod:`.run`
drives them.
"""
