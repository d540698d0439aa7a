"""The objects behind the registry's rows: reading, checking a change, making it where the truth is."""
