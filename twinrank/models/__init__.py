"""Text → numbers: checkpoints, the networks that run them, and the encoders built on these; knows no index."""
