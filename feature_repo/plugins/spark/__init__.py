"""Feast on Spark: the offline store and the engine, with the rows that the embedded ones give."""
