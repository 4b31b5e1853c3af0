"""The least squares of one layer, from sums over rows that come a part at a time."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Fitted:
    """Of one layer: the share of its output's variance that was missing before and after, from so many rows."""

    before: float
    after: float
    rows: int


class Sums:
    """Sums over all rows: what least squares need of inputs and outputs."""

    def __init__(self) -> None:
        self.rows = 0
        self.sum: dict[str, Tensor] = {}

    def add(self, x: Tensor, wanted: Tensor, missing: Tensor) -> None:
        """x: (F, rows). wanted, missing: (C, rows)."""
        self.rows += x.shape[1]
        new = {"x": x.sum(1), "xx": x @ x.T, "missing": missing.sum(1), "missing x": missing @ x.T}
        new |= {"wanted": wanted.sum(1), "wanted²": wanted.square().sum(1), "missing²": missing.square().sum(1)}
        for key, value in new.items():
            self.sum[key] = self.sum[key] + value.double() if key in self.sum else value.double()

    def fit(self, layer: nn.Conv2d | nn.Linear, ridge: float) -> Fitted | str:
        """Add to the weights what is missing, as far as it can be made of x."""
        wanted, missing, xx = self._variance("wanted"), self._variance("missing"), self._centred("xx", "x", "x")
        power = float(xx.diagonal().mean())
        if missing <= 1e-10 * wanted:
            return "lack nothing"
        if power == 0:
            return "with constant inputs"
        cross = self._centred("missing x", "missing", "x")
        ridged = xx + ridge * power * torch.eye(len(xx), dtype=xx.dtype, device=xx.device)
        more = torch.linalg.solve(ridged, cross.T).T
        layer.weight += more.reshape(layer.weight.shape).to(layer.weight.dtype)
        if layer.bias is not None:
            layer.bias += ((self.sum["missing"] - more @ self.sum["x"]) / self.rows).to(layer.bias.dtype)
        after = missing - 2 * float((more * cross).sum()) + float((more @ xx * more).sum())
        return Fitted(missing / wanted, after / wanted, self.rows)

    def _centred(self, products: str, a: str, b: str) -> Tensor:
        return self.sum[products] - torch.outer(self.sum[a], self.sum[b]) / self.rows

    def _variance(self, of: str) -> float:
        return float((self.sum[f"{of}²"] - self.sum[of].square() / self.rows).sum())
