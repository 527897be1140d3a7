"""Weights only, in the folder model; twinrank finds them without importing this, under the name twinrank/reranker-en."""
