"""IDS → ANSWER: stages that turn rankings into rankings; knows neither models nor indexes, only the protocols of types.py."""
