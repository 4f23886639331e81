"""Yardsticks: functions of tables that say how good, or how consistent, something is."""
