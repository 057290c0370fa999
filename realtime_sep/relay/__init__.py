"""From one stream to another with the separator between: URL in, URL out, pictures untouched."""
