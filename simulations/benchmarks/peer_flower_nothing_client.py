"""A stock Flower ClientApp that gives back what it got: the least that a message can cost."""

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Return the content as it came."""
    return Message(message.content, reply_to=message)
