"""Live voice and music separation."""
