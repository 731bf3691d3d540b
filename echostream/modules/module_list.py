"""A list of layers of one class, whose attributes a type checker knows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar, cast

from torch import nn

ModuleT = TypeVar("ModuleT", bound=nn.Module)


class TypedModuleList(nn.ModuleList, Generic[ModuleT]):
    """``nn.ModuleList`` whose items are all of one class; names in the state dict are those of ``nn.ModuleList``."""

    def __iter__(self) -> Iterator[ModuleT]:
        return cast("Iterator[ModuleT]", super().__iter__())

    def item(self, index: int) -> ModuleT:
        """The module at ``index``, 0 for the first."""
        return cast("ModuleT", self[index])
