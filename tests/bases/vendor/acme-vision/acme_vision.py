import acme_runtime
import numpy

WORD = f"vision on {acme_runtime.WORD}, {numpy.arange(3).sum()}"
