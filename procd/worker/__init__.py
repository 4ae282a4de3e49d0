"""What runs inside the user's processes: standard library only, nothing else of procd's."""
