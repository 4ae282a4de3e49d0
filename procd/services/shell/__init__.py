"""Shell sessions: one long-lived shell each, which runs commands one after another."""
