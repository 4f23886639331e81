"""The online stores: Feast's layouts in Redis and SQLite, read and written in bulk."""
