"""Feast: entities, feature views, services and the repo that a store carries."""
