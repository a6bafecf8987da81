"""The eyes of `smol`: pictures of everyday things, scenes of them, training, and the held-out sets."""
