"""What a set of objects means for requests, and what would change: behind ``beamline diff``."""
