"""The Flower ClientApp that `flwr run` and SuperNodes load.

A node that names its site's agent (`--node-config 'agent="/path/agent.sock"'`) hands every message
to it and imports nothing that could read data. Other nodes play a site of a simulation.
"""

from flwr.clientapp import ClientApp

from fedtl.agent.client import thin_client_app


def simulated() -> ClientApp:
    """Return the ClientApp of a simulated site; only these nodes import the library."""
    from fedtl.launch.flower import client_app

    return client_app()


app = thin_client_app(otherwise=simulated)
