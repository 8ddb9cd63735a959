"""``andon serve``: a station at the line, over HTTP."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from andon.cli._options import create_model, model_command, options_model
from andon.cli._show import say
from andon.core import ConfigError

__all__ = ["ServeCommand", "serve"]

ServeCommand = model_command("andon.inspection:Limits")
Files = Annotated[
    list[str],
    typer.Argument(metavar="FILE...", help="Inspectors: file.andon or name=file.andon.", show_default=False),
]
Port = Annotated[int, typer.Option(min=0, max=65535, help="0 for any that is free.")]
Host = Annotated[str, typer.Option(help="Another one than this machine's needs a token.")]
StationFolder = Annotated[Path, typer.Option(metavar="DIR", help="Of the journal and of what waits to be sent.")]
TokenFile = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Tokens, one a line; or in ANDON_TOKENS.", show_default=False)
]
AllowedHosts = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME", help="A name that a proxy calls the station by; repeatable.", show_default=False),
]
Webhooks = Annotated[
    list[str] | None, typer.Option(metavar="URL", help="Where verdicts are posted; repeatable.", show_default=False)
]
Brokers = Annotated[
    list[str] | None,
    typer.Option(metavar="URL", help="Broker and topic, mqtts://user@host/topic; repeatable.", show_default=False),
]
PassShare = Annotated[float, typer.Option(min=0, max=1, help="Part of the passing images that is kept.")]
KeepDays = Annotated[float, typer.Option(min=0, help="Days that images are kept; 0 for ever.")]
KeepBytes = Annotated[int, typer.Option(min=0, help="Bytes of all kept images; 0 for no limit.")]
Threads = Annotated[
    int | None, typer.Option(min=1, help="Threads of the model; torch's own choice otherwise.", show_default=False)
]
_NAMED = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)=(.+)", re.DOTALL)


def serve(
    context: typer.Context,
    files: Files,
    port: Port = 8000,
    host: Host = "127.0.0.1",
    folder: StationFolder = Path("station"),
    token_file: TokenFile = None,
    allow_host: AllowedHosts = None,
    webhook: Webhooks = None,
    mqtt: Brokers = None,
    pass_share: PassShare = 0.1,
    keep_days: KeepDays = 90,
    keep_bytes: KeepBytes = 10 * 2**30,
    threads: Threads = None,
) -> None:
    """Serve inspectors over HTTP, with a web page, a journal of every verdict, and outputs to the line.

    It ends on an interrupt or SIGTERM: requests in flight are finished first.
    """
    from andon.inspection import Limits, Retention, ServeOptions, parse_mqtt, parse_webhook
    from andon.inspection import serve as run

    kept = {"pass_share": pass_share, "max_days": keep_days or None, "max_bytes": keep_bytes or None}
    options = ServeOptions(
        host=host,
        port=port,
        folder=folder,
        token_file=token_file,
        allowed_hosts=allow_host or (),
        limits=options_model(context, Limits),
        retention=create_model(Retention, kept),
        outputs=[*map(parse_webhook, webhook or ()), *map(parse_mqtt, mqtt or ())],
        threads=threads,
    )
    run(_named(files), options, say)


def _named(files: Sequence[str]) -> dict[str, Path]:
    """Files by the inspectors' names: the one that was given, or the file's own."""
    found: dict[str, Path] = {}
    for text in files:
        match = None if Path(text).exists() else _NAMED.fullmatch(text)
        name, path = (match[1], Path(match[2])) if match else (Path(text).stem, Path(text))
        if name in found:
            raise ConfigError(f"{text}: another inspector has the name {name}; give one: name=file.andon")
        found[name] = path
    return found
