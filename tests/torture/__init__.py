"""Torture of a collection: killed, starved of disk, bits flipped, used by many at once; drive.py runs it at any size."""
