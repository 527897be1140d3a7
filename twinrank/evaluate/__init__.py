"""RANKINGS → NUMBERS: metrics as the field computes them, experiments over recipes, tables."""
