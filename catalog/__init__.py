"""Reading a catalogue and decoding its media under limits."""
