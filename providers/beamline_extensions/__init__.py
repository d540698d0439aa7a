"""The extensions that ship with Beamline, one folder each: configuration, code, manifest, README."""
