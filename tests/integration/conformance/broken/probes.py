"""Is never ready."""

from foreign import Foreign, Probe, main

Probe.missing = ("/readyz",)
main(Foreign)
