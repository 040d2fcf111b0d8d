"""The eigen attention map of an image: a normalised cut of the graph of its tokens, without forming the Laplacian.

Wang et al., "Self-Supervised Transformers for Unsupervised Object Discovery using Normalized Cut" (TokenCut), CVPR
2022, whose map the paper takes over.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from scipy.linalg import lapack
from torch import Tensor

EPS = 1e-5  # weight of the edges that are cut: TokenCut's released code
STEPS = 128  # of Lanczos at most; feature maps of photographs take 8 to 20
EVERY = 4  # steps between looks at the small eigenproblem
RESIDUAL = 1e-4  # of an eigenvector that is good enough
INVARIANT = 1e-6  # length of a new direction that is rounding alone
FLAT = 0.999  # a second eigenvalue above: the tokens do not fall into two groups


class EigenMap(NamedTuple):
    """``attention`` [h, w], 0 where degenerate; ``eigenvalue``: the second smallest; ``degenerate``: no cut exists;
    ``density``: the part of the token pairs that are alike.
    """

    attention: Tensor
    eigenvalue: float
    degenerate: bool
    density: float


def eigen_attention(
    features: Tensor, tau: float = 0.2, center: bool = True, *, valid: Tensor | None = None, corner_flip: bool = False
) -> Tensor:
    """The map K of one image, larger on its foreground. [JoinDet Eq. 1]

    See :func:`eigen_maps`. Shapes: features [C, h, w], valid [h, w] bool; returns [h, w].
    """
    mask = None if valid is None else valid[None]
    return eigen_maps(features[None], tau, center, valid=mask, corner_flip=corner_flip)[0].attention


@torch.no_grad()
def eigen_maps(
    features: Tensor, tau: float = 0.2, center: bool = True, *, valid: Tensor | None = None, corner_flip: bool = False
) -> list[EigenMap]:
    """The maps of a batch: second eigenvectors of (D - A) y = lambda D y, their signs chosen. [JoinDet Eq. 1]

    Tokens are alike where their cosine is above ``tau``. ``center`` takes each image's mean token from its tokens
    first: after a ReLU all cosines are above TokenCut's 0.2, which was chosen for the keys of a transformer.
    The foreground is the side of the largest entry; with ``corner_flip``, the other one if that side has three corners
    of the image or more. Padded cells (``valid`` False) take no part and are 0.

    Shapes: features [B, C, h, w], valid [B, h, w] bool.
    """
    shape, count = features.shape[-2:], len(features)
    tokens = features.float().flatten(2).transpose(1, 2)  # [B, N, C]
    here = torch.ones_like(tokens[..., 0], dtype=torch.bool) if valid is None else valid.flatten(1)
    graph = token_graph(tokens, here, tau, center)
    degree = graph.sum(2)
    vectors, values = second_eigenvectors(graph, degree)
    sizes = here.sum(1)
    usable = tokens.isfinite().all(-1).logical_or(~here).all(1) & (sizes >= 3) & (values <= FLAT) & values.isfinite()
    # the diagonal is alike in any case; edges that are cut count next to nothing
    density = (degree.sum(1) - sizes) / (sizes * (sizes - 1)).clamp(min=1)
    maps = []
    for row in range(count):
        found, degenerate = vectors[row].new_zeros(shape), not bool(usable[row])
        if not degenerate:
            grid = here[row].view(shape)
            found = _oriented(vectors[row].view(shape), grid, corner_flip).masked_fill(~grid, 0.0)
        maps.append(EigenMap(found, float(values[row]), degenerate, float(density[row])))
    return maps


def token_graph(tokens: Tensor, valid: Tensor, tau: float = 0.2, center: bool = True) -> Tensor:
    """Weights of the edges: 1 where the cosine of two tokens is above ``tau``, else a little. [TokenCut section 3.2]

    Shapes: tokens [B, N, C], valid [B, N]; returns [B, N, N], 0 in the rows and columns of tokens that are not valid.
    """
    here = valid[..., None].to(tokens)
    tokens = tokens * here
    if center:
        mean = tokens.sum(1, keepdim=True) / here.sum(1, keepdim=True).clamp(min=1)
        tokens = (tokens - mean) * here
    tokens = tokens / tokens.norm(dim=-1, keepdim=True).clamp(min=1e-12)
    weights = torch.bmm(tokens, tokens.transpose(1, 2)).gt(tau).to(tokens).clamp_(min=EPS)
    return weights if bool(valid.all()) else weights * here * here.transpose(1, 2)


def second_eigenvectors(graph: Tensor, degree: Tensor) -> tuple[Tensor, Tensor]:
    """Vectors [B, N] and eigenvalues [B] of the second smallest eigenvalue of (D - A) y = lambda D y.

    The largest eigenpair of S = D^-1/2 A D^-1/2 is known: 1 and D^1/2 1. The second one, mu = 1 - lambda, is what
    Lanczos finds first among the vectors orthogonal to it. S is never formed. [Golub and Van Loan, section 10.1]

    Shapes: graph [B, N, N] symmetric and not negative, degree [B, N] its sums of rows, 0 where a token is padding.
    """
    root = torch.where(degree > 0, degree.rsqrt(), 0.0)
    search = _Search(graph, root, degree.sqrt())
    for step in range(search.limit):
        search.step(step)
        if (step % EVERY == EVERY - 1 or step == search.limit - 1) and search.settle(step + 1):
            break
    for row in (row for row, done in enumerate(search.done) if not done):
        search.vectors[row], search.values[row] = _dense(graph[row], root[row])
    return root * search.vectors, 1 - search.values


class _Search:
    """Lanczos with full orthogonalisation for a batch; an image that is done keeps what it found.

    ``basis`` [B, 1 + steps, N]: the known eigenvector, then the Krylov vectors; ``diagonal`` and ``beside`` [B, steps]
    are S in that basis. ``vectors`` [B, N] and ``values`` [B] are the results.
    """

    def __init__(self, graph: Tensor, root: Tensor, first: Tensor) -> None:
        self.graph, self.root = graph, root
        count = graph.shape[1]
        self.limit = max(min(STEPS, count - 1), 1)
        self.basis = graph.new_zeros(len(graph), self.limit + 2, count)
        self.basis[:, 0] = _unit(first)
        start = torch.randn(count, generator=torch.Generator().manual_seed(0)).to(graph) * (root > 0)
        self.basis[:, 1] = _unit(self._orthogonal(start.expand(len(graph), -1), 1)[0])
        self.diagonal, self.beside = graph.new_zeros(2, len(graph), self.limit)
        self.done = [False] * len(graph)
        self.vectors, self.values = torch.zeros_like(root), torch.zeros_like(root[:, 0])

    def step(self, number: int) -> None:
        """Add one Krylov vector, 0 where there is none any more."""
        current = self.basis[:, number + 1]
        product = self.root * _products(self.graph, self.root * current)
        rest, parts = self._orthogonal(product, number + 2)
        length = torch.linalg.vector_norm(rest, dim=1)
        self.diagonal[:, number], self.beside[:, number] = parts[:, -1], length
        # rounding alone would come back as a vector that is not orthogonal to the others
        self.basis[:, number + 2] = rest * torch.where(length > INVARIANT, 1 / length, 0.0)[:, None]

    def settle(self, size: int) -> bool:
        """Solve the small problem of ``size`` steps; keep what is good enough; whether all images are done."""
        diagonals, besides = (one[:, :size].double().cpu().numpy() for one in (self.diagonal, self.beside))
        for row, (diagonal, beside) in enumerate(zip(diagonals, besides, strict=True)):
            if self.done[row]:
                continue
            ended = (beside < INVARIANT).nonzero()[0]
            count = int(ended[0]) + 1 if len(ended) else size
            # LAPACK itself, since torch's solver takes milliseconds for a matrix of 10 x 10
            values, vectors, _ = lapack.dstev(diagonal[:count], beside[: max(count - 1, 1)])
            gap = values[-1] - values[-2] if count > 1 else 1.0
            # the angle to the eigenvector is at most residual / gap (Davis and Kahan)
            enough = RESIDUAL * min(max(gap / 0.01, 0.1), 1.0)
            if len(ended) or beside[-1] * abs(vectors[-1, -1]) < enough:
                weights = torch.from_numpy(vectors[:, -1]).to(self.basis)
                self.vectors[row], self.values[row] = weights @ self.basis[row, 1 : count + 1], float(values[-1])
                self.done[row] = True
        return all(self.done)

    def _orthogonal(self, vectors: Tensor, size: int) -> tuple[Tensor, Tensor]:
        """Vectors [B, N] without their parts along the first ``size`` of the basis, and these parts [B, size].

        Done twice: once is not enough in float32.
        """
        basis, rest = self.basis[:, :size], vectors[..., None]
        across = basis.transpose(1, 2)
        parts = torch.bmm(basis, rest)
        rest = torch.baddbmm(rest, across, parts, alpha=-1)
        rest = torch.baddbmm(rest, across, torch.bmm(basis, rest), alpha=-1)
        return rest[..., 0], parts[..., 0]


def _products(graph: Tensor, vectors: Tensor) -> Tensor:
    """Matrix times vector for each image. Shapes: graph [B, N, N], vectors [B, N]."""
    if graph.device.type == "cpu":  # where bmm does not notice that it multiplies vectors
        return torch.stack([torch.mv(graph[row], vectors[row]) for row in range(len(graph))])
    return torch.bmm(graph, vectors[..., None])[..., 0]


def _dense(weights: Tensor, root: Tensor) -> tuple[Tensor, Tensor]:
    """The same by a dense solver, for an image on which Lanczos does not settle."""
    values, vectors = torch.linalg.eigh((root[:, None] * weights * root).double())
    return vectors[:, -2].to(root), values[-2].to(root)


def _oriented(attention: Tensor, valid: Tensor, corner_flip: bool) -> Tensor:
    """The map with its foreground up: the side of its largest entry. Shapes: attention, valid [h, w]."""
    values = attention[valid]
    if values[values.abs().argmax()] <= values.mean():
        attention = -attention
    if corner_flip:
        bottom, right = int(valid[:, 0].sum()) - 1, int(valid[0].sum()) - 1
        mask = attention > attention[valid].mean()
        if int(mask[[0, 0, bottom, bottom], [0, right, 0, right]].sum()) >= 3:
            attention = -attention
    return attention


def _unit(vectors: Tensor) -> Tensor:
    return vectors / vectors.norm(dim=-1, keepdim=True).clamp(min=1e-20)
