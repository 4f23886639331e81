"""The demo: a catalogue of real and truthful media, and a tour of everything on it."""
