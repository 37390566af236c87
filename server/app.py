"""The ServerApp that ``flwr run .`` loads."""

from fedtl.launch.flower import server_app

app = server_app()
