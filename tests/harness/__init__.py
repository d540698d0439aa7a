"""What several suites share: real processes of ours, started, watched and always stopped."""
