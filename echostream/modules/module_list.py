"""A module list that tells type checkers the class of its items."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar, cast

from torch import nn

ModuleT = TypeVar("ModuleT", bound=nn.Module)


class TypedModuleList(nn.ModuleList, Generic[ModuleT]):
    """``nn.ModuleList`` with items of one class; state-dict keys are those of ``nn.ModuleList``."""

    def __iter__(self) -> Iterator[ModuleT]:
        return cast("Iterator[ModuleT]", super().__iter__())

    def item(self, index: int) -> ModuleT:
        """``self[index]`` with its type."""
        return cast("ModuleT", self[index])
