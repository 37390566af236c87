"""The ClientApp that ``flwr run .`` loads."""

from fedtl.launch.flower import client_app

app = client_app()
