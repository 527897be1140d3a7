"""EXAMPLES → MODELS: from pairs of texts to better encoders; beside the river, and the only room besides CLIP that needs torch."""
