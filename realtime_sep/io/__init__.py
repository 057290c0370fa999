"""Where audio comes from and goes to: devices, and files."""
