"""The `earmark` command: thin, and importing late."""
