"""How far apart two ways of computing the same may lie, from the arithmetic, not from one machine."""

import torch

from tests.tiny import COMMON, LAYERS

PRODUCTS = 8  # of matrices, one after another in a block: q, k, v, scores, mixing, out, up, down
SPREAD = 4  # standard deviations


def margin(layers: int = LAYERS, inner: int = COMMON["intermediate_size"], dtype: torch.dtype = torch.float32) -> float:
    """Bound of ‖a − b‖ / ‖b‖ for residuals and logits of the same tokens in another order of summation.

    Batches, caches, kernels and CPU types change only that order. A sum of n products whose roundings are
    independent is off by √n·u, u = eps / 2, a few times that at most (Higham and Mary, 2019), and `inner` is the
    longest; two such sums differ by √n·eps. What one product is off, the next carries on, so that the errors of all
    products of all layers are added.
    """
    return SPREAD * torch.finfo(dtype).eps * PRODUCTS * layers * inner**0.5


MARGIN = margin()  # of the tiny models: about 1e-4; what must not happen is at 1e-2 and more
