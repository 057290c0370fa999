"""Training of the separation networks; never imported by the runtime."""
