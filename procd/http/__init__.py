"""Everything about HTTP and WebSockets that isn't one resource: it imports services and below."""
