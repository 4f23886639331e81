"""Similarity moderation: policies, banks of exemplars, matching, decisions, review and audit."""
