"""Ways of referring: methods as declared settings, the one loop that steers, and what is left of a run."""
