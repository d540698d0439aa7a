"""A provider that answers without a model: for tests, demonstrations and faults on purpose."""
