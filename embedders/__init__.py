"""Media → vectors."""
