"""procd against generated requests, made from its own description."""
