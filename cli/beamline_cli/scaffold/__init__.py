"""Folders of new extensions, rendered from the templates beside this file."""
