"""The embedded model and its held-out set: scenes, language, corpus, training."""
