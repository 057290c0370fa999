"""Models as files: what they say of themselves, which are installed, and whether to trust them."""
