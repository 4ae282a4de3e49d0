"""What happens when clients, programs or the machine misbehave."""
