"""Looking at traces without a backend."""
