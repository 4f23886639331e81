"""The stages, the graph of steps declared once, and its runners."""
