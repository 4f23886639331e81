"""The ground: errors, configuration, data contracts, keys and the only commit path."""
