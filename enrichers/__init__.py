"""Media → derived features, a module a family."""
