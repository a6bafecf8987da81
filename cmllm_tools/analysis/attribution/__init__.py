"""What an answer rests on: attributions, and how faithful any map is to the answer."""
