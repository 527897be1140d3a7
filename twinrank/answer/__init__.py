"""A question and what a search found → an answer: sentences quoted from documents, or written by a model and checked."""

from twinrank.answer.answering import LIKELY, QUOTES, SEARCHING, TOKENS, Means, Wanted, answer
from twinrank.answer.excerpts import Found
from twinrank.answer.result import Answer

__all__ = ["LIKELY", "QUOTES", "SEARCHING", "TOKENS", "Answer", "Found", "Means", "Wanted", "answer"]
