"""The inspector: pages that are rendered here, work without JavaScript, and load nothing from other hosts."""
