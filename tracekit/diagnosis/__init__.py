"""What `tracekit doctor` finds out: versions, settings, libraries, the receiver, running processes."""
