"""Programs that run in the user's own interpreters: standard library only, nothing of procd."""
