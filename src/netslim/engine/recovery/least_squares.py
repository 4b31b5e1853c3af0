"""The least squares of one layer, group by group, from sums over rows that come a part at a time."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

STEADY = 1e-4  # a variance under this share of the mean square may be float32's rounding: the input is constant


@dataclass(frozen=True)
class Fitted:
    """Of one layer: the share of its output's variance that was missing before and after, from so many rows."""

    before: float
    after: float
    rows: int


class Sums:
    """Sums over all rows: what least squares need of inputs and outputs. G groups of inputs make groups of outputs."""

    def __init__(self) -> None:
        self.rows = 0
        self.sum: dict[str, Tensor] = {}

    def add(self, x: Tensor, wanted: Tensor, missing: Tensor) -> None:
        """x: (G, F, rows). wanted, missing: (G, C, rows)."""
        self.rows += x.shape[-1]
        new = {"x": x.sum(-1), "xx": x @ x.mT, "missing": missing.sum(-1), "missing x": missing @ x.mT}
        new |= {"wanted": wanted.sum(-1), "wanted²": wanted.square().sum(-1), "missing²": missing.square().sum(-1)}
        for key, value in new.items():
            self.sum[key] = self.sum[key] + value.double() if key in self.sum else value.double()

    def fit(self, layer: nn.Conv2d | nn.Linear, ridge: float) -> Fitted | str:
        """Add to the weights what is missing, as far as it can be made of x."""
        wanted, missing, varies = self._variance("wanted"), self._variance("missing"), self._varies()
        if missing <= 1e-10 * wanted:
            return "lack nothing"
        if not varies.any():
            return "with constant inputs"
        xx, cross = self._centred("xx", "x", "x"), self._centred("missing x", "missing", "x")
        more = _solved(xx, cross * varies[:, None, None], ridge)
        layer.weight += more.reshape(layer.weight.shape).to(layer.weight.dtype)
        if layer.bias is not None:
            unmade = self.sum["missing"] - (more * self.sum["x"][:, None]).sum(-1)
            layer.bias += (unmade / self.rows).flatten().to(layer.bias.dtype)
        after = missing - 2 * float((more * cross).sum()) + float((more @ xx * more).sum())
        return Fitted(missing / wanted, after / wanted, self.rows)

    def _varies(self) -> Tensor:
        """(G,): whether the inputs of a group do."""
        return _power(self._centred("xx", "x", "x")) > STEADY * _power(self.sum["xx"])

    def _centred(self, products: str, a: str, b: str) -> Tensor:
        return self.sum[products] - self.sum[a][:, :, None] * self.sum[b][:, None] / self.rows

    def _variance(self, of: str) -> float:
        return float((self.sum[f"{of}²"] - self.sum[of].square() / self.rows).sum())


def _power(xx: Tensor) -> Tensor:
    """(G, F, F) to the mean diagonal (G,)."""
    return xx.diagonal(dim1=1, dim2=2).mean(1)


def _solved(xx: Tensor, cross: Tensor, ridge: float) -> Tensor:
    """cross (xx + ρ I)⁻¹ of each group, (G, C, F); 0 where cross is."""
    rho = torch.where(cross.flatten(1).any(1), ridge * _power(xx), 1 + _power(xx).abs())
    return torch.linalg.solve(xx + rho[:, None, None] * torch.eye(xx.shape[1]).to(xx), cross.mT).mT
