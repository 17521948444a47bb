"""Programs run by `tracekit run`: what was asked for, and what each of their processes does about it when it starts."""
