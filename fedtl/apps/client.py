"""The ClientApp: thin, it hands each message to the site and carries the answer back."""

from __future__ import annotations

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from fedtl.site.answer import (
    SiteOf,
    answer_describe,
    answer_evaluate,
    answer_labels,
    answer_secure,
    answer_sums,
    answer_train,
)
from fedtl.transport._identity import with_content
from fedtl.wire.messages import ADDITIVE
from fedtl.wire.sealed import CONFIRM, KEYS, REVEAL, SHARES
from fedtl.wire.together import is_joined, joined_reply, parted


def make_client_app(site_of: SiteOf) -> ClientApp:
    """Return a ClientApp that answers for the site behind a context.

    Parameters
    ----------
    site_of : callable
        ``site_of(context) -> Site``; called for each message, so it should remember its sites.
    """
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        if not is_joined(message.content):
            return answer_train([(message, context)], site_of)[0]
        asked_train, asked_evaluate = (with_content(message, c) for c in parted(message.content))
        evaluated = answer_evaluate(asked_evaluate, context, site_of)
        trained = answer_train([(asked_train, context)], site_of)[0]
        return Message(joined_reply(trained, evaluated), reply_to=message)

    @app.train("labels")
    def labels(message: Message, context: Context) -> Message:
        return answer_labels(message, context, site_of)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        return answer_evaluate(message, context, site_of)

    @app.query("describe")
    def describe(message: Message, context: Context) -> Message:
        return answer_describe(message, context, site_of)

    for kind in ADDITIVE:

        @app.train(kind.partition(".")[2])
        def sums(message: Message, context: Context) -> Message:
            return answer_sums(message, context, site_of)

    for kind in (KEYS, SHARES, CONFIRM, REVEAL):

        @app.query(kind.partition(".")[2])
        def stage(message: Message, context: Context) -> Message:
            return answer_secure(message, context, site_of)

    return app
