"""What ``beamline check`` looks at: a check is one function in a module of its group, and one line in
:data:`.checks.CHECKS`.
"""
