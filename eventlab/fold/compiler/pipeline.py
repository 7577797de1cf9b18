"""Numba's compiler with passes for handlers and kernels."""

from __future__ import annotations

from typing import Any

from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.typed_passes import NativeLowering, NopythonTypeInference

from eventlab.fold.compiler.rare_branches import Lowering
from eventlab.fold.compiler.refuse_mixed_types import RefuseMixtures
from eventlab.fold.compiler.refuse_uses import RefuseWrongUses


class HandlerCompiler(CompilerBase):
    """Refuses what plain Python does differently, and marks rare branches."""

    def define_pipelines(self) -> list[Any]:
        pipeline = DefaultPassBuilder.define_nopython_pipeline(self.state)
        for refusal in (RefuseMixtures, RefuseWrongUses):  # the last runs first
            pipeline.add_pass_after(refusal, NopythonTypeInference)
        pipeline.passes = [(Lowering if one is NativeLowering else one, name) for one, name in pipeline.passes]
        pipeline.finalize()
        return [pipeline]
