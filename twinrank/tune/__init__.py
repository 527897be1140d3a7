"""A judged data set and a deadline → the pipeline to take: varied, judged from stage outputs, cross-validated, measured."""
