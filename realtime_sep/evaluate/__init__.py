"""`realtime-sep evaluate`: how well separators separate songs whose stems are known."""
