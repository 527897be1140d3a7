"""Why a document stands where it does for a query: what each architecture saw in the pair, as figures that add up."""

from twinrank.explain.explaining import explain
from twinrank.explain.explanation import Explanation

__all__ = ["Explanation", "explain"]
