"""The admin process: a read-only REST API under ``/api/v1`` and the inspector, its pages for people, at
``/``.

It reads the registry and nothing else, through :mod:`beamline_registry.port`. Who asks is decided in
:mod:`.identity`, and :mod:`.gate` applies it to every path before anything else looks at the request: what is
not named there as public is denied.
"""
