"""EXAMPLES → MODELS: from pairs of texts to better encoders; needs torch, which is loaded only inside of functions."""
