"""Live audio over WebSockets: many clients, one engine process (see docs/serve.md)."""
