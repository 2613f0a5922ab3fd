"""Records which token each slot holds."""

from dynts_batch.kvcache.arena_shape import Column
from dynts_batch.kvcache.recorders import register
from dynts_batch.kvcache.recorders.recorder import Recorder, Tokens


@register
class TokenId(Recorder):
    column = Column("token_id")

    def begin(self, tokens: Tokens) -> None:
        self.write(tokens, tokens.token_ids)
