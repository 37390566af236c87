"""``fedtl server``: the coordinator's side of a federation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedtl.cli.enrol import invite, remove, sites
from fedtl.cli.screen import print_findings, print_json, print_log, say
from fedtl.errors import ConfigError

if TYPE_CHECKING:
    from fedtl.launch.coordinator.config import Certificates, Coordinator

app = typer.Typer(
    name="server",
    help="For the coordinator of a federation: its server, and which sites are let in.",
    epilog="Examples:\n\nfedtl server init coordinator/ --address federation.example.org:9443\n\n"
    "fedtl server up coordinator/\n\nfedtl server invite coordinator/ north --key node.pub",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="The coordinator's folder.")]
_DEFAULT = Path("coordinator")


@app.command(
    epilog="Examples:\n\nfedtl server init coordinator/ --address federation.example.org:9443\n\n"
    "fedtl server init coordinator/ --address federation.example.org:443 --certificate chain.pem "
    "--key server.key --ca root.pem"
)
def init(
    address: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="By which the sites reach this machine.")
    ],
    folder: Folder = _DEFAULT,
    name: Annotated[str | None, typer.Option(help="Of the coordinator; default: HOST.")] = None,
    certificate: Annotated[
        Path | None, typer.Option(help="Your certificate and the intermediate ones, PEM.")
    ] = None,
    key: Annotated[Path | None, typer.Option(help="Private key of your certificate.")] = None,
    ca: Annotated[
        Path | None,
        typer.Option(help="Root that signed it; not needed if CERTIFICATE ends with it."),
    ] = None,
) -> None:
    """Make a coordinator's folder: settings, keys and certificates. Nothing is ever overwritten.

    Without --certificate, an authority of its own is made, which invitations tell the sites. Keep a
    copy of the folder: a lost key means a new invitation for every site.
    """
    from fedtl.launch.coordinator.folder import make_coordinator
    from fedtl.site.folder import name_for

    given = _given(certificate, key, ca)
    name = name or name_for(Path(address.rpartition(":")[0]))
    made = make_coordinator(folder, address=address, name=name, given=given)
    say(
        f"Wrote '{folder}', the folder of the coordinator '{name}'. Keep a copy in a safe place.",
        *_fingerprint(made),
        f"Next: fedtl server up '{folder}'",
    )


def _given(certificate: Path | None, key: Path | None, ca: Path | None) -> Certificates | None:
    from fedtl.launch.coordinator.config import Certificates
    from fedtl.launch.coordinator.given import find_root

    if certificate is None and key is None and ca is None:
        return None
    if certificate is None or key is None:
        raise ConfigError(
            "--certificate and --key belong together.",
            next_step="Give both, and --ca for the root that signed the certificate.",
        )
    root = find_root(certificate) if ca is None else ca
    return Certificates(
        certificate=str(certificate.absolute()), key=str(key.absolute()), ca=str(root.absolute())
    )


def _fingerprint(coordinator: Coordinator) -> tuple[str, str]:
    from fedtl.site.invitation import fingerprint_of
    from fedtl.site.names import spoken

    fingerprint = spoken(fingerprint_of(coordinator.identity().public))
    return "Fingerprint of the coordinator's key, for the sites to compare:", f"  {fingerprint}"


@app.command(epilog="Example:\n\nfedtl server up coordinator/")
def up(
    folder: Folder = _DEFAULT,
    foreground: Annotated[
        bool, typer.Option("--foreground", help="Stay until SIGTERM; for systemd and containers.")
    ] = False,
    metrics: Annotated[
        int | None, typer.Option(help="Port on loopback for Prometheus; default: server.toml's.")
    ] = None,
) -> None:
    """Start the server: Flower's SuperLink on loopback, and before it nginx for the sites."""
    from fedtl.launch.coordinator.up import up as start

    coordinator = start(folder, foreground=foreground, metrics=metrics)
    say(f"The server is up at {coordinator.config.address}.", *_fingerprint(coordinator))


@app.command(epilog="Example:\n\nfedtl server down coordinator/")
def down(folder: Folder = _DEFAULT) -> None:
    """Stop the server. Runs that are going on stop too, and can be resumed."""
    from fedtl.launch import services
    from fedtl.launch.coordinator.config import read_server
    from fedtl.launch.remote import end_runs

    coordinator = read_server(folder).folder
    end_runs(coordinator)
    stopped = services.stop(coordinator)
    say("Stopped." if stopped else "It was not running.")


@app.command(epilog="Example:\n\nfedtl server status coordinator/ --json")
def status(
    folder: Folder = _DEFAULT,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show services, certificate, database and disk; the exit code is 1 if something is broken."""
    from dataclasses import asdict

    from fedtl.launch.coordinator.config import read_server
    from fedtl.launch.coordinator.state import findings, server_state

    state = server_state(read_server(folder))
    found = list(findings(state))
    if as_json:
        config = state.coordinator.config
        print_json(
            {
                "name": config.name,
                "address": config.address,
                "up": state.is_up,
                "services": [asdict(service) for service in state.services],
                "certificate_expires": state.expires.isoformat(),
                "database_bytes": state.database_bytes,
                "free_bytes": state.free_bytes,
            }
        )
    else:
        say(f"{state.coordinator.config.name} at {state.coordinator.config.address}")
        print_findings(found)
    if any(finding.state == "broken" for finding in found):
        raise typer.Exit(1)


@app.command(epilog="Example:\n\nfedtl server renew coordinator/")
def renew(folder: Folder = _DEFAULT) -> None:
    """Make the server's certificate anew, or take up your own renewed files. Sites notice nothing.

    `fedtl server up` does this by itself where a certificate ends within 30 days.
    """
    from fedtl.launch.coordinator.certificates import expires
    from fedtl.launch.coordinator.up import renew as make_anew

    until = expires(make_anew(folder).certificate)
    say(f"The certificate holds until {until:%Y-%m-%d}.")


@app.command(epilog="Example:\n\nfedtl server log coordinator/ nginx --follow")
def log(
    folder: Folder = _DEFAULT,
    service: Annotated[
        str, typer.Argument(help="superlink, nginx, metrics or services.")
    ] = "superlink",
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="How many.")] = 50,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")] = False,
) -> None:
    """Print the end of a service's log."""
    from fedtl.launch import services
    from fedtl.launch.coordinator.config import read_server
    from fedtl.launch.coordinator.up import METRICS, PROXY, SUPERLINK

    known = (SUPERLINK, PROXY, METRICS, services.KEEPER)
    print_log(service, known, lambda: read_server(folder).folder, lines, follow=follow)


app.command(
    epilog="Examples:\n\nfedtl server invite coordinator/ north --key node.pub\n\n"
    "fedtl server invite coordinator/ north --key node.pub --recipe digits.toml"
)(invite)
app.command(epilog="Example:\n\nfedtl server sites coordinator/ --json")(sites)
app.command(epilog="Example:\n\nfedtl server remove coordinator/ north")(remove)
