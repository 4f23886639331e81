"""What plugs into Feast at its own extension points: the offline store, the online stores and the engine."""
