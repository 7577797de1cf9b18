"""Numba's compiler as handlers and kernels need it."""

from __future__ import annotations

from typing import Any

from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.typed_passes import NativeLowering, NopythonTypeInference

from eventlab.fold.branches import Lowering
from eventlab.fold.stores import RefuseWrongStores


class HandlerCompiler(CompilerBase):
    """Refuses to store what a field does not take; predicts that running extremes stay."""

    def define_pipelines(self) -> list[Any]:
        pipeline = DefaultPassBuilder.define_nopython_pipeline(self.state)
        pipeline.add_pass_after(RefuseWrongStores, NopythonTypeInference)
        pipeline.passes = [(Lowering if one is NativeLowering else one, said) for one, said in pipeline.passes]
        pipeline.finalize()
        return [pipeline]
